"""Each primitive over settled memory: NumPy calls that write where they are told.

A plan gives `(out, calls)`, or None for what it leaves to the primitive itself, whose result is
then copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import Array
from tfx.core.backend import Backend
from tfx.core.capture.memory import owner
from tfx.core.dtypes import DType
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, PrimitivePlan, Workspace, maximum, put_row

Planned = tuple[Array, Sequence[Call]] | None


# ---- elementwise -----------------------------------------------------------------------------


def _elementwise(ufunc: Callable[..., Any], dtype: Any = None) -> PrimitivePlan:
    def plan(B: Backend, space: Workspace, *args: Any) -> Planned:
        arrays = _weak_as_arrays(args)
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        kind = dtype or arrays[0].dtype
        out = _over(space, shape, kind, arrays)
        return out, [(ufunc, (*arrays, out))]

    return plan


def _weak_as_arrays(args: Sequence[Any]) -> list[Array]:
    """The arguments, numbers as arrays of the dtype beside them: NumPy would convert them anew in
    every call."""
    dtype = next(x.dtype for x in args if isinstance(x, np.ndarray))
    return [np.asarray(x, x.dtype if isinstance(x, np.ndarray) else dtype) for x in args]


def _over(space: Workspace, shape: tuple[int, ...], dtype: Any, args: Sequence[Array]) -> Array:
    """Where an elementwise result goes: over an argument that is not needed any more, if it can."""
    for x in args:
        if x.shape == shape and x.dtype == dtype and space.may_overwrite(x):
            return x
    out: Array = space.result(shape, dtype)
    return out


def _pow(B: Backend, space: Workspace, x: Array, *, exponent: float) -> Planned:
    out = _over(space, x.shape, x.dtype, [x])
    return out, [(np.power, (x, np.asarray(exponent, x.dtype), out))]


def _cast(B: Any, space: Workspace, x: Array, *, dtype: DType) -> Planned:
    if DType.bfloat16 in (dtype, B.dtype(x)):
        return None
    out = space.result(x.shape, B.native(dtype))
    return out, [(np.copyto, (out, x, "unsafe"))]


def _where(B: Backend, space: Workspace, condition: Array, x: Any, y: Any) -> Planned:
    x, y = _weak_as_arrays((x, y))
    shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
    out = _over(space, shape, y.dtype, [y])
    calls: list[Call] = [] if out is y else [(np.copyto, (out, y))]
    return out, [*calls, (np.copyto, (out, x, "same_kind", condition))]


# ---- reductions and products -----------------------------------------------------------------


def _reduced(x: Array, axis: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    return tuple(1 if i in axis else n for i, n in enumerate(x.shape) if keepdims or i not in axis)


def _sum(
    B: Backend, space: Workspace, x: Array, *, axis: tuple[int, ...], keepdims: bool
) -> Planned:
    if x.dtype == np.float16:
        return None
    out = space.result(_reduced(x, axis, keepdims), x.dtype)
    return out, [(np.add.reduce, (x, axis, x.dtype, out, keepdims))]


def _max(
    B: Backend, space: Workspace, x: Array, *, axis: tuple[int, ...], keepdims: bool
) -> Planned:
    out = space.result(_reduced(x, axis, keepdims), x.dtype)
    return out, [(np.maximum.reduce, (x, axis, None, out, keepdims))]


def _argmax(B: Any, space: Workspace, x: Array, *, axis: int) -> Planned:
    if B.native(B.index_dtype) != np.intp:
        return None
    out = space.result(x.shape[:axis] + x.shape[axis + 1 :], np.intp)
    return out, [(np.argmax, (x, axis, out))]


def _matmul(B: Backend, space: Workspace, x: Array, y: Array) -> Planned:
    if x.dtype not in HOST.dtypes:
        return None
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = space.result((*leading, x.shape[-2], y.shape[-1]), x.dtype)
    plain = x.ndim == y.ndim == 2 and out.flags.c_contiguous
    return out, [(np.dot if plain else np.matmul, (x, y, out))]


# ---- shape: views, which cost nothing -----------------------------------------------------------


def _view(name: str) -> PrimitivePlan:
    def plan(B: Backend, space: Workspace, x: Array, **params: Any) -> Planned:
        return getattr(B, name)(x, **params), []

    return plan


def _reshape(B: Backend, space: Workspace, x: Array, *, shape: tuple[int, ...]) -> Planned:
    seen = x.reshape(shape)
    if owner(seen) == owner(x):
        return seen, []
    out = space.result(shape, x.dtype)
    return out, [(np.copyto, (out.reshape(x.shape), x))]


def _concat(B: Backend, space: Workspace, *xs: Array, axis: int) -> Planned:
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    out = space.result(tuple(shape), xs[0].dtype)
    return out, [(np.concatenate, (xs, axis, out))]


def _pad(
    B: Backend, space: Workspace, x: Array, *, widths: tuple[tuple[int, int], ...], value: float
) -> Planned:
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths, strict=True))
    out = space.result(shape, x.dtype)
    inside = out[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths, strict=True))]
    return out, [(np.copyto, (out, np.asarray(value, x.dtype))), (np.copyto, (inside, x))]


# ---- index --------------------------------------------------------------------------------------


def _take(B: Backend, space: Workspace, x: Array, indices: Array, *, axis: int) -> Planned:
    out = space.result(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype)
    return out, [(np.take, (x, indices, axis, out, "clip"))]


def _scatter_add(
    B: Backend, space: Workspace, x: Array, indices: Array, updates: Array, *, axis: int
) -> Planned:
    apart = owner(updates) != owner(x)
    out = _over(space, x.shape, x.dtype, [x] if apart else [])
    calls: list[Call] = [] if out is x else [(np.copyto, (out, x))]
    where = (slice(None),) * axis + (indices,)
    return out, [*calls, (np.add.at, (out, where, updates))]


def _write(
    B: Backend, space: Workspace, buffer: Array, slab: Array, start: Any, *, axis: int
) -> Planned:
    out = _over(space, buffer.shape, buffer.dtype, [buffer])
    calls: list[Call] = [] if out is buffer else [(np.copyto, (out, buffer))]
    before = (slice(None),) * axis
    if isinstance(start, int):
        place = out[(*before, slice(start, start + slab.shape[axis]))]
        return out, [*calls, (np.copyto, (place, slab))]
    if slab.shape[axis] == 1 and buffer.ndim > 1:
        return out, [*calls, (put_row, (out.swapaxes(0, axis), start, slab.swapaxes(0, axis)))]
    return out, [*calls, (_write_at, (out, before, start, slab.shape[axis], slab))]


def _write_at(out: Array, before: tuple[slice, ...], start: Array, count: int, slab: Array) -> None:
    at = int(start)
    out[(*before, slice(at, at + count))] = slab


PLANS: dict[str, PrimitivePlan] = {
    "cast": _cast,
    "neg": _elementwise(np.negative),
    "exp": _elementwise(np.exp),
    "log": _elementwise(np.log),
    "tanh": _elementwise(np.tanh),
    "sqrt": _elementwise(np.sqrt),
    "add": _elementwise(np.add),
    "sub": _elementwise(np.subtract),
    "mul": _elementwise(np.multiply),
    "div": _elementwise(np.true_divide),
    "pow": _pow,
    "maximum": _elementwise(maximum),
    "less": _elementwise(np.less, np.dtype(bool)),
    "equal": _elementwise(np.equal, np.dtype(bool)),
    "where": _where,
    "sum": _sum,
    "max": _max,
    "argmax": _argmax,
    "matmul": _matmul,
    "reshape": _reshape,
    "transpose": _view("transpose"),
    "broadcast_to": _view("broadcast_to"),
    "slice": _view("slice"),
    "concat": _concat,
    "pad": _pad,
    "take": _take,
    "scatter_add": _scatter_add,
    "write": _write,
}
