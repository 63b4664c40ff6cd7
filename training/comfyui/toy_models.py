"""The built-in toy world as MODEL, CLIP and VAE: what makes the pack run before anything is downloaded."""

import comfy.sd
import comfy.utils
import torch
from torch import Tensor, nn

from ..from_scratch.store import BANK, FLUX, TEXT, VAE
from ..from_scratch.text import HOST_KEY, TextEncoder, tokenize_as_host
from ..toy.store import SHIPPED
from ..toy.text import LANGUAGE

BANK_PATH = SHIPPED / BANK


def load_toy_model(options: dict):
    return comfy.sd.load_diffusion_model(str(SHIPPED / FLUX), model_options=options)


def load_toy_vae():
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(SHIPPED / VAE), safe_load=True))


def load_toy_clip():
    weights = comfy.utils.load_torch_file(str(SHIPPED / TEXT), safe_load=True)
    return comfy.sd.CLIP(_ClipTarget(), state_dict=[weights], parameters=sum(w.numel() for w in weights.values()))


class ToyTokenizer:
    """A text is a row of words; there are no weights to them, so "(word:1.2)" is read as word."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        self.reader = TextEncoder(LANGUAGE)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict:
        return tokenize_as_host(self.reader, text, return_word_ids)

    def untokenize(self, pairs):
        names = {index: word for word, index in self.reader.index.items()}
        return [(pair, names.get(pair[0], "")) for pair in pairs]

    def state_dict(self) -> dict:
        return {}


class ToyTextModel(nn.Module):
    """The toy text encoder, as the host calls one."""

    def __init__(self, dtype=None, device=None, model_options=None):
        super().__init__()
        self.encoder = TextEncoder(LANGUAGE).to(device=device, dtype=torch.float32).requires_grad_(False).eval()
        self.dtypes = {torch.float32}

    def set_clip_options(self, options: dict) -> None: ...

    def reset_clip_options(self) -> None: ...

    def encode_token_weights(self, tokens: dict) -> tuple[Tensor, Tensor]:
        rows = [[entry[0] for entry in row] for row in tokens[HOST_KEY]]
        device = self.encoder.slots.device
        return self.encoder(torch.tensor(rows, device=device))

    def load_sd(self, weights: dict):
        return self.encoder.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)


class _ClipTarget:
    """The parts of a text encoder that comfy.sd.CLIP builds."""

    params: dict = {}
    clip = ToyTextModel
    tokenizer = ToyTokenizer
