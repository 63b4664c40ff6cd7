"""The JSON form of what a bank says of itself (`prw/config.py`), read strictly."""

import json
from typing import Any

from ..base_model import Base
from ..config import BankInfo, ExpertInfo, RouterInfo, SourceInfo
from ..files.errors import BankError
from ..files.file_metadata import SIZE_LIMIT
from ..files.plain_data import to_plain
from ..files.validate import build, check_keys, check_type, shorten

FORMAT = "cologen-bank"
VERSION = 4
"""2: habits, the target proj, scales, shared down matrices, usage. 3: the base's family, the sources' position. 4: parents."""


def encode_info(info: BankInfo) -> str:
    """Encodes the info as a file's metadata."""
    data = to_plain(info)
    # a bank that says nothing new is written as packs of older versions read it
    version = 3 if "family" in data["base"] or "position" in data["source"] else 2
    if any("parent" in expert for expert in data["experts"].values()):
        version = VERSION
    text = json.dumps({"format": FORMAT, "version": version, **data})
    if len(text) > SIZE_LIMIT:
        raise BankError(
            f"The bank's metadata is {len(text)} characters long, expected at most {SIZE_LIMIT}: split the bank."
        )
    return text


def decode_info(text: str | None, name: str) -> BankInfo:
    """Decodes the info in a file's metadata; raises a BankError that names the file."""
    if text is None:
        raise BankError(f"{name} is a safetensors file but no CoLoGen bank: it has no CoLoGen metadata.")
    try:
        if len(text) > SIZE_LIMIT:
            raise ValueError(f"it is {len(text)} characters long, expected at most {SIZE_LIMIT}")
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f'it does not say "format": "{FORMAT}"')
        version = data.pop("version", None)
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"its version is {shorten(version)}, expected a number")
        if version > VERSION:
            raise BankError(
                f"{name} is a bank of version {shorten(version)}, this pack reads up to {VERSION}: update the pack."
            )
        return _build_bank_info(data)
    except BankError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        raise BankError(f"{name} has metadata that cannot be used ({shorten(error)}): it is no valid bank.") from None


def _build_bank_info(data: dict[str, Any]) -> BankInfo:
    if data.get("models"):
        raise ValueError("it names whole models, which no bank file holds")
    named = {"experts": ExpertInfo, "routers": RouterInfo}
    whole = {"base": Base, "source": SourceInfo}
    for key, cls in named.items():
        entries = check_type(key, data.get(key, {}), dict)
        data[key] = {name: build(cls, entry, f"{key}.{shorten(name)}") for name, entry in entries.items()}
    for key, cls in whole.items():
        data[key] = build(cls, data.get(key, {}), key)
    check_type("licence", data.get("licence", ""), str)
    return BankInfo(**check_keys(BankInfo, data, "metadata"))
