"""The workflow that trains an expert on klein, queued in a real server on tiny random models: data, training, a bank, a picture."""

import pytest
from cologen.prw.bank.bank import Bank
from host_training import save_pairs
from make_workflows import drawn
from tiny_klein import WIDTH, draw_graph, make_klein_base, replace_encoders
from tiny_server import draw_scene
from workflows_flux2_train import BASE, DISTILLED, NAME

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

CLIP_NODE = f'''
"""Stands for klein's text encoder, which is too large for a test."""
import torch


class Clip:
    def tokenize(self, text, **_):
        return text

    def encode_from_tokens(self, tokens, return_pooled=False):
        g = torch.Generator().manual_seed(sum(map(ord, tokens)))
        return torch.randn(1, 5, {WIDTH}, generator=g), None


class TinyKleinClip:
    CATEGORY = "test"
    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}

    def load(self):
        return (Clip(),)


NODE_CLASS_MAPPINGS = {{"TinyKleinClip": TinyKleinClip}}
'''
SMALL = {
    "CoLoGenTrainingData": dict(size=64),
    "CoLoGenTrainStage": dict(iterations=2, rank=4, sample_steps=1),
    "ImageScaleToTotalPixels": dict(megapixels=0.01),
}
"""What makes a run as short as a test's."""


@pytest.fixture(scope="module")
def base(tmp_path_factory, comfy):
    root = make_klein_base(tmp_path_factory.mktemp("comfy"), {"example": draw_scene()}, (BASE, DISTILLED))
    (root / "custom_nodes/tiny_klein_clip").mkdir()
    (root / "custom_nodes/tiny_klein_clip/__init__.py").write_text(CLIP_NODE)
    save_pairs(root / "input/cologen/my_pictures", 4)
    return root


def test_it_trains_on_the_base_and_draws_with_the_distilled_model(start_server, base):
    server = start_server(base)
    graph = drawn("flux2_klein_train_expert", server.get("/object_info")).prompt()
    for node in graph.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
        if node["class_type"] == "CLIPLoader":
            node |= {"class_type": "TinyKleinClip", "inputs": {}}
    assert draw_graph(server, base, replace_encoders(graph)).std() > 1
    for path in (base / f"output/cologen/{NAME}/bank.safetensors", base / f"models/cologen/{NAME}.safetensors"):
        info = Bank.open(path).info
        assert list(info.experts) == ["edit"] and info.base.family == "flux2" and info.experts["edit"].iterations == 2
