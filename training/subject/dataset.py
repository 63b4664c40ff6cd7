"""Encodes a subject's photos and pictures of its class, and initializes its vectors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.encoded.dataset import MemoryDataset
from ..data.encoded.encode import encode_dataset
from ..data.encoded.samples import EncodedSamples
from ..data.formats.picture_files import read_picture, read_prompt
from ..data.geometry import centre_crop
from ..data.sample import Example
from ..data.sets.folder import list_files
from ..encoders.protocol import Encoders
from ..from_scratch.world import World
from ..recipes.subject import OWN, PRIOR, Subject, SubjectRecipe

DRAWN_PRIOR = 64
"""Pictures of the class that a built-in world draws."""
NUDGE = 0.01
"""Noise, of the vectors' own deviation, between those that begin as one word (our choice), or they would stay one."""


def encode_photos(encoders: Encoders, pictures: Mapping[str, np.ndarray], subject: Subject) -> MemoryDataset:
    """Encodes photos by name; none is held out, for there are too few of them.

    An id has a hash of its picture, so that a run is known by its ids. There is no source: the target stands there.
    With contexts of their own (subject.ico) the photos' prompt is the noun alone, else the caption.
    """
    if not pictures:
        raise ValueError("The subject has no photos, expected 3 to 10: give some.")
    with torch.no_grad():
        target = encoders.encode(list(pictures.values()))
        context, _ = encoders.encode_prompts([subject.noun if subject.ico else subject.prompt])
        _, pooled = encoders.encode_prompts([subject.prompt])
    ids = tuple(f"{name} {hash_picture(picture)}" for name, picture in pictures.items())
    texts = (part.expand(len(ids), *part.shape[1:]) for part in (context, pooled))
    samples = EncodedSamples(ids, (subject.prompt,) * len(ids), target, target, *texts)
    return MemoryDataset(OWN, samples, val_count=0)


def hash_picture(picture: np.ndarray, prompt: str = "") -> str:
    return hashlib.blake2b(picture.tobytes() + prompt.encode(), digest_size=8).hexdigest()


def encode_prior(encoders: Encoders, pictures: Mapping[str, tuple[np.ndarray, str]]) -> MemoryDataset:
    """Encodes pictures of the class with their prompts, named as photos are."""
    examples = (
        Example(f"{name} {hash_picture(picture, prompt)}", PRIOR, prompt, picture, picture)
        for name, (picture, prompt) in pictures.items()
    )
    return encode_dataset(encoders, PRIOR, examples)


def open_subject_datasets(
    recipe: SubjectRecipe, encoders: Encoders, seed: int, world: World | None = None
) -> dict[str, MemoryDataset]:
    """Encodes what a recipe names, by task: folders, or the own subject of the built-in world that its base is of."""
    subject, own = recipe.subject, world.subject if world else None
    side = world.side if world else recipe.curriculum.settings.resolution
    if own is None or subject.photos:
        check_named("photos", subject.photos, "3 to 10 photos of it")
        photos = read_pictures(Path(subject.photos), side)
    else:
        photos = own.draw_photos(seed)
    datasets = {OWN: encode_photos(encoders, photos, subject)}
    if recipe.stage.replay:
        if own is None or subject.prior:
            check_named("prior", subject.prior, "pictures of its class with their prompts")
            prior = read_captioned(Path(subject.prior), side)
        else:
            prior = own.draw_prior(DRAWN_PRIOR, seed)
        datasets[PRIOR] = encode_prior(encoders, prior)
    return datasets


def check_named(name: str, folder: str, wanted: str) -> None:
    """Refuses a recipe that names no folder under subject.NAME."""
    if not folder:
        raise ValueError(
            f"The recipe says no subject.{name}, which only the built-in world draws itself: set it to a folder of {wanted}."
        )


def read_pictures(root: Path, size: int) -> dict[str, np.ndarray]:
    """Reads a folder's pictures, cropped to a square in their middle, uint8 (size, size, 3)."""
    pictures = {}
    for name, files in list_files(root).items():
        if "target" in files:
            picture = read_picture(files["target"], root)
            pictures[name] = centre_crop(picture.shape[:2], (size, size)).picture(picture)
    return pictures


def read_captioned(root: Path, size: int) -> dict[str, tuple[np.ndarray, str]]:
    """Reads a folder's pictures that have a prompt, with it."""
    prompts = {name: files["prompt"] for name, files in list_files(root).items() if "prompt" in files}
    pictures = read_pictures(root, size)
    return {name: (pictures[name], read_prompt(path, root)) for name, path in prompts.items() if name in pictures}


def init_vectors(encoders: Encoders, subject: Subject, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gives the vectors with which training begins: the concept's (tokens, width) and `count` photos' contexts.

    The concept's are the noun's, a photo's (count, contexts, width) those of the caption's other words, or, where it
    has none, the one that an encoder leaves behind a prompt.
    """
    generator = torch.Generator().manual_seed(seed)
    words, rows = (
        encoders.find_words(subject.marked_prompt),
        encoders.encode_prompts([subject.prompt])[0][0].float().cpu(),
    )
    others = [row for row in range(words.prompt_length) if row not in words.noun] or [-1]
    concept = repeat_with_noise(rows[list(words.noun)], (subject.tokens,), generator)
    return concept, repeat_with_noise(rows[others], (count, subject.contexts), generator)


def repeat_with_noise(rows: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Repeats rows (rows, width) along the last of `shape`, with a little noise: (*shape, width)."""
    repeated = rows[torch.arange(shape[-1]) % len(rows)]
    return repeated + NUDGE * rows.std() * torch.randn(*shape, rows.shape[1], generator=generator)
