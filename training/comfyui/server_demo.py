"""A built-in world through a ComfyUI server and stock nodes: what `cologen demo --comfy` draws."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.sample import Example
from ..find_host import require_host
from ..from_scratch.evaluate import CFG, STEPS
from ..from_scratch.world import World
from .server import Server, make_base_folder, make_node, open_picture


def draw_examples(folder: Path, world: World, examples: Sequence[Example]) -> list[np.ndarray]:
    """Draws what a world's experts draw for examples, in a server whose base folder is `folder`."""
    pictures = {example.id: Image.fromarray(example.source) for example in examples}
    base = make_base_folder(folder, pictures)
    with Server(require_host(), base) as server:
        entries = [server.run(make_prompt(world, example)) for example in examples]
        return [np.array(open_picture(base, entry, "save")) for entry in entries]


def make_prompt(world: World, example: Example, seed: int = 7) -> dict:
    """Makes an API prompt for a world: a text and the input picture of the example's name as source, a picture out."""
    name, text, side = example.id, example.prompt, world.side
    loaders = dict(weight_dtype="default", clip_name1="none", clip_name2="none", vae_name=world.choice)
    knobs = dict(
        task=example.task, strength=1.0, expert_strength=1.0, start=0.0, end=1.0, size=0, keep_between_runs=False
    )
    hidden = dict(position="auto", shift_right=1.0, shift_down=0.0, lean=0.0, expert="", router="", keep_on="gpu")
    source = dict(vae=["flux", 2], image=["image", 0], **knobs, **hidden)
    sampler = dict(seed=seed, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="simple", denoise=1.0)
    return {
        "flux": make_node("CoLoGenLoadFlux", unet_name=world.choice, **loaders),
        "bank": make_node("CoLoGenLoadExperts", bank_name=world.choice),
        "apply": make_node("CoLoGenApply", model=["flux", 0], experts=["bank", 0]),
        "image": make_node("LoadImage", image=f"{name}.png"),
        "text": make_node("CLIPTextEncode", clip=["flux", 1], text=text),
        "empty": make_node("CLIPTextEncode", clip=["flux", 1], text=""),
        "source": make_node("CoLoGenSource", conditioning=["text", 0], **source),
        "without": make_node("CoLoGenSource", conditioning=["empty", 0], **source),
        "latent": make_node("EmptySD3LatentImage", width=side, height=side, batch_size=1),
        "sample": make_node(
            "KSampler", model=["apply", 0], positive=["source", 0], negative=["empty" if example.task in world.guided_by_source else "without", 0],
            latent_image=["latent", 0], **sampler,
        ),
        "decode": make_node("VAEDecode", samples=["sample", 0], vae=["flux", 2]),
        "save": make_node("SaveImage", images=["decode", 0], filename_prefix=name),
    }  # fmt: skip
