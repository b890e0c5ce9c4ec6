"""What the kernels share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LOWEST = {np.dtype(d): np.finfo(d).min for d in (np.float32, np.float64)}
"""The dtypes the kernels handle, each with its most negative finite number."""


def floats(*arrays: Array | None) -> bool:
    """float32 or float64 arrays, all of one dtype."""
    dtype = arrays[0].dtype  # type: ignore[union-attr]
    for x in arrays:
        if x is not None and x.dtype != dtype:
            return False
    return dtype in LOWEST


def as_rows(x: Array) -> Array:
    """(..., n) as (rows, n)."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
