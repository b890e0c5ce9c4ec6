"""Planned calls that follow each other as one native function.

From Python, a call costs about a microsecond, which is more than most calls of a small model take.
What is made one: kernels that Numba compiled, elementwise calls of NumPy, and rows that are read
or written at an index. Each gives the bits that it gives by itself; calls of which that could not
be said, BLAS's and NumPy's sums among them, stay as they are between those that were joined.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tfx.backends.numba.compiling import native_of
from tfx.backends.numba.rows.code import Code
from tfx.backends.numba.rows.elementwise import Chain, Step, step_of, write_chain
from tfx.backends.numba.rows.indexing import indexed
from tfx.backends.numba.rows.kernels import write_kernel
from tfx.backends.numba.rows.native import compiled
from tfx.core import planning
from tfx.core.planning import Call

Writer = Callable[[Code], None]


def joined(calls: Sequence[Call]) -> list[Call]:
    """The same calls, those made one that can be."""
    found: list[Call] = []
    run: list[tuple[Call, Writer | Step]] = []

    def finish() -> None:
        found.extend([_function(run)] if len(run) > 1 else [call for call, _ in run])
        run.clear()

    for call in calls:
        part = _part(*call)
        if part is None:
            finish()
            found.append(call)
        else:
            run.append((call, part))
    finish()
    return found


def _part(function: Callable[..., Any], args: tuple[Any, ...]) -> Writer | Step | None:
    """How to write a call; None where there is no code for it."""
    native = native_of(function)
    if native is not None:
        return lambda code: write_kernel(code, native, args)
    return indexed(function, args) or step_of(function, args)


def _function(run: Sequence[tuple[Call, Writer | Step]]) -> Call:
    code = Code()
    for part in _chained(part for _, part in run):
        if isinstance(part, Chain):
            write_chain(code, part)
        else:
            part(code)
    table = np.array(code.table, np.uintp)
    function = Row(compiled(code.text("row"), "row"), table, run)
    return function.call, ()


def _chained(parts: Iterator[Writer | Step]) -> Iterator[Writer | Chain]:
    """Steps that can share their loops, together."""
    chain: Chain | None = None
    for part in parts:
        if isinstance(part, Step) and chain is not None and chain.takes(part):
            chain.steps.append(part)
            continue
        if chain is not None:
            yield chain
            chain = None
        if isinstance(part, Step):
            chain = Chain([part])
        else:
            yield part
    if chain is not None:
        yield chain


class Row:
    """A native function with its table of addresses, and all that these belong to."""

    def __init__(self, function: Any, table: Any, kept: Any) -> None:
        self.table, self.kept = table, kept
        self._function, self._at = function, ctypes.c_void_p(table.ctypes.data)

    def call(self) -> None:
        self._function(self._at)


planned = partial(planning.planned, join=joined)
"""`tfx.core.planning.planned`, for kernels whose calls can be joined."""
