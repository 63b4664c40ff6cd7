"""FLUX.2 klein's workflows, run in a real server on a tiny random FLUX.2: small files stand for its model, VAE and text encoder."""

import pytest
from make_workflows import drawn
from tiny_klein import change_inputs, draw_graph, make_klein_base, replace_encoders
from tiny_server import draw_scene
from workflows_flux2 import KLEIN, SIDE, WORKFLOWS

pytestmark = pytest.mark.usefixtures("comfy")

SMALL = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory, comfy):
    return make_klein_base(tmp_path_factory.mktemp("comfy"), {"example": draw_scene()}, [KLEIN])


@pytest.fixture(scope="module")
def server(start_server, base):
    return start_server(base)


def shrink(graph: dict) -> dict:
    """The graph with pictures that a test can wait for, and with what stands for files."""
    for node in graph.values():
        inputs = node["inputs"]
        inputs |= {
            name: inputs[name] * SMALL // SIDE for name in ("width", "height") if isinstance(inputs.get(name), int)
        }
    return replace_encoders(change_inputs(graph, "ImageScaleToTotalPixels", megapixels=0.01))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_draws_and_its_pictures_are_read(server, base, name):
    graph = shrink(drawn(name, server.get("/object_info")).prompt())
    picture = draw_graph(server, base, graph)
    none = draw_graph(server, base, change_inputs(graph, "CoLoGenSourceOptions", strength=0.0))
    assert picture.std() > 1 and (picture - none).abs().mean() > 0.1
