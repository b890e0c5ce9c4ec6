"""One record an operation: how to call it here, in NumPy and in torch, and on what.

A `Sample` holds `Arg`s that are drawn at random (the same numbers in every run) in any dtype, and
laid out in memory in any of `LAYOUTS` by means of the backend's own primitives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Any
from zlib import crc32

import numpy as np

from tfx.core.backend import Array, Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.tensor import Tensor

torch: Any = import_module("torch") if find_spec("torch") else None

LAYOUTS = ("plain", "transposed", "strided", "repeated")


def layouts(dtype: DType, turn: int) -> Sequence[str]:
    """All of them in float64; one after the other, sample by sample, in what else is tried."""
    return LAYOUTS if dtype is DType.float64 else (LAYOUTS[turn % len(LAYOUTS)],)


@dataclass(frozen=True)
class Arg:
    """An array to draw; `ids` and `mask` keep their dtype, the others take the one under test."""

    shape: tuple[int, ...]
    kind: str = "normal"
    below: int = 0
    values: tuple[float, ...] = ()

    @property
    def is_variable(self) -> bool:
        return self.kind not in ("ids", "mask")

    def draw(self, rng: np.random.Generator, dtype: DType) -> HostArray:
        if self.kind == "ids":
            return np.asarray(rng.integers(0, self.below, self.shape), np.int64)
        if self.kind == "mask" or dtype is DType.bool:
            return np.asarray(rng.random(self.shape) < 0.5)
        if self.values:
            values = np.abs(self.values) if dtype is DType.uint8 else self.values
            return np.asarray(values, str(dtype)).reshape(self.shape)
        if dtype.is_integer:
            return np.asarray(
                rng.integers(0 if dtype is DType.uint8 else -5, 9, self.shape), str(dtype)
            )
        positive = self.kind == "positive"
        drawn = rng.uniform(0.5, 2, self.shape) if positive else rng.standard_normal(self.shape)
        return np.asarray(drawn, str(dtype))


def normal(*shape: int) -> Arg:
    return Arg(shape)


def positive(*shape: int) -> Arg:
    return Arg(shape, "positive")


def ids(*shape: int, below: int) -> Arg:
    return Arg(shape, "ids", below)


def mask(*shape: int) -> Arg:
    return Arg(shape, "mask")


def given(*values: float) -> Arg:
    return Arg((len(values),), "given", values=values)


class Sample:
    """The arguments of one call: arrays to draw and numbers, and keywords."""

    def __init__(self, *args: Arg | float | None, **statics: Any) -> None:
        self.args = args
        self.statics = statics

    def __repr__(self) -> str:
        shown = [x.shape if isinstance(x, Arg) else x for x in self.args]
        return f"{shown} {self.statics or ''}".rstrip()

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
        name: as the tests call it; of a primitive, its own.
        tfx: on tensors.
        numpy: the oracle of values, on float64 arrays (on int64 and bool for other dtypes).
        torch: the oracle of gradients, or None where there is none; also None without torch.
        samples: what to try, gradients included.
        specials: what to try on values only: NaN, infinities, ties.
        dtypes: what else the values are tried in, beside float32 and float64.
    """

    name: str
    tfx: Callable[..., Tensor]
    numpy: Callable[..., Any]
    torch: Callable[..., Any] | None
    samples: Sequence[Sample]
    specials: Sequence[Sample] = ()
    dtypes: Iterable[DType] = field(default=frozenset())

    def __str__(self) -> str:
        return self.name

    def drawn(self, sample: Sample, dtype: DType, layout: str) -> list[Any]:
        """The sample's arguments as NumPy arrays and numbers."""
        rng = np.random.default_rng(crc32(f"{self.name}{sample}".encode()))
        arrays = [x.draw(rng, dtype) if isinstance(x, Arg) else x for x in sample.args]
        if layout == "repeated":
            arrays = [_first_repeated(x) if isinstance(x, np.ndarray) else x for x in arrays]
        return arrays

    def expected(self, sample: Sample, arrays: Sequence[Any]) -> HostArray:
        """What NumPy makes of the drawn arguments, in its widest types."""
        wide = [widened(x) if isinstance(x, np.ndarray) else x for x in arrays]
        with np.errstate(all="ignore"):
            return np.asarray(self.numpy(*wide, **sample.statics))


def widened(x: HostArray) -> HostArray:
    kinds = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}
    return x.astype(kinds[x.dtype.kind])


def put(B: Backend, values: HostArray, layout: str, dtype: DType | None = None) -> Array:
    """A raw array of these values whose memory is laid out as asked."""
    dtype = dtype or DType(values.dtype.name)
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


def _first_repeated(values: HostArray) -> HostArray:
    """The same shape, with every row the first."""
    return np.broadcast_to(values[:1], values.shape) if values.ndim else values


@contextmanager
def told(*where: object) -> Iterator[None]:
    """Failures inside tell the sample they happened on."""
    try:
        yield
    except BaseException as error:
        error.add_note("on " + ", ".join(map(str, where)))
        raise
