"""The text of one LLVM function, as it grows: names, loops, and the addresses it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tfx.backends.numba.compiling import Array

TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.int32): "i32",
    np.dtype(np.int64): "i64",
    np.dtype(np.bool_): "i8",
}
"""What LLVM calls the numbers of an array in memory."""

REGISTER = 64
"""Bytes that are worked on at a time, which the compiler cuts into what the processor has."""


class Code:
    """A function of a table of addresses, written line by line.

    What it does depends on shapes, strides and dtypes alone: where arrays and functions lie, it
    reads in the table.

    Attributes:
        table: addresses, and the numbers that it is given beside them.
        declared: what the function calls of LLVM's own, by name.
    """

    def __init__(self) -> None:
        self.table: list[int] = []
        self.declared: dict[str, str] = {}
        self._slots: dict[tuple[str, int], int] = {}
        self._lines: list[str] = ["entry:", "  %unused = alloca [8 x i64]"]
        self._count = 0
        self._block = "entry"

    def name(self) -> str:
        """A name that nothing has yet."""
        self._count += 1
        return f"%v{self._count}"

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append(f"  {text}")

    def value(self, text: str) -> str:
        """An instruction's result."""
        name = self.name()
        self._lines.append(f"  {name} = {text}")
        return name

    def address(self, address: int) -> str:
        """The pointer that the table has for an address of this process."""
        return self._entry("ptr", address)

    def given(self, number: int) -> str:
        """A number that the table has: one that changes from program to program, where the text
        may stay the same."""
        return self._entry("i64", number)

    def _entry(self, kind: str, value: int) -> str:
        slot = self._slots.setdefault((kind, value), len(self.table))
        if slot == len(self.table):
            self.table.append(value)
        entry = self.value(f"getelementptr ptr, ptr %table, i64 {slot}")
        return self.value(f"load {kind}, ptr {entry}")

    def place(self, x: Array) -> str:
        """Where an array begins."""
        return self.address(x.ctypes.data)

    def at(self, pointer: str, index: str, stride: int) -> str:
        """So many strides, of so many bytes, behind a pointer."""
        if stride == 0 or index == "0":
            return pointer
        offset = index if stride == 1 else self.value(f"mul i64 {index}, {stride}")
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def load(self, kind: str, place: str, align: int) -> str:
        """What lies at a pointer."""
        return self.value(f"load {kind}, ptr {place}, align {align}")

    def store(self, kind: str, value: str, place: str, align: int) -> None:
        """Write to a pointer."""
        self.line(f"store {kind} {value}, ptr {place}, align {align}")

    @contextmanager
    def loop(self, stop: int, step: int = 1) -> Iterator[str]:
        """The index, from 0 on, below `stop`; there is at least one."""
        head, done = f"b{self.name()[2:]}", f"b{self.name()[2:]}"
        index, following = self.name(), self.name()
        before = self._block
        self.line(f"br label %{head}")
        self._begin(head)
        first = len(self._lines)
        yield index
        end = self._block
        self.line(f"{following} = add nsw nuw i64 {index}, {step}")
        more = self.value(f"icmp slt i64 {following}, {stop}")
        self.line(f"br i1 {more}, label %{head}, label %{done}")
        phi = f"  {index} = phi i64 [ 0, %{before} ], [ {following}, %{end} ]"
        self._lines.insert(first, phi)
        self._begin(done)

    def _begin(self, block: str) -> None:
        self._lines.append(f"{block}:")
        self._block = block

    def declare(self, name: str, text: str) -> None:
        """Say once how a function of LLVM's own is called."""
        self.declared.setdefault(name, text)

    def text(self, name: str) -> str:
        """The module with the finished function."""
        body = "\n".join([*self._lines, "  ret void"])
        outside = "\n".join(self.declared.values())
        return f"{outside}\ndefine void @{name}(ptr %table) {{\n{body}\n}}\n"


def lanes_of(scalar: str, lanes: int) -> str:
    """The kind of so many numbers side by side; of one, its own."""
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def splat(code: Code, value: str, scalar: str, lanes: int) -> str:
    """One number in every lane."""
    if lanes == 1:
        return value
    kind = lanes_of(scalar, lanes)
    first = code.value(f"insertelement {kind} poison, {scalar} {value}, i64 0")
    mask = f"<{lanes} x i32> zeroinitializer"
    return code.value(f"shufflevector {kind} {first}, {kind} poison, {mask}")


def intrinsic(code: Code, name: str, scalar: str, lanes: int, *values: str) -> str:
    """What a function of LLVM's own gives, lane by lane."""
    kind, bits = lanes_of(scalar, lanes), {"float": 32, "double": 64}[scalar]
    full = f"llvm.{name}.{f'v{lanes}' if lanes > 1 else ''}f{bits}"
    code.declare(full, f"declare {kind} @{full}({', '.join([kind] * len(values))})")
    return code.value(f"call {kind} @{full}({', '.join(f'{kind} {x}' for x in values)})")


def overlap(x: Array, y: Array) -> bool:
    """Whether two arrays may have memory in common."""
    return bool(np.may_share_memory(x, y))


def place_of(x: Array) -> tuple[Any, ...]:
    """What two arrays of one shape have in common if their numbers are the same ones in memory."""
    strides = tuple(0 if n == 1 else step for n, step in zip(x.shape, x.strides, strict=True))
    return x.ctypes.data, strides, x.dtype


def number(value: Any, kind: str) -> str:
    """A constant of a scalar kind."""
    if kind not in ("float", "double"):
        return str(int(value))
    wide = np.float64(np.float32(value)) if kind == "float" else np.float64(value)
    return f"0x{wide.view(np.uint64):016X}"
