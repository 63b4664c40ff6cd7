"""Opens pictures and prompts that come from somebody else's folder.

Nothing outside the folder is opened, no format but three, no picture before its size is known, and whatever a damaged
file makes its decoder raise becomes a `BrokenFile`.
"""

import io
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ....prw.files.errors import show_as_ours
from ....prw.files.regular_file import read_regular
from ....prw.files.validate import escape_controls, shorten

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 64 * 10**6
MAX_PROMPT = 64 * 1024
MAX_BYTES = 64 * 2**20
"""Largest file, or picture within a larger file."""


@show_as_ours
class BrokenFile(ValueError):
    """A file or a record that cannot be used, and why: one line, whatever names strangers give."""

    def __init__(self, sentence: str):
        super().__init__(escape_controls(sentence))


def resolve_inside(path: Path, root: Path) -> Path:
    """Resolves a path to the file itself, behind links; it must lie in the folder."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # a link to nothing or to itself, no name for a file
        raise BrokenFile(f"{shorten(path.name)} leads nowhere") from error
    if not real.is_relative_to(root.resolve()):
        raise BrokenFile(f"{shorten(path.name)} leads out of the folder")
    if not real.is_file():
        raise BrokenFile(f"{path.name} is not a file")
    return real


def read_prompt(path: Path, root: Path) -> str:
    try:
        with resolve_inside(path, root).open("rb") as file:
            text = file.read(MAX_PROMPT + 1)
        if len(text) > MAX_PROMPT:
            raise BrokenFile(f"{path.name} is longer than {MAX_PROMPT} bytes")
        return text.decode("utf-8-sig").strip()
    except (OSError, UnicodeError) as error:
        raise BrokenFile(f"{path.name} cannot be read as text ({shorten(error)})") from error


def join_below(root: Path, name: str) -> Path:
    """Joins the path of a file that a list names. The list may come from anybody;
    links that lie there are the user's own."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or ":" in name or parts.is_absolute() or ".." in parts.parts:
        raise BrokenFile(f"{shorten(name)} leads out of the folder")
    return root / parts


def read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise BrokenFile(f"{path.name} cannot be read ({error.strerror or shorten(error)})") from None


def open_picture(path: Path, root: Path) -> Image.Image:
    """Reads its header; the pixels are not decoded yet."""
    return open_header(resolve_inside(path, root), path.name)


def open_header(file: Path | BinaryIO, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except Exception as error:  # a damaged header can raise anything
        raise BrokenFile(f"{name} is not a picture that can be read ({shorten(error)})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BrokenFile(f"{name} has {image.width} x {image.height} pixels, expected {MAX_PIXELS} at most")
    return image


def read_picture(path: Path, root: Path) -> np.ndarray:
    with open_picture(path, root) as image:
        return read_pixels(image, path.name)


def decode_picture(data: bytes, name: str) -> np.ndarray:
    with open_header(io.BytesIO(data), name) as image:
        return read_pixels(image, name)


def decode_labels(data: bytes, name: str) -> np.ndarray:
    """Decodes a picture whose numbers are classes; its palette is only for people."""
    with open_header(io.BytesIO(data), name) as image:
        if len(image.getbands()) > 1:
            raise BrokenFile(f"{name} is a {image.mode} picture, expected one number a pixel")
        return decode(lambda: np.array(image), name)


def read_pixels(image: Image.Image, name: str) -> np.ndarray:
    return decode(lambda: np.array(to_rgb(ImageOps.exif_transpose(image))), name)


def decode(load: Callable[[], np.ndarray], name: str) -> np.ndarray:
    """Calls what decodes the pixels."""
    try:
        return load()
    except Exception as error:  # so can damaged pixels
        raise BrokenFile(f"{name} is damaged ({shorten(error)})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Keeps the upper eight of 16 bits; what is transparent becomes white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.array(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")
