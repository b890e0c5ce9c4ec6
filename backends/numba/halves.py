"""`linear_half`: products with weights of float16 or bfloat16, which are widened as they are read.

For few rows, each weight is read from memory once, and meets all rows of x in a core's cache. For
more, a tile of weights at a time is made wide for BLAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import row
from tfx.backends.numba.arrays import flat, result, rows_of
from tfx.backends.numba.compiling import (
    MANY,
    Array,
    Count,
    Row,
    Rows,
    Words,
    helper,
    shared,
    threads,
)
from tfx.backends.numba.quantized_epilogue import ACTIVATIONS, finish
from tfx.backends.numba.quantized_floats import TILE, as_float32, cut, finish_tile
from tfx.backends.numba.rows.row import planned
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace

FEW_ROWS = 16
"""Up to so many, weights are read once; beyond, BLAS is quicker."""

COLUMNS = 512
"""Outputs whose sums stay in a core's first cache, with the weights that are added to them."""

TOGETHER = 1024
"""Outputs whose weights are widened together for BLAS: a few megabytes."""

# Numba has no halves. Bits of float16 are uint16 to it, and those of bfloat16, to tell them apart,
# int16.
_WORDS = {np.dtype(np.float16): np.dtype(np.uint16), np.dtype(np.uint16): np.dtype(np.int16)}

# ---- by rows of weights --------------------------------------------------------------------------


@helper
def _dot(weights: Any, x: Any) -> Any:
    total = x.dtype.type(0)
    for c in range(len(weights)):
        total += as_float32(weights[c]) * x[c]
    return total


@helper
def _four_dots(weights: Any, x: Any, i: Any, column: Any) -> None:
    """With four rows of x from the i-th on; where there are fewer, with the last one again."""
    last = len(x) - 1
    i1, i2, i3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
    row0, row1, row2, row3 = row(x, i), row(x, i1), row(x, i2), row(x, i3)
    dot0 = dot1 = dot2 = dot3 = x.dtype.type(0)
    for c in range(len(weights)):
        weight = as_float32(weights[c])
        dot0 += weight * row0[c]
        dot1 += weight * row1[c]
        dot2 += weight * row2[c]
        dot3 += weight * row3[c]
    column[i3], column[i2], column[i1], column[i] = dot3, dot2, dot1, dot0


@shared
def _by_outputs(
    x: Rows, w: Words, b: Row, activation: Count, residual: Rows, y: Rows, found: Rows
) -> None:
    """residual + activation(x @ w.T + b); `found` (pieces, rows * TILE) is for what comes
    between."""
    rows, outputs = y.shape
    pieces = len(found)
    for piece in prange(pieces):
        part = row(found, piece).reshape(rows, TILE)
        stop = cut(piece + 1, pieces, outputs)
        for start in range(cut(piece, pieces, outputs), stop, TILE):
            count = min(TILE, stop - start)
            for o in range(count):
                weights = row(w, start + o)
                if rows == 1:
                    part[0, o] = _dot(weights, row(x, 0))
                else:
                    for i in range(0, rows, 4):
                        _four_dots(weights, x, i, part[:, o])
            finish(part[:, :count], start, b, activation, residual, 0, y)


# ---- by columns ----------------------------------------------------------------------------------


@helper
def _add_four(sums: Any, factors: Any, k: Any, rows: Any, start: Any) -> None:
    """To `sums`, four rows of weights from `start` on, times the factors from the k-th on."""
    factor0, factor1 = factors[k], factors[k + 1]
    factor2, factor3 = factors[k + 2], factors[k + 3]
    row0, row1 = row(rows, 0)[start:], row(rows, 1)[start:]
    row2, row3 = row(rows, 2)[start:], row(rows, 3)[start:]
    for j in range(len(sums)):
        some = factor0 * as_float32(row0[j]) + factor1 * as_float32(row1[j])
        sums[j] += some + (factor2 * as_float32(row2[j]) + factor3 * as_float32(row3[j]))


