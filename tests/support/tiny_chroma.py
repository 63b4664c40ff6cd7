"""A seeded tiny Chroma in the real host, built from its class: the host's loader knows one size only."""

import torch
from tiny import SHAPE

CHROMA = dict(
    image_model="chroma",
    in_channels=64,
    out_channels=64,
    context_in_dim=SHAPE["context_in_dim"],
    hidden_size=256,
    mlp_ratio=4.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
    axes_dim=[16, 56, 56],
    theta=10_000,
    patch_size=2,
    qkv_bias=True,
    in_dim=64,
    out_dim=256,
    hidden_dim=40,
    n_layers=2,
    txt_ids_dims=[],
    vec_in_dim=None,
)


def chroma_model(seed=0):
    """A MODEL as the host's loader makes it."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.Chroma(CHROMA)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    g = torch.Generator().manual_seed(seed)
    for name, value in model.diffusion_model.state_dict().items():
        noise = torch.randn(value.shape, generator=g)
        value.copy_(1 + 0.1 * noise if "norm" in name else noise / value.shape[-1] ** 0.5)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, device, comfy.model_management.unet_offload_device())
