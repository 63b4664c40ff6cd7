"""FLUX.1 and FLUX.2 in the real host: a tiny model of each, what it is asked, and the naive formula in its place.

Sizes are FLUX.1's latents' (two to a token) for both, so that pictures and sources have as many tokens.
"""

import sampling
import torch
from cologen.prw.source import Source
from cologen.training.comfyui.enter_host import load_model
from naive import Naive
from naive_flux2 import NaiveFlux2
from sampling import EXPERTS, add_sources, apply_bank, conditioning
from tiny import latent, source, tiny_bank, tiny_flux
from tiny_flux2 import TEXT_WIDTH, tiny_flux2

FAMILIES = ("flux1", "flux2")


class HostFamily:
    """A family's tiny model in the host, with a bank."""

    def __init__(self, name: str):
        self.name, self.is_flux2 = name, name == "flux2"
        self.flux = tiny_flux2() if self.is_flux2 else tiny_flux()
        self.formula = NaiveFlux2 if self.is_flux2 else Naive
        self.model, self.bank = self.load(), tiny_bank(self.flux)

    def load(self, dtype=torch.float32):
        """A MODEL of its own."""
        return load_model(self.flux.state_dict(), dtype)

    @property
    def text_rows(self) -> int:
        """The host pads FLUX.2's prompts on the left."""
        return 512 if self.is_flux2 else 5

    def prompt(self, seed=4, guidance=3.5):
        if not self.is_flux2:
            return conditioning(seed, guidance=guidance)
        return [[torch.randn(1, 5, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]

    def latent(self, batch=1, height=8, width=8, seed=2):
        height, width = self.scale((height, width))
        return latent(batch, height, width, seed, 128 if self.is_flux2 else 16)

    def scale(self, size: tuple[int, int]) -> tuple[int, int]:
        return tuple(-(-side // 2) for side in size) if self.is_flux2 else size

    def source(self, task="control", batch=1, height=8, width=8, seed=3, latent_=None, **knobs) -> Source:
        pixels = self.latent(batch, height, width, seed) if latent_ is None else latent_
        return source(task, latent_=pixels, **knobs)

    def naive_source(self, task="control", seed=3, batch=1, height=8, width=8, **rest):
        names = EXPERTS[: EXPERTS.index(task) + 1]
        return dict(latent=self.latent(batch, height, width, seed), stage=task, names=names, **rest)

    def sample(self, model, positive=None, negative=None, size=(8, 8), **how):
        positive, negative = positive or self.prompt(), negative or self.prompt(5)
        return sampling.sample(model, positive, negative, size=self.scale(size), **how)

    def weave(self, *sources, **how):
        """A picture that reads these sources."""
        return self.sample(apply_bank(self.model, self.bank), add_sources(self.prompt(), *sources), **how)

    def naive(self, sources, model=None, weights=None, **options):
        """A MODEL whose FLUX is the naive formula; `sources` by the seed of their prompt."""
        numbered = {seed: [{"number": i + 1, **s} for i, s in enumerate(some)] for seed, some in sources.items()}
        return sampling.naive_model(
            model or self.model,
            self.flux.state_dict() if weights is None else weights,
            self.bank,
            numbered,
            formula=self.formula,
            make_conditioning=self.prompt,
            **options,
        )

    def expect(self, *sources, **how):
        """The picture by the naive formula."""
        return self.sample(self.naive({4: sources}), **how)
