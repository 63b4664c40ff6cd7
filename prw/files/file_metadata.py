"""What a small file of ours says of itself in its metadata: a dataclass as JSON, under a name and a version."""

import json
from dataclasses import dataclass
from typing import Any

from .errors import FileError
from .plain_data import to_plain
from .safe_file import SafeFile
from .validate import build, shorten

SIZE_LIMIT = 1 << 20
"""Characters of metadata that are read: the rest of a header may be anybody's."""


@dataclass(frozen=True)
class FileMetadata:
    """The metadata of one kind of file."""

    info_class: type
    """The dataclass that it holds."""
    format: str
    description: str
    """What people call such a file."""
    maker: str
    """What makes such files."""
    version: int = 1

    @property
    def key(self) -> str:
        return self.format.replace("-", "_")

    def encode(self, info: Any) -> dict[str, str]:
        """Encodes the dataclass as a safetensors file's metadata."""
        return {self.key: json.dumps({"format": self.format, "version": self.version, **to_plain(info)})}

    def decode(self, file: SafeFile) -> Any:
        """Decodes the dataclass; raises a FileError that names the file."""
        text, name = file.metadata.get(self.key), file.name
        try:
            data = json.loads(text if text is not None and len(text) <= SIZE_LIMIT else "null")
            if not isinstance(data, dict) or data.pop("format", None) != self.format:
                raise FileError(f"{name} is no CoLoGen {self.description}: choose a file that {self.maker} made.")
            version = data.pop("version", None)
            if not isinstance(version, int) or version < 1:
                raise ValueError(f"its version is {shorten(version)}, expected a number")
            if version > self.version:
                raise FileError(
                    f"{name} is a {self.description} of version {shorten(version)}, this pack reads up to {self.version}: "
                    f"update the pack."
                )
            return build(self.info_class, data, "metadata")
        except FileError:
            raise
        except (ValueError, OverflowError, RecursionError) as error:
            raise FileError(
                f"{name} has metadata that cannot be used ({shorten(error)}): it is no valid {self.description}."
            ) from None
