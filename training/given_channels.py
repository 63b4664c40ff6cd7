"""The channels that Fill and control models read beside the noise: FLUX.1-Fill's masked picture and mask."""

import torch
from torch import Tensor

from ..prw.source import count_latent_channels
from ..prw.source_pass import Host


def add_given_channels(host: Host, x: Tensor) -> Tensor:
    """Adds to noisy latents what ComfyUI gives such a model when nothing is connected for it: an empty latent, all masked.

    Our choice: the whole picture is to be painted, and what is given of it comes as the source. So a task node needs
    nothing beside it on Fill, for any task.
    """
    missing = count_latent_channels(host.flux) - x.shape[1]
    if missing <= 0:
        return x
    given = host.scale_latent(torch.zeros_like(x))[:, :missing]
    return torch.cat([x, given, x.new_ones(len(x), missing - given.shape[1], *x.shape[2:])], dim=1)
