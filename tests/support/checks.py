"""How an `Op` is held against its oracles: values, gradients, gradients of gradients.

The gradient of an operation is that of sum(weights * op(...)) by its float arguments, with weights
drawn once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
from op_records import Op, Sample, layouts, put, told, torch

from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.tensor import Tensor

TOLERANCE = {DType.float64: 1e-11, DType.float32: 3e-5, DType.float16: 6e-3}
STEP = 1e-5  # of central differences


def assert_close(found: HostArray, expected: HostArray, dtype: DType, times: float = 1.0) -> None:
    """Equal up to the rounding of `dtype`; other dtypes exactly, integers after wrapping."""
    assert found.shape == expected.shape
    if not dtype.is_float:
        np.testing.assert_array_equal(found, expected.astype(found.dtype))
        return
    wide = found.astype(np.float64)
    finite = np.isfinite(expected)
    tolerance = TOLERANCE[dtype] * times
    bound = tolerance * max(1.0, np.abs(expected).max(initial=0.0, where=finite))
    with np.errstate(invalid="ignore"):
        near = np.abs(wide - expected) <= bound
    if not np.where(finite, near, (wide == expected) | (np.isnan(wide) & np.isnan(expected))).all():
        raise AssertionError(f"within {bound:.1e} of\n{expected}\nexpected, found\n{wide}")


class Trial:
    """One sample of an operation in one dtype and layout, and what the oracles say of it."""

    def __init__(self, op: Op, sample: Sample, dtype: DType, layout: str) -> None:
        self.op = op
        self.sample = sample
        self.layout = layout
        self.arrays = op.drawn(sample, dtype, layout)
        self.expected = op.expected(sample, self.arrays)

    def __str__(self) -> str:
        return f"{self.sample}, {self.layout}"

    @cached_property
    def weights(self) -> HostArray:
        return _normals(self.expected, seed=0)

    @cached_property
    def aims(self) -> list[HostArray]:
        """A direction for every float argument, along which second derivatives are taken."""
        return [_normals(x, seed=1) for x in self.variables()]

    def variables(self, arrays: Sequence[Any] | None = None) -> list[HostArray]:
        """The arguments that a gradient is asked by."""
        return [x for x in arrays or self.arrays if _is_variable(x)]

    def tensors(self, B: Backend) -> list[Any]:
        return [_tensor(B, x, self.layout) if isinstance(x, np.ndarray) else x for x in self.arrays]

    def loss(self, B: Backend) -> Callable[[Sequence[Tensor]], Tensor]:
        """sum(weights * op(...)) as a function of the float arguments."""
        constants = self.tensors(B)

        def fn(params: Sequence[Tensor]) -> Tensor:
            values = iter(params)
            args = [
                next(values) if _is_variable(x) else c
                for x, c in zip(self.arrays, constants, strict=True)
            ]
            out = self.op.tfx(*args, **self.sample.statics)
            return (out * Tensor(B.asarray(self.weights, dtype=out.dtype), B)).sum()

        return fn

    def gradients(
        self, B: Backend, autograd: Autograd = "core", arrays: Sequence[Any] | None = None
    ) -> list[HostArray]:
        """By every variable, at the sample's numbers or others."""
        params = [_tensor(B, x, self.layout) for x in self.variables(arrays)]
        _, grads = value_and_grad(self.loss(B), autograd=autograd)(params)
        for x, g in zip(params, grads, strict=True):
            assert (g.shape, g.dtype) == (x.shape, x.dtype)
        return [g.numpy() for g in grads]

    def seconds(self, B: Backend) -> list[HostArray]:
        """The gradient of the slope along `aims`, the tape walked twice."""

        def slope(params: Sequence[Tensor]) -> Tensor:
            _, grads = value_and_grad(self.loss(B), autograd="core")(params)
            along = [_tensor(B, v, "plain") for v in self.aims]
            terms: list[Tensor] = [(g * v).sum() for g, v in zip(grads, along, strict=True)]
            return sum(terms[1:], start=terms[0])

        params = [_tensor(B, x, self.layout) for x in self.variables()]
        _, found = value_and_grad(slope, autograd="core")(params)
        return [g.numpy() for g in found]

    def differences(self, value: Callable[[Sequence[Any]], float]) -> tuple[float, list[HostArray]]:
        """The slope of a function of the arguments in a random direction, and the direction."""
        along = [_normals(x, seed=2) if _is_variable(x) else None for x in self.arrays]

        def moved(by: float) -> list[Any]:
            return [
                x if v is None else np.asarray(x + by * v)
                for x, v in zip(self.arrays, along, strict=True)
            ]

        slope = (value(moved(STEP)) - value(moved(-STEP))) / (2 * STEP)
        return slope, [v for v in along if v is not None]

    @cached_property
    def numpy_slope(self) -> tuple[float, list[HostArray]]:
        """Of the loss, by differences of NumPy's values."""
        return self.differences(
            lambda moved: float((self.op.expected(self.sample, moved) * self.weights).sum())
        )

    @cached_property
    def torch_gradients(self) -> list[HostArray]:
        leaves, total = self._torch_loss()
        return [g.numpy(force=True).astype(np.float64) for g in _torch_grad(total, leaves)]

    @cached_property
    def torch_seconds(self) -> list[HostArray]:
        leaves, total = self._torch_loss()
        grads = _torch_grad(total, leaves, create_graph=True)
        slope = sum((g * torch.tensor(v)).sum() for g, v in zip(grads, self.aims, strict=True))
        return [g.numpy(force=True) for g in _torch_grad(slope, leaves)]

    def _torch_loss(self) -> tuple[Any, Any]:
        assert self.op.torch is not None
        args = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in self.arrays]
        leaves = [x.requires_grad_() for x in args if torch.is_tensor(x) and x.is_floating_point()]
        out = self.op.torch(*args, **self.sample.statics)
        return leaves, (out * torch.tensor(self.weights, dtype=out.dtype)).sum()


