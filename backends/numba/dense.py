"""`linear`: a product by BLAS, and one pass for all that follows; and `gelu` by itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import ACTIVATIONS, activate, add_rows, pull, row
from tfx.backends.numba.arrays import constant, flat, parts, result, rows_of
from tfx.backends.numba.compiling import Array, Compiled, Count, Row, Rows, shared
from tfx.backends.numba.rows.row import planned
from tfx.backends.numba.skinny import skinny
from tfx.backends.numba.small import small
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace

# ---- passes over what a product gave -------------------------------------------------------------


class Passes(NamedTuple):
    """Compiled for one activation: what follows a product, and the way back; and the activation
    alone, with its own."""

    after: Compiled
    back: Compiled
    value: Compiled
    slope: Compiled


def _passes(name: str) -> Passes:
    """Closed over a text: what depends on it, Numba can keep on disk."""

    @shared
    def after(out: Rows, before: Rows, b: Row, residual: Rows, add: Count) -> None:
        for i in prange(out.shape[0]):
            target, source = row(out, i), row(before, i)
            for j in range(len(target)):
                target[j] = activate(name, source[j] + b[j])
            if add:
                more = row(residual, i)
                for j in range(len(target)):
                    target[j] += more[j]

    @shared
    def back(g_before: Rows, g_b: Row, sums: Rows, g: Rows, before: Rows, b: Row) -> None:
        real = g.dtype.type
        count, pieces = g.shape[0], sums.shape[0]
        for piece in prange(pieces):
            total = row(sums, piece)
            total[:] = real(0)
            for i in range(piece * count // pieces, (piece + 1) * count // pieces):
                target, slope, source = row(g_before, i), row(g, i), row(before, i)
                for j in range(len(target)):
                    target[j] = pull(name, slope[j], source[j] + b[j])
                for j in range(len(target)):
                    total[j] += target[j]
        add_rows(g_b, sums)

    @shared
    def value(out: Rows, x: Rows) -> None:
        for i in prange(out.shape[0]):
            target, source = row(out, i), row(x, i)
            for j in range(len(target)):
                target[j] = activate(name, source[j])

    @shared
    def slope(g_x: Rows, g: Rows, x: Rows) -> None:
        for i in prange(g_x.shape[0]):
            target, along, source = row(g_x, i), row(g, i), row(x, i)
            for j in range(len(target)):
                target[j] = pull(name, along[j], source[j])

    return Passes(after, back, value, slope)


_PASSES = {name: _passes(name) for name in ACTIVATIONS}


@shared
def _finish(y: Rows, b: Row, residual: Rows, add: Count) -> None:
    for i in prange(y.shape[0]):
        target = row(y, i)
        for j in range(len(target)):
            target[j] += b[j]
        if add:
            more = row(residual, i)
            for j in range(len(target)):
                target[j] += more[j]


@shared
def _sum_rows(total: Row, sums: Rows, x: Rows) -> None:
    real = x.dtype.type
    count, pieces = x.shape[0], sums.shape[0]
    for piece in prange(pieces):
        part = row(sums, piece)
        part[:] = real(0)
        for i in range(piece * count // pieces, (piece + 1) * count // pieces):
            source = row(x, i)
            for j in range(len(part)):
                part[j] += source[j]
    add_rows(total, sums)


# ---- linear: residual + activation(x w + b) -----------------------------------------------------


def product(x: Array, w: Array, out: Array, space: Workspace) -> list[Call]:
    """The calls for a product of matrices, into `out`."""
    if (calls := small(x, w, out, space)) is not None:
        return calls
    if (call := skinny(x, w, out)) is not None:
        return [call]
    if not out.flags.c_contiguous:
        return [(np.matmul, (x, w, out))]
    if len(x) == 1:  # one row is read faster as a vector
        return [(np.dot, (x[0], w, out[0]))]
    return [(np.dot, (x, w, out))]


def _plan_linear(
    B: Backend,
    space: Workspace,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, Array | None, list[Call]]:
    calls: list[Call] = []
    weights = w.T if outputs_first else w
    outputs = weights.shape[1]
    rows = rows_of(x, space, calls)
    out = result(space, (*x.shape[:-1], outputs), x.dtype)
    before = None if activation is None else space.saved((len(rows), outputs), x.dtype)
    calls += product(rows, weights, out.target if before is None else before, space)
    more = out.target if residual is None else rows_of(residual, space, calls)
    rest = _bias(b, outputs, x, space, calls), more, residual is not None
    size = out.target.size
    if activation is not None:
        after = _PASSES[activation].after.of(x.dtype, size=size)
        calls.append((after, (out.target, before, *rest)))
    elif b is not None or residual is not None:
        calls.append((_finish.of(x.dtype, size=size), (out.target, *rest)))
    return out.array, before, [*calls, *out.last_calls()]


def _plan_linear_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    before: Array | None,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[tuple[Array | None, ...], list[Call]]:
    calls: list[Call] = []
    g_rows, rows = rows_of(g, space, calls), rows_of(x, space, calls)
    g_b = None if b is None else space.result(b.shape, x.dtype, 2)
    if activation is not None or b is not None:
        sums = space.scratch((parts(len(rows)), g.shape[-1]), x.dtype)
        total = space.scratch(g.shape[-1:], x.dtype) if g_b is None else g_b
        if activation is None:
            calls.append((_sum_rows.of(x.dtype, size=g.size), (total, sums, g_rows)))
        else:
            back = _PASSES[activation].back.of(x.dtype, size=g.size)
            bias = _bias(b, g.shape[-1], x, space, calls)
            g_before = space.scratch(g_rows.shape, x.dtype)
            calls.append((back, (g_before, total, sums, g_rows, before, bias)))
            g_rows = g_before
    g_x, g_w = result(space, x.shape, x.dtype, 0), result(space, w.shape, w.dtype, 1)
    calls += product(g_rows, w if outputs_first else w.T, g_x.target, space)
    pair = (g_rows, rows) if outputs_first else (rows, g_rows)
    calls += product(pair[0].T, pair[1], g_w.target, space)
    calls += [*g_x.last_calls(), *g_w.last_calls()]
    return (g_x.array, g_w.array, g_b, None if residual is None else g), calls


def _bias(b: Array | None, outputs: int, x: Array, space: Workspace, calls: list[Call]) -> Array:
    return constant(0.0, outputs, x.dtype) if b is None else flat(b, space, calls)


# ---- gelu -------------------------------------------------------------------------------------

_FORMS = {"none": "gelu", "tanh": "gelu_new"}


def _plan_gelu(
    B: Backend, space: Workspace, x: Array, *, approximate: str
) -> tuple[Array, None, list[Call]]:
    calls: list[Call] = []
    out, rows = result(space, x.shape, x.dtype), rows_of(x, space, calls)
    value = _PASSES[_FORMS[approximate]].value.of(x.dtype, size=x.size)
    calls.append((value, (out.target, rows)))
    return out.array, None, [*calls, *out.last_calls()]


def _plan_gelu_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, x: Array, *, approximate: str
) -> tuple[tuple[Array], list[Call]]:
    calls: list[Call] = []
    g_x = result(space, x.shape, x.dtype)
    rows = g_x.target, rows_of(g, space, calls), rows_of(x, space, calls)
    calls.append((_PASSES[_FORMS[approximate]].slope.of(x.dtype, size=x.size), rows))
    return (g_x.array,), [*calls, *g_x.last_calls()]


LINEAR = planned("linear", _plan_linear, _plan_linear_vjp, HOST.linear)
GELU = planned("gelu", _plan_gelu, _plan_gelu_vjp, HOST.gelu)
