"""A captured program: the calls that one run of a function came to, as values and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfx.core.backend import Array, Backend, Fused
from tfx.core.dtypes import DType


class Value:
    """A raw array that a program computes with, whichever run it is.

    Attributes:
        shape, dtype: of the array, the same in every run.
        array: the array itself where it is the same in every run: a constant; else None.
    """

    __slots__ = ("array", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: DType, array: Array | None = None) -> None:
        self.shape, self.dtype, self.array = shape, dtype, array

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Argument = Any
"""What a call gets: a `Value`, a Python number, or None."""


@dataclass(eq=False, slots=True)
class Call:
    """One call: of a primitive, of a kernel, or of a kernel's `vjp` (a pullback).

    Attributes:
        name: of the primitive or the fused op.
        args: a primitive's or kernel's arrays in order. Of a pullback: the gradient, the results of
            its forward call, and that call's arguments.
        params: the keywords.
        results: what it gives; None for a gradient that is not given.
        kernel: the kernel; None for a primitive.
        forward: of a pullback, the call it belongs to, whose `saved` it reads.
        several: whether a kernel gives a tuple.
    """

    name: str
    args: tuple[Argument, ...]
    params: Mapping[str, Any]
    results: tuple[Value | None, ...]
    kernel: Fused | None = None
    forward: Call | None = None
    several: bool = False

    def reads(self) -> list[Value]:
        """The values among its arguments."""
        return [x for x in self.args if isinstance(x, Value)]

    def gives(self) -> list[Value]:
        """The values among its results."""
        return [x for x in self.results if x is not None]


@dataclass(eq=False)
class Program:
    """What a function came to.

    Attributes:
        backend: where it computes.
        inputs: the arrays it is given in each run.
        calls: in the order they are made.
        outputs: the arrays it gives; inputs and constants may be among them.
        notes: what recording and simplifying it did, counted, for `explain`.
    """

    backend: Backend
    inputs: Sequence[Value]
    calls: list[Call]
    outputs: Sequence[Value]
    notes: dict[str, int] = field(default_factory=dict)

    def last_uses(self) -> dict[int, list[Value]]:
        """Which values no call after the i-th reads, and no caller; constants left out."""
        kept = set(self.outputs)
        last: dict[Value, int] = {}
        for i, call in enumerate(self.calls):
            for value in (*call.gives(), *call.reads()):
                if value.array is None:
                    last[value] = i
        found: dict[int, list[Value]] = {}
        for value, i in last.items():
            if value not in kept:
                found.setdefault(i, []).append(value)
        return found
