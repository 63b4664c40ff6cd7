"""Both ways of sampling for a subject on the toy world, in a real server, with stock samplers."""

import numpy as np
import pytest
from cologen.training.comfyui.server import TOY, base_directory, node, shown

pytestmark = pytest.mark.usefixtures("comfy")

STEPS = 6


def graph() -> dict:
    """One subject; a picture for each way to sample it."""
    loaders = dict(weight_dtype="default", clip_name1="none", clip_name2="none", vae_name=TOY)
    run = dict(seed=7, steps=STEPS, cfg=1.5, sampler_name="euler", scheduler="simple", denoise=1.0)
    branch = dict(auxiliary=["other", 0], auxiliary_seed=3, strength=1.0, first_block=0, last_block=37)
    personal = dict(model=["apply", 0], positive=["subject", 0], negative=["subject", 1], cfg=1.5)
    nodes = {
        "flux": node("CoLoGenLoadFlux", unet_name=TOY, **loaders),
        "bank": node("CoLoGenLoadExperts", bank_name=TOY),
        "apply": node("CoLoGenApply", model=["flux", 0], experts=["bank", 0]),
        "question": node("CoLoGenToyQuestion", task="subject", question_seed=5),
        "prompt": node("CoLoGenMarkedPrompt", clip=["flux", 1], text="[circle] in the top left, on a sand ground"),
        "other": node("CoLoGenMarkedPrompt", clip=["flux", 1], text="[blue square] at the bottom right, on black"),
        "subject": node("CoLoGenSubject", positive=["prompt", 0], vae=["flux", 2], image=["question", 0]),
        "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=2),
        "both": node("CoLoGenDualBranch", model=["apply", 0], end=0.5, blend_sources=True, **branch),
        "off": node("CoLoGenDualBranch", model=["apply", 0], end=0.0, blend_sources=False, **branch),
        "map": node("CoLoGenBranchMap", model=["both", 0], latent=["both_drawn", 0]),
        "concept": node("CoLoGenPersonalGuider", switch=0.0, weight=1.0, area=1.0, **personal),
        "masked": node("CoLoGenPersonalGuider", switch=0.1, weight=0.5, area=0.3, superclass=["other", 0], **personal),
        "noise": node("RandomNoise", noise_seed=7),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["apply", 0], scheduler="simple", steps=STEPS, denoise=1.0),
    }
    latent = dict(latent_image=["latent", 0])
    for name in ("apply", "both", "off"):
        prompts = dict(positive=["subject", 0], negative=["subject", 1])
        nodes[f"{name}_drawn"] = node("KSampler", model=[name, 0], **prompts, **latent, **run)
    for name in ("concept", "masked"):
        sampler = dict(noise=["noise", 0], sampler=["euler", 0], sigmas=["sigmas", 0])
        nodes[f"{name}_drawn"] = node("SamplerCustomAdvanced", guider=[name, 0], **sampler, **latent)
    for name in ("apply", "both", "off", "concept", "masked"):
        nodes[f"{name}_decoded"] = node("VAEDecode", samples=[f"{name}_drawn", 0], vae=["flux", 2])
        nodes[f"{name}_saved"] = node("SaveImage", images=[f"{name}_decoded", 0], filename_prefix=name)
    return nodes


def test_a_subject_is_sampled_in_every_way(tmp_path, start_server):
    base = base_directory(tmp_path, {})
    server = start_server(base)
    entry = server.run(graph())
    drawn = {
        name: np.asarray(shown(base, entry, f"{name}_saved"), dtype=int)
        for name in ("apply", "both", "off", "concept", "masked")
    }
    assert np.array_equal(drawn["off"], drawn["apply"]) and np.array_equal(drawn["concept"], drawn["apply"])
    assert all(np.abs(drawn[name] - drawn["apply"]).mean() > 1 for name in ("both", "masked"))
    maps = np.asarray(shown(base, entry, "map"))
    assert maps.shape == (2 * 136, STEPS // 2 * 136, 3) and np.ptp(maps) > 50
    assert "Error" not in server.log.read_text()
