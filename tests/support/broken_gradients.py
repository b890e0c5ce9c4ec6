"""Faults of a backend's own autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from broken_backends import broken

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import PRIMITIVES, Array, Backend, Fused, HostArray
from tfx.core.dtypes import DType
from tfx.core.nn import linear
from tfx.core.tape import Leaf, Node, nodes_behind, recording
from tfx.core.tensor import Tensor, apply, gradients
from tfx.testing import Level

Rule = Callable[..., tuple[Any, ...]]
_TO_ARRAYS = ("asarray", "full", "arange")


class TapeBackend(Backend):
    """NumPy with an autograd of its own: raw arrays are tensors, which keep a tape.

    Attributes:
        rules: derivatives that are not the tape's, by primitive: `(B, g, out, *args, **statics)`
            to a gradient for each argument.
    """

    name = "numpy"
    dtypes = NumpyBackend.dtypes
    storage_dtypes = NumpyBackend.storage_dtypes
    device_random = True
    native_autograd = True
    rules: ClassVar[Mapping[str, Rule]] = {}

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.inner = NumpyBackend(device)

    def is_array(self, x: object) -> bool:
        return isinstance(x, Tensor) and x.backend is self.inner

    def dtype(self, x: Array) -> DType:
        return self.inner.dtype(x.data)

    def to_numpy(self, x: Array) -> HostArray:
        return self.inner.to_numpy(x.data)

    def value_and_grad(
        self, fn: Callable[..., Array], arrays: Sequence[Array]
    ) -> tuple[Array, Sequence[Array | None]]:
        leaves = [Leaf() for _ in arrays]
        value = fn(*(Tensor(x.data, self.inner, n) for x, n in zip(arrays, leaves, strict=True)))
        if value.node is None:
            return value, [None] * len(leaves)
        return Tensor(value.data, self.inner), self.walk_back(value, leaves)

    def walk_back(self, value: Tensor, leaves: Sequence[Leaf]) -> Sequence[Array | None]:
        """The gradient by each leaf."""
        return gradients(value, leaves)

    def stop_gradient(self, x: Array) -> Array:
        return Tensor(x.data, self.inner)

    def recording_natively(self, x: Array) -> bool:
        return x.node is not None and not recording.paused


class _OwnRule(Node):
    """A recorded primitive whose derivative is `rule`."""

    __slots__ = ("rule",)

    def pull(self, B: Any, g: Any, out: Any, args: Sequence[Any]) -> list[Any]:
        found = self.rule(B, g, out, *args, **self.params)
        return [found[i] for i, _ in self.parents]


def _primitive(op: str) -> Callable[..., Tensor]:
    def method(self: TapeBackend, *args: Any, **statics: Any) -> Tensor:
        if op in _TO_ARRAYS:
            return Tensor(getattr(self.inner, op)(*args, **statics), self.inner)
        out = apply(op, *args, **statics)
        if out.node is not None and op in self.rules:
            made = out.node
            out.node = _OwnRule(op, made.inputs, made.raw, made.parents, made.params, made.out)
            out.node.rule = self.rules[op]
        return out

    return method


for _op in PRIMITIVES:
    if _op != "to_numpy":
        setattr(TapeBackend, _op, _primitive(_op))


# ---- rules -----------------------------------------------------------------------------------


@broken(Level.GRADIENTS, "equals share the gradient of maximum")
class TiesToTheFirst(TapeBackend):
    """Of equals, maximum gives all of the gradient to its first argument."""

    rules: ClassVar = {
        "maximum": lambda B, g, out, x, y: (g * np.equal(x, out), g * np.not_equal(x, out))
    }


@broken(Level.GRADIENTS, "equals share the gradient of max")
class TiesToAll(TapeBackend):
    """Each of equals gets the whole gradient of max."""

    @staticmethod
    def _max(
        B: Any, g: Any, out: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool
    ) -> tuple[Any, ...]:
        kept = tuple(1 if i in axis else n for i, n in enumerate(x.shape))
        return (np.equal(x, out.reshape(kept)) * g.reshape(kept),)

    rules: ClassVar = {"max": _max}


@broken(Level.GRADIENTS, "what is not selected")
class WhereLeaksNaN(TapeBackend):
    """The gradient of where is a product with 0, which NaN survives."""

    rules: ClassVar = {
        "where": lambda B, g, out, c, x, y: (None, g * c + 0 * x, g * np.logical_not(c) + 0 * y)
    }


@broken(Level.GRADIENTS, "slope of x**0")
class SlopeOfOne(TapeBackend):
    """The slope of x**0 at 0 is 0 / 0."""

    rules: ClassVar = {
        "pow": lambda B, g, out, x, *, exponent: (g * exponent * np.power(x, exponent - 1),)
    }


@broken(Level.GRADIENTS, "take")
class LastRowWins(TapeBackend):
    """The gradient of take keeps the last of what comes back to a repeated index."""

    @staticmethod
    def _take(B: Any, g: Any, out: Any, x: Any, indices: Any, *, axis: int) -> tuple[Any, Any]:
        found = np.zeros_like(x)
        found[(slice(None),) * axis + (indices,)] = g
        return found, None

    rules: ClassVar = {"take": _take}


@broken(Level.GRADIENTS, "matmul")
class TransposedGradient(TapeBackend):
    """The gradient by the first factor of square matrices is transposed."""

    @staticmethod
    def _matmul(B: Any, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
        by_x, by_y = g @ y.swapaxes(-1, -2), x.swapaxes(-1, -2) @ g
        return by_x.swapaxes(-1, -2) if x.shape[-1] == x.shape[-2] else by_x, by_y

    rules: ClassVar = {"matmul": _matmul}


@broken(Level.GRADIENTS, "sqrt")
class HalfForgotten(TapeBackend):
    """The slope of sqrt is twice what it should be."""

    rules: ClassVar = {"sqrt": lambda B, g, out, x: (g / out,)}


# ---- value_and_grad --------------------------------------------------------------------------


@broken(Level.GRADIENTS, "native autograd finds what the tape finds")
class LosesAParameter(TapeBackend):
    """Of many parameters, the third has no gradient."""

    def value_and_grad(self, fn: Any, arrays: Any) -> Any:
        value, grads = super().value_and_grad(fn, arrays)
        return value, [None if i == 2 < len(arrays) - 1 else g for i, g in enumerate(grads)]


@broken(Level.GRADIENTS, "native autograd finds what the tape finds")
class ZerosForAParameter(TapeBackend):
    """Of many parameters, the third has a gradient of zeros."""

    def value_and_grad(self, fn: Any, arrays: Any) -> Any:
        value, grads = super().value_and_grad(fn, arrays)
        lost = 2 if len(arrays) > 3 else None
        return value, [self.mul(g, 0.0) if i == lost else g for i, g in enumerate(grads)]


@broken(Level.GRADIENTS, "native")
class NarrowGradients(TapeBackend):
    """Gradients are float32 for every parameter."""

    def value_and_grad(self, fn: Any, arrays: Any) -> Any:
        value, grads = super().value_and_grad(fn, arrays)
        return value, [None if g is None else self.cast(g, dtype=DType.float32) for g in grads]


@broken(Level.GRADIENTS, "native autograd finds what the tape finds")
class ValueWithAnAxis(TapeBackend):
    """The value has an axis of length 1."""

    def value_and_grad(self, fn: Any, arrays: Any) -> Any:
        value, grads = super().value_and_grad(fn, arrays)
        return self.reshape(value, shape=(1,)), grads


@broken(Level.GRADIENTS, "native autograd finds what the tape finds")
class HalvesWhatItCheckpoints(TapeBackend):
    """A checkpointed function has half of its gradient."""

    def checkpoint(self, fn: Any) -> Any:
        half = fn()
        return self.mul(self.add(half, self.stop_gradient(half)), 0.5)


@broken(Level.GRADIENTS, "native")
class PilesUp(TapeBackend):
    """Gradients of one call are added to those of the one before."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self._before: dict[Any, Any] = {}

    def value_and_grad(self, fn: Any, arrays: Any) -> Any:
        value, grads = super().value_and_grad(fn, arrays)
        key = tuple(None if g is None else (g.shape, g.dtype) for g in grads)
        kept = self._before.get(key)
        self._before[key] = grads = [
            g if kept is None or g is None else self.add(g, kept[i]) for i, g in enumerate(grads)
        ]
        return value, grads


@broken(Level.GRADIENTS, "detached")
class DetachIgnored(TapeBackend):
    """stop_gradient lets everything through."""

    def stop_gradient(self, x: Array) -> Array:
        return x


# ---- kernels and models under it -------------------------------------------------------------


@broken(Level.KERNELS, "linear float32 kernel native")
class SeveredWeights(TapeBackend):
    """A kernel for linear keeps the gradient by x and severs that by w."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.fused["linear"] = Fused("linear", self._linear, native=True)

    @staticmethod
    def _linear(B: Any, x: Any, w: Any, *more: Any, **params: Any) -> tuple[Any, None]:
        return linear(x, B.stop_gradient(w), *more, **params), None


@broken(Level.MODELS, "layer by layer")
class ShallowAutograd(TapeBackend):
    """Its autograd calls itself for each step back, and runs out of stack."""

    def walk_back(self, value: Tensor, leaves: Sequence[Leaf]) -> Sequence[Array | None]:
        if value.node and len(nodes_behind(value.node)) > 150:
            raise RecursionError("maximum recursion depth exceeded")
        return super().walk_back(value, leaves)
