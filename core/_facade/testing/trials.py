"""One sample of an operation in one dtype and memory layout: its value and its gradient.

The gradient of an operation is that of sum(weights * op(...)) by its float arguments, with weights
drawn once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np

from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import INDICES, DType
from tfx.core.tensor import Tensor
from tfx.core.tolerances import TOLERANCES
from tfx.testing.calling import LAYOUTS, call, fetch, put, told
from tfx.testing.nearness import SLOPE, Mismatch, assert_close
from tfx.testing.records import KINDS, Arg, Op, Sample

STEP = 1e-5  # of central differences


class Trial:
    """An operation, a sample of it, and what the oracle says of that.

    Attributes:
        arrays: the arguments as host arrays and numbers.
        expected: what NumPy makes of them.
    """

    def __init__(
        self, op: Op, sample: Sample, dtype: DType, layout: str = "plain", turn: int = 0
    ) -> None:
        self.op = op
        self.sample = sample
        self.dtype = dtype
        self.layout = layout
        self._turn = turn
        rng = np.random.default_rng(crc32(f"{op.name}{sample}".encode()))
        self.arrays: list[Any] = [
            x.draw(rng, dtype) if isinstance(x, Arg) else x for x in sample.args
        ]
        if layout == "repeated":
            self.arrays = [_first_repeated(x) for x in self.arrays]

    def __str__(self) -> str:
        laid_out = "" if self.layout == "plain" else f", memory {self.layout}"
        return f"{self.sample} {self.dtype}{laid_out}"

    @cached_property
    def expected(self) -> HostArray:
        return self.op.expected(self.sample, self.arrays)

    @cached_property
    def weights(self) -> HostArray:
        return _normals(self.expected, seed=0)

    def rolled(self, by: int) -> Trial:
        """The same call with the numbers of each array moved on by some places."""
        other = Trial(self.op, self.sample, self.dtype, self.layout, self._turn)
        other.arrays = [np.roll(x, by) if isinstance(x, np.ndarray) else x for x in self.arrays]
        return other

    # ---- values --------------------------------------------------------------------------

    def raw(self, B: Backend) -> list[Any]:
        """The arguments as raw arrays, laid out as this trial has it, and numbers."""
        return self._put(B, self.arrays, self.layout)

    def tensors(self, B: Backend, layout: str | None = None) -> list[Any]:
        """The same with tensors for raw arrays, in this layout or another."""
        raw = self._put(B, self.arrays, layout or self.layout)
        return [Tensor(x, B) if B.is_array(x) else x for x in raw]

    def check_value(self, B: Backend) -> None:
        """The primitive on raw arrays keeps the contract and gives what NumPy gives."""
        with told(self):
            out = call(B, self.op.name, self.raw(B), self.sample.statics)
            assert_close(fetch(B, out), self.expected, B.dtype(out))

    def check_tensor_value(self, B: Backend, share: float = 0.0) -> None:
        """The operation on tensors gives what NumPy gives, in the arguments' dtype."""
        with told(self):
            out = self.op.call(*self.tensors(B), **self.sample.statics)
            if out.dtype is not self.dtype and self.expected.dtype.kind in "fiu":
                raise Mismatch(f"it gave {out.dtype}, promised is {self.dtype}")
            assert_close(fetch(B, out.data), self.expected, out.dtype, share)

    # ---- gradients -----------------------------------------------------------------------

    def loss(self, B: Backend, layout: str) -> Callable[[Sequence[Tensor]], Tensor]:
        """sum(weights * op(...)) as a function of the float arguments."""
        constants = self.tensors(B, layout)
        variable = self._variable

        def fn(params: Sequence[Tensor]) -> Tensor:
            values = iter(params)
            args = [next(values) if v else c for v, c in zip(variable, constants, strict=True)]
            out = self.op.call(*args, **self.sample.statics)
            return (out * Tensor(B.asarray(self.weights, dtype=out.dtype), B)).sum()

        return fn

    def gradients(
        self,
        B: Backend,
        autograd: Autograd = "core",
        arrays: Sequence[Any] | None = None,
        layout: str | None = None,
    ) -> list[HostArray]:
        """By every variable, at the sample's numbers or others."""
        layout = layout or self.layout
        params = self.variables(self._put(B, arrays or self.arrays, layout))
        tensors = [Tensor(x, B) for x in params]
        _, grads = value_and_grad(self.loss(B, layout), autograd=autograd)(tensors)
        for x, g in zip(tensors, grads, strict=True):
            if (g.shape, g.dtype) != (x.shape, x.dtype):
                raise Mismatch(f"the gradient of {x.dtype}{x.shape} is {g.dtype}{g.shape}")
        return [fetch(B, g.data) for g in grads]

    def check_gradients(self, B: Backend, autograd: Autograd = "core") -> None:
        """Plain arrays against the slope of NumPy's values, others against the plain ones."""
        with told(self, f"autograd {autograd}"):
            found = self.gradients(B, autograd)
            if self.layout == "plain":
                assert_slope(found, *self.slope, self.dtype)
                return
            plain = self.gradients(B, autograd, layout="plain")
            if self.dtype is not DType.float64:  # of which the plain layout has a trial of its own
                assert_slope(plain, *self.slope, self.dtype)
            for odd, even in zip(found, plain, strict=True):
                assert_close(odd, even.astype(np.float64), self.dtype)

    @cached_property
    def slope(self) -> tuple[float, list[HostArray]]:
        """Of the loss, by differences of NumPy's values."""
        return self.differences(
            lambda moved: float((self.op.expected(self.sample, moved) * self.weights).sum())
        )

    def differences(self, value: Callable[[Sequence[Any]], float]) -> tuple[float, list[HostArray]]:
        """The slope of a function of the arguments in a random direction, and the direction."""
        along = [
            _normals(x, seed=2) if v else None
            for v, x in zip(self._variable, self.arrays, strict=True)
        ]

        def moved(by: float) -> list[Any]:
            return [
                x if v is None else np.asarray(x.astype(np.float64) + by * v)
                for x, v in zip(self.arrays, along, strict=True)
            ]

        slope = (value(moved(STEP)) - value(moved(-STEP))) / (2 * STEP)
        return slope, [v for v in along if v is not None]

    # ---- the pieces ----------------------------------------------------------------------

    def variables(self, arguments: Sequence[Any]) -> list[Any]:
        """Those of the arguments that a gradient is asked by."""
        return [x for v, x in zip(self._variable, arguments, strict=True) if v]

    @cached_property
    def _variable(self) -> list[bool]:
        return [isinstance(x, Arg) and x.is_variable for x in self.sample.args]

    def _put(self, B: Backend, arrays: Sequence[Any], layout: str) -> list[Any]:
        held = sorted(INDICES & B.dtypes)
        of_kind = {**KINDS, "ids": held[self._turn % len(held)] if held else B.index_dtype}
        return [
            put(B, x, layout, of_kind.get(arg.kind, self.dtype)) if isinstance(arg, Arg) else x
            for arg, x in zip(self.sample.args, arrays, strict=True)
        ]


