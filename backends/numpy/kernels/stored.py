"""Products with weights that are stored in fewer bits.

A weight is made some rows at a time in a block that stays in the processor's cache, and multiplied
from there: no float array of its size comes to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tfx.backends.numpy.halves import widened
from tfx.backends.numpy.kernels.activations import ACTIVATIONS
from tfx.backends.numpy.kernels.arrays import (
    Array,
    Calls,
    as_matrix,
    as_rows,
    result_rows,
)
from tfx.backends.numpy.kernels.dense import finish, room_before
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Workspace, planned

BLOCK = 2**16
"""How many numbers are made at a time."""

Blocks = Iterator[tuple[slice, Array]]
"""Some rows of a weight, and their numbers; the array is used again for the next."""

# ---- the numbers ---------------------------------------------------------------------------------


def _from_q8(q: Array, scales: Array, dtype: Any) -> Blocks:
    groups, size = scales.shape[1], q.shape[1] // scales.shape[1]
    for rows, block in _buffers(q.shape, dtype):
        by_group = block.reshape(-1, groups, size)
        numbers = q[rows].reshape(by_group.shape)
        np.multiply(numbers, scales[rows, :, None], out=by_group, dtype=dtype)
        yield rows, block


def _from_q4(q: Array, scales: Array, dtype: Any) -> Blocks:
    groups, half = scales.shape[1], q.shape[1] // scales.shape[1]
    for rows, block in _buffers((len(q), 2 * q.shape[1]), dtype):
        pairs, by_group = q[rows].reshape(-1, groups, half), block.reshape(-1, groups, 2 * half)
        by_group[..., :half] = pairs & 15
        by_group[..., half:] = pairs >> 4
        by_group -= 8
        np.multiply(by_group, scales[rows, :, None], out=by_group, dtype=dtype)
        yield rows, block


def _from_half(w: Array, dtype: Any) -> Blocks:
    for rows, block in _buffers(w.shape, dtype):
        if w.dtype == np.uint16:  # bfloat16's words
            block[...] = (w[rows].astype(np.uint32) << 16).view(np.float32)
        else:
            block[...] = widened(w[rows])
        yield rows, block


def _buffers(shape: tuple[int, ...], dtype: Any) -> Blocks:
    count = max(1, BLOCK // shape[1])
    buffer = np.empty((min(count, shape[0]), shape[1]), dtype)
    for start in range(0, shape[0], count):
        rows = slice(start, min(start + count, shape[0]))
        yield rows, buffer[: rows.stop - rows.start]


# ---- the products --------------------------------------------------------------------------------


def _quantized(
    blocks: Callable[..., Blocks],
    B: Backend,
    space: Workspace,
    x: Array,
    q: Array,
    scales: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
) -> tuple[Array, None, Calls]:
    made = partial(blocks, q, scales, x.dtype)
    return _product(space, x, _times_rows, made, len(q), b, residual, activation)


def _half(
    B: Backend,
    space: Workspace,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, None, Calls]:
    made = partial(_from_half, w, x.dtype)
    times, axis = (_times_rows, 0) if outputs_first else (_times_columns, 1)
    return _product(space, x, times, made, w.shape[axis], b, residual, activation)


def _product(
    space: Workspace,
    x: Array,
    times: Callable[[Array, Callable[[], Blocks], Array], None],
    made: Callable[[], Blocks],
    outputs: int,
    b: Array | None,
    residual: Array | None,
    activation: str | None,
) -> tuple[Array, None, Calls]:
    calls: Calls = []
    rows = as_rows(space, calls, x)
    out, y, last = result_rows(space, (*x.shape[:-1], outputs), x.dtype)
    before = room_before(space, y, residual, activation)
    calls.append((times, (as_matrix(rows), made, as_matrix(before))))
    finish(space, calls, before, y, b, residual, activation)
    return out, None, [*calls, *last]


def _times_rows(x: Array, blocks: Callable[[], Blocks], y: Array) -> None:
    for outputs, block in blocks():
        if len(x) == 1:
            np.dot(block, x[0], out=y[0, outputs])
        else:
            y[:, outputs] = x @ block.T


def _times_columns(x: Array, blocks: Callable[[], Blocks], y: Array) -> None:
    y[...] = 0
    for inputs, block in blocks():
        y += x[:, inputs] @ block


# ---- what they take ------------------------------------------------------------------------------


def _can_quantized(
    dtype: Any,
    B: Backend,
    x: Array,
    q: Array,
    scales: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
) -> bool:
    if q.ndim != 2 or scales.ndim != 2 or q.dtype != dtype or scales.dtype.kind != "f":
        return False
    if not q.size or len(scales) != len(q) or not scales.size or q.shape[1] % scales.shape[1]:
        return False
    if scales.dtype.itemsize > x.dtype.itemsize:
        return False
    inputs = q.shape[1] if dtype == np.int8 else 2 * q.shape[1]
    return _suit(x, (inputs, len(q)), b, residual, activation)


def _can_half(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if w.ndim != 2 or w.dtype not in (np.uint16, np.float16) or not w.size:
        return False
    inputs, outputs = w.shape[::-1] if outputs_first else w.shape
    return _suit(x, (inputs, outputs), b, residual, activation)


def _suit(
    x: Array,
    lengths: tuple[int, int],
    b: Array | None,
    residual: Array | None,
    activation: str | None,
) -> bool:
    inputs, outputs = lengths
    if not x.ndim or not x.size or x.shape[-1] != inputs or x.dtype not in HOST.dtypes:
        return False
    if activation is not None and activation not in ACTIVATIONS:
        return False
    return (b is None or (b.shape == (outputs,) and b.dtype == x.dtype)) and (
        residual is None
        or (residual.shape == (*x.shape[:-1], outputs) and residual.dtype == x.dtype)
    )


LINEAR_Q8 = planned(
    "linear_q8", partial(_quantized, _from_q8), supports=partial(_can_quantized, np.int8)
)
LINEAR_Q4 = planned(
    "linear_q4", partial(_quantized, _from_q4), supports=partial(_can_quantized, np.uint8)
)
LINEAR_HALF = planned("linear_half", _half, supports=_can_half)
