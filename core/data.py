"""Reading text documents, and fetching the files that a model trains on by default."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tfx.core.errors import DataError

CONNECT_SECONDS, READ_SECONDS = 5, 10


def read_documents(path: Path) -> list[str]:
    """The documents of a UTF-8 text file, one a line, stripped; empty lines are dropped.

    Raises:
        DataError: the file is missing, a directory, unreadable, empty, not UTF-8 text, or
            holds no document.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no data file {path}; expected a text file, one document a line") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory; name one text file inside it") from None
    except OSError as error:
        raise DataError(f"cannot read data file {path}: {error.strerror}") from None
    if not raw:
        raise DataError(f"data file {path} is empty; expected one document a line")
    text = _decode(raw, path)
    documents = [line.strip() for line in text.split("\n") if line.strip()]
    if not documents:
        raise DataError(f"data file {path} has only empty lines; expected one document a line")
    return documents


def _decode(raw: bytes, path: Path) -> str:
    nul = raw.find(b"\0")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start if nul < 0 else min(nul, error.start)
    else:
        offset = nul
    if offset >= 0:
        raise DataError(
            f"data file {path} is not UTF-8 text: byte 0x{raw[offset]:02x} at offset {offset}; "
            "convert it to UTF-8, one document a line"
        )
    return text.removeprefix("\ufeff")  # some editors mark UTF-8 with an invisible character


@dataclass(frozen=True)
class RemoteFile:
    """A file that may be fetched: its name in the cache, its address, and its SHA-256 (hex)."""

    name: str
    url: str
    sha256: str


def data_dir() -> Path:
    """Where fetched files are kept: `TFX_DATA_DIR`, else tfx's folder in the user's cache."""
    return Path(os.environ.get("TFX_DATA_DIR") or platformdirs.user_cache_dir("tfx"))


def is_offline() -> bool:
    """Whether `TFX_OFFLINE` forbids downloads."""
    return os.environ.get("TFX_OFFLINE", "") not in ("", "0")


def obtain(file: RemoteFile, note: Callable[[str], None]) -> Path:
    """The path of `file` with the right contents: from the cache, else downloaded into it.

    A cached file with other contents is kept beside the new one as `NAME.damaged`, and `note`
    says so. The download shows its progress on a terminal, gives up soon where there is no
    connection, and appears under its name only when it is complete and its SHA-256 is right.
    `TFX_OFFLINE=1` allows the cache only.

    Raises:
        DataError: the file cannot be had; says what ails the cache and why no download.
    """
    path = data_dir() / file.name
    fault = _fault(path, file)
    if fault is None:
        return path
    if is_offline():
        raise DataError(f"{path} {fault} and TFX_OFFLINE forbids a download")
    try:
        _download(file, path, note)
    except OSError as error:
        raise DataError(f"{path} {fault} and no download: {_cause(error)}") from None
    return path


def _fault(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with the cached copy at `path`, as a verb clause; None when it is right."""
    try:
        found = _sha256(path)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if found == file.sha256 else "is damaged (its sha256 is not the known one)"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(file: RemoteFile, path: Path, note: Callable[[str], None]) -> None:
    from pooch import HTTPDownloader

    fetch = HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=(CONNECT_SECONDS, READ_SECONDS))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{file.name}.") as folder:
        fresh = Path(folder) / file.name
        fetch(file.url, str(fresh), None)
        if _sha256(fresh) != file.sha256:
            raise OSError(f"{file.url} sent another file (its sha256 differs)")
        if path.exists():
            damaged = path.replace(path.with_name(file.name + ".damaged"))
            note(f"{path} was damaged and has been fetched again; the old file is {damaged}")
        fresh.replace(path)


def _cause(error: BaseException) -> str:
    """What lies at the bottom of a chain of exceptions, in one line."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__
