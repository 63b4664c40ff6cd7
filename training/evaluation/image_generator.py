"""Generates the answers: a bank on a built-in world's FLUX, or on FLUX.1's own files through a ComfyUI on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...prw.bank.bank import Bank
from ...prw.files.validate import check_range
from ...prw.flux.families import find_model_family
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.positions import token_grid
from ...prw.source import Routing
from ...prw.source_pass import Host
from ..comfyui.enter_host import enter_host, load_flux_files
from ..encoders.protocol import Encoders
from ..find_host import require_host
from ..forward import skip_source
from ..from_scratch.evaluate import CFG, STEPS
from ..from_scratch.store import BANK, open_models
from ..from_scratch.world import World
from ..sampling import SamplingSettings, sample_latents, sample_with_readers

GenerateImage = Callable[[str, np.ndarray, str, tuple[int, int], int], np.ndarray]
"""Makes a picture of a task, a source, a prompt, a size (height, width) and a seed."""


@dataclass(frozen=True)
class GenerationSettings:
    """How pictures are sampled: what a user chooses, and run.json keeps."""

    steps: int = 28
    guidance: float = 3.5
    cfg: float = 1.0
    """Above 1 every step takes a second pass, without the prompt."""
    router: str = ""
    """A stage whose router answers, or "final"; empty: the task's own."""
    shifted: bool = True
    """Time is shifted towards noise the more tokens there are, as the family is sampled."""
    guided_by_source: bool = False
    """With a cfg above 1: the pass without the prompt reads no source, either."""

    def __post_init__(self):
        check_range("--steps", self.steps, 1, 1000)
        check_range("--guidance", self.guidance, 0, 100)
        check_range("--cfg", self.cfg, 0, 100)


WORLD_SETTINGS = GenerationSettings(STEPS, 1.0, CFG, shifted=False)
"""How built-in worlds are sampled."""


@dataclass(frozen=True)
class ImageGenerator:
    """A FLUX, its encoders and a bank, ready to answer cases; calling it generates one picture."""

    host: Host
    encoders: Encoders
    bank: Bank | None
    """None: it can only generate without a source."""
    settings: GenerationSettings
    routing: Routing = Routing()
    """What is asked of the experts, besides the task and the settings' router."""

    @torch.no_grad()
    def __call__(self, task: str, source: np.ndarray, prompt: str, size: tuple[int, int], seed: int) -> np.ndarray:
        """Generates one at a time: other pictures in a batch would change its last bits."""
        assert self.bank is not None
        noise, encoded, settings = self._prepare(prompt, size, seed)
        latent = self.encoders.encode([source]).to(noise.device)
        routing = replace(self.routing, task=task, router=self.settings.router)
        return self.encoders.decode(sample_latents(self.host, self.bank, routing, latent, noise, encoded, settings))[0]

    @torch.no_grad()
    def generate_plain(
        self, prompt: str, size: tuple[int, int], seed: int, patches: Sequence[Callable] = ()
    ) -> np.ndarray:
        """Generates a picture without a source, with `patches` of attention in place."""
        noise, encoded, settings = self._prepare(prompt, size, seed)
        context = skip_source(self.host, noise).with_patches(patches)
        readers = [lambda inputs: context] * 2
        return self.encoders.decode(sample_with_readers(self.host, readers, noise, encoded, settings))[0]

    def _prepare(self, prompt: str, size: tuple[int, int], seed: int) -> tuple[Tensor, EncodedPrompt, SamplingSettings]:
        """Makes a picture's noise, encoded prompt and sampling settings."""
        how, device = self.settings, self.host.device
        family = find_model_family(self.host.flux)
        shape = (1, family.latent_channels, *(side // family.latent_pixels for side in size))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
        texts = [self.encoders.encode_prompts([words]) for words in (prompt, *([""] if how.cfg != 1 else []))]
        encoded, *without = (EncodedPrompt(*(part.to(device) for part in text)) for text in texts)
        rows, columns = token_grid(noise, self.host.flux.patch_size)
        times = (
            make_timesteps(how.steps, rows * columns, family.time_shift) if how.shifted else make_timesteps(how.steps)
        )
        negative = without[0] if without else None
        return noise, encoded, SamplingSettings(times, how.guidance, how.cfg, negative, how.guided_by_source)


def open_world_generator(
    world: World, bank: Path | None, settings: GenerationSettings, device: str, folder: Path | None = None
) -> ImageGenerator:
    """Opens a world's models, those that ship or those of a folder, with their own bank if none is given."""
    models = open_models(world, folder, device)
    return ImageGenerator(
        models.make_host(), models.encoders, Bank.open(bank or (folder or world.folder) / BANK), settings
    )


def open_flux_generator(
    bank: Path | None, flux: Path, vae: Path, clips: Sequence[Path], settings: GenerationSettings, device: str
) -> ImageGenerator:
    """Opens FLUX.1's public files (the VAE, CLIP-L and T5 beside it) through a ComfyUI on this machine."""
    comfy = require_host()
    for path in (flux, vae, *clips):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}: check the name.")
    enter_host(comfy, cpu=device == "cpu", torch_attention=device != "cpu")
    return make_host_generator(*load_flux_files(flux, vae, clips), Bank.open(bank) if bank else None, settings)


def make_host_generator(
    model: Any, vae: Any, clip: Any, bank: Bank | None, settings: GenerationSettings
) -> ImageGenerator:
    """Wraps the host's own MODEL, VAE and CLIP."""
    from ..comfyui.training_data import HostEncoders
    from ..comfyui.training_host import TrainingHost

    host = TrainingHost(model)
    host.load()
    return ImageGenerator(host, HostEncoders(vae, clip, after=host.mark_pushed_out), bank, settings)
