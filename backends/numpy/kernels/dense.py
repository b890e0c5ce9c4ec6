"""`linear`, and `gelu` by itself."""

from __future__ import annotations

import numpy as np

from tfx.backends.numpy.kernels.activations import ACTIVATIONS
from tfx.backends.numpy.kernels.arrays import (
    Array,
    Calls,
    as_matrix,
    as_rows,
    column_sums,
    product,
    result_rows,
)
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Workspace, planned

# ---- linear: residual + activation(x w + b) -----------------------------------------------


def _linear(
    B: Backend,
    space: Workspace,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, Array | None, Calls]:
    # One large product: with three axes, NumPy would read the weights once for each leading index.
    calls: Calls = []
    rows = as_rows(space, calls, x)
    if outputs_first:
        w = w.T
    out, y, last = result_rows(space, (*x.shape[:-1], w.shape[1]), x.dtype)
    before = room_before(space, y, residual, activation)
    calls.append(product(rows, w, before))
    finish(space, calls, before, y, b, residual, activation)
    return out, None if before is y else before, [*calls, *last]


def room_before(
    space: Workspace, y: Array, residual: Array | None, activation: str | None
) -> Array:
    """Where a product goes that `finish` makes the result `y` of; it is kept for the gradient where
    that needs it."""
    if activation is None or (residual is None and ACTIVATIONS[activation].keeps_value):
        return y
    room: Array = space.saved(y.shape, y.dtype)
    return room


def finish(
    space: Workspace,
    calls: Calls,
    before: Array,
    y: Array,
    b: Array | None,
    residual: Array | None,
    activation: str | None,
) -> None:
    """Add the calls that make `y = residual + activation(before + b)`."""
    if b is not None:
        calls.append((np.add, (before, b, before)))
    if activation is not None:
        act = ACTIVATIONS[activation]
        value = before if act.keeps_value else y
        calls += act.value(space, before, value)
        before = value
    if residual is not None:
        calls.append((np.add, (before, as_rows(space, calls, residual), y)))


def _linear_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    kept: Array | None,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[tuple[Array, Array, Array | None, Array | None], Calls]:
    calls: Calls = []
    rows, g_rows = as_rows(space, calls, x), as_rows(space, calls, g)
    if activation is not None:
        pulled = space.scratch(g_rows.shape, g.dtype)
        seen = as_rows(space, calls, out) if kept is None else kept
        calls += ACTIVATIONS[activation].pull(space, g_rows, seen, pulled)
        g_rows = pulled
    g_x, g_x_rows, last = result_rows(space, x.shape, x.dtype)
    g_w = space.result(w.shape, x.dtype, 1)
    calls.append(product(g_rows, w if outputs_first else w.T, g_x_rows))
    left, right = (g_rows, rows) if outputs_first else (rows, g_rows)
    calls.append(product(as_matrix(left).T, as_matrix(right), g_w))
    g_b = None
    if b is not None:
        g_b = space.result(b.shape, x.dtype, 2)
        calls.append(column_sums(g_rows, g_b))
    return (g_x, g_w, g_b, None if residual is None else g), [*calls, *last]


# ---- gelu -------------------------------------------------------------------------------------

_BY_FORM = {"none": ACTIVATIONS["gelu"], "tanh": ACTIVATIONS["gelu_new"]}


def _gelu(B: Backend, space: Workspace, x: Array, *, approximate: str) -> tuple[Array, None, Calls]:
    out = space.result(x.shape, x.dtype)
    return out, None, _BY_FORM[approximate].value(space, x, out)


def _gelu_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    saved: None,
    x: Array,
    *,
    approximate: str,
) -> tuple[tuple[Array], Calls]:
    g_x = space.result(x.shape, x.dtype)
    return (g_x,), _BY_FORM[approximate].pull(space, g, x, g_x)


LINEAR = planned("linear", _linear, _linear_vjp, HOST.linear)
GELU = planned("gelu", _gelu, _gelu_vjp, HOST.gelu)
