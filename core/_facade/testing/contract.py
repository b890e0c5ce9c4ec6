"""The contract of every primitive, as code: what it takes, and the shape and dtype of its result.

A rule takes the backend, then what the primitive takes, with an `ArrayType` for each array. It
raises `ContractError` where the call breaks the contract, and returns what the result must be. One
thing is left to the library: shapes that do not broadcast or multiply, which it refuses with a
`ValueError` or `RuntimeError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import INDICES, DType


class ContractError(AssertionError):
    """A caller or a backend broke the contract of a primitive."""


class ArrayType(NamedTuple):
    """What the contract knows of an array."""

    shape: tuple[int, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}{self.shape}"


Operand = ArrayType | int | float
Rule = TypeVar("Rule", bound=Callable[..., ArrayType])

CONTRACT: dict[str, Callable[..., ArrayType]] = {}
"""The rule of every primitive, by name."""


def rule_of(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for the primitives `names`."""

    def enter(rule: Rule) -> Rule:
        CONTRACT.update(dict.fromkeys(names, rule))
        return rule

    return enter


def require(held: bool, what: str) -> None:
    """Raise `ContractError` unless it held."""
    if not held:
        raise ContractError(what)


# ---- arrays ------------------------------------------------------------------------------


@rule_of("asarray")
def _(B: Backend, value: HostArray, *, dtype: DType) -> ArrayType:
    require(type(value) is np.ndarray, f"asarray takes a NumPy array, not {type(value).__name__}")
    return ArrayType(value.shape, _held(B, dtype))


@rule_of("to_numpy")
def _(B: Backend, x: ArrayType) -> ArrayType:
    return x


@rule_of("full")
def _(B: Backend, *, shape: tuple[int, ...], value: float, dtype: DType) -> ArrayType:
    _weak(value, dtype)
    return ArrayType(_lengths(shape), _held(B, dtype))


@rule_of("arange")
def _(B: Backend, *, stop: int) -> ArrayType:
    return ArrayType(_lengths((stop,)), B.index_dtype)


@rule_of("cast")
def _(B: Backend, x: ArrayType, *, dtype: DType) -> ArrayType:
    return ArrayType(x.shape, _held(B, dtype))


# ---- elementwise -------------------------------------------------------------------------


@rule_of("neg")
def _(B: Backend, x: ArrayType) -> ArrayType:
    return ArrayType(x.shape, _arithmetic(B, x))


@rule_of("exp", "log", "tanh", "sqrt")
def _(B: Backend, x: ArrayType) -> ArrayType:
    return ArrayType(x.shape, _floating(B, x))


@rule_of("add", "sub", "mul", "maximum")
def _(B: Backend, x: Operand, y: Operand) -> ArrayType:
    return ArrayType(_broadcast(x, y), _arithmetic(B, x, y))


@rule_of("div")
def _(B: Backend, x: Operand, y: Operand) -> ArrayType:
    return ArrayType(_broadcast(x, y), _floating(B, x, y))


@rule_of("pow")
def _(B: Backend, x: ArrayType, *, exponent: float) -> ArrayType:
    _weak(exponent, x.dtype)
    return ArrayType(x.shape, _floating(B, x))


@rule_of("less")
def _(B: Backend, x: Operand, y: Operand) -> ArrayType:
    _arithmetic(B, x, y)
    return ArrayType(_broadcast(x, y), DType.bool)


@rule_of("equal")
def _(B: Backend, x: Operand, y: Operand) -> ArrayType:
    _computed(B, x, y)
    return ArrayType(_broadcast(x, y), DType.bool)


@rule_of("where")
def _(B: Backend, condition: ArrayType, x: Operand, y: Operand) -> ArrayType:
    require(condition.dtype is DType.bool, f"the condition is {condition.dtype}, not bool")
    return ArrayType(_broadcast(condition, x, y), _computed(B, x, y))


# ---- reduce and matmul -------------------------------------------------------------------


