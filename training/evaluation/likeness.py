"""How alike two pictures, or a picture and words, are: cosines of CLIP's and DINO's embeddings."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .embedding_cache import Looker
from .networks import network, preparation

CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DINO_SIDE, DINO_CROP = 256, 224


def centred(picture: np.ndarray, side: int, crop: int, colours: tuple) -> Tensor:
    """Shorter side bicubic to `side`, the middle of it, normalised: (1, 3, crop, crop)."""
    image = Image.fromarray(picture)
    short = min(image.size)
    width, height = (int(side * length / short) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((length - crop) / 2) for length in (width, height))
    values = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32) / 255
    mean, deviation = (np.array(part, np.float32) for part in colours)
    return torch.from_numpy((values - mean) / deviation).movedim(-1, 0)[None]


class Clip(Looker):
    def __init__(self, folder: Path, device: str):
        super().__init__()
        self.device = device
        self.network = network(folder, "CLIPModel", device)
        self.tokenizer = preparation(folder, "CLIPTokenizer")

    @torch.no_grad()
    def look(self, picture: np.ndarray) -> Tensor:
        """A unit vector."""
        side = self.network.config.vision_config.image_size
        seen = self.network.vision_model(centred(picture, side, side, CLIP_COLOURS).to(self.device))
        return unit(self.network.visual_projection(seen.pooler_output)[0])

    @torch.no_grad()
    def text(self, words: str) -> Tensor:
        """A unit vector; what does not fit is left off."""
        most = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(words, truncation=True, max_length=most, return_tensors="pt").to(self.device)
        read = self.network.text_model(tokens.input_ids, tokens.attention_mask)
        return unit(self.network.text_projection(read.pooler_output)[0])


class Dino(Looker):
    """The class token of any vision transformer that transformers opens: DINO's, or DINOv2's."""

    def __init__(self, folder: Path, device: str):
        super().__init__()
        self.device = device
        self.network = network(folder, "AutoModel", device)

    @torch.no_grad()
    def look(self, picture: np.ndarray) -> Tensor:
        """A unit vector."""
        seen = self.network(centred(picture, DINO_SIDE, DINO_CROP, IMAGENET_COLOURS).to(self.device))
        return unit(seen.last_hidden_state[0, 0])


def unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector.float(), dim=-1).cpu()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b)
