"""Training on FLUX.2 in the host at its smallest: its own VAE and text encoder, both tiny, and random data."""

from dataclasses import replace

import torch
from cologen.training.comfyui.training_data import HostEncoders, TrainingData
from cologen.training.data.encoded.dataset import MemoryDataset
from cologen.training.data.encoded.samples import EncodedSamples
from tiny_flux2 import TEXT_WIDTH, tiny_flux2
from tiny_server import make_tiny_vae

BLOCKS = dict(depth=1, depth_single_blocks=1)
TEXT_ROWS = 512
"""Tokens of a klein prompt, padding among them."""


def load_flux2(dtype=torch.float32, **changes):
    """A MODEL as a loader node makes it: with weights that autograd refuses."""
    from cologen.training.comfyui.enter_host import load_model

    with torch.inference_mode():
        return load_model(tiny_flux2(**{**BLOCKS, **changes}).state_dict(), dtype)


def load_vae(channels=128):
    """The host's small autoencoder with random weights, of FLUX.2 as a rule."""
    import comfy.sd

    return comfy.sd.VAE(sd=make_tiny_vae(channels), metadata={"tae_latent_channels": channels})


def load_klein_clip():
    """The host's own CLIP of klein: its tokenizer, and a Qwen3 that is as deep as the tapped layers need, and narrow."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget
    from comfy.text_encoders.flux import KleinTokenizer, klein_te

    shape = dict(hidden_size=TEXT_WIDTH // 3, intermediate_size=16, num_hidden_layers=28)
    shape |= dict(num_attention_heads=1, num_key_value_heads=1)
    options = {"qwen3_4b_model_config": shape, "dtype": torch.float32}
    clip = comfy.sd.CLIP(ClipTarget(KleinTokenizer, klein_te()), model_options=options)
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        for name, weight in clip.cond_stage_model.named_parameters():
            noise = (
                torch.randn(weight.shape, generator=generator) * max(1, weight.shape[-1] if weight.ndim else 1) ** -0.5
            )
            weight.copy_(noise + ("norm" in name))
    return clip


def random_flux2_dataset(task: str, count=5, tokens=TEXT_ROWS) -> MemoryDataset:
    g = torch.Generator().manual_seed(len(task))
    target, source = torch.randn(count, 128, 4, 4, generator=g), torch.randn(count, 128, 4, 3, generator=g)
    texts = torch.randn(count, tokens, TEXT_WIDTH, generator=g), torch.zeros(count, 0)
    return MemoryDataset(task, EncodedSamples(tuple(map(str, range(count))), ("a",) * count, target, source, *texts))


def flux2_data(tokens=TEXT_ROWS, tasks=("inpaint", "ground")) -> TrainingData:
    """Random data whose empty prompt is known, so that nothing is encoded."""
    empty = torch.zeros(1, tokens, TEXT_WIDTH), torch.zeros(1, 0)
    encoders = HostEncoders(None, None, empty)
    return TrainingData(encoders, {task: random_flux2_dataset(task, tokens=tokens) for task in tasks})


def with_contexts(data: TrainingData, change) -> TrainingData:
    """The same data with other text rows, the empty prompt's too."""
    datasets = {
        task: replace(dataset, samples=replace(dataset.samples, context=change(dataset.samples.context)))
        for task, dataset in data.datasets.items()
    }
    context, pooled = data.encoders.empty
    return replace(data, datasets=datasets, encoders=replace(data.encoders, empty=(change(context), pooled)))