@rule_of("sum", "max")
def _(B: Backend, x: ArrayType, *, axis: tuple[int, ...], keepdims: bool) -> ArrayType:
    _axes(axis, x)
    require(type(keepdims) is bool, f"keepdims is {keepdims!r}, not a bool")
    kept = [1 if i in axis else n for i, n in enumerate(x.shape) if keepdims or i not in axis]
    return ArrayType(tuple(kept), _arithmetic(B, x))


@rule_of("argmax")
def _(B: Backend, x: ArrayType, *, axis: int) -> ArrayType:
    _axes((axis,), x)
    _arithmetic(B, x)
    return ArrayType(x.shape[:axis] + x.shape[axis + 1 :], B.index_dtype)


@rule_of("matmul")
def _(B: Backend, x: ArrayType, y: ArrayType) -> ArrayType:
    require(len(x.shape) > 1 and len(y.shape) > 1, f"matmul of {x.shape} and {y.shape}")
    *leading, n, k = x.shape
    *others, also_k, m = y.shape
    if k != also_k:
        raise ValueError(f"matmul of {x.shape} and {y.shape}")
    return ArrayType(
        (*np.broadcast_shapes(tuple(leading), tuple(others)), n, m), _floating(B, x, y)
    )


# ---- shape -------------------------------------------------------------------------------


@rule_of("reshape")
def _(B: Backend, x: ArrayType, *, shape: tuple[int, ...]) -> ArrayType:
    fits = math.prod(_lengths(shape)) == math.prod(x.shape)
    require(fits, f"reshape of {x.shape} to {shape}")
    return ArrayType(shape, x.dtype)


@rule_of("transpose")
def _(B: Backend, x: ArrayType, *, axes: tuple[int, ...]) -> ArrayType:
    require(len(_axes(axes, x)) == len(x.shape), f"transpose of {x.shape} by {axes}")
    return ArrayType(tuple(x.shape[i] for i in axes), x.dtype)


@rule_of("broadcast_to")
def _(B: Backend, x: ArrayType, *, shape: tuple[int, ...]) -> ArrayType:
    if np.broadcast_shapes(x.shape, _lengths(shape)) != shape:
        raise ValueError(f"broadcast of {x.shape} to {shape}")
    return ArrayType(shape, x.dtype)


@rule_of("concat")
def _(B: Backend, *xs: ArrayType, axis: int) -> ArrayType:
    require(len(xs) > 0, "concat of nothing")
    _axes((axis,), xs[0])
    outside = {(x.shape[:axis], x.shape[axis + 1 :], x.dtype) for x in xs}
    require(len(outside) == 1, f"concat of {xs} along axis {axis}")
    length = sum(x.shape[axis] for x in xs)
    return ArrayType((*xs[0].shape[:axis], length, *xs[0].shape[axis + 1 :]), xs[0].dtype)


@rule_of("slice")
def _(
    B: Backend,
    x: ArrayType,
    *,
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...],
) -> ArrayType:
    for cuts in (_lengths(starts), _lengths(stops), _lengths(steps)):
        require(len(cuts) == len(x.shape), f"slice of {x.shape} by {cuts}")
    for start, stop, step, length in zip(starts, stops, steps, x.shape, strict=True):
        within = start <= stop <= length and step >= 1
        require(within, f"slice {start}:{stop}:{step} of a length {length}")
    return ArrayType(
        tuple(len(range(*cut)) for cut in zip(starts, stops, steps, strict=True)), x.dtype
    )


@rule_of("pad")
def _(B: Backend, x: ArrayType, *, widths: tuple[tuple[int, int], ...], value: float) -> ArrayType:
    pairs = type(widths) is tuple and all(len(_lengths(pair)) == 2 for pair in widths)
    require(pairs and len(widths) == len(x.shape), f"pad of {x.shape} by {widths}")
    _weak(value, _computed(B, x))
    wide = (before + n + after for n, (before, after) in zip(x.shape, widths, strict=True))
    return ArrayType(tuple(wide), x.dtype)


# ---- index and random --------------------------------------------------------------------


@rule_of("take")
def _(B: Backend, x: ArrayType, indices: ArrayType, *, axis: int) -> ArrayType:
    _axes((axis,), x)
    require(indices.dtype in INDICES, f"indices are {indices.dtype}")
    return ArrayType(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)


