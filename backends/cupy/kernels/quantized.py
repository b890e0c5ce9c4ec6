"""Products with quantized weights: few rows straight from the stored numbers, many by way of floats
that one launch makes."""

from __future__ import annotations

from functools import partial
from typing import Any

import cupy

from tfx.core.backend import Array, Backend, Fused
from tfx.core.nn import activate
from tfx.core.tensor import Tensor

FEW = 8
"""Up to so many rows, reading a weight for each is less work than making floats of it once."""

_PRODUCT_8 = cupy.ReductionKernel(
    "T x, int8 q, S scale", "T y", "x * (T)q * (T)scale", "a + b", "y = a", "0", "tfx_linear_q8"
)
_PRODUCT_4 = cupy.ReductionKernel(
    "T lower, T upper, uint8 q, S scale",
    "T y",
    "(lower * (T)((q & 15) - 8) + upper * (T)((q >> 4) - 8)) * (T)scale",
    "a + b",
    "y = a",
    "0",
    "tfx_linear_q4",
)
_WEIGHT_8 = cupy.ElementwiseKernel(
    "int8 q, S scale", "T w", "w = (T)q * (T)scale", "tfx_weight_from_q8"
)
_WEIGHT_4 = cupy.ElementwiseKernel(
    "uint8 q, S scale, bool is_upper",
    "T w",
    "w = (T)((is_upper ? q >> 4 : q & 15) - 8) * (T)scale",
    "tfx_weight_from_q4",
)


def _linear_q8(B: Any, x: Array, q: Array, scales: Array, *rest: Any, **how: Any) -> Any:
    groups = scales.shape[1]
    numbers = q.reshape(len(q), groups, -1)
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= FEW:
        by_group = rows.reshape(len(rows), 1, groups, -1)
        y = _PRODUCT_8(by_group, numbers, scales[:, :, None], axis=(2, 3))
    else:
        w = _WEIGHT_8(numbers, scales[:, :, None], cupy.empty(numbers.shape, x.dtype))
        y = rows @ w.reshape(len(q), -1).T
    return _finished(B, x, y, *rest, **how), None


def _linear_q4(B: Any, x: Array, q: Array, scales: Array, *rest: Any, **how: Any) -> Any:
    groups = scales.shape[1]
    pairs = q.reshape(len(q), groups, -1)
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= FEW:
        halves = rows.reshape(len(rows), 1, groups, 2, -1)
        lower, upper = halves[..., 0, :], halves[..., 1, :]
        y = _PRODUCT_4(lower, upper, pairs, scales[:, :, None], axis=(2, 3))
    else:
        w = cupy.empty((len(q), groups, 2, pairs.shape[2]), x.dtype)
        for upper in (False, True):
            _WEIGHT_4(pairs, scales[:, :, None], upper, w[:, :, int(upper)])
        y = rows @ w.reshape(len(q), -1).T
    return _finished(B, x, y, *rest, **how), None


def _finished(
    B: Backend, x: Array, y: Array, b: Array | None, residual: Array | None, *, activation: Any
) -> Array:
    y = y.reshape(*x.shape[:-1], y.shape[-1])
    if b is not None:
        y += b
    if activation is not None:
        y = activate(Tensor(y, B), activation).data
    return y if residual is None else residual + y


def _fits(
    kept: str,
    B: Backend,
    x: Array,
    q: Array,
    scales: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
) -> bool:
    if q.ndim != 2 or scales.ndim != 2 or q.dtype != kept:
        return False
    if not (x.ndim and x.size and q.size and scales.size) or scales.dtype.kind != "f":
        return False
    if len(scales) != len(q) or q.shape[1] % scales.shape[1]:
        return False
    return (
        x.dtype in ("float32", "float64")
        and x.shape[-1] == q.shape[1] * (1 if kept == "int8" else 2)
        and (b is None or (b.shape == (len(q),) and b.dtype == x.dtype))
        and (
            residual is None
            or (residual.shape == (*x.shape[:-1], len(q)) and residual.dtype == x.dtype)
        )
    )


KERNELS = (
    Fused("linear_q8", _linear_q8, supports=partial(_fits, "int8")),
    Fused("linear_q4", _linear_q4, supports=partial(_fits, "uint8")),
)
