"""`linear_q8` and `linear_q4` for arrays of NumPy, as plans of a few calls over flat arrays.

Where the processor can (`vnni.available`) and groups are whole multiples of 64, the products are
made in integers, and x is rounded to int8 in blocks of 64 numbers: an error of at most a 254th of
the largest magnitude in a block for each of its numbers, about one percent of an output where x
and weights are normally distributed. On the weights of gpt2-tiny, perplexity moves by less than
0.05 percent by it. Elsewhere the weights are widened, and the error is that of float32.

A row with a number that is not finite comes out without finite ones; so may one with numbers
beyond 1e34.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tfx.backends.numba import quantized_floats, quantized_vnni, vnni
from tfx.backends.numba.arrays import result, rows_of
from tfx.backends.numba.compiling import MANY, Array, threads
from tfx.backends.numba.quantized_epilogue import ACTIVATIONS
from tfx.backends.numba.rows.row import planned
from tfx.core.backend import Backend
from tfx.core.planning import Call, Workspace

FEW_ROWS = 16
"""Up to so many, weights that are widened are read once; beyond, BLAS is quicker. In integers, any
number of rows is."""

TILE = 1024
"""Outputs whose weights are widened together for BLAS: a few megabytes."""

_FLOAT = np.dtype(np.float32)
_SCALES = (_FLOAT, np.dtype(np.float16))
_KINDS = {np.dtype(np.int8): "q8", np.dtype(np.uint8): "q4"}


def _length(q: Array) -> int:
    """How many weights a row has."""
    return int(q.shape[1]) * (1 if q.dtype == np.int8 else 2)


def _in_integers(q: Array, scales: Array) -> bool:
    group = _length(q) // scales.shape[1]
    return group % quantized_vnni.BLOCK == 0 and vnni.available()


def _takes(
    dtype: type,
    B: Backend,
    x: Array,
    q: Array,
    scales: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
) -> bool:
    if x.dtype != _FLOAT or q.dtype != dtype or scales.dtype not in _SCALES:
        return False
    if x.ndim < 1 or q.ndim != 2 or scales.ndim != 2 or not (x.size and q.size and scales.size):
        return False
    outputs, groups = scales.shape
    return (
        q.shape[0] == outputs
        and q.shape[1] % groups == 0
        and x.shape[-1] == _length(q)
        and activation in ACTIVATIONS
        and q.flags.c_contiguous
        and scales.flags.c_contiguous
        and all(a.flags.aligned for a in (x, scales, b, residual) if a is not None)
        and (b is None or (b.dtype == _FLOAT and b.shape == (outputs,) and b.flags.c_contiguous))
        and (
            residual is None
            or (residual.dtype == _FLOAT and residual.shape == (*x.shape[:-1], outputs))
        )
    )


def _plan(
    B: Backend,
    space: Workspace,
    x: Array,
    q: Array,
    scales: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
) -> tuple[Array, None, Sequence[Call]]:
    calls: list[Call] = []
    rows = rows_of(x, space, calls)
    out = result(space, (*x.shape[:-1], len(q)), x.dtype)
    after = (
        _NO_BIAS if b is None else b,
        ACTIVATIONS[activation],
        _NO_RESIDUAL if residual is None else rows_of(residual, space, calls),
        out.target,
    )
    if scales.dtype == np.float16:  # which Numba has not
        scales = scales.view(np.uint16)
    if len(rows) > FEW_ROWS and not _in_integers(q, scales):
        calls += _by_blas(space, rows, q, scales, after)
    else:
        calls.append(_in_one_call(space, rows, q, scales, after))
    return out.array, None, calls + out.last_calls()


def _in_one_call(
    space: Workspace, rows: Array, q: Array, scales: Array, after: tuple[Any, ...]
) -> Call:
    kind, length, pieces = _KINDS[q.dtype], rows.shape[1], 1 if q.size < MANY else threads()
    weights = q.reshape(-1).view(np.uint8), scales.reshape(-1)
    if _in_integers(q, scales):
        linear = quantized_vnni.LINEAR[kind]
        blocks = length // quantized_vnni.BLOCK
        sizes = quantized_vnni.scratch(kind == "q4", blocks, len(rows), pieces)
        memory = [_aligned(space, shape, dtype) for shape, dtype in sizes]
    else:
        linear = quantized_floats.LINEAR[kind]
        memory = [
            space.scratch((pieces, length), _FLOAT),
            space.scratch((pieces, len(rows) * quantized_floats.TILE), _FLOAT),
        ]
    run = linear.of(_FLOAT, scales.dtype, q.size)
    return run, (rows, *weights, *after, *memory)


def _by_blas(
    space: Workspace, rows: Array, q: Array, scales: Array, after: tuple[Any, ...]
) -> list[Call]:
    """Tile by tile: weights made float32, the product, and what follows."""
    outputs, length = len(q), rows.shape[1]
    tile = min(TILE, outputs)
    wide = space.scratch((tile, length), _FLOAT)
    found = space.scratch((len(rows) * tile,), _FLOAT)
    widen = quantized_floats.WIDEN[_KINDS[q.dtype]].of(_FLOAT, scales.dtype, wide.size)
    finish = quantized_floats.finish_tile.of(_FLOAT, size=found.size)
    calls: list[Call] = []
    for start in range(0, outputs, tile):
        some = slice(start, min(start + tile, outputs))
        count = some.stop - start
        product = found[: len(rows) * count].reshape(len(rows), count)
        weights = q[some].reshape(-1).view(np.uint8), scales[some].reshape(-1)
        calls += [
            (widen, (*weights, wide[:count])),
            (np.dot, (rows, wide[:count].T, product)),
            (finish, (product, start, *after, threads())),
        ]
    return calls


def _aligned(space: Workspace, shape: tuple[int, ...], dtype: Any) -> Array:
    """Scratch that begins where a line of the cache does: a vector across two lines is read
    twice."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = space.scratch((size + vnni.WIDTH,), np.uint8)
    start = -memory.ctypes.data % vnni.WIDTH
    found: Array = memory[start : start + size].view(dtype).reshape(shape)
    return found


_NO_BIAS = np.empty(0, np.float32)
_NO_RESIDUAL = np.empty((0, 0), np.float32)

LINEAR_Q8 = planned("linear_q8", _plan, supports=partial(_takes, np.int8))
LINEAR_Q4 = planned("linear_q4", _plan, supports=partial(_takes, np.uint8))
