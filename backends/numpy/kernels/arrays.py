"""What the plans of the kernels share: rows of arrays, constants, products, sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx.core.planning import Call, Workspace

Array = npt.NDArray[Any]
Calls = list[Call]
Memory = Callable[[tuple[int, ...], Any], Array]
"""`scratch` or `saved` of a workspace."""

LIMITS = {np.dtype(d): np.finfo(d) for d in (np.float32, np.float64)}
"""The most extreme numbers of each dtype that the kernels handle."""

_FEW_PRODUCTS = 1 << 14
"""Up to so many, one more product takes less time than a call whose operands differ in shape."""


# ---- constants ------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def filled(shape: tuple[int, ...], value: float, dtype: np.dtype[Any]) -> Array:
    """The same number everywhere. NumPy takes half the time for one without axes that it takes for
    a Python number."""
    return _constant(np.full(shape, value, dtype))


@lru_cache(maxsize=16)
def identity(size: int, dtype: np.dtype[Any]) -> Array:
    return _constant(np.eye(size, dtype=dtype))


def _constant(x: Array) -> Array:
    x.flags.writeable = False
    return x


# ---- rows -------------------------------------------------------------------------------------


def as_rows(space: Workspace, calls: Calls, x: Array) -> Array:
    """(..., n) as (rows, n), or as (n,) where there is one row: with axes of length 1, and with
    operands of other axes than their own, NumPy's calls take up to three times as long. Copied, by
    a call, where there is no such view."""
    n = x.shape[-1]
    shape = -1 if x.size == n else (-1, n)
    if x.flags.c_contiguous:
        return x.reshape(shape)
    try:
        return x.reshape(shape, copy=False) if x.ndim != 2 or x.size == n else x
    except ValueError:
        copy: Array = space.scratch(x.shape, x.dtype)
        calls.append((np.copyto, (copy, x)))
        return copy.reshape(shape)


def result_rows(
    space: Workspace, shape: tuple[int, ...], dtype: Any, of: int = 0
) -> tuple[Array, Array, Sequence[Call]]:
    """Memory for a result, the same memory as rows, and what to call when they are filled."""
    out = space.result(shape, dtype, of)
    n = shape[-1]
    flat = -1 if out.size == n else (-1, n)
    if out.flags.c_contiguous:
        return out, out.reshape(flat), ()
    try:
        return out, out.reshape(flat, copy=False), ()
    except ValueError:  # rows that do not lie at equal distances
        rows = space.saved(shape, dtype)
        return out, rows.reshape(flat), ((np.copyto, (out, rows)),)


def as_matrix(rows: Array) -> Array:
    """(n,) as (1, n)."""
    return rows if rows.ndim == 2 else rows[None]


# ---- products and sums ------------------------------------------------------------------------


def product(x: Array, y: Array, out: Array) -> Call:
    """`out = x @ y`, neither of which has more than two axes."""
    if out.flags.c_contiguous:
        return x.dot, (y, out)
    return np.matmul, (x, y, out)


def are_small(rows: Array) -> bool:
    """Whether sums of rows cost less when each stands in all of its row."""
    return rows.ndim == 2 and rows.size * rows.shape[1] <= _FEW_PRODUCTS


def row_sums(memory: Memory, rows: Array, each: float) -> tuple[Array, Call]:
    """`each` times the sum of every row, to broadcast with `rows` when the call was made.

    As a product, which is NumPy's quickest sum. In small arrays, each sum stands in all of its row.
    """
    n, dtype = rows.shape[-1], rows.dtype
    if rows.ndim == 1:
        total = memory((), dtype)
        return total, (rows.dot, (filled((n,), each, dtype), total))
    if are_small(rows):
        sums = memory(rows.shape, dtype)
        return sums, (rows.dot, (filled((n, n), each, dtype), sums))
    column = memory((len(rows), 1), dtype)
    return column, (rows.dot, (filled((n, 1), each, dtype), column))


def column_sums(rows: Array, out: Array) -> Call:
    """The sum of all rows, into `out` (n,)."""
    matrix = as_matrix(rows)
    return product(filled(matrix.shape[:1], 1.0, rows.dtype), matrix, out)
