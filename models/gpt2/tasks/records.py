"""Labelled examples in files: JSON lines or CSV, a record each, with where it stands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfx.core.errors import DataError
from tfx.core.files import open_regular, reason, shown
from tfx.core.json_file import object_in
from tfx.core.wording import kind_of, quoted

SUFFIXES = (".jsonl", ".csv")


@dataclass(frozen=True)
class Record:
    """One example as it was given.

    Attributes:
        values: by the names of its fields.
        where: how a message calls it: "line 3 of reviews.jsonl".
    """

    values: Mapping[str, Any]
    where: str

    def fault(self, text: str) -> DataError:
        return DataError(f"{self.where}: {text}")

    def field(self, *names: str) -> Any:
        """The value of the first of these fields that is there.

        Raises:
            DataError: none is.
        """
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if empty := [name for name in names if name in self.values]:
            raise self.fault(f"{quoted(empty[0])} is empty; expected a value")
        there = ", ".join(map(quoted, self.values)) or "no field at all"
        raise self.fault(f"there is {there}; expected {' or '.join(map(quoted, names))}")

    def has(self, *names: str) -> bool:
        return any(self.values.get(name) is not None for name in names)

    def text(self, *names: str) -> str:
        """The like, a text."""
        value = self.field(*names)
        if not isinstance(value, str):
            raise self.fault(f"{names[0]} is {kind_of(value)}; expected a text")
        return value

    def listed(self, *names: str) -> list[Any]:
        """The like, a list; one in a cell of CSV is JSON, or words between spaces."""
        value = self.field(*names)
        if isinstance(value, str):
            found = json_in(value)
            value = value.split() if found is None else found
        if not isinstance(value, list):
            raise self.fault(f"{names[0]} is {kind_of(value)}; expected a list")
        return value


def json_in(cell: str) -> Any:
    """The list or object that a cell of CSV spells; None for plain words.

    >>> json_in('["a", "b"]')
    ['a', 'b']
    """
    if cell.lstrip().startswith(("[", "{")):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass
    return None


def read_records(file: Path) -> list[Record]:
    """The records of a `.jsonl` file, an object a line, or of a `.csv` file whose first row names
    the fields. Empty lines are passed over.

    Raises:
        DataError: the file cannot be read, is neither, holds none, or one of them is no record.
    """
    if file.suffix not in SUFFIXES:
        raise DataError(
            f"{shown(file)}: expected a file of records whose name ends with "
            f"{' or '.join(SUFFIXES)}"
        )
    try:
        with open_regular(file) as opened:
            text = opened.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(file)} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at offset "
            f"{error.start}; convert it to UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the data file {shown(file)}: {reason(error)}") from None
    records = _of_csv(text, file) if file.suffix == ".csv" else _of_json(text, file)
    if not records:
        raise DataError(f"{shown(file)} holds no record")
    return records


def _of_json(text: str, file: Path) -> list[Record]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        where = f"line {number} of {shown(file)}"
        if not line.strip():
            continue
        found.append(Record(object_in(line, where), where))
    return found


def _of_csv(text: str, file: Path) -> list[Record]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Record] = []
    try:
        names = next(rows, [])
        if len(set(names)) < len(names) or "" in names:
            raise DataError(f"{shown(file)}: its first row does not name each field once")
        for row in rows:
            where = f"line {rows.line_num} of {shown(file)}"
            if row and len(row) != len(names):
                raise DataError(f"{where} has {len(row)} cells; expected {len(names)}")
            if row:
                found.append(Record(_cells(names, row), where))
    except csv.Error as error:
        raise DataError(f"line {rows.line_num} of {shown(file)} is no CSV: {error}") from None
    return found


def _cells(names: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    """The cells by name; None for what is empty."""
    return {name: cell or None for name, cell in zip(names, row, strict=True)}