@rule_of("scatter_add")
def _(B: Backend, x: ArrayType, indices: ArrayType, updates: ArrayType, *, axis: int) -> ArrayType:
    taken = CONTRACT["take"](B, x, indices, axis=axis)
    require(updates == taken, f"the updates are {updates}, not {taken}")
    return ArrayType(x.shape, _arithmetic(B, x))


@rule_of("write")
def _(
    B: Backend, buffer: ArrayType, slab: ArrayType, start: ArrayType | int, *, axis: int
) -> ArrayType:
    _axes((axis,), buffer)
    fitting = ArrayType(
        (*buffer.shape[:axis], slab.shape[axis], *buffer.shape[axis + 1 :]), buffer.dtype
    )
    room = buffer.shape[axis] - slab.shape[axis]
    require(slab == fitting and room >= 0, f"write of {slab} into {buffer} along axis {axis}")
    if isinstance(start, ArrayType):
        require(start.shape == () and start.dtype in INDICES, f"write at {start}")
    else:
        require(
            type(start) is int and 0 <= start <= room, f"write at {start!r}, with room for {room}"
        )
    return buffer


@rule_of("random_bits")
def _(
    B: Backend, counter: ArrayType, *, key: tuple[int, int], shape: tuple[int, ...], bits: int
) -> ArrayType:
    require(counter.shape == () and counter.dtype in INDICES, f"the counter is {counter}")
    words = len(_lengths(key)) == 2 and max(key) < 2**32
    require(words and type(bits) is int and 1 <= bits <= 32, f"random_bits of {key}, {bits} bits")
    return ArrayType(_lengths(shape), DType.int32)


# ---- what rules ask of arguments ---------------------------------------------------------


def _held(B: Backend, dtype: DType) -> DType:
    """A dtype the backend can at least store."""
    require(type(dtype) is DType, f"the dtype is {dtype!r}, not a DType")
    require(dtype in B.dtypes | B.storage_dtypes, f"{B} has no {dtype}")
    return dtype


def _computed(B: Backend, *operands: Operand) -> DType:
    """The one dtype of the arrays among the operands; numbers beside them have to suit it."""
    dtypes = {x.dtype for x in operands if isinstance(x, ArrayType)}
    require(len(dtypes) == 1, f"operands of {sorted(dtypes)}: one dtype was expected")
    (dtype,) = dtypes
    require(dtype in B.dtypes, f"{B} does not compute with {dtype}")
    for x in operands:
        if not isinstance(x, ArrayType):
            _weak(x, dtype)
    return dtype


def _arithmetic(B: Backend, *operands: Operand) -> DType:
    dtype = _computed(B, *operands)
    require(dtype is not DType.bool, "arithmetic on bool")
    return dtype


def _floating(B: Backend, *operands: Operand) -> DType:
    dtype = _computed(B, *operands)
    require(dtype.is_float, f"a float operation on {dtype}")
    return dtype


def _weak(number: Any, dtype: DType) -> None:
    """A Python number of a kind that needs no promotion: bool for bool, no float for integers."""
    suits = (
        (bool,) if dtype is DType.bool else (bool, int, float) if dtype.is_float else (bool, int)
    )
    require(type(number) in suits, f"{number!r} ({type(number).__name__}) beside {dtype}")


def _broadcast(*operands: Operand) -> tuple[int, ...]:
    return np.broadcast_shapes(*(x.shape for x in operands if isinstance(x, ArrayType)))


def _lengths(values: Sequence[int]) -> tuple[int, ...]:
    """A tuple of non-negative Python integers."""
    whole = type(values) is tuple and all(type(n) is int and n >= 0 for n in values)
    require(whole, f"{values!r} is not a tuple of non-negative integers")
    return tuple(values)


def _axes(axes: Sequence[int], x: ArrayType) -> tuple[int, ...]:
    """Distinct axes of `x`, as a tuple of non-negative integers."""
    distinct = len(set(_lengths(axes))) == len(axes)
    require(distinct and max(axes, default=-1) < len(x.shape), f"axes {axes} of {x.shape}")
    return tuple(axes)
