"""Control maps in a real server: shown on the node, and read by a source."""

import numpy as np
import pytest
from cologen.training.comfyui.server import make_node, open_picture
from cologen.training.data.tasks import control
from PIL import Image
from tiny_maps import depth_anything, save_model
from tiny_server import make_tiny_prompt


@pytest.fixture(scope="module", autouse=True)
def files(base):
    save_model(base / "models/geometry_estimation/Depth-Anything-V2-Small-hf", depth_anything)


def test_in_a_server_maps_are_shown_and_feed_a_source(server, base):
    options = server.get("/object_info/CoLoGenControlMap")["CoLoGenControlMap"]["input"]["required"]["model"]
    assert "Depth-Anything-V2-Small-hf" in str(options)
    drawn = {}
    for kind in ("canny", "depth"):
        graph = make_tiny_prompt()
        del graph["keep"], graph["map"]
        knobs = dict(kind=kind, model="auto", low_threshold=0.1, high_threshold=0.2)
        graph["drawn"] = make_node("CoLoGenControlMap", image=["image", 0], **knobs)
        graph["source"]["inputs"]["image"] = ["drawn", 0]
        entry = server.run(graph)
        drawn[kind] = np.asarray(open_picture(base, entry, "drawn")), np.asarray(open_picture(base, entry, "save"))
    expected = control.canny(np.asarray(Image.open(base / "input/control.png").convert("RGB")))
    assert np.array_equal(drawn["canny"][0], expected) and drawn["depth"][0].std() > 5
    assert not np.array_equal(drawn["canny"][1], drawn["depth"][1])
    assert "leak" not in server.log.read_text()


def test_in_a_server_an_absent_model_is_a_sentence(server):
    knobs = dict(kind="seg", model="auto", low_threshold=0.1, high_threshold=0.2)
    graph = {
        "image": make_node("LoadImage", image="control.png"),
        "drawn": make_node("CoLoGenControlMap", image=["image", 0], **knobs),
    }
    status = server.run(graph)["status"]
    assert status["status_str"] == "error"
    assert "There is no seg model in models/detection" in str(status["messages"])