@shared
def _by_inputs(
    x: Rows, w: Words, b: Row, activation: Count, residual: Rows, y: Rows, found: Rows
) -> None:
    """residual + activation(x @ w + b); `found` (pieces, (rows + 4) * COLUMNS) is for sums, and for
    four rows of weights where more than one row of x wants them as floats."""
    real = x.dtype.type
    rows, outputs = y.shape
    inputs, pieces = len(w), len(found)
    whole = inputs - inputs % 4
    for piece in prange(pieces):
        memory = row(found, piece).reshape(rows + 4, COLUMNS)
        part, near = memory[:rows], memory[rows:]
        stop = cut(piece + 1, pieces, outputs)
        for start in range(cut(piece, pieces, outputs), stop, COLUMNS):
            count = min(COLUMNS, stop - start)
            for i in range(rows):
                row(part, i)[:] = real(0)
            for k in range(0, whole, 4):
                four = w[k : k + 4]
                if rows == 1:
                    _add_four(row(part, 0)[:count], row(x, 0), k, four, start)
                    continue
                for n in range(4):
                    source, target = row(four, n)[start:], row(near, n)
                    for j in range(count):
                        target[j] = as_float32(source[j])
                for i in range(rows):
                    _add_four(row(part, i)[:count], row(x, i), k, near, 0)
            for k in range(whole, inputs):
                last = row(w, k)[start:]
                for i in range(rows):
                    sums, factor = row(part, i), row(x, i)[k]
                    for j in range(count):
                        sums[j] += factor * as_float32(last[j])
            finish(part[:, :count], start, b, activation, residual, 0, y)


# ---- for BLAS ------------------------------------------------------------------------------------


@shared
def _widen(out: Rows, w: Words) -> None:
    for i in prange(len(w)):
        source, target = row(w, i), row(out, i)
        for j in range(len(source)):
            target[j] = as_float32(source[j])


# ---- the plan ------------------------------------------------------------------------------------


def _takes(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if x.dtype not in HOST.dtypes or w.dtype not in _WORDS or w.ndim != 2 or not w.size:
        return False
    inputs, outputs = w.shape[::-1] if outputs_first else w.shape
    return (
        x.ndim > 0
        and x.size > 0
        and x.shape[-1] == inputs
        and activation in ACTIVATIONS
        and w.itemsize in w.strides
        and all(a.flags.aligned for a in (x, w, b, residual) if a is not None)
        and (b is None or (b.dtype == x.dtype and b.shape == (outputs,)))
        and (
            residual is None
            or (residual.dtype == x.dtype and residual.shape == (*x.shape[:-1], outputs))
        )
    )


def _plan(
    B: Backend,
    space: Workspace,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, None, Sequence[Call]]:
    calls: list[Call] = []
    words = w.view(_WORDS[w.dtype])
    weights = words.T if outputs_first else words
    rows = rows_of(x, space, calls)
    out = result(space, (*x.shape[:-1], weights.shape[1]), x.dtype)
    after = (
        np.empty(0, x.dtype) if b is None else flat(b, space, calls),
        ACTIVATIONS[activation],
        np.empty((0, 0), x.dtype) if residual is None else rows_of(residual, space, calls),
        out.target,
    )
    if len(rows) > FEW_ROWS:
        calls += _by_blas(space, rows, weights, after)
    else:
        calls.append(_in_one_call(space, rows, weights, after))
    return out.array, None, calls + out.last_calls()


def _in_one_call(space: Workspace, rows: Array, weights: Array, after: tuple[Any, ...]) -> Call:
    pieces = 1 if weights.size < MANY else threads()
    if weights.strides[1] == weights.itemsize:
        found = space.scratch((pieces, (len(rows) + 4) * COLUMNS), rows.dtype)
        run = _by_inputs.of(rows.dtype, weights.dtype, weights.size)
        return run, (rows, weights, *after, found)
    found = space.scratch((pieces, len(rows) * TILE), rows.dtype)
    run = _by_outputs.of(rows.dtype, weights.dtype, weights.size)
    return run, (rows, weights.T, *after, found)


def _by_blas(space: Workspace, rows: Array, weights: Array, after: tuple[Any, ...]) -> list[Call]:
    """Tile by tile: weights made wide, the product, and what follows."""
    inputs, outputs = weights.shape
    tile = min(TOGETHER, outputs)
    wide = space.scratch((inputs * tile,), rows.dtype)
    found = space.scratch((len(rows) * tile,), rows.dtype)
    widen = _widen.of(rows.dtype, weights.dtype, wide.size)
    finish = finish_tile.of(rows.dtype, size=found.size)
    calls: list[Call] = []
    for start in range(0, outputs, tile):
        some = weights[:, start : start + tile]
        count = some.shape[1]
        if weights.strides[1] == weights.itemsize:
            factor = made = wide[: inputs * count].reshape(inputs, count)
        else:
            some, made = some.T, wide[: inputs * count].reshape(count, inputs)
            factor = made.T
        product = found[: len(rows) * count].reshape(len(rows), count)
        calls += [
            (widen, (made, some)),
            (np.dot, (rows, factor, product)),
            (finish, (product, start, *after, threads())),
        ]
    return calls


LINEAR_HALF = planned("linear_half", _plan, supports=_takes)
