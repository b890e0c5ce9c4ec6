"""Calls that read or write one row of an array at an index that is known when they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfx.backends.numba.compiling import Array
from tfx.backends.numba.rows.code import TYPES, Code
from tfx.backends.numba.rows.elementwise import Step, step_of, write_steps
from tfx.core.planning import put_row


def indexed(function: Callable[..., Any], args: Sequence[Any]) -> Callable[[Code], None] | None:
    """How to write `np.take` of one row, or `put_row`; None for any other call."""
    if function is np.take:
        rows, index, axis, out, _ = args
        if axis != 0 or index.ndim or not rows.ndim:
            return None
        copy, which = _copy(out, rows[0]), 1
    elif function is put_row:
        rows, index, slab = args
        copy, which = _copy(rows[0], slab[0]), 0
    else:
        return None
    if copy is None or index.dtype.kind != "i" or index.dtype not in TYPES:
        return None
    return lambda code: _write(code, copy, which, rows, index)


def _copy(out: Any, source: Any) -> Step | None:
    """NumPy's numbers as arrays: `rows[0]` of one axis is one."""
    return step_of(np.copyto, (np.asarray(out), np.asarray(source)))


def _write(code: Code, copy: Step, which: int, rows: Array, index: Array) -> None:
    """A copy of which one side lies at the index: the first or last row, where it is outside."""
    places = [code.place(copy.out), code.place(copy.args[0])]
    places[which] = code.at(code.place(rows), _row(code, rows, index), rows.strides[0])
    write_steps(code, [copy], [places])


def _row(code: Code, rows: Array, index: Array) -> str:
    kind = TYPES[index.dtype]
    found = code.load(kind, code.place(index), index.itemsize)
    if kind != "i64":
        found = code.value(f"sext {kind} {found} to i64")
    for bound, name in (("0", "smax"), (code.given(len(rows) - 1), "smin")):
        code.declare(name, f"declare i64 @llvm.{name}.i64(i64, i64)")
        found = code.value(f"call i64 @llvm.{name}.i64(i64 {found}, i64 {bound})")
    return found
