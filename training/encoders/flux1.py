"""FLUX.1's encoders where there is no ComfyUI: equal to the host's own, which stay in use there
(training/comfyui/training_data.py).

A caption is text: parentheses are words, where ComfyUI's prompt nodes would take them for weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...prw.flux.families import FLUX1
from .from_files import EncoderFiles, FileEncoders, open_tokenizer
from .open_flux1 import open_clip, open_t5, open_t5_file, open_vae, read_t5_config

CLIP_TOKENS = 77
T5_WORDS, CLIP_WORDS = 32000, 49408
"""Words that the tokenizers know at least."""


@dataclass(frozen=True)
class Flux1Files(EncoderFiles):
    """The table [encoders] for FLUX.1; vae: ae.safetensors."""

    t5: str = ""
    """t5xxl_fp16.safetensors, or one of fp8: t5xxl_fp8_e4m3fn.safetensors, t5xxl_fp8_e4m3fn_scaled.safetensors."""
    clip: str = ""
    """clip_l.safetensors."""
    t5_tokenizer: str = ""
    """A folder; empty: the one in this machine's ComfyUI."""
    clip_tokenizer: str = ""
    tokens: int = 256


class FluxEncoders(FileEncoders[Flux1Files]):
    """FLUX.1's VAE, T5 and CLIP."""

    family, needed, pad = FLUX1, ("t5", "clip", "vae"), 0

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
    def context_width(self) -> int:
        return read_t5_config(open_t5_file(Path(self.files.t5))).d_model

    @cached_property
    def t5_tokenizer(self) -> Any:
        from transformers import T5TokenizerFast  # pyrefly: ignore[missing-module-attribute]

        hosts = "comfy/text_encoders/t5_tokenizer"
        return open_tokenizer(T5TokenizerFast, self.files.t5_tokenizer, hosts, T5_WORDS, "t5_tokenizer")

    @cached_property
    def clip_tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        hosts = "comfy/sd1_tokenizer"
        return open_tokenizer(CLIPTokenizer, self.files.clip_tokenizer, hosts, CLIP_WORDS, "clip_tokenizer")

    def tokenize_unpadded(self, prompts: Sequence[str]) -> list[list[int]]:
        """Gives T5's tokens, the last of which says that the prompt ends."""
        return self.t5_tokenizer(list(prompts))["input_ids"]

    def tokenize_as_host(self, prompt: str) -> dict[str, list]:
        """Answers as the host's tokenizer; the last token is no word."""
        (tokens,) = self.tokenize_unpadded([prompt])
        return {"t5xxl": [[(token, 1.0, int(place < len(tokens) - 1)) for place, token in enumerate(tokens)]]}

    @torch.no_grad()
    def encode_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Gives T5's last hidden state; it reads its padding."""
        return self.t5(torch.tensor(rows, device=self.device)).last_hidden_state.float()

    @torch.no_grad()
    def encode_pooled(self, prompts: Sequence[str]) -> Tensor:
        """Gives CLIP's pooled vectors, of a long prompt's first 75 tokens."""
        tokens = self.clip_tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=CLIP_TOKENS, return_tensors="pt"
        )
        return self.clip(tokens["input_ids"].to(self.device)).pooler_output.float().cpu()
