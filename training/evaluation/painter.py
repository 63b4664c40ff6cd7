"""Who draws the answers: a bank on the built-in toy FLUX, or on FLUX.1's own files through a ComfyUI on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...prw.attachment import Host
from ...prw.bank.bank import Bank
from ...prw.embedded_host import EmbeddedHost
from ...prw.files.validate import between
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import timesteps
from ...prw.positions import token_grid
from ...prw.source import LATENT_CHANNELS, Routing
from ..comfyui.find_host import enter_host, needed_host, open_files
from ..encoders.protocol import Encoders
from ..forward import find_device, skip_source
from ..sampling import SamplingSettings, sample_latents, sample_with_contexts
from ..toy.evaluate import CFG, STEPS
from ..toy.store import BANK, SHIPPED, open_set

SHRUNK = 8
"""Pixels that a latent's cell covers."""
Paint = Callable[[str, np.ndarray, str, tuple[int, int], int], np.ndarray]
"""Task, source, prompt, size and seed to a picture."""


@dataclass(frozen=True)
class Sampling:
    steps: int = 28
    guidance: float = 3.5
    cfg: float = 1.0
    """Above 1 every step takes a second pass, without the prompt."""
    router: str = ""
    """A stage whose router answers, or "final"; empty: the task's own."""
    shifted: bool = True
    """Time is shifted towards noise the more tokens there are, as FLUX.1-dev is sampled."""

    def __post_init__(self):
        between("--steps", self.steps, 1, 1000)
        between("--guidance", self.guidance, 0, 100)
        between("--cfg", self.cfg, 0, 100)


TOY = Sampling(STEPS, 1.0, CFG, shifted=False)


@dataclass(frozen=True)
class Painter:
    host: Host
    encoders: Encoders
    bank: Bank | None
    """None: it draws alone."""
    sampling: Sampling

    @torch.no_grad()
    def __call__(self, task: str, source: np.ndarray, prompt: str, size: tuple[int, int], seed: int) -> np.ndarray:
        """One at a time: what stands beside a picture in a batch would change its last bits."""
        noise, encoded, settings = self._asked(prompt, size, seed)
        latent = self.encoders.encode([source]).to(noise.device)
        routing = Routing(task=task, router=self.sampling.router)
        return self.encoders.decode(sample_latents(self.host, self.bank, routing, latent, noise, encoded, settings))[0]

    @torch.no_grad()
    def alone(self, prompt: str, size: tuple[int, int], seed: int, patches: Sequence[Callable] = ()) -> np.ndarray:
        """Without a source; `patches` of attention are there all the same."""
        noise, encoded, settings = self._asked(prompt, size, seed)
        contexts = [skip_source(self.host, noise).with_patches(patches)] * 2
        return self.encoders.decode(sample_with_contexts(self.host, contexts, noise, encoded, settings))[0]

    def _asked(self, prompt: str, size: tuple[int, int], seed: int) -> tuple[Tensor, EncodedPrompt, SamplingSettings]:
        """Make the noise, the encoded prompt and the settings of a picture."""
        how, device = self.sampling, find_device(self.host)
        shape = (1, LATENT_CHANNELS, size[0] // SHRUNK, size[1] // SHRUNK)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
        texts = [self.encoders.encode_prompts([words]) for words in (prompt, *([""] if how.cfg != 1 else []))]
        encoded, *negative = (EncodedPrompt(*(part.to(device) for part in text)) for text in texts)
        rows, columns = token_grid(noise, self.host.flux.patch_size)
        times = timesteps(how.steps, rows * columns) if how.shifted else timesteps(how.steps)
        return noise, encoded, SamplingSettings(times, how.guidance, how.cfg, *negative)


def toy_painter(bank: Path | None, sampling: Sampling, device: str) -> Painter:
    toy = open_set(SHIPPED, device)
    host = EmbeddedHost(toy.flux, next(toy.flux.parameters()).dtype)
    return Painter(host, toy.encoders, Bank.open(bank or SHIPPED / BANK), sampling)


def flux_painter(
    bank: Path | None, flux: Path, vae: Path, clips: Sequence[Path], sampling: Sampling, device: str
) -> Painter:
    comfy = needed_host()
    for path in (flux, vae, *clips):
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}: check the name.")
    enter_host(comfy, cpu=device == "cpu", torch_attention=device != "cpu")
    return host_painter(*open_files(flux, vae, clips), Bank.open(bank) if bank else None, sampling)


def host_painter(model, vae, clip, bank: Bank | None, sampling: Sampling) -> Painter:
    from ..comfyui.training_data import HostEncoders
    from ..comfyui.training_host import TrainingHost

    host = TrainingHost(model)
    host.load()
    return Painter(host, HostEncoders(vae, clip, after=host.pushed_out), bank, sampling)
