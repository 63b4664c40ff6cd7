"""Both ways of sampling for a subject on the toy world, in a real server, with stock samplers."""

import numpy as np
import pytest
from cologen.training.comfyui.server import make_node, open_picture
from cologen.training.toy.store import TOY_NAME
from tiny_server import make_tiny_base

pytestmark = pytest.mark.usefixtures("comfy")

STEPS = 6


def graph() -> dict:
    """One subject; a picture for each way to sample it."""
    loaders = dict(weight_dtype="default", clip_name1="none", clip_name2="none", vae_name=TOY_NAME)
    run = dict(seed=7, steps=STEPS, cfg=1.5, sampler_name="euler", scheduler="simple", denoise=1.0)
    branch = dict(auxiliary=["other", 0], auxiliary_seed=3, strength=1.0, first_block=0, last_block=37)
    personal = dict(model=["apply", 0], positive=["subject", 0], negative=["subject", 1], cfg=1.5)
    nodes = {
        "flux": make_node("CoLoGenLoadFlux", unet_name=TOY_NAME, **loaders),
        "bank": make_node("CoLoGenLoadExperts", bank_name=TOY_NAME),
        "apply": make_node("CoLoGenApply", model=["flux", 0], experts=["bank", 0]),
        "question": make_node("CoLoGenToyQuestion", task="subject", question_seed=5),
        "prompt": make_node("CoLoGenMarkedPrompt", clip=["flux", 1], text="[circle] in the top left, on a sand ground"),
        "other": make_node("CoLoGenMarkedPrompt", clip=["flux", 1], text="[blue square] at the bottom right, on black"),
        "subject": make_node("CoLoGenSubject", positive=["prompt", 0], vae=["flux", 2], image=["question", 0]),
        "latent": make_node("EmptySD3LatentImage", width=64, height=64, batch_size=2),
        "both": make_node("CoLoGenDualBranch", model=["apply", 0], end=0.5, blend_sources=True, **branch),
        "off": make_node("CoLoGenDualBranch", model=["apply", 0], end=0.0, blend_sources=False, **branch),
        "map": make_node("CoLoGenBranchMap", model=["both", 0], latent=["both_drawn", 0]),
        "concept": make_node("CoLoGenPersonalGuider", switch=0.0, weight=1.0, area=1.0, **personal),
        "masked": make_node(
            "CoLoGenPersonalGuider", switch=0.1, weight=0.5, area=0.3, superclass=["other", 0], **personal
        ),
        "noise": make_node("RandomNoise", noise_seed=7),
        "euler": make_node("KSamplerSelect", sampler_name="euler"),
        "sigmas": make_node("BasicScheduler", model=["apply", 0], scheduler="simple", steps=STEPS, denoise=1.0),
    }
    latent = dict(latent_image=["latent", 0])
    for name in ("apply", "both", "off"):
        prompts = dict(positive=["subject", 0], negative=["subject", 1])
        nodes[f"{name}_drawn"] = make_node("KSampler", model=[name, 0], **prompts, **latent, **run)
    for name in ("concept", "masked"):
        sampler = dict(noise=["noise", 0], sampler=["euler", 0], sigmas=["sigmas", 0])
        nodes[f"{name}_drawn"] = make_node("SamplerCustomAdvanced", guider=[name, 0], **sampler, **latent)
    for name in ("apply", "both", "off", "concept", "masked"):
        nodes[f"{name}_decoded"] = make_node("VAEDecode", samples=[f"{name}_drawn", 0], vae=["flux", 2])
        nodes[f"{name}_saved"] = make_node("SaveImage", images=[f"{name}_decoded", 0], filename_prefix=name)
    return nodes


def test_a_subject_is_sampled_in_every_way(tmp_path, start_server):
    base = make_tiny_base(tmp_path, {})
    server = start_server(base)
    entry = server.run(graph())
    drawn = {
        name: np.asarray(open_picture(base, entry, f"{name}_saved"), dtype=int)
        for name in ("apply", "both", "off", "concept", "masked")
    }
    assert np.array_equal(drawn["off"], drawn["apply"]) and np.array_equal(drawn["concept"], drawn["apply"])
    assert all(np.abs(drawn[name] - drawn["apply"]).mean() > 1 for name in ("both", "masked"))
    maps = np.asarray(open_picture(base, entry, "map"))
    assert maps.shape == (2 * 136, STEPS // 2 * 136, 3) and np.ptp(maps) > 50
    assert "Error" not in server.log.read_text()
