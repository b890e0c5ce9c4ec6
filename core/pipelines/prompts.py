"""What Python code gives a model to read: a text, its token ids, several of either, or records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from tfx.core.arguments import is_text, is_whole
from tfx.core.errors import TfxError, UsageError
from tfx.core.wording import in_brief, kind_of

Prompt: TypeAlias = str | Sequence[int]
"""A text, or its token ids."""

NO_TEXTS = "there are no texts; expected at least one"


def records(given: Any) -> list[Mapping[str, Any]]:
    """A labelled record, or several, in a list.

    Raises:
        UsageError: it is neither, or has none.
    """
    listed = [given] if isinstance(given, Mapping) or not isinstance(given, Iterable) else [*given]
    if wrong := [x for x in listed if not isinstance(x, Mapping)]:
        raise UsageError(
            f"expected labelled records, as the model was trained with, not {kind_of(wrong[0])}"
        )
    if not listed:
        raise UsageError("there are no records; expected at least one")
    return listed


def is_empty(given: object) -> bool:
    """Whether it is a text without characters, or ids of which there are none."""
    return isinstance(given, Sequence | np.ndarray) and not len(given)


def several(texts: Any) -> tuple[bool, list[Any]]:
    """Whether it is one prompt; and it in a list, or those that it is a list of.

    Raises:
        UsageError: it is neither, or has none.
    """
    if hasattr(texts, "__array__"):
        texts = np.asarray(texts)
    if is_prompt(texts):
        return True, [texts]
    if not len(texts):
        raise UsageError(NO_TEXTS)
    return False, list(texts)


def is_prompt(given: object) -> bool:
    """Whether it is one prompt: a text, or whole numbers.

    >>> is_prompt("a"), is_prompt([1, 2]), is_prompt(["a", "b"]), is_prompt([[1], [2]])
    (True, True, False, False)
    """
    if isinstance(given, str):
        return True
    if isinstance(given, np.ndarray) and given.ndim:
        return given.ndim == 1 and given.dtype.kind in "iu"
    if is_text(given):
        raise UsageError(f"expected a text, not bytes; decode them: {in_brief(given)}")
    if not isinstance(given, Sequence):
        raise UsageError(f"expected a text, token ids, or a list of these, not {kind_of(given)}")
    return bool(given) and all(map(is_whole, given))


@contextmanager
def about(number: int, count: int, what: str) -> Iterator[None]:
    """Errors say which of several inputs they are about.

    >>> with about(2, 5, "prompt"):
    ...     raise UsageError("empty")
    Traceback (most recent call last):
    ...
    tfx.core.errors.UsageError: prompt 2: empty
    """
    try:
        yield
    except TfxError as fault:
        where = f"the {what}" if count == 1 else f"{what} {number}"
        kind = UsageError if isinstance(fault, UsageError) else type(fault)
        raise kind(f"{where}: {fault}") from None
