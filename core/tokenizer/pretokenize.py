"""Cutting text into words as GPT-2 does, before any merging of bytes.

A word is the first of these that fits (with \\p{L} letters, \\p{N} numbers, \\s white space):

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

Python's `re` has no \\p, and its \\s takes four control characters too many, so the classes are
spelled out from a table of our own. `regex` would import as fast as this compiles, but follows
the newest Unicode, and cuts 17,000 characters otherwise than `tiktoken` and `tokenizers`.
Source of the pattern: `encoder.py` of https://github.com/openai/gpt-2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from tfx.core.tokenizer.unicode_classes import LETTERS, NUMBERS, WHITE_SPACE, ranges

_CHUNK = 4096
"""Least number of characters cut together: little memory, and one emoji slows only so many."""

_ASCII, _TWO_BYTES, _ALL = 0x7F, 0xFFFF, 0x10FFFF
"""Last code points. A class without the far planes, or without all but ASCII, is found faster."""


def split(text: str) -> Iterator[list[str]]:
    """The words of `text` in order, a list for each stretch of it; together they are the text.

    >>> list(split("I'll say:  12 words"))
    [['I', "'ll", ' say', ':', ' ', ' 12', ' words']]
    """
    next_cut = _cut().search
    start = 0
    while start < len(text):
        cut = next_cut(text, start + _CHUNK)
        end = cut.start() if cut else len(text)
        chunk = text[start:end]
        yield _words(_last(chunk)).findall(chunk)
        start = end


def _last(text: str) -> int:
    if text.isascii():
        return _ASCII
    return _TWO_BYTES if ord(max(text)) <= _TWO_BYTES else _ALL


@cache
def _words(last: int) -> re.Pattern[str]:
    """The pattern, for text whose code points go up to `last`.

    What can begin alike keeps its order; letters come first because most words do.
    """
    letters, numbers, space = (_members(t, last) for t in (LETTERS, NUMBERS, WHITE_SPACE))
    return re.compile(
        f" ?[{letters}]+|'(?:[sdmt]|ll|ve|re)| ?[{numbers}]+| ?[^{space}{letters}{numbers}]+"
        f"|[{space}]+(?![^{space}])|[{space}]+"
    )


@cache
def _cut() -> re.Pattern[str]:
    """Where white space begins: no word reaches over it, and none looks back."""
    space = _members(WHITE_SPACE, _ALL)
    return re.compile(f"(?<=[^{space}])(?=[{space}])")


def _members(table: str, last: int) -> str:
    """What stands between the brackets of a character class."""
    within = [(a, min(b, last)) for a, b in ranges(table) if a <= last]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in within)
