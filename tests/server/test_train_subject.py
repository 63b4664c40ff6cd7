"""One's own subject on the toy world in a real server: photos in, a concept, and a picture by stock samplers."""

import numpy as np
import pytest
from cologen.prw.personalization.concept import Concept
from cologen.training.comfyui.server import make_node, open_picture
from cologen.training.toy.store import TOY_NAME
from cologen.training.toy.subject import draw_photos
from PIL import Image
from tiny_server import make_tiny_base

pytestmark = pytest.mark.usefixtures("comfy")

TOKENS = dict(conditioning=["prompt", 0], model=["flux", 0])
FILE = "the one that is connected"


def graph(trained: bool) -> dict:
    """A picture without the concept, with it, and with it at 0: from training or, if that is over, from its file."""
    loaders = dict(weight_dtype="default", clip_name1="none", clip_name2="none", vae_name=TOY_NAME)
    run = dict(seed=7, steps=4, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0)
    nodes = {
        "flux": make_node("CoLoGenLoadFlux", unet_name=TOY_NAME, **loaders),
        "prompt": make_node(
            "CoLoGenMarkedPrompt", clip=["flux", 1], text="a [circle] in the top left, on a sand ground"
        ),
        "empty": make_node("CLIPTextEncode", clip=["flux", 1], text=""),
        "latent": make_node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "plain": make_node("CoLoGenConceptTokens", **TOKENS, file=FILE, strength=0.0),
        "own": make_node("CoLoGenConceptTokens", **TOKENS, file="runs/mine" if trained else FILE, strength=1.0),
    }
    if trained:
        nodes["plain"]["inputs"]["file"] = "runs/mine"
    else:
        knobs = dict(run="mine", noun="circle", ico=True, iterations=3, batch=2, rank=4, alpha=4.0, rate=0.01)
        knobs |= dict(resolution=64, prompts="a circle", caption="a {}", tokens=2, contexts=2, token_rate=5.0)
        knobs |= dict(context_rate=10.0, where="all", class_share=0.3, optimizer="adamw", schedule="constant")
        knobs |= dict(guidance=1.0, time_shift=1.0, micro=0, checkpointing=False, save_every=0, validate_every=2)
        knobs |= dict(sample_every=0, sample_steps=2, run_seed=0)
        nodes |= {f"photo{i}": make_node("LoadImage", image=f"photo{i}.png") for i in (1, 2)}
        nodes["photos"] = make_node("ImageBatch", image1=["photo1", 0], image2=["photo2", 0])
        sockets = dict(model=["flux", 0], vae=["flux", 2], clip=["flux", 1], photos=["photos", 0])
        nodes["train"] = make_node("CoLoGenTrainSubject", **sockets, **knobs)
        for name in ("plain", "own"):
            nodes[name]["inputs"]["concept"] = ["train", 0]
    models = {
        "without": (["flux", 0], ["prompt", 0]),
        "plain": (["plain", 0], ["plain", 1]),
        "own": (["own", 0], ["own", 1]),
    }
    for name, (model, positive) in models.items():
        drawn = dict(model=model, positive=positive, negative=["empty", 0], latent_image=["latent", 0], **run)
        nodes[f"{name}_drawn"] = make_node("KSampler", **drawn)
        nodes[f"{name}_decoded"] = make_node("VAEDecode", samples=[f"{name}_drawn", 0], vae=["flux", 2])
        nodes[f"{name}_saved"] = make_node("SaveImage", images=[f"{name}_decoded", 0], filename_prefix=name)
    return nodes


def test_photos_become_a_concept_that_a_stock_sampler_draws(tmp_path, start_server):
    photos = {f"photo{i + 1}": Image.fromarray(one) for i, one in enumerate(list(draw_photos().values())[:2])}
    base = make_tiny_base(tmp_path, photos)
    server = start_server(base)
    found = []
    for trained in (False, True):
        entry = server.run(graph(trained))
        names = ("without", "plain", "own")
        found.append({name: np.asarray(open_picture(base, entry, f"{name}_saved"), dtype=int) for name in names})
    first, second = found
    assert np.array_equal(first["plain"], first["without"])
    assert np.abs(first["own"] - first["without"]).mean() > 1
    assert all(np.array_equal(first[name], second[name]) for name in first)
    concept = Concept.open(base / "output/cologen/mine/subject.safetensors")
    assert concept.info.iterations == 3 and concept.info.noun == "circle"
    assert "Error" not in server.log.read_text()
