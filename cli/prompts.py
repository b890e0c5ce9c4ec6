"""Where prompts come from: the command line, a file, stdin, or JSON lines."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from tfx.core.errors import DataError, UsageError
from tfx.core.json_file import object_in
from tfx.core.wording import in_words, quoted

STDIN = "-"

Prompt = str | tuple[int, ...]
"""A text, or the ids of its tokens."""


def only_one(given: dict[str, object]) -> None:
    """Refuse prompts from two places."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{in_words(names)} each give a prompt; keep one of them")


def text_of(file: Path | None) -> str | None:
    """The prompt in a file; without one, what is piped in, or None.

    The line feed that ends a file or the output of another program is not part of it.
    """
    if file is None and not _is_piped():
        return None
    text = _read(file or Path(STDIN)).removesuffix("\n").removesuffix("\r")
    return text if text or file is not None else None


def json_lines(file: Path) -> tuple[Prompt, ...]:
    """The prompts in a file with a JSON object a line, `{"prompt": TEXT}` or
    `{"prompt_token_ids": [ID, ...]}`."""
    return tuple(
        _prompt_in(found, f"line {n} of {_origin(file)}")
        for n, found in enumerate(json_objects(file), 1)
    )


def json_objects(file: Path) -> tuple[dict[str, Any], ...]:
    """The objects in a file with one a line."""
    lines = _read(file).removesuffix("\n").split("\n")
    if lines == [""]:
        raise DataError(f"{_origin(file)} is empty; expected a JSON object a line")
    return tuple(
        _object_in(line, f"line {n} of {_origin(file)}") for n, line in enumerate(lines, 1)
    )


def _object_in(line: str, where: str) -> dict[str, Any]:
    if not line.strip():
        raise DataError(f"{where} is blank; expected a JSON object")
    return object_in(line, where)


def _prompt_in(found: dict[str, Any], where: str) -> Prompt:
    known = ("prompt", "prompt_token_ids")
    if strange := [key for key in found if key not in known]:
        raise DataError(f"{where} has the key {quoted(strange[0])}; expected {' or '.join(known)}")
    if len(found) != 1:
        has = "both" if found else "neither"
        raise DataError(f"{where} has {has} of {' and '.join(known)}; expected one of them")
    ((key, value),) = found.items()
    if key == "prompt" and isinstance(value, str):
        return value
    if key == "prompt_token_ids" and isinstance(value, list) and all(type(x) is int for x in value):
        return tuple(value)
    expected = "a text" if key == "prompt" else "a list of whole numbers"
    raise DataError(f"{where}: {key} is {quoted(json.dumps(value))}; expected {expected}")


def _is_piped() -> bool:
    """Whether somebody sends text on stdin; not so for a terminal, /dev/null or none at all."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _origin(file: Path) -> str:
    return "stdin" if str(file) == STDIN else str(file)


def _read(file: Path) -> str:
    """The UTF-8 text in a file; that of stdin for `-`."""
    try:
        raw = _stdin() if str(file) == STDIN else file.read_bytes()
        return raw.decode("utf-8")
    except OSError as error:
        raise DataError(f"cannot read the prompt from {_origin(file)}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"the prompt from {_origin(file)} is not UTF-8 text: "
            f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from None


def _stdin() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()
