"""A subject's photos, and pictures of its class, as lessons; and where its vectors begin."""

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
from ..recipes.subject import OWN, PRIOR, Subject, SubjectRecipe

TOY_PRIOR = 64
"""Pictures of the class that the built-in world draws."""
NUDGE = 0.01
"""Vectors that begin as the same word are this much apart (our choice), or they would stay one."""


def photos(encoders: Encoders, pictures: Mapping[str, np.ndarray], subject: Subject) -> MemoryDataset:
    """Names say what a picture shows to the bit, so that a run is known by them. There is no source: the target stands
    there. With contexts of their own photos are told by the noun alone, else by the caption."""
    if not pictures:
        raise ValueError("The subject has no photos, expected 3 to 10: give some.")
    with torch.no_grad():
        target = encoders.encode(list(pictures.values()))
        context, _ = encoders.encode_prompts([subject.noun if subject.ico else subject.told])
        _, pooled = encoders.encode_prompts([subject.told])
    ids = tuple(f"{name} {digest(picture)}" for name, picture in pictures.items())
    texts = (part.expand(len(ids), *part.shape[1:]) for part in (context, pooled))
    samples = EncodedSamples(ids, (subject.told,) * len(ids), target, target, *texts)
    return MemoryDataset(OWN, samples, val_count=0)  # there are too few to hold any out


def digest(picture: np.ndarray, prompt: str = "") -> str:
    return hashlib.blake2b(picture.tobytes() + prompt.encode(), digest_size=8).hexdigest()


def prior(encoders: Encoders, pictures: Mapping[str, tuple[np.ndarray, str]]) -> MemoryDataset:
    """Pictures of the class with their prompts, named as photos are."""
    told = pictures.items()
    examples = (
        Example(f"{name} {digest(picture, prompt)}", PRIOR, prompt, picture, picture)
        for name, (picture, prompt) in told
    )
    return encode_dataset(encoders, PRIOR, examples)


def recipe_lessons(recipe: SubjectRecipe, encoders: Encoders, seed: int) -> dict[str, MemoryDataset]:
    """What a recipe names: folders, or the built-in world's own subject."""
    from ..toy.scene import SIDE
    from ..toy.subject import draw_photos, draw_prior

    subject, toy = recipe.subject, recipe.curriculum.base == "toy"
    side = SIDE if toy else recipe.curriculum.settings.resolution
    if not toy:
        refuse_missing("photos", subject.photos, "3 to 10 photos of it")
    own = folder_pictures(Path(subject.photos), side) if subject.photos else draw_photos(seed)
    found: dict[str, MemoryDataset] = {OWN: photos(encoders, own, subject)}
    if recipe.stage.replay:
        if not toy:
            refuse_missing("prior", subject.prior, "pictures of its class with their prompts")
        told = folder_told(Path(subject.prior), side) if subject.prior else draw_prior(TOY_PRIOR, seed)
        found[PRIOR] = prior(encoders, told)
    return found


def refuse_missing(name: str, folder: str, wanted: str) -> None:
    if not folder:
        raise ValueError(
            f"The recipe says no subject.{name}, which only the built-in world draws itself: set it to a folder of {wanted}."
        )


def folder_pictures(root: Path, size: int) -> dict[str, np.ndarray]:
    """As much as a square in their middle shows."""
    found = {}
    for name, files in list_files(root).items():
        if "target" in files:
            picture = read_picture(files["target"], root)
            found[name] = centre_crop(picture.shape[:2], (size, size)).picture(picture)
    return found


def folder_told(root: Path, size: int) -> dict[str, tuple[np.ndarray, str]]:
    """Those that have a prompt."""
    prompts = {name: files["prompt"] for name, files in list_files(root).items() if "prompt" in files}
    pictures = folder_pictures(root, size)
    return {name: (pictures[name], read_prompt(path, root)) for name, path in prompts.items() if name in pictures}


def beginnings(encoders: Encoders, subject: Subject, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The concept's vectors (tokens, width) begin as the noun's, every photo's (photos, contexts, width) as the rest of
    the caption's, or, where it has no other word, as what an encoder leaves behind a prompt."""
    generator = torch.Generator().manual_seed(seed)
    words, rows = encoders.find_words(subject.marked), encoders.encode_prompts([subject.told])[0][0].float().cpu()
    others = [row for row in range(words.prompt_length) if row not in words.noun] or [-1]
    concept = nudged(rows[list(words.noun)], (subject.tokens,), generator)
    return concept, nudged(rows[others], (count, subject.contexts), generator)


def nudged(rows: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The rows in turn, for the last of `shape`."""
    turn = rows[torch.arange(shape[-1]) % len(rows)]
    return turn + NUDGE * rows.std() * torch.randn(*shape, rows.shape[1], generator=generator)
