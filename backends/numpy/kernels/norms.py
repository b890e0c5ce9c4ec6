"""`rms_norm` and `layer_norm`, over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import (
    Array,
    Calls,
    as_rows,
    column_sums,
    filled,
    result_rows,
    row_sums,
)
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Workspace, planned

# ---- rms_norm: y = x / d, d = (mean(x**2) + eps)**0.5 ----------------------------------


def _rms_norm(
    B: Backend, space: Workspace, x: Array, gain: Array | None, *, eps: float
) -> tuple[Array, Any, Calls]:
    calls: Calls = []
    rows = as_rows(space, calls, x)
    out, y, last = result_rows(space, x.shape, x.dtype)
    normal = y if gain is None else space.saved(y.shape, y.dtype)
    d = _deviation(space, calls, rows, normal, eps)
    calls.append((np.divide, (rows, d, normal)))
    if gain is not None:
        calls.append((np.multiply, (normal, gain, y)))
    return out, (normal, d), [*calls, *last]


def _deviation(space: Workspace, calls: Calls, rows: Array, room: Array, eps: float) -> Array:
    """sqrt(mean(rows**2) + eps), to broadcast with the rows; `room` is overwritten."""
    d, mean = row_sums(space.saved, room, 1 / rows.shape[-1])
    # Not in place: NumPy takes three times as long over a single number that it overwrites.
    shifted = space.scratch(d.shape, d.dtype)
    calls += (
        (np.multiply, (rows, rows, room)),
        mean,
        (np.add, (d, filled((), eps, rows.dtype), shifted)),
        (np.sqrt, (shifted, d)),
    )
    return d


def _rms_norm_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    saved: Any,
    x: Array,
    gain: Array | None,
    *,
    eps: float,
) -> tuple[tuple[Array, Array | None], Calls]:
    calls: Calls = []
    normal, d = saved
    g_y = as_rows(space, calls, g)
    g_x, rows, last = result_rows(space, x.shape, x.dtype)
    work = space.scratch(rows.shape, x.dtype)
    g_gain = None
    if gain is not None:
        g_gain = space.result(gain.shape, x.dtype, 1)
        calls += ((np.multiply, (g_y, normal, work)), column_sums(work, g_gain))
        calls.append((np.multiply, (g_y, gain, rows)))
        g_y = rows
    mean, taken = row_sums(space.scratch, work, 1 / rows.shape[-1])
    calls += (
        (np.multiply, (g_y, normal, work)),
        taken,
        (np.multiply, (normal, mean, work)),
        (np.subtract, (g_y, work, rows)),
        (np.divide, (rows, d, rows)),
    )
    return (g_x, g_gain), [*calls, *last]


# ---- layer_norm: y = (x - mean) / d gain + bias, d = (var + eps)**0.5 ----------------------


def _layer_norm(
    B: Backend, space: Workspace, x: Array, gain: Array, bias: Array, *, eps: float
) -> tuple[Array, Any, Calls]:
    calls: Calls = []
    rows = as_rows(space, calls, x)
    out, y, last = result_rows(space, x.shape, x.dtype)
    normal = space.saved(y.shape, y.dtype)
    mean, taken = row_sums(space.scratch, rows, 1 / rows.shape[-1])
    calls += (taken, (np.subtract, (rows, mean, normal)))
    d = _deviation(space, calls, normal, y, eps)
    calls += (
        (np.divide, (normal, d, normal)),
        (np.multiply, (normal, gain, y)),
        (np.add, (y, bias, y)),
    )
    return out, (normal, d), [*calls, *last]


def _layer_norm_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    saved: Any,
    x: Array,
    gain: Array,
    bias: Array,
    *,
    eps: float,
) -> tuple[tuple[Array, Array, Array], Calls]:
    calls: Calls = []
    normal, d = saved
    g_y = as_rows(space, calls, g)
    g_x, rows, last = result_rows(space, x.shape, x.dtype)
    g_gain = space.result(gain.shape, x.dtype, 1)
    g_bias = space.result(bias.shape, x.dtype, 2)
    work = space.scratch(rows.shape, x.dtype)
    share = 1 / rows.shape[-1]
    mean, taken = row_sums(space.scratch, rows, share)
    # Its product with `normal` is not changed by what was taken off: a row of that sums to 0.
    along, taken_along = row_sums(space.scratch, work, share)
    calls += (
        column_sums(g_y, g_bias),
        (np.multiply, (g_y, normal, work)),
        column_sums(work, g_gain),
        (np.multiply, (g_y, gain, rows)),
        taken,
        (np.subtract, (rows, mean, rows)),
        (np.multiply, (rows, normal, work)),
        taken_along,
        (np.multiply, (normal, along, work)),
        (np.subtract, (rows, work, rows)),
        (np.divide, (rows, d, rows)),
    )
    return (g_x, g_gain, g_bias), [*calls, *last]


RMS_NORM = planned("rms_norm", _rms_norm, _rms_norm_vjp, HOST.rms_norm)
LAYER_NORM = planned("layer_norm", _layer_norm, _layer_norm_vjp, HOST.layer_norm)
