"""One call of a primitive, from host arrays to a host array, held to the contract on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tfx.core.backend import Array, Backend, HostArray
from tfx.core.dtypes import DType
from tfx.testing.contract import CONTRACT, ArrayType
from tfx.testing.nearness import Mismatch

LAYOUTS = ("plain", "transposed", "strided", "repeated")
"""How an array may lie in memory: in C order; as a transposed one; as every third cell of a larger
one; as its first row, which `broadcast_to` has repeated."""

PLAIN = LAYOUTS[:1]
"""Enough where memory is reached through primitives alone, which L1 has tried in all layouts."""


def put(B: Backend, values: HostArray, layout: str = "plain", dtype: DType | None = None) -> Array:
    """A raw array of these values whose memory is laid out as asked, by the backend's own means."""
    dtype = dtype or DType(values.dtype.name)
    if dtype is DType.bfloat16:
        values = np.asarray(values.view(np.uint32) >> 16, np.uint16)
    if not values.ndim or layout == "plain":
        return B.asarray(values, dtype=dtype)
    if layout == "transposed":
        backwards = tuple(reversed(range(values.ndim)))
        return B.transpose(B.asarray(values.T.copy(), dtype=dtype), axes=backwards)
    if layout == "repeated":
        return B.broadcast_to(B.asarray(values[:1], dtype=dtype), shape=values.shape)
    roomy = np.full([3 * n + 1 for n in values.shape], 1, values.dtype)
    roomy[(slice(1, None, 3),) * values.ndim] = values
    ones, threes = (1,) * values.ndim, (3,) * values.ndim
    return B.slice(B.asarray(roomy, dtype=dtype), starts=ones, stops=roomy.shape, steps=threes)


def aligned(values: HostArray) -> HostArray:
    """A copy that begins at a multiple of 64 bytes, as memory does that a library would share."""
    room = np.zeros(values.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    copy = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def fetch(B: Backend, x: Array) -> HostArray:
    """A raw array on the host; bfloat16 as float32."""
    host = B.to_numpy(x)
    if type(host) is not np.ndarray:
        raise Mismatch(f"to_numpy gave {kind_of(host)}, not a numpy.ndarray")
    if B.dtype(x) is DType.bfloat16:
        return np.asarray(host.astype(np.uint32) << 16, np.uint32).view(np.float32)
    return host


def call(
    B: Backend,
    name: str,
    args: Sequence[Any],
    statics: Mapping[str, Any],
) -> Array:
    """The raw result of a primitive on raw arrays and numbers.

    Raises:
        Mismatch: it is no array, is not of the promised shape and dtype, or an argument was
            changed, other than the buffer of `write`.
    """
    types = [type_of(B, x) if B.is_array(x) else x for x in args]
    promised = CONTRACT[name](B, *types, **statics)
    kept = [(i, x) for i, x in enumerate(args) if B.is_array(x) and (name, i) != ("write", 0)]
    before = [B.to_numpy(x) for _, x in kept]
    out = getattr(B, name)(*args, **statics)
    returned = type_of(B, out)
    if returned != promised:
        raise Mismatch(f"it gave {returned}, promised is {promised}")
    for (i, x), values in zip(kept, before, strict=True):
        if not np.array_equal(B.to_numpy(x), values, equal_nan=values.dtype.kind == "f"):
            raise Mismatch(f"argument {i} was changed")
    return out


def type_of(B: Backend, x: Array, giver: str = "it") -> ArrayType:
    """Shape and dtype of what `giver` gave.

    Raises:
        Mismatch: it is no array, or its dtype no `DType`.
    """
    if not B.is_array(x):
        raise Mismatch(f"{giver} gave {kind_of(x)}, not an array of the backend")
    dtype = B.dtype(x)
    if type(dtype) is not DType:
        raise Mismatch("what dtype gives is not a DType")
    return ArrayType(B.shape(x), dtype)


def value_of(B: Backend, name: str, *args: Any, **statics: Any) -> HostArray:
    """The result on the host of a primitive on host arrays and numbers."""
    raw = [put(B, x) if isinstance(x, np.ndarray) else x for x in args]
    return fetch(B, call(B, name, raw, statics))


def kind_of(x: object) -> str:
    """What something is that should be an array: `a float`, `a numpy.float32`."""
    kind = type(x)
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"a {home}{kind.__qualname__}"


@contextmanager
def told(*where: object) -> Iterator[None]:
    """Failures inside tell what they happened on."""
    try:
        yield
    except BaseException as error:
        error.add_note("on " + ", ".join(map(str, where)))
        raise
