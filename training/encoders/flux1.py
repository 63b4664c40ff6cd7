"""FLUX.1's encoders where there is no ComfyUI: equal to the host's own, which stay in use there
(training/comfyui/training_data.py).

A caption is text: parentheses are words, where ComfyUI's prompt nodes would take them for weights.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...prw.files.errors import FileError
from ...prw.files.validate import build, check_choice, check_range, shorten
from ...prw.fit_image import to_bytes
from ...prw.flux.flux1 import LATENT_CHANNELS
from ...prw.personalization.marked_prompt import MarkedTokens, find_marked_tokens
from ..find_host import find_host
from .open_models import open_clip, open_t5, open_vae

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLIP_TOKENS = 77
HOSTS_TOKENIZERS = {"t5_tokenizer": "comfy/text_encoders/t5_tokenizer", "clip_tokenizer": "comfy/sd1_tokenizer"}
MIN_VOCABULARY = {"t5_tokenizer": 32000, "clip_tokenizer": 49408}
"""Words that a tokenizer knows at least: transformers makes an empty one where it finds no file."""
HASHED_PLACES, HASHED_BYTES = 64, 2**16
"""A file's fingerprint is of so many places in it, so many bytes at each."""


@dataclass(frozen=True)
class EncoderFiles:
    """The table [encoders] of a recipe."""

    t5: str = ""
    """t5xxl_fp16.safetensors, or one of fp8: t5xxl_fp8_e4m3fn.safetensors, t5xxl_fp8_e4m3fn_scaled.safetensors."""
    clip: str = ""
    """clip_l.safetensors."""
    vae: str = ""
    """ae.safetensors."""
    t5_tokenizer: str = ""
    """A folder; empty: the one in this machine's ComfyUI."""
    clip_tokenizer: str = ""
    tokens: int = 256
    """A prompt is padded to as many, as ComfyUI does it; T5 and FLUX read the padding, too."""
    precision: str = "fp32"
    """"fp32" or "bf16", in which they compute; the host's T5 and CLIP take fp32, too."""

    def __post_init__(self):
        check_range("encoders.tokens", self.tokens, 1, 4096)
        check_choice("encoders.precision", self.precision, tuple(DTYPES))


