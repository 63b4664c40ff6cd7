"""What encoders of all FLUX families have in common where there is no ComfyUI: files, fingerprints, tokenizers, pictures."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...prw.files.errors import FileError
from ...prw.files.regular_file import open_regular
from ...prw.files.validate import check_choice, check_range, shorten_error
from ...prw.fit_image import to_bytes
from ...prw.flux.families import Family
from ...prw.personalization.marked_prompt import MarkedTokens, find_marked_tokens
from ..find_host import find_host

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
HASHED_PLACES, HASHED_BYTES = 64, 2**16
"""A file's fingerprint is of so many places in it, so many bytes at each."""


@dataclass(frozen=True)
class EncoderFiles:
    """The table [encoders] of a recipe, as far as families share it."""

    vae: str = ""
    """ae.safetensors, or flux2-vae.safetensors."""
    tokens: int = 512
    """A prompt is padded to as many, as ComfyUI does it; FLUX reads the padding, too."""
    precision: str = "fp32"
    """"fp32" or "bf16", in which they compute; the host's text encoders take fp32, too."""

    def __post_init__(self):
        check_range("encoders.tokens", self.tokens, 1, 4096)
        check_choice("encoders.precision", self.precision, tuple(DTYPES))


Files = TypeVar("Files", bound=EncoderFiles)


class FileEncoders(ABC, Generic[Files]):
    """A family's VAE and text encoders as Encoders (protocol.py). Each file is opened when it is first needed."""

    family: ClassVar[Family]
    needed: ClassVar[tuple[str, ...]]
    """Fields of the table [encoders] that name files."""
    pad: ClassVar[int]
    """The token that fills a prompt up."""

    def __init__(self, files: Files, device: str = "cpu"):
        self.files, self.device, self.dtype = files, device, DTYPES[files.precision]
        self.empty: tuple[Tensor, Tensor] | None = None
        """Context and pooled of the empty prompt, if they are known already."""

    @cached_property
    @abstractmethod
    def vae(self) -> Any: ...

    @cached_property
    @abstractmethod
    def context_width(self) -> int:
        """How wide the text is that they give, read off the file without loading it."""

    @abstractmethod
    def tokenize_unpadded(self, prompts: Sequence[str]) -> list[list[int]]:
        """Gives all that the text encoder reads of each prompt, but the padding."""

    @abstractmethod
    def encode_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Gives the context of token rows of one length, float32 (rows, tokens, width)."""

    @abstractmethod
    def encode_pooled(self, prompts: Sequence[str]) -> Tensor:
        """Gives the prompts' pooled vectors (prompts, width); the width is 0 where FLUX reads none."""

    @abstractmethod
    def tokenize_as_host(self, prompt: str) -> dict[str, list]:
        """Answers as the host's tokenizer: tokens of weight 1, and which are words."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        return [len(row) for row in self.tokenize_unpadded(prompts)]

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """Gives the text encoder's tokens, padded as the host pads them; longer ones stay whole."""
        return [row + [self.pad] * (self.files.tokens - len(row)) for row in self.tokenize_unpadded(prompts)]

    def encode_mean(self, pixels: Tensor) -> Tensor:
        """Gives latents of pixels from -1 to 1: the mean of the VAE's distribution."""
        return self.vae.encode(pixels).latent_dist.mean

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Gives pixels, from -1 to 1, of latents as encode_mean has them."""
        return self.vae.decode(latents).sample

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Gives latents as the host's VAE nodes have them."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self.device).movedim(-1, 1)  # (batch, 3, height, width)
        latents = self.encode_mean((pixels.float() / 255 * 2 - 1).to(self.dtype)).float().cpu()
        if latents.shape[1] != self.family.latent_channels:
            raise FileError(
                f"{Path(self.files.vae).name} makes latents of {latents.shape[1]} channels, expected "
                f"{self.family.latent_channels}: choose {self.family.label}'s."
            )
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        pictures = self.decode_latents(latents.to(self.device, self.dtype)).float()
        return to_bytes((pictures.movedim(1, -1) + 1) / 2)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encodes prompts of any length; behind shorter ones' tokens come zeros, as everywhere (samples.pad_context)."""
        if self.empty is not None and list(prompts) == [""]:
            return self.empty
        rows = self.tokenize(prompts)
        context = torch.zeros(len(rows), max(map(len, rows)), self.context_width, dtype=torch.bfloat16)
        for length in set(map(len, rows)):  # padding is read: only prompts of one length go together
            alike = [i for i, row in enumerate(rows) if len(row) == length]
            context[alike, :length] = self.encode_rows([rows[i] for i in alike]).to(context).cpu()
        return context, self.encode_pooled(prompts)

    def find_words(self, prompt: str) -> MarkedTokens:
        return find_marked_tokens(prompt, self.tokenize_as_host)

    def identity(self) -> dict[str, Any]:
        """Gives the files' fingerprints, the padding and the precision."""
        files = {name: fingerprint_file(Path(getattr(self.files, name))) for name in self.needed}
        return {**files, "tokens": self.files.tokens, "precision": self.files.precision}


def open_tokenizer(kind: Any, folder: str, hosts: str, min_size: int, name: str) -> Any:
    """Opens a tokenizer of transformers' class `kind`, in a folder or, without one, in the host's folder `hosts`.

    `min_size`: words that it knows at least, for transformers makes an empty one where it finds no file. `name`: its key in
    the table [encoders].
    """
    host = find_host()
    place = Path(folder or (host / hosts if host else ""))
    try:
        if not folder and host is None:
            raise OSError("there is no ComfyUI on this machine to take one from")
        tokenizer = kind.from_pretrained(place, local_files_only=True)
        if len(tokenizer) < min_size:
            raise OSError(f"its vocabulary has {len(tokenizer)} words, expected {min_size} or more")
        return tokenizer
    except Exception as error:  # whatever a foreign folder can provoke
        raise FileError(
            f"No tokenizer can be read from {place} ({shorten_error(error)}), expected a folder "
            f"as ComfyUI or transformers has it: set encoders.{name}."
        ) from None


def fingerprint_file(path: Path) -> str:
    """Hashes a large file without reading all of it."""
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        for place in range(HASHED_PLACES):
            file.seek(place * size // HASHED_PLACES)
            digest.update(file.read(HASHED_BYTES))
    digest.update(str(size).encode())
    return digest.hexdigest()
