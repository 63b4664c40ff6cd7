"""Choices by name: each draws what its numbers draw, whatever the numbers beside it say, and the help page says which they are."""

import re
from dataclasses import fields

import pytest
import torch
from pack import ROOT
from sampling import SIGMAS, add_sources, apply_bank
from tiny import host_model, source
from two_branches import marked_conditioning

pytestmark = pytest.mark.usefixtures("comfy")


def read_rows(page: str, head: str, numbers: int) -> dict[str, tuple[float, ...]]:
    """A help page's table of that head: name -> the numbers of its next columns."""
    text = (ROOT / f"web/docs/{page}.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| `{head}` \|.*\n\|---.*\n((?:\|.*\n)+)", text, re.M)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {name: tuple(float(word) for cell in rest[:numbers] for word in cell.split(",")) for name, *rest in cells}


WAYS = read_rows("CoLoGenPersonalGuider", "preset", 3)
SHAPES = read_rows("CoLoGenRouting", "shape", 1)
EDGES = read_rows("CoLoGenControlMap", "preset", 2)


@pytest.mark.parametrize(
    "node, knob, rows",
    [("CoLoGenPersonalGuider", "preset", WAYS), ("CoLoGenRouting", "shape", SHAPES), ("CoLoGenControlMap", "preset", EDGES)],
)  # fmt: skip
def test_the_help_page_and_the_tooltip_name_the_same_numbers(node, knob, rows):
    from cologen import nodes

    inputs = {item.id: item for item in getattr(nodes, node).define_schema().inputs}
    assert inputs[knob].options[1:] == list(rows)
    said = [f"{name}: {', '.join(f'{number:g}' for number in numbers)}" for name, numbers in rows.items()]
    assert inputs[knob].tooltip.endswith("; ".join(said) + ".")


@pytest.fixture(scope="module")
def model(comfy, flux, bank):
    return apply_bank(host_model(flux), bank)


def guide(model, switch, weight, area, **preset):
    import comfy.sample
    import comfy.samplers
    from cologen.nodes import CoLoGenPersonalGuider

    concept = add_sources(marked_conditioning(), source())
    guider = CoLoGenPersonalGuider.execute(model, concept, switch, weight, area, 1.0, **preset).result[0]
    empty = torch.zeros(1, 16, 8, 8)
    noise, kind = comfy.sample.prepare_noise(empty, 7), comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        return guider.sample(noise, empty, kind, torch.tensor(SIGMAS), disable_pbar=True, seed=7)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_of_the_guider_is_its_numbers(model, way):
    expected = guide(model, *WAYS[way])
    assert torch.equal(guide(model, 0.9, 3.0, 1.0, preset=way), expected)
    assert not torch.equal(guide(model, 0.9, 3.0, 1.0), expected)


def test_without_a_way_the_guider_reads_its_numbers(model):
    assert torch.equal(guide(model, 0.0, 0.3, 1.0, preset="as the numbers say"), guide(model, 0.0, 0.3, 1.0))


def read_options(curve, **given):
    from cologen.nodes import CoLoGenRouting

    (options,) = CoLoGenRouting.execute(0.5, "", "", curve, **given).args
    return {field.name: getattr(options, field.name) for field in fields(options)}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_of_the_routing_is_its_curve(shape):
    typed = ", ".join(map(str, SHAPES[shape]))
    assert read_options("0.3, 0.7", shape=shape) == read_options(typed) != read_options("0.3, 0.7")
    assert read_options("not a curve", shape=shape) == read_options(typed), "what is not read is not judged"


def test_without_a_shape_the_routing_reads_its_curve():
    assert read_options("0.3, 0.7", shape="as curve says") == read_options("0.3, 0.7")


def draw_map(image, low, high, **preset):
    from cologen.nodes import CoLoGenControlMap

    return CoLoGenControlMap.execute(image, "canny", "auto", low, high, **preset).args[0]


@pytest.fixture(scope="module")
def picture():
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    soft = torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1).movedim(1, -1).contiguous()
    return (soft * 255).round() / 255


@pytest.mark.parametrize("name", EDGES)
def test_edges_by_name_are_those_of_their_thresholds(picture, name):
    expected = draw_map(picture, *EDGES[name])
    assert expected.any() and not expected.all()
    assert torch.equal(draw_map(picture, 0.9, 0.01, preset=name), expected)


def test_coarse_edges_are_those_that_the_host_s_own_node_draws_unless_told_otherwise(picture):
    from comfy_extras.nodes_canny import Canny

    defaults = {item.id: item.default for item in Canny.define_schema().inputs if hasattr(item, "default")}
    expected = Canny.execute(picture, defaults["low_threshold"], defaults["high_threshold"]).args[0]
    assert torch.equal(draw_map(picture, 0.1, 0.2, preset="coarse"), expected.cpu())
