"""Files that a command writes where somebody says: looked at before the work, not after it.

What is there already is replaced only by its like: a slip of the finger destroys nothing.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from tfx.core.errors import TfxError, UsageError
from tfx.core.files import reason, shown

SIZE = 2**26
"""A file of more bytes was not written by these commands."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        suffixes: what its name ends in.
        mark: what stands in each that a command wrote.
    """

    suffixes: tuple[str, ...]
    mark: bytes

    def has(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes

    @property
    def wanted(self) -> str:
        return f"expected a name that ends in {', '.join(self.suffixes)}"


PICTURE = Kind((".png", ".svg", ".pdf"), b"Matplotlib")
PAGE = Kind((".html", ".htm"), b'<meta name="generator" content="tfx explain">')
REPORT = Kind((".json",), b'"unwritten": ')


def check_destination(flag: str, path: Path, kind: Kind) -> None:
    """Find out that a file of that kind cannot be written there, or must not be.

    Raises:
        UsageError: the name is of another kind, or in no folder.
        TfxError: something else is there, or the system refuses.
    """
    if not kind.has(path):
        raise UsageError(f"{flag} {shown(path)}: {kind.wanted}")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {shown(path)}: there is no folder {shown(path.parent)}")
    try:
        is_new = not path.exists()
        if not (is_new or path.is_file()):
            raise OSError(errno.EINVAL, "it is not a regular file")
        ours = is_new or _is_ours(path, kind)
        if ours:
            path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise TfxError(f"{flag}: cannot write {shown(path)}: {reason(error)}") from None
    if not ours:
        raise TfxError(
            f"{flag} {shown(path)}: the file that is there was not written by tfx; choose another "
            "name, or remove it"
        )


def _is_ours(path: Path, kind: Kind) -> bool:
    """Whether nothing is lost with a file: it is empty, or one that would be written again."""
    size = path.stat().st_size
    return not size or (size <= SIZE and kind.mark in path.read_bytes())
