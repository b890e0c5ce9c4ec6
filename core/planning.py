"""Kernels as plans: which calls to make on which arrays, settled before the first number is known.

A plan is told where its arguments lie and says where its results will, and what to call, in order,
to fill them. Carried out once, that is an ordinary kernel; kept, it is a part of a captured
program, which makes the same calls again over the same memory and allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from tfx.core import host_memory
from tfx.core.backend import Array, Backend, Fused, HostArray

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and what to call it with, positions only; what it returns does not matter."""

Plan = Callable[..., tuple[Any, Any, Sequence[Call]]]
"""`(B, space, *raw, **params) -> (out, saved, calls)`: `out` and `saved` as `Fused.forward` has
them, filled once the calls were made. Arguments are read by the calls alone: while planning, they
have a shape, a dtype and a place, but no values yet."""

PrimitivePlan = Callable[..., tuple[Any, Sequence[Call]] | None]
"""The same for a primitive, `(B, space, *raw, **params) -> (out, calls)`; None where the primitive
itself is to be called, and its result copied."""

PlanVjp = Callable[..., tuple[Sequence[Any], Sequence[Call]]]
"""`(B, space, g, out, saved, *raw, **params) -> (gradients, calls)`, as `Fused.vjp` has them."""


def put_row(rows: HostArray, index: HostArray, slab: HostArray) -> None:
    """Write the one row of `slab` at a 0-d index: a call of its own, for who carries out calls in
    another way to know."""
    rows[index] = slab[0]


def maximum(x: HostArray, y: HostArray, out: HostArray) -> None:
    """`np.maximum`, which alone does not take `out` by position."""
    np.maximum(x, y, out=out)


class Workspace(Protocol):
    """Where a plan gets memory. What it hands out holds arbitrary numbers, in C order."""

    def result(self, shape: tuple[int, ...], dtype: Any, of: int = 0) -> Array:
        """For the result at position `of`: `out` itself or its parts, gradients by argument. May
        be a part of a larger array, and so have strides of its own along the first axes."""

    def saved(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """For what `vjp` will read."""

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """For what nobody reads when the calls are done."""

    def may_overwrite(self, x: Array, of: int = 0) -> bool:
        """Whether the result at position `of` may be written over the argument `x`, which has its
        shape and dtype and is read by no later call."""


class FreshMemory:
    """A workspace that gives out new arrays: for a plan that is carried out once."""

    def result(self, shape: tuple[int, ...], dtype: Any, of: int = 0) -> Array:
        return host_memory.empty(shape, dtype)

    saved = scratch = staticmethod(host_memory.empty)

    def may_overwrite(self, x: Array, of: int = 0) -> bool:
        return False


FRESH = FreshMemory()


def planned(
    name: str,
    plan: Plan,
    plan_vjp: PlanVjp | None = None,
    supports: Callable[..., bool] | None = None,
    join: Callable[[Sequence[Call]], Sequence[Call]] | None = None,
) -> Fused:
    """A kernel for arrays in the host's memory from its plan alone: carried out at once where
    nothing is captured."""

    def forward(B: Backend, *raw: Any, **params: Any) -> tuple[Any, Any]:
        out, saved, calls = plan(B, FRESH, *raw, **params)
        for function, args in calls:
            function(*args)
        return out, saved

    def vjp(B: Backend, *raw: Any, **params: Any) -> Sequence[Any]:
        assert plan_vjp is not None
        grads, calls = plan_vjp(B, FRESH, *raw, **params)
        for function, args in calls:
            function(*args)
        return grads

    return Fused(
        name,
        forward,
        vjp if plan_vjp else None,
        supports,
        plan=plan,
        plan_vjp=plan_vjp,
        join=join,
    )