class FluxEncoders:
    """FLUX.1's VAE, T5 and CLIP as Encoders (protocol.py). Each file is opened when it is first needed."""

    def __init__(self, files: EncoderFiles, device: str = "cpu"):
        self.files, self.device, self.dtype = files, device, DTYPES[files.precision]
        self.empty: tuple[Tensor, Tensor] | None = None
        """Context and pooled of the empty prompt, if they are known already."""

    @cached_property
    def t5(self) -> Any:
        return open_t5(Path(self.files.t5), self.device, self.dtype)

    @cached_property
    def clip(self) -> Any:
        return open_clip(Path(self.files.clip), self.device, self.dtype)

    @cached_property
    def vae(self) -> Any:
        return open_vae(Path(self.files.vae), self.device, self.dtype)

    @cached_property
    def t5_tokenizer(self) -> Any:
        from transformers import T5TokenizerFast  # pyrefly: ignore[missing-module-attribute]

        return open_tokenizer(T5TokenizerFast, self.files, "t5_tokenizer")

    @cached_property
    def clip_tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        return open_tokenizer(CLIPTokenizer, self.files, "clip_tokenizer")

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Gives the mean of the VAE's distribution, not yet shifted and scaled: latents as the host's VAE nodes have them."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self.device).movedim(-1, 1)  # (batch, 3, height, width)
        latents = self.vae.encode((pixels.float() / 255 * 2 - 1).to(self.dtype)).latent_dist.mean.float().cpu()
        if latents.shape[1] != LATENT_CHANNELS:
            raise FileError(
                f"{Path(self.files.vae).name} makes latents of {latents.shape[1]} channels, expected {LATENT_CHANNELS}: "
                f"choose FLUX.1's (ae.safetensors)."
            )
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        pictures = self.vae.decode(latents.to(self.device, self.dtype)).sample.float()
        return to_bytes((pictures.movedim(1, -1) + 1) / 2)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encodes prompts of any length; behind shorter ones' tokens come zeros, as everywhere (samples.pad_context)."""
        if self.empty is not None and list(prompts) == [""]:
            return self.empty
        rows = self.tokenize(prompts)
        context = torch.zeros(len(rows), max(map(len, rows)), self.t5.config.d_model, dtype=torch.bfloat16)
        for length in set(map(len, rows)):  # T5 reads its padding: only prompts of one length go together
            alike = [i for i, row in enumerate(rows) if len(row) == length]
            context[alike, :length] = self.encode_t5([rows[i] for i in alike]).to(context).cpu()
        return context, self.encode_clip(prompts)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Counts a prompt's own tokens, the last of which says that it ends."""
        return [len(row) for row in self.t5_tokenizer(list(prompts))["input_ids"]]

    def find_words(self, prompt: str) -> MarkedTokens:
        return find_marked_tokens(prompt, self._tokenize_as_host)

    def _tokenize_as_host(self, prompt: str) -> dict[str, list]:
        """Answers as the host's tokenizer: tokens of weight 1, and which are words; the last one is none."""
        tokens = self.t5_tokenizer(prompt)["input_ids"]
        return {"t5xxl": [[(token, 1.0, int(place < len(tokens) - 1)) for place, token in enumerate(tokens)]]}

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """Gives T5's tokens, padded as the host pads them."""
        rows = self.t5_tokenizer(list(prompts))["input_ids"]
        return [row + [0] * (self.files.tokens - len(row)) for row in rows]

    @torch.no_grad()
    def encode_t5(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Gives T5's last hidden state of token rows of one length, float32 (rows, tokens, width)."""
        return self.t5(torch.tensor(rows, device=self.device)).last_hidden_state.float()

    @torch.no_grad()
    def encode_clip(self, prompts: Sequence[str]) -> Tensor:
        """Gives CLIP's pooled vectors, of a long prompt's first 75 tokens."""
        tokens = self.clip_tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=CLIP_TOKENS, return_tensors="pt"
        )
        return self.clip(tokens["input_ids"].to(self.device)).pooler_output.float().cpu()

    def identity(self) -> dict[str, Any]:
        """Gives the files' fingerprints, the padding and the precision."""
        files = {name: fingerprint_file(Path(getattr(self.files, name))) for name in ("t5", "clip", "vae")}
        return {**files, "tokens": self.files.tokens, "precision": self.files.precision}


def open_encoders(table: Mapping[str, Any], device: str) -> FluxEncoders:
    """Opens what a recipe's table [encoders] names; what is missing is said at once, not when it is first needed."""
    files = build(EncoderFiles, dict(table), "encoders")
    for name in ("t5", "clip", "vae"):
        path = getattr(files, name)
        if not Path(path).is_file():
            found = f"there is no file {shorten(path)}" if path else f"the recipe's table [encoders] says no {name}"
            raise FileError(f"FLUX.1's encoders are needed, but {found}: set encoders.{name} to its place.")
    return FluxEncoders(files, device)


def open_tokenizer(kind: Any, files: EncoderFiles, name: str) -> Any:
    """Opens a tokenizer of transformers' class `kind`, in the folder that the files name or in the host's."""
    host = find_host()
    folder = Path(getattr(files, name) or (host / HOSTS_TOKENIZERS[name] if host else ""))
    try:
        if not getattr(files, name) and host is None:
            raise OSError("there is no ComfyUI on this machine to take one from")
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
        if len(tokenizer) < MIN_VOCABULARY[name]:
            raise OSError(f"its vocabulary has {len(tokenizer)} words, expected {MIN_VOCABULARY[name]} or more")
        return tokenizer
    except Exception as error:  # whatever a foreign folder can provoke
        raise FileError(
            f"No tokenizer can be read from {folder} ({shorten(str(error).partition(chr(10))[0])}), expected a folder "
            f"as ComfyUI or transformers has it: set encoders.{name}."
        ) from None


def fingerprint_file(path: Path) -> str:
    """Hashes a large file without reading all of it."""
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for place in range(HASHED_PLACES):
            file.seek(place * size // HASHED_PLACES)
            digest.update(file.read(HASHED_BYTES))
    digest.update(str(size).encode())
    return digest.hexdigest()
