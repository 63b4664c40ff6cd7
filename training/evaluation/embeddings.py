"""CLIP's and DINO's embeddings: two pictures, or a picture and a text, are as alike as the cosine of theirs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.model_folder import IMAGENET_MEAN_STD
from .cached_encoder import CachedEncoder
from .networks import open_network, open_processor

CLIP_MEAN_STD = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of red, green and blue in CLIP's training, of values from 0 to 1."""
DINO_SIDE, DINO_CROP = 256, 224


def center_crop(picture: np.ndarray, side: int, crop: int, mean_std: tuple) -> Tensor:
    """Resizes the shorter side to `side` (bicubic), crops the middle and normalises: (1, 3, crop, crop)."""
    image = Image.fromarray(picture)
    short = min(image.size)
    width, height = (int(side * length / short) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((length - crop) / 2) for length in (width, height))
    values = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32) / 255
    mean, deviation = (np.array(part, np.float32) for part in mean_std)
    return torch.from_numpy((values - mean) / deviation).movedim(-1, 0)[None]


class Clip(CachedEncoder):
    """CLIP's two encoders, of pictures and of texts."""

    def __init__(self, folder: Path, device: str):
        super().__init__()
        self.device = device
        self.network = open_network(folder, "CLIPModel", device)
        self.tokenizer = open_processor(folder, "CLIPTokenizer")

    @torch.no_grad()
    def encode(self, picture: np.ndarray) -> Tensor:
        """Returns a unit vector."""
        side = self.network.config.vision_config.image_size
        outputs = self.network.vision_model(center_crop(picture, side, side, CLIP_MEAN_STD).to(self.device))
        return normalize(self.network.visual_projection(outputs.pooler_output)[0])

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """Returns a unit vector; tokens that do not fit are left off."""
        length = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(text, truncation=True, max_length=length, return_tensors="pt").to(self.device)
        outputs = self.network.text_model(tokens.input_ids, tokens.attention_mask)
        return normalize(self.network.text_projection(outputs.pooler_output)[0])


class Dino(CachedEncoder):
    """The class token of any vision transformer that transformers opens: DINO's, or DINOv2's."""

    def __init__(self, folder: Path, device: str):
        super().__init__()
        self.device = device
        self.network = open_network(folder, "AutoModel", device)

    @torch.no_grad()
    def encode(self, picture: np.ndarray) -> Tensor:
        """Returns a unit vector."""
        outputs = self.network(center_crop(picture, DINO_SIDE, DINO_CROP, IMAGENET_MEAN_STD).to(self.device))
        return normalize(outputs.last_hidden_state[0, 0])


def normalize(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector.float(), dim=-1).cpu()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b)
