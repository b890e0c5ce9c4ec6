"""One record an operation: how to call it, what NumPy makes of it, and what to try it on.

A `Sample` is the arguments of one call. Its arrays are `Arg`s, drawn at random, with the same
numbers in every run, in any dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.dtypes import DType
from tfx.core.tensor import Tensor

LONG = 259
"""Beyond the blocks, tiles and bytes that a library may count in, and no multiple of one."""


KINDS = {
    "mask": DType.bool,
    "bytes": DType.int8,
    "pairs": DType.uint8,
    "halves": DType.float16,
}
"""Kinds of arrays whose dtype is not the one under test."""


@dataclass(frozen=True)
class Arg:
    """An array to draw; one of a dtype of its own keeps it, the others take the one under test."""

    shape: tuple[int, ...]
    kind: str = "normal"
    below: int = 0
    values: tuple[float, ...] = ()

    @property
    def is_variable(self) -> bool:
        """Whether it has the dtype under test."""
        return self.kind not in ("ids", *KINDS)

    def draw(self, rng: np.random.Generator, dtype: DType) -> HostArray:
        """Numbers for it; those of bfloat16, which NumPy lacks, as float32."""
        if self.kind == "ids":
            return np.asarray(rng.integers(0, self.below, self.shape), np.int64)
        if self.kind == "mask" or dtype is DType.bool:
            return np.asarray(rng.random(self.shape) < 0.5)
        if self.kind in KINDS:
            return _of_kind(self.kind, rng, self.shape)
        if self.values:
            values = np.abs(self.values) if dtype is DType.uint8 else np.array(self.values)
            return as_host(values, dtype).reshape(self.shape)
        if dtype.is_integer:
            low = 0 if dtype is DType.uint8 else -5
            return as_host(rng.integers(low, 9, self.shape), dtype)
        positive = self.kind == "positive"
        drawn = rng.uniform(0.5, 2, self.shape) if positive else rng.standard_normal(self.shape)
        return as_host(np.asarray(drawn), dtype)


def _of_kind(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> HostArray:
    if kind == "halves":
        return np.asarray(rng.standard_normal(shape).astype(np.float16))
    low = -128 if kind == "bytes" else 0
    return np.asarray(rng.integers(low, low + 256, shape).astype(str(KINDS[kind])))


def as_host(values: HostArray, dtype: DType) -> HostArray:
    """Host numbers that `dtype` holds exactly; of bfloat16, float32 whose lower half is zero."""
    with np.errstate(over="ignore"):
        if dtype is DType.bfloat16:
            words = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
            return np.asarray(words, np.uint32).view(np.float32)
        return np.asarray(values.astype(str(dtype)))


def normal(*shape: int) -> Arg:
    return Arg(shape)


def positive(*shape: int) -> Arg:
    return Arg(shape, "positive")


def ids(*shape: int, below: int) -> Arg:
    return Arg(shape, "ids", below)


def mask(*shape: int) -> Arg:
    return Arg(shape, "mask")


def signed_bytes(*shape: int) -> Arg:
    return Arg(shape, "bytes")


def pairs_of_nibbles(*shape: int) -> Arg:
    return Arg(shape, "pairs")


def halves(*shape: int) -> Arg:
    return Arg(shape, "halves")


def given(*values: float) -> Arg:
    return Arg((len(values),), "given", values=values)


class Sample:
    """The arguments of one call: arrays to draw and numbers, and keywords."""

    def __init__(self, *args: Arg | float | None, **statics: Any) -> None:
        self.args = args
        self.statics = statics

    def __repr__(self) -> str:
        shown = [(x.values or x.shape) if isinstance(x, Arg) else x for x in self.args]
        return f"{shown} {self.statics or ''}".rstrip()

    def size(self) -> int:
        """How many numbers there are in its arrays."""
        return sum(prod(x.shape) for x in self.args if isinstance(x, Arg))

    def suits(self, dtype: DType) -> bool:
        """Whether the numbers in the call are of a kind with arrays of `dtype`."""
        numbers = [x for x in (*self.args, self.statics.get("value")) if isinstance(x, int | float)]
        fixed = [v for x in self.args if isinstance(x, Arg) for v in x.values]
        if dtype is DType.bool:
            return all(isinstance(x, bool) for x in numbers)
        if any(isinstance(x, bool) for x in numbers):
            return False
        return dtype.is_float or all(isfinite(x) and x == int(x) for x in (*numbers, *fixed))


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    Attributes:
        name: as reports call it; of a primitive, its own.
        call: on tensors.
        reference: the oracle of values, on float64 arrays (on int64 and bool for other dtypes).
        samples: what to try, gradients included.
        specials: what to try on values only: NaN, infinities, ties, very large and very small.
        refused: calls whose shapes do not fit, which the library has to refuse.
        dtypes: what else the values are tried in, beside float32 and float64.
        differentiable: whether it has a gradient.
        rounding: what a kernel may differ by in float32, as a share of the largest number expected,
            where it is free to round what the composed form does not.
    """

    name: str
    call: Callable[..., Tensor]
    reference: Callable[..., Any]
    samples: Sequence[Sample]
    specials: Sequence[Sample] = ()
    refused: Sequence[Sample] = ()
    dtypes: Iterable[DType] = field(default=frozenset())
    differentiable: bool = True
    rounding: float = 0.0

    def __str__(self) -> str:
        return self.name

    @property
    def own_dtypes(self) -> set[DType]:
        """What its arguments have that keep a dtype of their own, other than indices."""
        drawn = [x for sample in self.samples for x in sample.args if isinstance(x, Arg)]
        return {KINDS[x.kind] for x in drawn if x.kind in KINDS}

    def expected(self, sample: Sample, arrays: Sequence[Any]) -> HostArray:
        """What NumPy makes of the drawn arguments, in its widest types."""
        wide = [_widened(x) if isinstance(x, np.ndarray) else x for x in arrays]
        with np.errstate(all="ignore"):
            return np.asarray(self.reference(*wide, **sample.statics))


def _widened(x: HostArray) -> HostArray:
    kinds = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}
    return x.astype(kinds[x.dtype.kind])
