"""How plans look at arrays: as rows of numbers that lie side by side, copied where they do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tfx.backends.numba.compiling import Array
from tfx.core.planning import Call, Workspace


def as_rows(x: Array) -> Array | None:
    """(..., n) as (rows, n) in the same memory; None where its numbers are not laid out so."""
    rows = x.reshape(-1, x.shape[-1])
    if x.flags.c_contiguous:
        return rows
    beside = rows.strides[-1] == x.itemsize or rows.shape[-1] == 1
    return rows if beside and np.may_share_memory(rows, x) else None


def as_one(x: Array) -> Array | None:
    """All numbers of `x` side by side, (n,), in the same memory; None where they are not."""
    return x.reshape(-1) if x.flags.c_contiguous else None


Look = Callable[[Array], Array | None]
"""An array in the form that calls want, in the same memory; None where that cannot be."""


def look_at(x: Array, look: Look, space: Workspace, calls: list[Call]) -> Array:
    """`x` in the form that calls want, after a call that copies it where it must be."""
    found = look(x)
    if found is None:
        copy = space.scratch(x.shape, x.dtype)
        calls.append((np.copyto, (copy, x)))
        found = look(copy)
        assert found is not None
    return found


def rows_of(x: Array, space: Workspace, calls: list[Call]) -> Array:
    """(..., n) as (rows, n)."""
    return look_at(x, as_rows, space, calls)


def flat(x: Array, space: Workspace, calls: list[Call]) -> Array:
    """All numbers of `x` side by side, (n,)."""
    return look_at(x, as_one, space, calls)


class Result:
    """A result, and where to write it.

    Attributes:
        array: what the plan returns.
        target: where the calls write it, in the form that they want.
    """

    def __init__(self, array: Array, look: Look, space: Workspace) -> None:
        self.array = array
        self._last: list[Call] = []
        found = look(array)
        if found is None:
            copy = space.scratch(array.shape, array.dtype)
            self._last.append((np.copyto, (array, copy)))
            found = look(copy)
            assert found is not None
        self.target: Array = found

    def last_calls(self) -> list[Call]:
        """What is left to do when it is written."""
        return self._last


def result(
    space: Workspace, shape: tuple[int, ...], dtype: Any, of: int = 0, look: Look = as_rows
) -> Result:
    """The result at position `of`, to be written as rows."""
    return Result(space.result(shape, dtype, of), look, space)


@lru_cache(maxsize=256)
def constant(value: float, count: int, dtype: np.dtype[Any]) -> Array:
    """(count,) times `value`, in place of an argument that is None."""
    numbers = np.full(count, value, dtype)
    numbers.flags.writeable = False
    return numbers


PARTS = 8
"""How many sums over rows are taken one beside the other, and added up at the end: for threads to
share, and by rows alone, so that the number of threads does not change what comes out."""


def parts(rows: int) -> int:
    """How many of them so many rows are worth."""
    return PARTS if rows >= 16 * PARTS else 1
