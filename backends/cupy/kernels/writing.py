"""Writing a slab into a buffer: one launch, wherever it goes."""

from __future__ import annotations

import math

import cupy

from tfx.core.backend import Array, Operand

_PLACE = "buffer[i / count * room + {} * inner + i % count] = slab"
_SIZES = "int64 inner, int64 count, int64 room"
_WRITE = cupy.ElementwiseKernel(
    f"T slab, int64 start, {_SIZES}", "raw T buffer", _PLACE.format("start"), "tfx_write"
)
_WRITE_AT = cupy.ElementwiseKernel(
    f"T slab, raw I start, {_SIZES}", "raw T buffer", _PLACE.format("start[0]"), "tfx_write_at"
)
"""For each index before the axis, a slab of `count` numbers and a buffer with `room` for as many;
`inner` of them belong to one place along the axis."""


def write_slab(buffer: Array, slab: Array, start: Operand, axis: int) -> None:
    """Change `buffer`, at `start` along an axis; a position on the device stays there."""
    inner = math.prod(slab.shape[axis + 1 :])
    kernel = _WRITE if isinstance(start, int) else _WRITE_AT
    kernel(slab, start, inner, slab.shape[axis] * inner, buffer.shape[axis] * inner, buffer)