ONE_IN = 3
"""How many samples there are for each that is tried where the dtype alone is in question."""


def trials(
    op: Op,
    samples: Sequence[Sample],
    B: Backend,
    dtype: DType,
    layouts: Sequence[str] = LAYOUTS,
) -> Iterator[Trial]:
    """Every sample that suits: in the widest float in all layouts, in other dtypes in one each."""
    for i, sample in enumerate(samples):
        if sample.suits(dtype):
            each = layouts if _is_widest(B, dtype) else (layouts[i % len(layouts)],)
            for layout in each:
                yield Trial(op, sample, dtype, layout, turn=i)


def samples_for(op: Op, B: Backend, dtype: DType) -> Sequence[Sample]:
    """All samples in the widest float of the backend; in other dtypes, some, to tell those apart.

    A library that compiles takes its time for each shape in each dtype.
    """
    if _is_widest(B, dtype):
        return op.samples
    return [sample for sample in op.samples if sample.suits(dtype)][::ONE_IN]


def _is_widest(B: Backend, dtype: DType) -> bool:
    return dtype is (DType.float64 if DType.float64 in B.dtypes else DType.float32)


def check_values(
    op: Op,
    B: Backend,
    samples: Sequence[Sample],
    dtype: DType,
    layouts: Sequence[str] = LAYOUTS,
    share: float = 0.0,
) -> None:
    """The operation on tensors gives what NumPy gives, on samples and on its specials."""
    for trial in trials(op, (*samples, *op.specials), B, dtype, layouts):
        trial.check_tensor_value(B, share)


def check_gradients(
    op: Op,
    B: Backend,
    samples: Sequence[Sample],
    dtype: DType,
    autograd: Autograd = "core",
    layouts: Sequence[str] = LAYOUTS,
) -> None:
    """Its gradients are those of finite differences."""
    for trial in trials(op, samples, B, dtype, layouts):
        trial.check_gradients(B, autograd)


def assert_slope(
    found: Sequence[HostArray], slope: float, along: Sequence[HostArray], dtype: DType
) -> None:
    """The gradients, taken along a direction, are the slope in that direction."""
    terms = [g.astype(np.float64) * v for g, v in zip(found, along, strict=True)]
    mine = sum(float(term.sum()) for term in terms)
    size = max(1.0, abs(slope), *(float(np.abs(term).sum()) for term in terms))
    bound = size * max(SLOPE.bound, TOLERANCES[dtype].bound)
    if not abs(mine - slope) <= bound:
        raise Mismatch(f"slope {mine:.9g}, by finite differences {slope:.9g} within {bound:.1e}")


def _normals(x: HostArray, seed: int) -> HostArray:
    return np.asarray(np.random.default_rng(seed).standard_normal(x.shape))


def _first_repeated(x: Any) -> Any:
    """The same shape, with every row the first."""
    is_array = isinstance(x, np.ndarray) and x.ndim
    return np.broadcast_to(x[:1], x.shape) if is_array else x
