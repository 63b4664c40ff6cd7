"""Training in a real server: a folder of pictures to an expert to a picture, and Cancel on the way."""

import json
import urllib.request

import pytest
from cologen.prw.bank.bank import Bank
from cologen.training.comfyui.server import make_node, open_picture
from host_training import default_inputs, save_pairs
from tiny_run import wait_for
from tiny_server import make_tiny_base, make_tiny_prompt

pytestmark = pytest.mark.usefixtures("comfy")

CLIP_NODE = """
import torch


class TinyClip:
    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, return_pooled=False):
        g = torch.Generator().manual_seed(sum(map(ord, tokens)))
        return torch.randn(1, 5, 32, generator=g), torch.randn(1, 16, generator=g)


class LoadTinyClip:
    CATEGORY = "test"
    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})

    def load(self):
        return (TinyClip(),)


NODE_CLASS_MAPPINGS = {"LoadTinyClip": LoadTinyClip}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory, comfy):
    root = make_tiny_base(tmp_path_factory.mktemp("comfy"), {})
    save_pairs(root / "input/cologen/mine", 4)
    (root / "custom_nodes/tiny_clip").mkdir()
    (root / "custom_nodes/tiny_clip/__init__.py").write_text(CLIP_NODE)
    return root


@pytest.fixture(scope="module")
def server(start_server, base):
    return start_server(base)


def workflow(run: str, iterations: int) -> dict:
    """A folder of pictures to an expert to a picture drawn with it."""
    from cologen.nodes.training import CoLoGenTrainStage

    drawn = make_tiny_prompt("edit")
    knobs = dict(
        task="edit", run=run, iterations=iterations, batch=2, rank=4, sample_every=20, sample_steps=1, save_every=0
    )
    knobs = default_inputs(CoLoGenTrainStage, **knobs, model=["flux", 0], data=["data", 0])
    drawn |= {
        "flux": make_node("UNETLoader", unet_name="tiny_flux.safetensors", weight_dtype="default"),
        "clip": make_node("LoadTinyClip"),
        "data": make_node(
            "CoLoGenTrainingData", vae=["vae", 0], clip=["clip", 0], source="folder", folder="mine", task="edit",
            size=64, count=0, cut_seed=0,
        ),
        "bank": make_node("CoLoGenTrainStage", **knobs),
        "image": make_node("EmptyImage", width=128, height=128, batch_size=1, color=255),
        "graph": make_node("LossGraphNode", loss=["bank", 1], filename_prefix="loss"),
        "usage": make_node("CoLoGenUsagePlot", loss=["bank", 1]),
    }  # fmt: skip
    del drawn["map"]
    return drawn


def test_the_server_trains_and_draws_with_what_it_trained(server, base):
    entry = server.run(workflow("served", 4))
    assert open_picture(base, entry, "save").size == (128, 128)
    assert open_picture(base, entry, "bank").size == (192, 64) and open_picture(base, entry, "usage").size == (560, 360)
    newest = max((base / "models/cologen/copies").glob("again*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    assert Bank.open(newest).info.experts["edit"].iterations == 4


def test_cancel_saves_and_queuing_again_goes_on(server, base):
    graph = workflow("stopped", 40)
    log = base / "output/cologen/stopped/log.jsonl"
    body = json.dumps({"prompt": graph}).encode()
    number = json.load(post(server, "/prompt", body))["prompt_id"]
    wait_for(lambda: log.exists() and log.read_text().count('"norm"') >= 3)
    post(server, "/interrupt", b"{}")
    wait_for(lambda: number in server.get(f"/history/{number}"))
    assert "execution_interrupted" in str(server.get(f"/history/{number}")[number]["status"]["messages"])
    saved = list((base / "output/cologen/stopped/checkpoints").glob("*.safetensors"))
    assert len(saved) == 1
    reached = int(saved[0].stem.rsplit("-", 1)[1])
    assert 3 <= reached < 40
    assert server.run(graph)["status"]["status_str"] == "success"
    assert [json.loads(line)["iteration"] for line in log.read_text().splitlines() if "norm" in line] == list(
        range(1, 41)
    )


def post(server, path: str, body: bytes):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", body, {"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=300)
