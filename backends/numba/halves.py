"""`linear_half`: products with weights of float16 or bfloat16, which are widened as they are read.

For few rows, each weight is read from memory once, and meets all rows of x in a core's cache. For
more, a tile of weights at a time is made wide for BLAS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from tfx.backends.numba.arithmetic import row
from tfx.backends.numba.arrays import flat, result, rows_of
from tfx.backends.numba.compiling import (
    MANY,
    Array,
    Compiled,
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
from tfx.core.backend import Backend
from tfx.core.host_calls import FLOATS
from tfx.core.planning import Call, Workspace, planned

FEW_ROWS = 16
"""Up to so many, weights are read once; beyond, BLAS is quicker."""

COLUMNS = 512
"""Outputs whose sums stay in a core's first cache, with the weights that are added to them."""

TOGETHER = 1024
"""Outputs whose weights are widened together for BLAS: a few megabytes."""

# ---- one number ----------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _upper_half(typingctx: Any, x: Any) -> Any:
    """A float as it is; a uint16 as the float32 that has those bits above and zeros below."""
    if isinstance(x, types.Float):
        return x(x), lambda context, builder, signature, args: args[0]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], word), word(16)), ir.FloatType())

    return types.float32(types.uint16), codegen


@helper
def _of_float16(x: Any) -> Any:
    return as_float32(x)


@helper
def _of_bfloat16(x: Any) -> Any:
    return _upper_half(x)


# ---- the kernels ---------------------------------------------------------------------------------


class Kernels(NamedTuple):
    """For weights of one dtype. `found` (pieces, ...) is for intermediate results; what comes
    between `w` and it is for `finish`."""

    by_outputs: Compiled
    by_inputs: Compiled
    widen: Compiled


def _by_outputs(wide: Callable[[Any], Any]) -> Compiled:
    @shared
    def by_outputs(
        x: Rows, w: Words, b: Row, activation: Count, residual: Rows, y: Rows, found: Rows
    ) -> None:
        """x @ w.T, a row of `w` with four of `x` at a time; where there are fewer, with the last
        one again."""
        real = x.dtype.type
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
                        only, dot = row(x, 0), real(0)
                        for c in range(len(weights)):
                            dot += wide(weights[c]) * only[c]
                        part[0, o] = dot
                        continue
                    for i in range(0, rows, 4):
                        i1, i2, i3 = min(i + 1, rows - 1), min(i + 2, rows - 1), min(i + 3, rows - 1)
                        row0, row1, row2, row3 = row(x, i), row(x, i1), row(x, i2), row(x, i3)
                        dot0 = dot1 = dot2 = dot3 = real(0)
                        for c in range(len(weights)):
                            weight = wide(weights[c])
                            dot0 += weight * row0[c]
                            dot1 += weight * row1[c]
                            dot2 += weight * row2[c]
                            dot3 += weight * row3[c]
                        part[i3, o], part[i2, o] = dot3, dot2
                        part[i1, o], part[i, o] = dot1, dot0
                finish(part[:, :count], start, b, activation, residual, 0, y)

    return by_outputs


def _by_inputs(wide: Callable[[Any], Any]) -> Compiled:
    @helper
    def add(sums: Any, factors: Any, k: Any, rows: Any, start: Any) -> None:
        """To `sums`, four rows of weights from `start` on, each times its factor."""
        factor0, factor1, factor2, factor3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        row0, row1 = row(rows, 0)[start:], row(rows, 1)[start:]
        row2, row3 = row(rows, 2)[start:], row(rows, 3)[start:]
        for j in range(len(sums)):
            some = factor0 * wide(row0[j]) + factor1 * wide(row1[j])
            sums[j] += some + (factor2 * wide(row2[j]) + factor3 * wide(row3[j]))

    @shared
    def by_inputs(
        x: Rows, w: Words, b: Row, activation: Count, residual: Rows, y: Rows, found: Rows
    ) -> None:
        """x @ w, four rows of `w` at a time, some columns of them."""
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
                        add(row(part, 0)[:count], row(x, 0), k, four, start)
                        continue
                    for n in range(4):
                        source, target = row(four, n)[start:], row(near, n)
                        for j in range(count):
                            target[j] = wide(source[j])
                    for i in range(rows):
                        add(row(part, i)[:count], row(x, i), k, near, 0)
                for k in range(whole, inputs):
                    last = row(w, k)[start:]
                    for i in range(rows):
                        sums, factor = row(part, i), row(x, i)[k]
                        for j in range(count):
                            sums[j] += factor * wide(last[j])
                finish(part[:, :count], start, b, activation, residual, 0, y)

    return by_inputs


def _widen(wide: Callable[[Any], Any]) -> Compiled:
    @shared
    def widen(out: Rows, w: Words) -> None:
        for i in prange(len(w)):
            source, target = row(w, i), row(out, i)
            for j in range(len(source)):
                target[j] = wide(source[j])

    return widen


def _kernels(wide: Callable[[Any], Any]) -> Kernels:
    return Kernels(_by_outputs(wide), _by_inputs(wide), _widen(wide))


_KERNELS = {
    np.dtype(np.float16): _kernels(_of_float16),
    np.dtype(np.uint16): _kernels(_of_bfloat16),  # as its words
}

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
    if x.dtype not in FLOATS or w.dtype not in _KERNELS or w.ndim != 2 or not w.size:
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
    kernels, words = _KERNELS[w.dtype], w.view(np.uint16)  # Numba has no float16
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
        calls += _by_blas(kernels, space, rows, weights, after)
    else:
        calls.append(_in_one_call(kernels, space, rows, weights, after))
    return out.array, None, calls + out.last_calls()


def _in_one_call(
    kernels: Kernels, space: Workspace, rows: Array, weights: Array, after: tuple[Any, ...]
) -> Call:
    pieces = 1 if weights.size < MANY else threads()
    if weights.strides[1] == weights.itemsize:
        found = space.scratch((pieces, (len(rows) + 4) * COLUMNS), rows.dtype)
        run = kernels.by_inputs.of(rows.dtype, size=weights.size)
        return run, (rows, weights, *after, found)
    found = space.scratch((pieces, len(rows) * TILE), rows.dtype)
    run = kernels.by_outputs.of(rows.dtype, size=weights.size)
    return run, (rows, weights.T, *after, found)


def _by_blas(
    kernels: Kernels, space: Workspace, rows: Array, weights: Array, after: tuple[Any, ...]
) -> list[Call]:
    """Tile by tile: weights made wide, the product, and what follows."""
    inputs, outputs = weights.shape
    tile = min(TOGETHER, outputs)
    wide = space.scratch((inputs * tile,), rows.dtype)
    found = space.scratch((len(rows) * tile,), rows.dtype)
    widen = kernels.widen.of(rows.dtype, size=wide.size)
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
