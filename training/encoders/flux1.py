"""FLUX.1's encoders where there is no ComfyUI: equal to the host's own, which stay in use there (host/data.py).

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
from torch import Tensor, nn

from ...prw.files.errors import FileError
from ...prw.files.validate import build, check_choice, check_range, shorten
from ...prw.fit_image import as_bytes
from ...prw.flux.flux1 import LATENT_CHANNELS
from ...prw.personalization.marked_prompt import MarkedTokens, find_marked_tokens
from ..find_host import find_host
from .open_models import open_clip, open_t5, open_vae

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLIP_TOKENS = 77
HOSTS_TOKENIZERS = {"t5_tokenizer": "comfy/text_encoders/t5_tokenizer", "clip_tokenizer": "comfy/sd1_tokenizer"}
WORDS = {"t5_tokenizer": 32000, "clip_tokenizer": 49408}
"""That they know at least: transformers makes an empty one where it finds no file."""
LOOKS, LOOK = 64, 2**16
"""A file's fingerprint: so many places in it, so many bytes at each, and its header."""


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
    """In which they compute: the host's T5 and CLIP take fp32, too."""

    def __post_init__(self):
        check_range("encoders.tokens", self.tokens, 1, 4096)
        check_choice("encoders.precision", self.precision, tuple(DTYPES))


class FluxEncoders:
    """FLUX.1's VAE, T5 and CLIP as Encoders (protocol.py). Each file is opened when it is first needed."""

    def __init__(self, files: EncoderFiles, device: str = "cpu"):
        self.files, self.device, self.dtype = files, device, DTYPES[files.precision]
        self.empty: tuple[Tensor, Tensor] | None = None
        """The empty prompt, if it is known already."""

    @cached_property
    def t5(self) -> nn.Module:
        return open_t5(Path(self.files.t5), self.device, self.dtype)

    @cached_property
    def clip(self) -> nn.Module:
        return open_clip(Path(self.files.clip), self.device, self.dtype)

    @cached_property
    def vae(self) -> nn.Module:
        return open_vae(Path(self.files.vae), self.device, self.dtype)

    @cached_property
    def t5_tokenizer(self):
        from transformers import T5TokenizerFast

        return tokenizer(T5TokenizerFast, self.files, "t5_tokenizer")

    @cached_property
    def clip_tokenizer(self):
        from transformers import CLIPTokenizer

        return tokenizer(CLIPTokenizer, self.files, "clip_tokenizer")

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """The mean of what the VAE gives, not yet shifted and scaled: latents as the host's VAE nodes have them."""
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
        return as_bytes((pictures.movedim(1, -1) + 1) / 2)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Longer prompts have more tokens; shorter ones get zeros behind, as everywhere (samples.pad_context)."""
        if self.empty is not None and list(prompts) == [""]:
            return self.empty
        rows = self._tokens(prompts)
        context = torch.zeros(len(rows), max(map(len, rows)), self.t5.config.d_model, dtype=torch.bfloat16)
        for length in set(map(len, rows)):  # T5 reads its padding: only prompts of one length go together
            alike = [i for i, row in enumerate(rows) if len(row) == length]
            context[alike, :length] = self.hidden([rows[i] for i in alike]).to(context).cpu()
        return context, self.pooled(prompts)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Of the prompts' own tokens, the last of which says that they end."""
        return [len(row) for row in self.t5_tokenizer(list(prompts))["input_ids"]]

    def find_words(self, prompt: str) -> MarkedTokens:
        return find_marked_tokens(prompt, self._numbered)

    def _numbered(self, prompt: str) -> dict[str, list]:
        """As the host's tokenizer answers: tokens without weights, and which are words; the last one is none."""
        own = self.t5_tokenizer(prompt)["input_ids"]
        return {"t5xxl": [[(token, 1.0, int(place < len(own) - 1)) for place, token in enumerate(own)]]}

    def _tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        rows = self.t5_tokenizer(list(prompts))["input_ids"]
        return [row + [0] * (self.files.tokens - len(row)) for row in rows]

    @torch.no_grad()
    def hidden(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return self.t5(torch.tensor(rows, device=self.device)).last_hidden_state.float()

    @torch.no_grad()
    def pooled(self, prompts: Sequence[str]) -> Tensor:
        """Of a long prompt, the first 75 tokens."""
        told = self.clip_tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=CLIP_TOKENS, return_tensors="pt"
        )
        return self.clip(told["input_ids"].to(self.device)).pooler_output.float().cpu()

    def identity(self) -> dict[str, Any]:
        """What decides its answers."""
        files = {name: fingerprint(Path(getattr(self.files, name))) for name in ("t5", "clip", "vae")}
        return {**files, "tokens": self.files.tokens, "precision": self.files.precision}


def open_encoders(table: Mapping[str, Any], device: str) -> FluxEncoders:
    """Of a recipe's table [encoders]; what is missing is said at once, not when it is first needed."""
    files = build(EncoderFiles, dict(table), "encoders")
    for name in ("t5", "clip", "vae"):
        path = getattr(files, name)
        if not Path(path).is_file():
            found = f"there is no file {shorten(path)}" if path else f"the recipe's table [encoders] says no {name}"
            raise FileError(f"FLUX.1's encoders are needed, but {found}: set encoders.{name} to its place.")
    return FluxEncoders(files, device)


def tokenizer(kind: type, files: EncoderFiles, name: str):
    host = find_host()
    folder = Path(getattr(files, name) or (host / HOSTS_TOKENIZERS[name] if host else ""))
    try:
        if not getattr(files, name) and host is None:
            raise OSError("there is no ComfyUI on this machine to take one from")
        found = kind.from_pretrained(folder, local_files_only=True)
        if len(found) < WORDS[name]:
            raise OSError(f"its vocabulary has {len(found)} words, expected {WORDS[name]} or more")
        return found
    except Exception as error:  # whatever a foreign folder can provoke
        raise FileError(
            f"No tokenizer can be read from {folder} ({shorten(str(error).partition(chr(10))[0])}), expected a folder "
            f"as ComfyUI or transformers has it: set encoders.{name}."
        ) from None


def fingerprint(path: Path) -> str:
    """Of a large file, without reading all of it."""
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for look in range(LOOKS):
            file.seek(look * size // LOOKS)
            digest.update(file.read(LOOK))
    digest.update(str(size).encode())
    return digest.hexdigest()