def check_values(op: Op, B: Backend, dtype: DType) -> None:
    """Values, dtype and shape of tensors against NumPy's."""
    for trial in _trials(op, (*op.samples, *op.specials), dtype):
        with told(trial):
            out = op.tfx(*trial.tensors(B), **trial.sample.statics)
            assert out.dtype is dtype or trial.expected.dtype.kind not in "fiu"
            assert_close(out.numpy(), trial.expected, out.dtype)


def check_gradients(op: Op, B: Backend, dtype: DType, autograd: Autograd = "core") -> None:
    """First derivatives against torch's and, in float64, finite differences of NumPy's values."""
    for trial in _trials(op, op.samples, dtype):
        with told(trial):
            found = trial.gradients(B, autograd)
            if torch:
                for mine, theirs in zip(found, trial.torch_gradients, strict=True):
                    assert_close(mine, theirs, dtype)
            if dtype is DType.float64 and trial.layout == "plain":
                _assert_slope(found, *trial.numpy_slope)


def check_second_derivatives(op: Op, B: Backend) -> None:
    """Gradients of gradients against torch's and finite differences of the first, in float64."""
    for sample in op.samples:
        trial = _trial(op, sample, DType.float64, "plain")
        with told(trial):
            found = trial.seconds(B)
            if torch:
                for mine, theirs in zip(found, trial.torch_seconds, strict=True):
                    assert_close(mine, theirs, DType.float64, times=100)

            def slope(moved: Sequence[Any], trial: Trial = trial) -> float:
                grads = trial.gradients(B, arrays=moved)
                return float(sum((g * v).sum() for g, v in zip(grads, trial.aims, strict=True)))

            _assert_slope(found, *trial.differences(slope))


# ---- the pieces --------------------------------------------------------------------------


_trial = cache(Trial)


def _trials(op: Op, samples: Sequence[Sample], dtype: DType) -> Iterator[Trial]:
    for i, sample in enumerate(samples):
        for layout in layouts(dtype, i):
            yield _trial(op, sample, dtype, layout)


def _is_variable(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _tensor(B: Backend, x: HostArray, layout: str) -> Tensor:
    return Tensor(put(B, x, layout), B)


def _normals(x: HostArray, seed: int) -> HostArray:
    return np.asarray(np.random.default_rng(seed).standard_normal(x.shape))


def _assert_slope(found: Sequence[HostArray], slope: float, along: Sequence[HostArray]) -> None:
    mine = sum(float((g * v).sum()) for g, v in zip(found, along, strict=True))
    assert abs(mine - slope) <= 2e-7 * (1 + abs(slope)), f"slope {mine}, by differences {slope}"


def _torch_grad(total: Any, leaves: Sequence[Any], create_graph: bool = False) -> list[Any]:
    """Gradients, zero where there is no connection."""
    if not torch.is_tensor(total) or not total.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad(total, leaves, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
