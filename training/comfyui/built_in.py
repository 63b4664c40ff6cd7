"""The built-in worlds as MODEL, CLIP and VAE: what makes the pack run before anything is downloaded."""

from functools import partial
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from torch import Tensor, nn

from ..from_scratch.store import FLUX, TEXT, VAE, find_parts, read_weights
from ..from_scratch.text import HOST_KEY, TextEncoder, tokenize_as_host
from ..from_scratch.world import Language, World
from ..setup.worlds import WORLDS

BUILT_IN = {world.choice: world for world in WORLDS.values()}


def list_built_in(file: str = FLUX) -> list[str]:
    """Lists the worlds whose FLUX, or whose BANK, is there."""
    return [name for name, world in BUILT_IN.items() if find_parts(world.folder / file)]


def load_model(world: World, options: dict):
    path = world.folder / FLUX
    if path.exists():
        return comfy.sd.load_diffusion_model(str(path), model_options=options)
    return load_parts(path, options)


def load_parts(path: Path, options: dict, **more):
    """Loads a FLUX that lies in several files; the host's loader takes one."""
    model = comfy.sd.load_diffusion_model_state_dict(read_weights(path), model_options=options, **more)
    model.cached_patcher_init = (load_parts, (path, options))
    return model


def load_vae(world: World):
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(world.folder / VAE), safe_load=True))


def load_clip(world: World):
    weights = comfy.utils.load_torch_file(str(world.folder / TEXT), safe_load=True)
    size = sum(weight.numel() for weight in weights.values())
    return comfy.sd.CLIP(_ClipTarget(world.language), state_dict=[weights], parameters=size)


class WorldTokenizer:
    """A text is a row of words; there are no weights to them, so "(word:1.2)" is read as word."""

    def __init__(self, language: Language, embedding_directory=None, tokenizer_data=None):
        self.reader = TextEncoder(language)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict:
        return tokenize_as_host(self.reader, text, return_word_ids)

    def untokenize(self, pairs):
        names = {index: word for word, index in self.reader.index.items()}
        return [(pair, names.get(pair[0], "")) for pair in pairs]

    def state_dict(self) -> dict:
        return {}


class WorldTextModel(nn.Module):
    """A world's text encoder, as the host calls one."""

    def __init__(self, language: Language, dtype=None, device=None, model_options=None):
        super().__init__()
        self.encoder = TextEncoder(language).to(device=device, dtype=torch.float32).requires_grad_(False).eval()
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

    def __init__(self, language: Language):
        self.params: dict = {}
        self.clip, self.tokenizer = partial(WorldTextModel, language), partial(WorldTokenizer, language)
