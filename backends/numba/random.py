"""`dropout_factor`: the words of `tfx.core.threefry`, compared with the rate as they are drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from tfx.backends.numba.arrays import as_one, flat, result
from tfx.backends.numba.compiling import MANY, Array, Count, Ids, Real, Row, helper, shared, threads
from tfx.backends.numba.quantized_floats import cut
from tfx.backends.numba.rows.row import planned
from tfx.core.backend import Backend
from tfx.core.dropout import BITS, how_many_zeros
from tfx.core.dtypes import DType
from tfx.core.kernel_calls import INDICES
from tfx.core.planning import Call, Workspace
from tfx.core.threefry import PARITY, ROTATIONS

_BEHIND = 32 - BITS
_EVEN, _ODD = ROTATIONS[:4], ROTATIONS[4:]

# Sums and shifts of 32 bits are of 64 to Numba, until they are cut to what they should be.


@helper
def _round(x0: Any, x1: Any, turn: Any) -> Any:
    x0 = np.uint32(x0 + x1)
    turned = np.uint32(x1 << turn) | np.uint32(x1 >> (32 - turn))
    return x0, np.uint32(turned ^ x0)


@helper
def _four(x0: Any, x1: Any, turns: Any, more0: Any, more1: Any) -> Any:
    """Four rounds, and words of the key schedule on top."""
    x0, x1 = _round(x0, x1, turns[0])
    x0, x1 = _round(x0, x1, turns[1])
    x0, x1 = _round(x0, x1, turns[2])
    x0, x1 = _round(x0, x1, turns[3])
    return np.uint32(x0 + more0), np.uint32(x1 + more1)


@helper
def _words(key0: Any, key1: Any, c0: Any, c1: Any) -> Any:
    """`threefry2x32`."""
    key2 = np.uint32(key0 ^ key1 ^ PARITY)
    x0, x1 = np.uint32(c0 + key0), np.uint32(c1 + key1)
    x0, x1 = _four(x0, x1, _EVEN, key1, key2 + 1)
    x0, x1 = _four(x0, x1, _ODD, key2, key0 + 2)
    x0, x1 = _four(x0, x1, _EVEN, key0, key1 + 3)
    x0, x1 = _four(x0, x1, _ODD, key1, key2 + 4)
    return _four(x0, x1, _EVEN, key2, key0 + 5)


@helper
def _factor(word: Any, below: Any, kept: Any) -> Any:
    """0 for the share of all words that is below; `kept` for the others."""
    return kept if np.uint32(word >> _BEHIND) >= below else kept * 0


@shared
def _factors(
    out: Row, step: Ids, high: Count, low: Count, zeros: Count, kept: Real, pieces: Count
) -> None:
    key0, key1 = np.uint32(high), np.uint32(low)
    counter, below = np.uint32(step[0]), np.uint32(zeros)
    pairs = len(out) // 2
    for piece in prange(pieces):
        first, stop = cut(piece, pieces, pairs), cut(piece + 1, pieces, pairs)
        part = out[2 * first : 2 * stop]
        for j in range(stop - first):
            x0, x1 = _words(key0, key1, np.uint32(first + j), counter)
            at = np.uint64(2 * j)  # which cannot be negative: else they are made one by one
            part[at] = _factor(x0, below, kept)
            part[at + np.uint64(1)] = _factor(x1, below, kept)
    if len(out) % 2:
        last, _ = _words(key0, key1, np.uint32(pairs), counter)
        out[-1] = _factor(last, below, kept)


_DTYPES: dict[DType, np.dtype[Any]] = {
    DType.float32: np.dtype(np.float32),
    DType.float64: np.dtype(np.float64),
}


def _takes(
    B: Backend,
    step: Array,
    *,
    key: tuple[int, int],
    shape: tuple[int, ...],
    rate: float,
    dtype: DType,
) -> bool:
    return dtype in _DTYPES and 0 <= rate < 1 and step.dtype in INDICES and not step.shape


def _plan(
    B: Backend,
    space: Workspace,
    step: Array,
    *,
    key: tuple[int, int],
    shape: tuple[int, ...],
    rate: float,
    dtype: DType,
) -> tuple[Array, None, list[Call]]:
    calls: list[Call] = []
    count = math.prod(shape)
    out = result(space, shape, _DTYPES[dtype], look=as_one)
    pieces = 1 if count < MANY else threads()
    run = _factors.of(_DTYPES[dtype], step.dtype, count)
    how = *key, how_many_zeros(rate), 1 / (1 - rate), pieces
    calls.append((run, (out.target, flat(step, space, calls), *how)))
    return out.array, None, [*calls, *out.last_calls()]


DROPOUT_FACTOR = planned("dropout_factor", _plan, supports=_takes)
