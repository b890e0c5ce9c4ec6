"""Where tokens stand in the text they were made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tfx.core.errors import TokenizerError

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"""A word as taggers read them, or a sign between words."""


def characters_of(text: str, pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """The characters, half open, of which each token has bytes: of the first tokens of a text.

    One that begins or ends within a character counts as having all of it.

    >>> characters_of("né!", [b"n", b"\\xc3", b"\\xa9!"])
    [(0, 1), (1, 2), (1, 3)]

    Raises:
        TokenizerError: these are not the bytes of the text.
    """
    joined, raw = b"".join(pieces), text.encode()
    if not raw.startswith(joined):
        raise TokenizerError("the model's tokenizer does not keep texts as they are: no places")
    character = np.repeat(np.arange(len(text)), [len(c.encode()) for c in text])
    ends = np.cumsum([len(piece) for piece in pieces], dtype=int).tolist()
    found = []
    for piece, end in zip(pieces, ends, strict=True):
        start = end - len(piece)
        if not piece:
            here = int(character[start]) if start < len(raw) else len(text)
            found.append((here, here))
        else:
            found.append((int(character[start]), int(character[end - 1]) + 1))
    return found
