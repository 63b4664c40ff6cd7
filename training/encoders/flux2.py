"""FLUX.2's encoders where there is no ComfyUI, for klein: Qwen3's states after three layers, and a VAE of 32 channels.

Both are equal to the host's own. FLUX.2-dev's Mistral is not opened here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ...prw.flux.families import FLUX2
from .from_files import EncoderFiles, FileEncoders, open_tokenizer
from .open_flux2 import LAYERS, open_flux2_vae, open_qwen3, open_qwen3_file, read_qwen3_config

PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""Qwen3's chat template of one message whose answer begins without thinking."""
WORDS = 151646
"""Words that its tokenizer knows at least."""
PACK = "b c (h ph) (w pw) -> b (c ph pw) h w"
UNPACK = "b (c ph pw) h w -> b c (h ph) (w pw)"


@dataclass(frozen=True)
class Flux2Files(EncoderFiles):
    """The table [encoders] for FLUX.2 klein; vae: flux2-vae.safetensors."""

    qwen3: str = ""
    """qwen_3_4b.safetensors for klein 4B, qwen_3_8b.safetensors or qwen_3_8b_fp8mixed.safetensors for 9B."""
    qwen3_tokenizer: str = ""
    """A folder; empty: the one in this machine's ComfyUI."""


class Flux2Encoders(FileEncoders[Flux2Files]):
    """FLUX.2's VAE and Qwen3."""

    family, needed, pad = FLUX2, ("qwen3", "vae"), 151643

    @cached_property
    def qwen3(self) -> Any:
        return open_qwen3(Path(self.files.qwen3), self.device, self.dtype)

    @cached_property
    def vae(self) -> Any:
        return open_flux2_vae(Path(self.files.vae), self.device, self.dtype)

    @cached_property
    def context_width(self) -> int:
        return len(LAYERS) * read_qwen3_config(open_qwen3_file(Path(self.files.qwen3))).hidden_size

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import Qwen2Tokenizer

        hosts = "comfy/text_encoders/qwen25_tokenizer"
        return open_tokenizer(Qwen2Tokenizer, self.files.qwen3_tokenizer, hosts, WORDS, "qwen3_tokenizer")

    def tokenize_unpadded(self, prompts: Sequence[str]) -> list[list[int]]:
        """Gives Qwen3's tokens, the template's among them."""
        return self.tokenizer([PROMPT.format(prompt) for prompt in prompts])["input_ids"]

    def tokenize_as_host(self, prompt: str) -> dict[str, list]:
        """Answers as the host's tokenizer, for which the template's tokens are words, too."""
        return {"qwen3_4b": [[(token, 1.0, 1) for token in self.tokenize_unpadded([prompt])[0]]]}

    @torch.no_grad()
    def encode_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Joins the states after three layers; no token reads padding, but padding has rows as all tokens."""
        tokens = torch.tensor(rows, device=self.device)
        states = self.qwen3(tokens, attention_mask=(tokens != self.pad).long(), output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in LAYERS], dim=-1).float()

    def encode_pooled(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 0)

    def encode_mean(self, pixels: Tensor) -> Tensor:
        """Packs 2 x 2 of the VAE's latents into one and normalizes each channel by the VAE's running statistics."""
        mean, std = self._read_statistics()
        return (rearrange(super().encode_mean(pixels), PACK, ph=2, pw=2) - mean) / std

    def decode_latents(self, latents: Tensor) -> Tensor:
        mean, std = self._read_statistics()
        return super().decode_latents(rearrange(latents * std + mean, UNPACK, ph=2, pw=2))

    def _read_statistics(self) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        return norm.running_mean[:, None, None], (norm.running_var + norm.eps).sqrt()[:, None, None]
