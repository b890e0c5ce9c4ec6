"""The names that microGPT learns from.

The reference trains on `names.txt` of Andrej Karpathy's makemore: 32,033 first names. Beside
this file lies a stand-in for a machine without a connection: the 5,163 first names of the
1990 census of the United States, the union of the Census Bureau's `dist.female.first` (4,275)
and `dist.male.first` (1,219), in lower case, sorted. As a work of the United States government
it is in the public domain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tfx.core.data import RemoteFile, obtain, read_documents
from tfx.core.errors import DataError

NAMES = RemoteFile(
    name="names.txt",
    url="https://raw.githubusercontent.com/karpathy/makemore/988aa59/names.txt",
    sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
BUNDLED = Path(__file__).with_name("names.txt")


def load_documents(path: Path | None, note: Callable[[str], None]) -> list[str]:
    """The documents to train on, in file order.

    Args:
        path: a UTF-8 text file, one document a line. None: the reference's names, from the
            cache or downloaded; where neither can be had, the bundled census names.
        note: called with one line when the bundled names are used, or a damaged file in the
            cache is replaced.

    Raises:
        DataError: `path` is not a text file with at least one document.
    """
    if path is not None:
        return read_documents(path)
    try:
        path = obtain(NAMES, note)
    except DataError as reason:
        note(
            f"training data: the bundled US census names, because {reason}. The reference's "
            "numbers need its names.txt: connect once, or give the file with --data"
        )
        path = BUNDLED
    return read_documents(path)
