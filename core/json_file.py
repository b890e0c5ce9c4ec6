"""Small JSON files from strangers: an object whose every key stands once, or a refusal."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from tfx.core.errors import DataError
from tfx.core.files import open_regular
from tfx.core.wording import in_brief, kind_of, quoted

MAX_SIZE = 4 * 1024 * 1024
"""Longest file read where nobody says otherwise, in bytes: room for an index of forty thousand
tensors. Python takes up to thirty times as much memory for what such a file can hold."""


def read_object(path: Path, longest: int = MAX_SIZE) -> dict[str, Any]:
    """The JSON object in a regular file of at most `longest` bytes.

    Raises:
        OSError, ValueError: it cannot be read, or is something else. Neither names the file;
            `tfx.core.files.reason` makes both part of a message.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > longest:
            raise ValueError(f"it takes {size} bytes; as JSON at most {longest} are read")
        data = file.read(size)
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the file itself; run 'git lfs pull'")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unrepeated)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"it is not sound JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds {kind_of(value)}; expected a JSON object")
    return value


def object_in(line: str, where: str) -> dict[str, Any]:
    """The JSON object in a line of text.

    Raises:
        DataError: there is something else; `where` begins the message.
    """
    try:
        found: Any = json.loads(
            line,
            object_pairs_hook=unrepeated,
            parse_float=_finite,
            parse_int=_finite,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is no JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply") from None
    if not isinstance(found, dict):
        raise DataError(f"{where} is {kind_of(found)}; expected an object")
    return found


def _finite(text: str) -> int | float:
    """A number as Python has it, of those that float64 can hold.

    Raises:
        ValueError: it is too large.
    """
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {in_brief(text)} is too large; expected at most 1.8e308")
    return value if set(text) & set(".eE") else int(text)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON; expected a finite one")


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys and values, an `object_pairs_hook` for `json.loads`.

    Raises:
        ValueError: a key comes twice.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {quoted(key)} comes twice in one object")
        found[key] = value
    return found
