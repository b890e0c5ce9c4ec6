"""Calls of functions that Numba has compiled, from native code: without Python's objects around the
arguments, which cost more than small kernels do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from tfx.backends.numba.compiling import Native
from tfx.backends.numba.rows.code import Code, number

_SCALARS = {types.float32: "float", types.float64: "double", types.int64: "i64"}


def write_kernel(code: Code, native: Native, args: Sequence[Any]) -> None:
    """Call a kernel by Numba's convention: where to put the result and the exception, of which
    these have none, then the arguments, an array as its parts."""
    parts = ["ptr %unused", "ptr %unused"]
    for kind, x in zip(native.signature, args, strict=True):
        if isinstance(kind, types.Array):
            sizes = [x.size, x.itemsize]
            parts += ["ptr null", "ptr null", *(f"i64 {n}" for n in sizes), f"ptr {code.place(x)}"]
            parts += [f"i64 {n}" for n in (*x.shape, *x.strides)]
        else:
            scalar = _SCALARS[kind]
            parts.append(f"{scalar} {number(x, scalar)}")
    code.value(f"call i32 {code.address(native.address)}({', '.join(parts)})")
