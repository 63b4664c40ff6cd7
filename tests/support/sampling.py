"""Sampling in the real host, and the same with the naive formula in FLUX's place."""

import torch
from cologen.prw.comfyui.conditioning import add_source
from naive import Naive
from tiny import SHAPE, latent

EXPERTS = ("inpaint", "ground", "control")
SIGMAS = [1.0, 0.8, 0.5, 0.0]


def conditioning(seed=4, text=5, guidance=3.5):
    g = torch.Generator().manual_seed(seed)
    embedding = torch.randn(1, text, SHAPE["context_in_dim"], generator=g)
    pooled = torch.randn(1, SHAPE["vec_in_dim"], generator=g)
    return [[embedding, {"pooled_output": pooled, "guidance": guidance}]]


def sample(
    model,
    positive,
    negative=None,
    *,
    cfg=1.0,
    sampler="euler",
    steps=3,
    batch=1,
    size=(8, 8),
    sigmas=None,
    seed=7,
    mask=None,
):
    """`mask` is the noise mask: 1 is drawn, 0 stays."""
    import comfy.sample
    import comfy.samplers

    negative = conditioning(seed=5) if negative is None else negative
    empty = torch.zeros(batch, model.model.latent_format.latent_channels, *size)
    noise = comfy.sample.prepare_noise(empty, seed)
    with torch.inference_mode():
        if sigmas is not None:
            kind = comfy.samplers.sampler_object(sampler)
            rest = dict(disable_pbar=True, seed=seed)
            return comfy.sample.sample_custom(model, noise, cfg, kind, sigmas, positive, negative, empty, **rest)
        return comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            "simple",
            positive,
            negative,
            empty,
            disable_pbar=True,
            seed=seed,
            noise_mask=mask,
        )


def naive_model(
    model, weights, bank, sources, shared_time=False, formula=Naive, make_conditioning=conditioning, **options
):
    """A clone whose FLUX is the naive formula; `sources`: conditioning seed -> naive sources of that prompt."""
    import comfy.patcher_extension

    naive = formula(weights)
    by_text = {float(make_conditioning(seed)[0][0][0, -1, 0]): found for seed, found in sources.items()}

    def forward(
        executor, x, t, context, y=None, guidance=None, ref_latents=None, control=None, transformer_options=None, **_
    ):
        chunks = len(transformer_options["cond_or_uncond"])
        outs = []
        given = (x, t, context, y, guidance)
        for part in zip(*([None] * chunks if one is None else one.float().chunk(chunks) for one in given)):
            found = by_text.get(float(part[2][0, -1, 0]), [])
            more = {} if ref_latents is None else {"reference": ref_latents[0].float()}
            if shared_time:
                more["source_time"] = part[1]
            outs.append(naive(*part, found, bank, control=control, **options, **more))
        return torch.cat(outs).to(x)

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "naive", forward)
    return clone


def apply_bank(model, bank):
    from cologen.prw.comfyui.patch import apply_bank

    return apply_bank(model, bank)


def add_sources(positive, *sources):
    for one in sources:
        positive = add_source(positive, one)
    return positive


def naive_source(task="control", seed=3, batch=1, height=8, width=8, **rest):
    stage = EXPERTS.index(task)
    return dict(latent=latent(batch, height, width, seed), stage=task, names=EXPERTS[: stage + 1], **rest)


def assert_close(a, b, tolerance=1e-4):
    error, size = (a - b).abs().max(), b.abs().max()
    assert error < tolerance * size, f"differs by {error:.2e} of {size:.2e}"
