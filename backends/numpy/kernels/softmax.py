"""`softmax` over the last axis."""

from __future__ import annotations

import numpy as np

from tfx.backends.numpy.kernels.arrays import (
    LIMITS,
    Array,
    Calls,
    are_small,
    as_rows,
    result_rows,
    row_sums,
)
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Workspace, planned


def softmax_into(x: Array, out: Array) -> None:
    """exp(x) / sum(exp(x)) over the last axis of `x`, which may be `out`; zeros where every x is
    -inf."""
    limits = LIMITS[x.dtype]
    top = np.maximum.reduce(x, -1, keepdims=True, initial=limits.min)
    np.subtract(x, top, out)
    np.exp(out, out)
    # Beside exp(0) = 1, the smallest number is nothing; it is there for rows without any.
    total = np.add.reduce(out, -1, keepdims=True, initial=limits.smallest_normal)
    np.divide(out, total, out)


def _softmax(B: Backend, space: Workspace, x: Array) -> tuple[Array, None, Calls]:
    calls: Calls = []
    rows = as_rows(space, calls, x)
    out, y, last = result_rows(space, x.shape, x.dtype)
    calls.append((softmax_into, (rows, y)))
    return out, None, [*calls, *last]


def _softmax_vjp(
    B: Backend, space: Workspace, g: Array, out: Array, saved: None, x: Array
) -> tuple[tuple[Array], Calls]:
    calls: Calls = []
    y, g_y = as_rows(space, calls, out), as_rows(space, calls, g)
    g_x, rows, last = result_rows(space, x.shape, x.dtype)
    return (g_x,), [*calls, *pull_softmax(space, y, g_y, rows), *last]


def pull_softmax(space: Workspace, y: Array, g: Array, g_x: Array) -> Calls:
    """The gradient by x where `g` is that by y = softmax(x)."""
    if are_small(y):
        total, summed = row_sums(space.scratch, g_x, 1.0)
        sums: Calls = [(np.multiply, (g, y, g_x)), summed]
    else:
        total = space.scratch((*y.shape[:-1], 1), y.dtype)
        sums = [(np.vecdot, (g, y, total[..., 0]))]
    return [
        *sums,
        (np.subtract, (g, total, g_x)),
        (np.multiply, (g_x, y, g_x)),
    ]


SOFTMAX = planned("softmax", _softmax, _softmax_vjp, HOST.softmax)
