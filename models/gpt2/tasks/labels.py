"""Labels in records and their numbers in a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfx.core.errors import DataError
from tfx.core.wording import kind_of, quoted
from tfx.models.gpt2.tasks.records import Record

_SHOWN = 12


class UnknownLabel(DataError):
    """A label that is none of a head's."""


def class_names(labels: Iterable[tuple[Record, Any]]) -> tuple[str, ...]:
    """The names of the classes that occur, in order: of numbers, or of the alphabet. Each label
    comes with the record that has it.

    >>> record = Record({}, "here")
    >>> class_names([(record, "b"), (record, "a")]), class_names([(record, 10), (record, 9)])
    (('a', 'b'), ('9', '10'))
    """
    names = {_name(label, record) for record, label in labels}
    if not names:
        raise DataError("no record has a label; expected one class or more")
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def number_of(label: Any, names: Sequence[str], record: Record) -> int:
    """The number of a class: that of its name, or a number that says it itself, where the names are
    none."""
    name = _name(label, record)
    if name in names:
        return names.index(name)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        return label
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    known = ", ".join(map(quoted, names[:_SHOWN])) + more
    raise UnknownLabel(f"{record.where}: the label {quoted(name)} is none of the model's: {known}")


def _name(label: Any, record: Record) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int | str) and label != "":
        return str(label)
    what = "empty" if label in ("", None) else kind_of(label)
    raise record.fault(f"a label is {what}; expected a name or a whole number")
