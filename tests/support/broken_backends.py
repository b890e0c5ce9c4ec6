"""Backends with one fault each: what the conformance kit has to find, and at which level.

Here are the table, and the faults of the contract; those of the levels above are in the modules
beside this one, each of which enters its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.testing import Level, Subject

Array = Any
B = TypeVar("B", bound=type[Backend])


@dataclass(frozen=True)
class Broken:
    """A backend with a fault.

    Attributes:
        level: where the fault belongs: levels below pass.
        check: stands in the names of the checks that are to find it.
        make: the class; its docstring says what is wrong.
    """

    level: Level
    check: str
    make: type[Backend]

    def __str__(self) -> str:
        return self.make.__name__

    @property
    def fault(self) -> str:
        """What is wrong, in a line."""
        return " ".join((self.make.__doc__ or "").split()).removesuffix(".")

    def subject(self) -> Subject:
        """It, opened as the backend that it pretends to be."""
        return Subject("numpy", self.make)


BROKEN: list[Broken] = []


def broken(level: Level, check: str) -> Callable[[B], B]:
    """Enter a backend whose fault is for `check` of `level` to find."""

    def enter(make: B) -> B:
        BROKEN.append(Broken(level, check, make))
        return make

    return enter


# ---- the contract --------------------------------------------------------------------------


@broken(Level.CONTRACT, "what it declares")
class WrongName(NumpyBackend):
    """It is opened by one name and has another."""

    name = "nunpy"


@broken(Level.CONTRACT, "what it declares")
class LaterDTypes(NumpyBackend):
    """Its dtypes change after the constructor of its base class has read them."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.dtypes = self.dtypes - {DType.float16}


@broken(Level.CONTRACT, "what it declares")
class FutureInterface(NumpyBackend):
    """It is written for an interface that does not exist yet."""

    api = 99


@broken(Level.CONTRACT, "arrays of float64")
class NoFloat64(NumpyBackend):
    """It declares float64 and makes float32 of it."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._native = {**self._native, DType.float64: np.dtype("float32")}


@broken(Level.CONTRACT, "argmax")
class OtherIndices(NumpyBackend):
    """argmax gives int64, whatever index_dtype says."""

    index_dtype = DType.int32

    def argmax(self, x: Array, *, axis: int) -> Array:
        return np.asarray(np.argmax(x, axis=axis))


@broken(Level.CONTRACT, "what is an array")
class ShapeAsList(NumpyBackend):
    """shape gives a list."""

    def shape(self, x: Array) -> Any:
        return list(x.shape)


@broken(Level.CONTRACT, "arrays of float32")
class MaskedOnTheHost(NumpyBackend):
    """to_numpy gives an array of a class of its own."""

    def to_numpy(self, x: Array) -> Any:
        return np.ma.array(x)


@broken(Level.CONTRACT, "instances share no kernels")
class SharedKernels(NumpyBackend):
    """All instances have one dict of kernels."""

    kernels: dict[str, Any] = {}  # noqa: RUF012 (the fault)

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.kernels.update(self.fused)
        self.fused = self.kernels


@broken(Level.CONTRACT, "kernels have names")
class MisspeltKernel(NumpyBackend):
    """A kernel stands under a name that no fused op has."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.fused["layernorm"] = self.fused.pop("layer_norm")


@broken(Level.CONTRACT, "tanh")
class NoTanh(NumpyBackend):
    """tanh is not written yet."""

    tanh = Backend.tanh


@broken(Level.CONTRACT, "add")
class ScalarFor0d(NumpyBackend):
    """add of 0-d arrays gives a NumPy scalar."""

    def add(self, x: Array, y: Array) -> Array:
        return np.add(x, y)


@broken(Level.CONTRACT, "sum")
class PythonNumber(NumpyBackend):
    """The sum of everything is a Python number."""

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Any:
        total = super().sum(x, axis=axis, keepdims=keepdims)
        return total if total.ndim else total.item()


@broken(Level.CONTRACT, "slice")
class ScalarFromSlice(NumpyBackend):
    """A slice of a 0-d array gives a NumPy scalar."""

    def slice(self, x: Array, *, starts: Any, stops: Any, steps: Any) -> Array:
        return x[tuple(map(slice, starts, stops, steps))]


@broken(Level.CONTRACT, "mul")
class StrongNumbers(NumpyBackend):
    """A Python number beside float32 promotes the product to float64."""

    def mul(self, x: Array, y: Array) -> Array:
        return np.asarray(np.multiply(np.asarray(x), np.asarray(y)))


@broken(Level.CONTRACT, "exp")
class SilentFloat64(NumpyBackend):
    """exp of float32 is float64."""

    def exp(self, x: Array) -> Array:
        return np.asarray(np.exp(x, dtype=np.float64))


@broken(Level.CONTRACT, "sum")
class WidenedSum(NumpyBackend):
    """The sum of small integers is int64."""

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(np.sum(x, axis=axis, keepdims=keepdims))


@broken(Level.CONTRACT, "less")
class TruthAsBytes(NumpyBackend):
    """less gives uint8."""

    def less(self, x: Array, y: Array) -> Array:
        return super().less(x, y).astype(np.uint8)


@broken(Level.CONTRACT, "max")
class KeepdimsIgnored(NumpyBackend):
    """max drops the axes it was to keep."""

    def max(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        return super().max(x, axis=axis, keepdims=False)


@broken(Level.CONTRACT, "neg")
class MutatedInput(NumpyBackend):
    """neg works in place."""

    def neg(self, x: Array) -> Array:
        return np.negative(x, out=x if x.flags.writeable else None)


@broken(Level.CONTRACT, "matmul")
class NothingToMultiply(NumpyBackend):
    """matmul of empty arrays fails."""

    def matmul(self, x: Array, y: Array) -> Array:
        if not x.size or not y.size:
            raise RuntimeError("GEMM with a dimension of 0")
        return super().matmul(x, y)


@broken(Level.CONTRACT, "log")
class RowByRow(NumpyBackend):
    """log goes row by row, and a 0-d array has none."""

    def log(self, x: Array) -> Array:
        out = np.empty_like(x)
        for i in range(len(x)):
            out[i] = np.log(x[i])
        return out


@broken(Level.CONTRACT, "random bits")
class WideBits(NumpyBackend):
    """random_bits gives int64."""

    def random_bits(self, counter: Array, **how: Any) -> Array:
        return super().random_bits(counter, **how).astype(np.int64)
