"""What the kernels share."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LIMITS = {np.dtype(d): np.finfo(d) for d in (np.float32, np.float64)}
"""The dtypes the kernels handle, each with its most extreme numbers."""

INDICES = frozenset({np.dtype(np.int32), np.dtype(np.int64)})
"""The dtypes of indices."""


def floats(*arrays: Array | None) -> bool:
    """float32 or float64 arrays, all of one dtype."""
    dtype = arrays[0].dtype  # type: ignore[union-attr]
    for x in arrays:
        if x is not None and x.dtype != dtype:
            return False
    return dtype in LIMITS


def as_rows(x: Array) -> Array:
    """(..., n) as (rows, n)."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def as_few_axes(x: Array) -> Array:
    """(..., n) as (rows, n), or as (n,) where there is one row: with axes of length 1, and with
    operands of other axes than their own, NumPy's calls take up to three times as long."""
    return x.reshape(-1) if x.size == x.shape[-1] else as_rows(x)


def beside(rows: Array, statistics: Array) -> Array:
    """One number for each row, to broadcast with (rows, n); for one row (n,), the number."""
    return statistics[:, None] if rows.ndim == 2 else statistics


def means(rows: Array) -> Array:
    """The mean of each row, as a product: NumPy's quickest sum."""
    found: Array = rows.dot(_share(rows.shape[-1], rows.dtype))
    return found


@lru_cache
def _share(count: int, dtype: np.dtype[Any]) -> Array:
    """What each of `count` numbers has in their mean."""
    return np.full(count, 1 / count, dtype)
