"""The names that microGPT learns from.

The reference trains on `names.txt` of Andrej Karpathy's makemore: 32,033 first names. Beside
this file lies a stand-in for a machine without a connection: the 5,163 first names of the
1990 census of the United States, the union of the Census Bureau's `dist.female.first` (4,275)
and `dist.male.first` (1,219), in lower case, sorted. As a work of the United States government
it is in the public domain.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from tfx.core.data import RemoteFile, obtain, read_documents
from tfx.core.errors import DataError

NAMES = RemoteFile(
    name="names.txt",
    url="https://raw.githubusercontent.com/karpathy/makemore/988aa59/names.txt",
    sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
BUNDLED = Path(__file__).with_name("names.txt")


class Names(StrEnum):
    """The lists that tfx knows where to find."""

    reference = "names.txt"
    census = "US census"


Source = Path | Names
"""A file of the user's, or one of the lists."""

Note = Callable[[str], None]
"""Called with one line for the user, when the bundled names are used or a damaged file in the cache
is replaced."""


def default_names(note: Note) -> Names:
    """The reference's names; where they are neither in the cache nor to be had, the bundled."""
    try:
        obtain(NAMES, note)
    except DataError as reason:
        note(
            f"training data: the bundled US census names, because {reason}. The reference's "
            "numbers need its names.txt: connect once, or give the file with --data"
        )
        return Names.census
    return Names.reference


def load_documents(source: Source, note: Note) -> list[str]:
    """The documents of a UTF-8 text file, one a line, or of a list; in file order.

    Raises:
        DataError: it is not a text file with at least one document, or names.txt cannot be had.
    """
    if isinstance(source, Path):
        return read_documents(source)
    if source is Names.census:
        return read_documents(BUNDLED)
    try:
        return read_documents(obtain(NAMES, note))
    except DataError as reason:
        raise DataError(f"{reason}; connect once, or give {source} with --data") from None
