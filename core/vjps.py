"""The derivative of every primitive: one line an argument.

A rule answers: given `g`, the gradient of the loss by the primitive's result `out`, what is the
gradient by this argument? `B` has the primitives: it is the backend itself, or, when gradients are
to be differentiated again, their recording form; a rule cannot tell which. An elementwise rule
may return the gradient in the broadcast shape: the tape sums it down to the argument's.

A primitive without a line here has no derivative (`less`, `equal`, `argmax`, the generator).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

Vjp = Callable[..., Any]

_RULES: dict[str, tuple[Vjp | None, ...]] = {}
_VARIADIC: dict[str, Callable[[int], Vjp]] = {}


def rule(name: str, *by_argument: Vjp | None) -> None:
    """Give primitive `name` its derivative by each array argument in turn; None: there is none."""
    _RULES[name] = by_argument


def vjp(name: str) -> Callable[[Vjp], Vjp]:
    """Decorate the derivative of a primitive by its first argument, the only one to have one."""

    def give(function: Vjp) -> Vjp:
        rule(name, function)
        return function

    return give


def vjp_of(name: str, argument: int) -> Vjp | None:
    """The rule of one argument of a primitive, or None."""
    rules = _RULES.get(name)
    if rules is None:
        return _VARIADIC[name](argument)
    return rules[argument] if argument < len(rules) else None


# ---- elementwise ---------------------------------------------------------------------------

rule("neg", lambda B, g, out, x: B.neg(g))
rule("exp", lambda B, g, out, x: B.mul(g, out))
rule("log", lambda B, g, out, x: B.div(g, x))
rule("tanh", lambda B, g, out, x: B.mul(g, B.sub(1.0, B.mul(out, out))))
rule("sqrt", lambda B, g, out, x: B.div(B.mul(g, 0.5), out))
rule("cast", lambda B, g, out, x, *, dtype: B.cast(g, dtype=B.dtype(x)))

rule("add", lambda B, g, out, x, y: g, lambda B, g, out, x, y: g)
rule("sub", lambda B, g, out, x, y: g, lambda B, g, out, x, y: B.neg(g))
rule("mul", lambda B, g, out, x, y: B.mul(g, y), lambda B, g, out, x, y: B.mul(g, x))
rule(
    "div",
    lambda B, g, out, x, y: B.div(g, y),
    lambda B, g, out, x, y: B.neg(B.mul(B.div(g, y), out)),
)
rule(
    "maximum",
    lambda B, g, out, x, y: _larger_takes(B, g, x, y),
    lambda B, g, out, x, y: _larger_takes(B, g, y, x),
)
rule(
    "where",
    None,
    lambda B, g, out, condition, x, y: B.where(condition, g, 0.0),
    lambda B, g, out, condition, x, y: B.where(condition, 0.0, g),
)


@vjp("pow")
def _(B: Any, g: Any, out: Any, x: Any, *, exponent: float) -> Any:
    if exponent == 0:  # also where x is infinite
        return _zeros_like(B, x)
    return B.mul(g, B.mul(B.pow(x, exponent=exponent - 1), exponent))


def _zeros_like(B: Any, x: Any) -> Any:
    return B.full(shape=B.shape(x), value=0.0, dtype=B.dtype(x))


def _larger_takes(B: Any, g: Any, mine: Any, other: Any) -> Any:
    """`g` where mine is larger, half of it where both are equal."""
    tied = B.where(B.equal(mine, other), B.mul(g, 0.5), 0.0)
    return B.where(B.less(other, mine), g, tied)


# ---- reductions: the gradient goes back to where the values came from ---------------------------

rule("sum", lambda B, g, out, x, *, axis, keepdims: _spread(B, g, x, axis))


@vjp("max")
def _(B: Any, g: Any, out: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    largest = B.equal(x, _spread(B, out, x, axis))
    ties = B.sum(B.cast(largest, dtype=B.dtype(x)), axis=axis, keepdims=True)
    return B.where(largest, B.div(_spread(B, g, x, axis), ties), 0.0)


def _spread(B: Any, reduced: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """A reduced value, repeated over the shape it was reduced from."""
    shape = B.shape(x)
    kept = tuple(1 if i in axis else n for i, n in enumerate(shape))
    return B.broadcast_to(B.reshape(reduced, shape=kept), shape=shape)


# ---- products -------------------------------------------------------------------------------

rule(
    "matmul",
    lambda B, g, out, x, y: B.matmul(g, _transposed(B, y)),
    lambda B, g, out, x, y: B.matmul(_transposed(B, x), g),
)


def _transposed(B: Any, x: Any) -> Any:
    return B.transpose(x, axes=_last_two_swapped(len(B.shape(x))))


@cache
def _last_two_swapped(ndim: int) -> tuple[int, ...]:
    return (*range(ndim - 2), ndim - 1, ndim - 2)


# ---- shape ------------------------------------------------------------------------------------

rule("reshape", lambda B, g, out, x, *, shape: B.reshape(g, shape=B.shape(x)))
rule("broadcast_to", lambda B, g, out, x, *, shape: g)


@vjp("transpose")
def _(B: Any, g: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return B.transpose(g, axes=_inverse(axes))


@cache
def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


@vjp("pad")
def _(B: Any, g: Any, out: Any, x: Any, *, widths: Any, value: float) -> Any:
    lengths = B.shape(x)
    starts = tuple(before for before, _ in widths)
    stops = tuple(before + n for (before, _), n in zip(widths, lengths, strict=True))
    return B.slice(g, starts=starts, stops=stops, steps=(1,) * len(lengths))


@vjp("slice")
def _(B: Any, g: Any, out: Any, x: Any, *, starts: Any, stops: Any, steps: Any) -> Any:
    lengths = B.shape(x)
    for axis, (start, step) in enumerate(zip(starts, steps, strict=True)):
        if step > 1:  # put the gradient back among the cells that were skipped
            kept = B.shape(g)
            wide = (*kept[:axis], lengths[axis], *kept[axis + 1 :])
            where = B.add(B.mul(B.arange(stop=kept[axis]), step), start)
            zeros = B.full(shape=wide, value=0.0, dtype=B.dtype(g))
            g = B.scatter_add(zeros, where, g, axis=axis)
    widths = tuple(
        (start, n - stop) if step == 1 else (0, 0)
        for start, stop, step, n in zip(starts, stops, steps, lengths, strict=True)
    )
    return B.pad(g, widths=widths, value=0.0)


def _concat_vjp(argument: int) -> Vjp:
    def vjp(B: Any, g: Any, out: Any, *xs: Any, axis: int) -> Any:
        start = sum(B.shape(x)[axis] for x in xs[:argument])
        return _cut(B, g, axis, start, start + B.shape(xs[argument])[axis])

    return vjp


_VARIADIC["concat"] = _concat_vjp


def _cut(B: Any, x: Any, axis: int, start: int, stop: int) -> Any:
    """x[..., start:stop, ...] along one axis."""
    shape = B.shape(x)
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    stops = tuple(stop if i == axis else n for i, n in enumerate(shape))
    return B.slice(x, starts=starts, stops=stops, steps=(1,) * len(shape))


# ---- index --------------------------------------------------------------------------------------


@vjp("take")
def _(B: Any, g: Any, out: Any, x: Any, indices: Any, *, axis: int) -> Any:
    return B.scatter_add(_zeros_like(B, x), indices, g, axis=axis)


rule(
    "scatter_add",
    lambda B, g, out, x, indices, updates, *, axis: g,
    None,
    lambda B, g, out, x, indices, updates, *, axis: B.take(g, indices, axis=axis),
)
rule(
    "write",
    lambda B, g, out, buffer, slab, start, *, axis: B.write(
        B.add(g, 0.0), _zeros_like(B, slab), start, axis=axis
    ),
    lambda B, g, out, buffer, slab, start, *, axis: B.take(
        g, B.add(B.arange(stop=B.shape(slab)[axis]), start), axis=axis
    ),
    None,
)

DIFFERENTIABLE = frozenset(_RULES) | frozenset(_VARIADIC)
"""The primitives that have a derivative."""
