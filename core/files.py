"""Files that are whole or absent: written under another name, forced to disk, then renamed.

Everything here raises `OSError`; the callers know what the file was for and say so.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path


def shown(path: Path) -> str:
    """The path for a one-line message: as it is, or quoted where it holds control characters."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def reason(error: OSError | ValueError) -> str:
    """What the operating system had against it, without the path: `No space left on device`.

    `ValueError` is what Python raises for a path with a NUL in it, or too long a map.
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)


def is_plain_name(name: str) -> bool:
    """Whether a name can mean nothing but an entry of one folder, on any system.

    >>> [is_plain_name(name) for name in ("a.safetensors", "..", "a/b", "C:a", "")]
    [True, False, False, False, False]
    """
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\:")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file (or a link to one) for reading; `OSError` for anything else.

    Asking first matters: opening a pipe would wait for a writer, perhaps for ever.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; give the file in it")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a regular file")
    return open(path, "rb")


def replace_file(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` (flat byte buffers) so that `path` is at any moment the old file or the new.

    The bytes go to a temporary file in the same folder, which is forced to disk before it
    takes the name; a link of that name is replaced, not followed. The temporary file is removed
    when anything fails; only a kill can leave it behind, as a hidden `.tfx-*.tmp`.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it exists and is not a regular file")
    temporary = path.with_name(f".tfx-{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(temporary, flags, 0o666)
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def _write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, each entry forced to disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """A new hidden folder beside `path`, an absolute one, to be filled and renamed to it.

    What was not renamed is removed; only a kill can leave it behind, as a hidden `.NAME.*.tmp`.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Force a folder's entries (names, renames) to disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # network file systems that do not know the operation
            raise
    finally:
        os.close(descriptor)
