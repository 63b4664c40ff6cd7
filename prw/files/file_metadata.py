"""What a small file of ours says of itself in its metadata: a dataclass as JSON, under a name and a version."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from .errors import FileError
from .safe_file import SafeFile
from .validate import build, shorten

SIZE_LIMIT = 1 << 20
"""Characters of metadata that are read: the rest of a header may be anybody's."""


@dataclass(frozen=True)
class Label:
    kind: type
    """Of dataclass."""
    format: str
    what: str
    """People call the file so."""
    maker: str
    version: int = 1

    @property
    def key(self) -> str:
        return self.format.replace("-", "_")

    def metadata(self, info: Any) -> dict[str, str]:
        return {self.key: json.dumps({"format": self.format, "version": self.version, **asdict(info)})}

    def read(self, file: SafeFile) -> Any:
        """The dataclass, or a FileError that names the file."""
        text, name = file.metadata.get(self.key), file.name
        try:
            data = json.loads(text if text is not None and len(text) <= SIZE_LIMIT else "null")
            if not isinstance(data, dict) or data.pop("format", None) != self.format:
                raise FileError(f"{name} is no CoLoGen {self.what}: choose a file that {self.maker} made.")
            version = data.pop("version", None)
            if not isinstance(version, int) or not 1 <= version <= self.version:
                raise FileError(
                    f"{name} is a {self.what} of version {shorten(version)}, expected {self.version}: update the pack."
                )
            return build(self.kind, data, "metadata")
        except FileError:
            raise
        except (ValueError, OverflowError, RecursionError) as error:
            raise FileError(
                f"{name} has metadata that cannot be used ({shorten(error)}): it is no valid {self.what}."
            ) from None
