"""Sources that a whole model reads: a second FLUX, once, with a prompt of its own (model_pass.py).

Their K/V depend on pictures, prompt and the model's weights: not on the base's weights, noise, timestep or size, and on
the base's prompt only where the sources bring none.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .appended_kv import SampledKV
from .flux.blocks import FluxModel
from .kv_cache import SampleKV
from .model_pass import run_model_pass
from .select_experts import ExpertBank
from .source import Source, hash_tensor
from .source_group import ForwardBatch, PictureGroup
from .source_pass import Host, SourcePicture


class PromptHashes:
    """Hashes of prompts. Those seen before are told by comparing them where they lie, which is far faster."""

    def __init__(self):
        self.known: list[tuple[Tensor, str]] = []

    def find(self, prompt: Tensor) -> str:
        for known, digest in self.known:
            if (known.shape, known.dtype, known.device) == (prompt.shape, prompt.dtype, prompt.device):
                if torch.equal(known, prompt):
                    return digest
        self.known.append((prompt.clone(), hash_tensor(prompt)))
        return self.known[-1][1]


class PromptKV(SampledKV):
    """Keys and values of the prompt that a whole model reads beside its pictures."""

    is_shared = True


class ModelGroup(PictureGroup):
    """Sources of one whole model and one prompt: they see one another, and are numbered from 1."""

    def __init__(
        self,
        host: Host,
        sources: Sequence[Source],
        batch: ForwardBatch,
        bank: ExpertBank,
        model: str,
        prompt_hashes: PromptHashes,
    ):
        super().__init__(host, sources, batch, bank)
        self.model, self.prompt_hashes = model, prompt_hashes

    def make_keys(self) -> list[Hashable]:
        position = self.routing.choose_position("reference")
        grid = None if position == "reference" else self.batch.readers.grid
        pictures = tuple(source.latent_hash for source in self.sources)
        common = (self.model, pictures, position, self.routing.shift, grid, self.placement)
        computed = (str(self.batch.device), self.host.dtype)
        prompts = (self.prompt_hashes.find(self._select_prompt(i)) for i in range(len(self.batch.context)))
        return [(*common, *computed, self.select_images(i), prompt) for i, prompt in enumerate(prompts)]

    def _select_prompt(self, sample: int) -> Tensor:
        """Selects the prompt that the model reads in a sample of the batch, (tokens, width); our choice:
        the base's own if none is given."""
        prompt = self.sources[0].prompt
        if prompt is None:
            return self.batch.context[sample]
        return prompt[sample % self.batch.pictures % len(prompt)]

    def read_state(self) -> Any:
        on_base = self.bank.info.models[self.model].on_base
        return self.bank.state(), self.host.state() if on_base else self.host.attention_state()

    def compute(self, samples: Sequence[int]) -> list[SampleKV]:
        batch, host, flux = self.batch, self.host, self.bank.model(self.model, self.host.flux)
        prompts = torch.stack([self._select_prompt(i) for i in samples]).to(batch.device, host.dtype)
        self._check_width(flux, prompts)
        latents = (self.select_latents(source, samples).to(batch.device, host.dtype) for source in self.sources)
        pictures = [SourcePicture(latent, number) for number, latent in enumerate(latents, 1)]
        stream, pe = run_model_pass(host, flux, prompts, pictures, self.routing, batch.readers.grid)
        return self._store(stream, pe, [self.model])

    def _check_width(self, flux: FluxModel, prompts: Tensor) -> None:
        if prompts.shape[-1] != flux.params.context_in_dim:
            raise ValueError(
                f"The rows of the source's prompt are {prompts.shape[-1]} wide, {self.model} expects "
                f"{flux.params.context_in_dim}: encode its prompt with the text encoder that belongs to this FLUX."
            )

    def split(self, samples: Sequence[SampleKV]) -> Iterator[SampledKV]:
        """Gives the prompt's keys, which all sources share, and each source's."""
        prompt = samples[0].pe.shape[2] - sum(tokens.stop - tokens.start for _, tokens in self.slice_tokens())
        yield PromptKV(self.sources, samples, slice(0, prompt))
        for source, tokens in self.slice_tokens(prompt):
            yield SampledKV([source], samples, tokens)
