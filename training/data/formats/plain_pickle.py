"""Pickles that hold nothing but lists, dicts, texts and numbers, as RefCOCO's do.

A pickle is a program. Here every instruction that could name, build or call something is missing, and so is the
one that fetches from outside; what is left can only make plain values out of the file's own bytes.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....prw.files.regular_file import read_regular
from ....prw.files.validate import shorten
from .picture_files import BrokenFile

MAX_BYTES = 2**30
NAMES = """MARK STOP POP POP_MARK DUP INT BININT BININT1 BININT2 LONG LONG1 LONG4 NONE NEWTRUE NEWFALSE FLOAT BINFLOAT
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
LIST APPEND APPENDS EMPTY_LIST DICT SETITEM SETITEMS EMPTY_DICT
PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE PROTO FRAME""".split()


class AllowedOpcodes(dict):
    """What each instruction that is allowed does; the others raise."""

    def __missing__(self, code: int) -> None:
        known = {opcode.code: opcode.name for opcode in pickletools.opcodes}.get(chr(code))
        instruction = f"the instruction {known}, which could run code" if known else f"a byte {code} that is none"
        raise BrokenFile(f"it holds {instruction}")


def wrap_last(count: int) -> Callable[["PlainUnpickler"], None]:
    """Makes an instruction that puts the stack's last values into one list."""

    def wrap(unpickler: "PlainUnpickler") -> None:
        start = len(unpickler.stack) - count
        unpickler.stack[start:] = [unpickler.stack[start:]]

    return wrap


class PlainUnpickler(pickle._Unpickler):
    """The one written in Python: its memo is a dict, where the other fills memory up to the largest index it is told.

    Tuples become lists, which are no keys: to hash one that holds another twice, which holds another twice, takes for ever.
    """

    stack: list[Any]
    dispatch = AllowedOpcodes(
        (code, pickle._Unpickler.dispatch[code]) for (code,) in (getattr(pickle, name) for name in NAMES)
    )
    dispatch[pickle.TUPLE[0]] = pickle._Unpickler.dispatch[pickle.LIST[0]]
    for count, (code,) in enumerate((pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)):
        dispatch[code] = wrap_last(count)


def load_plain(path: Path) -> Any:
    """Loads a pickle's plain values."""
    try:
        # from memory: a file would be asked for as many bytes as an instruction claims
        return PlainUnpickler(io.BytesIO(read_regular(path, MAX_BYTES)), encoding="latin1").load()
    except Exception as error:  # a damaged one can raise anything
        raise BrokenFile(
            f"{path.name} is no plain pickle ({shorten(error) or type(error).__name__}), expected lists, dicts, texts and "
            f"numbers alone: download it again."
        ) from None
