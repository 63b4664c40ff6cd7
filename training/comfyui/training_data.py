"""Training data through a host's VAE and CLIP: what travels between the training nodes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...prw.fit_image import to_bytes
from ...prw.flux.families import FAMILIES, describe_text_width, find_latent_family
from ...prw.personalization.marked_prompt import MarkedTokens, find_marked_tokens
from ..data.encoded.dataset import MemoryDataset, choose_val_ids, concat_datasets, hold_out
from ..data.encoded.samples import EncodedSamples, pad_context
from ..data.sample import Example

GREY = np.full((64, 64, 3), 128, np.uint8)
"""A picture for asking a VAE what it makes."""
CHUNK = 16
"""Pictures that are encoded at once."""


@dataclass(frozen=True, eq=False)
class HostEncoders:
    """VAE and CLIP as training asks for them (encoders/protocol.py)."""

    vae: Any
    clip: Any
    empty: tuple[Tensor, Tensor] | None = None
    """The empty prompt, kept so that training need not load the text encoders."""
    after: Callable[[], None] = lambda: None
    """Called once the VAE or CLIP has run, which may have taken FLUX's place."""

    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Encodes latents of pictures uint8 (height, width, 3) of one size."""
        pixels = torch.from_numpy(np.stack(pictures)).float() / 255
        with torch.inference_mode():
            latents = self.vae.encode(pixels)
        self.after()
        find_latent_family(latents)  # or it raises
        return copy_to_cpu(latents.float())

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encodes prompts: context, shorter prompts padded with zeros, and pooled text."""
        if self.empty is not None and list(prompts) == [""]:
            return self.empty
        contexts, pooled = zip(*map(self._encode_prompt, prompts))
        longest = max(context.shape[1] for context in contexts)
        return torch.cat([pad_context(context, longest) for context in contexts]), torch.cat(pooled)

    def _encode_prompt(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Encodes one prompt as the text encode node does it."""
        with torch.inference_mode():
            context, pooled = self.clip.encode_from_tokens(self.clip.tokenize(prompt), return_pooled=True)
        self.after()
        # FLUX computes in bf16 as a rule: T5 fills half the memory
        pooled = context.new_zeros(len(context), 0) if pooled is None else pooled
        return copy_to_cpu(context.to(torch.bfloat16)), copy_to_cpu(pooled.float())

    def find_words(self, prompt: str) -> MarkedTokens:
        return find_marked_tokens(prompt, partial(self.clip.tokenize, return_word_ids=True))

    def count_tokens(self, prompts: Sequence[str]) -> None:
        """Gives None: the host pads its prompts as it likes: nothing is left out."""

    def identity(self) -> str:
        """Returns nothing: a run's folder records hashes of the encoded pictures instead (run.record_data)."""
        return ""

    def decode(self, latents: Tensor) -> np.ndarray:
        with torch.inference_mode():
            pictures = self.vae.decode(latents)
        self.after()
        return to_bytes(pictures)


def open_encoders(vae, clip) -> HostEncoders:
    """Opens encoders of a VAE and a CLIP that belong together, with the empty prompt:
    raises before anything else is encoded."""
    encoders = HostEncoders(vae, clip)
    context, pooled = encoders.encode_prompts([""])
    family, width = find_latent_family(encoders.encode([GREY])), context.shape[-1]
    if width not in family.text_encoders and any(width in other.text_encoders for other in FAMILIES.values()):
        raise ValueError(
            f"The CLIP's tokens are {describe_text_width(width)}, expected those of {family.label}, whose VAE is connected: "
            f"load the VAE and the text encoder that belong to your FLUX."
        )
    if family.reads_prompt and not pooled.shape[1]:
        raise ValueError(
            f"The CLIP gives no pooled text, expected {family.label}'s pair: load CLIP-L and T5-XXL as flux."
        )
    return replace(encoders, empty=(context, pooled))


def copy_to_cpu(tensor: Tensor) -> Tensor:
    """Gives a copy on the CPU that is no inference tensor, which autograd would refuse."""
    with torch.inference_mode(False):
        return tensor.detach().cpu().clone()


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What travels between the training nodes: encoded datasets by task, and what encoded them."""

    encoders: HostEncoders
    datasets: Mapping[str, MemoryDataset] = field(default_factory=dict)
    maps: Mapping[str, str] = field(default_factory=dict)
    """Folder -> what drew its control maps, where they were missing."""

    def add_dataset(self, dataset: MemoryDataset) -> "TrainingData":
        """Gives the data with one more dataset, behind that of the same task if there is one."""
        task, known = dataset.task, self.datasets.get(dataset.task)
        return replace(
            self, datasets={**self.datasets, task: dataset if known is None else concat_datasets(known, dataset)}
        )

    def note_maps(self, folder: str, drawer: str) -> "TrainingData":
        return replace(self, maps={**self.maps, folder: drawer})

    def __str__(self) -> str:
        return ", ".join(f"{task}: {len(dataset)}" for task, dataset in self.datasets.items())


def encode_examples(
    encoders: HostEncoders,
    task: str,
    example: Callable[[int], Example],
    count: int,
    progress: Callable[[int, int], None],
) -> MemoryDataset:
    """Encodes examples 0 to `count`; `progress` is called with what is done and how much there is.

    All pictures come first, then all prompts: on a small card the encoders have to make room for each other.
    """
    ids, prompts, targets, sources, pixels = [], [], [], [], hashlib.blake2b(digest_size=16)
    for start in range(0, count, CHUNK):
        examples = [example(i) for i in range(start, min(start + CHUNK, count))]
        targets.append(encoders.encode([one.target for one in examples]))
        sources.append(encoders.encode([one.source for one in examples]))
        for one in examples:
            pixels.update(one.target.tobytes() + one.source.tobytes())
        ids += [one.id for one in examples]
        prompts += [one.prompt.replace("\n", " ") for one in examples]
        progress(len(ids), 2 * count)

    encoded: dict[str, tuple[Tensor, Tensor]] = {}
    for done, prompt in enumerate(prompts, 1):
        if prompt not in encoded:
            encoded[prompt] = encoders.encode_prompts([prompt])
            progress(count + done, 2 * count)
    longest = max(context.shape[1] for context, _ in encoded.values())
    context = torch.cat([pad_context(encoded[prompt][0], longest) for prompt in prompts])
    pooled = torch.cat([encoded[prompt][1] for prompt in prompts])
    latents = torch.cat(targets), torch.cat(sources)
    samples = EncodedSamples(tuple(ids), tuple(prompts), *latents, context, pooled)
    return hold_out(MemoryDataset(task, samples, pixel_hash=pixels.hexdigest()), choose_val_ids(ids))
