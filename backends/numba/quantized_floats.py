"""Products with int8 and int4 weights made float32 again: any groups, any processor, many rows.

For few rows, each row of weights is widened into the cache and met there by all rows of x. For
many, `WIDEN` makes a tile of them for BLAS, and `finish_tile` takes what comes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic, overload

from tfx.backends.numba.arithmetic import row
from tfx.backends.numba.compiling import (
    Bytes,
    Compiled,
    Count,
    Ids,
    Row,
    Rows,
    compiles_for,
    helper,
    shared,
)
from tfx.backends.numba.quantized_epilogue import finish

TILE = 64
"""Outputs that are finished together."""


@intrinsic  # type: ignore[untyped-decorator]
def as_float32(typingctx: Any, x: Any) -> Any:
    """A float as it is; an int16 as the bfloat16 with those bits, a uint16 as the float16.

    The latter in integers, where the processor has no instruction for it: its exponent and
    fraction, moved to where float32 has them, make a number 2**112 times too small.
    """
    if isinstance(x, types.Float):
        return x(x), lambda context, builder, signature, args: args[0]
    if x not in (types.int16, types.uint16):
        return None

    def upper_half(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], word), word(16)), ir.FloatType())

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if compiles_for("+f16c"):
            return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())
        word = ir.IntType(32)
        bits = builder.zext(args[0], word)
        magnitude = builder.shl(builder.and_(bits, word(0x7FFF)), word(13))
        sign = builder.shl(builder.and_(bits, word(0x8000)), word(16))
        scaled = builder.fmul(builder.bitcast(magnitude, ir.FloatType()), ir.FloatType()(2.0**112))
        finite = builder.icmp_unsigned("<", magnitude, word(0x7C00 << 13))
        endless = builder.or_(magnitude, word(0x7F800000))
        found = builder.select(finite, builder.bitcast(scaled, word), endless)
        return builder.bitcast(builder.or_(found, sign), ir.FloatType())

    return types.float32(x), upper_half if x == types.int16 else codegen


@helper
def cut(piece: Any, pieces: Any, count: Any) -> Any:
    """Where a piece begins of `count` things, cut into pieces of nearly one size."""
    return piece * count // pieces


# ---- rows of weights -----------------------------------------------------------------------------


@helper
def _widen_q8(q: Any, scales: Any, wide: Any) -> None:
    size = len(wide) // len(scales)
    for g in range(len(scales)):
        scale = as_float32(scales[g])
        numbers, out = q[g * size : g * size + size], wide[g * size : g * size + size]
        for i in range(size):
            out[i] = scale * np.float32(np.int8(numbers[i]))


@helper
def _widen_q4(q: Any, scales: Any, wide: Any) -> None:
    half = len(wide) // len(scales) // 2
    for g in range(len(scales)):
        scale = as_float32(scales[g])
        pairs, at = q[g * half : g * half + half], 2 * g * half
        low, high = wide[at : at + half], wide[at + half : at + 2 * half]
        for i in range(half):
            low[i] = scale * np.float32(np.int32(pairs[i] & 15) - 8)
            high[i] = scale * np.float32(np.int32(pairs[i] >> 4) - 8)


_WIDEN = {"q8": _widen_q8, "q4": _widen_q4}


def widen(kind: str, q: Any, scales: Any, wide: Any) -> None:
    """A row of weights of that kind, a constant where this is compiled, as float32."""
    raise NotImplementedError("for compiled functions")


@overload(widen, strict=False, prefer_literal=True)  # type: ignore[untyped-decorator]
def _widen(kind: Any, q: Any, scales: Any, wide: Any) -> Any:
    found = _WIDEN[kind.literal_value]
    return lambda kind, q, scales, wide: found(q, scales, wide)


@helper
def _dot(x: Any, y: Any) -> Any:
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


# ---- the kernels ---------------------------------------------------------------------------------


def _linear(kind: str) -> Compiled:
    @shared
    def linear(
        x: Rows,
        q: Bytes,
        scales: Ids,
        b: Row,
        activation: Count,
        residual: Rows,
        y: Rows,
        wide: Rows,
        found: Rows,
    ) -> None:
        rows, outputs = y.shape
        size, groups = len(q) // outputs, len(scales) // outputs
        pieces = len(wide)
        for piece in prange(pieces):
            weights = row(wide, piece)
            part = row(found, piece).reshape(rows, TILE)
            stop = cut(piece + 1, pieces, outputs)
            for start in range(cut(piece, pieces, outputs), stop, TILE):
                count = min(TILE, stop - start)
                for o in range(count):
                    at, s_at = (start + o) * size, (start + o) * groups
                    widen(kind, q[at : at + size], scales[s_at : s_at + groups], weights)
                    for i in range(rows):
                        part[i, o] = _dot(row(x, i), weights)
                finish(part[:, :count], start, b, activation, residual, 0, y)

    return linear


LINEAR = {kind: _linear(kind) for kind in _WIDEN}
"""y = residual + activation(x @ w.T + b): `wide` (pieces, n) and `found` (pieces, rows * TILE) are
for intermediate results."""


def _widen_rows(kind: str) -> Compiled:
    @shared
    def widen_rows(q: Bytes, scales: Ids, wide: Rows) -> None:
        size, groups = len(q) // len(wide), len(scales) // len(wide)
        for o in prange(len(wide)):
            at, s_at = o * size, o * groups
            widen(kind, q[at : at + size], scales[s_at : s_at + groups], row(wide, o))

    return widen_rows


WIDEN = {kind: _widen_rows(kind) for kind in _WIDEN}
"""Rows of weights as float32, into `wide` (rows, n)."""


@shared
def finish_tile(
    found: Rows, start: Count, b: Row, activation: Count, residual: Rows, y: Rows, pieces: Count
) -> None:
    """y = residual + activation(found + b) for outputs from `start` on."""
    rows = len(found)
    for piece in prange(pieces):
        low, high = cut(piece, pieces, rows), cut(piece + 1, pieces, rows)
        finish(found[low:high], start, b, activation, residual, low, y)
