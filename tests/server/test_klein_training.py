"""The workflow that trains an expert on klein, queued in a real server on tiny random models: data, training, a bank, a picture."""

import numpy as np
import pytest
from cologen.prw.bank.bank import Bank
from cologen.training.comfyui.server import open_picture
from host_training import save_pairs
from make_workflows import drawn
from workflows_flux2_train import NAME

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

SMALL = {
    "CoLoGenTrainingData": dict(size=64),
    "CoLoGenTrainStage": dict(iterations=2, rank=4, sample_steps=1),
    "ImageScaleToTotalPixels": dict(megapixels=0.01),
    "VAELoader": dict(vae_name="taef2"),
}
"""What makes a run as short as a test's."""


@pytest.mark.usefixtures("klein")
def test_it_trains_on_the_base_and_draws_with_the_distilled_model(server, base):
    save_pairs(base / "input/cologen/my_pictures", 4)
    graph = drawn("flux2_klein_train_expert", server.get("/object_info")).prompt()
    for node in graph.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
        if node["class_type"] == "CLIPLoader":
            node |= {"class_type": "TinyKleinClip", "inputs": {}}
        if node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "TinyText", "inputs": {"seed": 3}}
    (save,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]
    picture = np.array(open_picture(base, server.run(graph), save), dtype=np.float32)
    assert picture.std() > 1
    for path in (base / f"output/cologen/{NAME}/bank.safetensors", base / f"models/cologen/{NAME}.safetensors"):
        info = Bank.open(path).info
        assert list(info.experts) == ["edit"] and info.base.family == "flux2" and info.experts["edit"].iterations == 2
