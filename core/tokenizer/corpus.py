"""The texts that a vocabulary is learnt from: files as they are, no character changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tfx.core.errors import DataError
from tfx.core.files import open_regular, reason, shown


def read_texts(path: Path) -> Iterator[str]:
    """The text of a file; of a folder, that of each `.txt` file in it or below, in order of path.

    Raises:
        DataError: there is no such file, none in the folder, no text in any, or one is not UTF-8.
    """
    empty = True
    for file in _text_files(path):
        text = _read(file)
        empty = empty and not text
        yield text
    if empty:
        raise DataError(f"{shown(path)} is empty; expected some text")


def _text_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*.txt") if file.is_file())
    if not files:
        raise DataError(f"the folder {shown(path)} has no .txt file in it or below")
    return files


def _read(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            raw = opened.read()
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(file)} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset "
            f"{error.start}; convert it to UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the data file {shown(file)}: {reason(error)}") from None
