"""`rms_norm` and `layer_norm`, over the last axis: one pass each, and one for all gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import add_rows, row
from tfx.backends.numba.arrays import constant, flat, parts, result, rows_of
from tfx.backends.numba.compiling import Array, Real, Row, Rows, shared
from tfx.backends.numba.rows.row import planned
from tfx.core.backend import Backend
from tfx.core.kernel_calls import HOST
from tfx.core.planning import Call, Workspace

# ---- rms_norm: y = x / d gain, d = (mean(x**2) + eps)**0.5 --------------------------------------


@shared
def _rms_norm_rows(out: Rows, scales: Row, x: Rows, gain: Row, eps: Real) -> None:
    real = x.dtype.type
    for i in prange(x.shape[0]):
        source, target = row(x, i), row(out, i)
        squares = real(0)
        for j in range(len(source)):
            squares += source[j] * source[j]
        scale = real(1) / np.sqrt(squares / real(len(source)) + eps)
        scales[i] = scale
        for j in range(len(source)):
            target[j] = source[j] * scale * gain[j]


@shared
def _rms_norm_pull(
    g_x: Rows, g_gain: Row, sums: Rows, g: Rows, x: Rows, gain: Row, scales: Row
) -> None:
    real = x.dtype.type
    count, pieces = x.shape[0], sums.shape[0]
    for piece in prange(pieces):
        total = row(sums, piece)
        total[:] = real(0)
        for i in range(piece * count // pieces, (piece + 1) * count // pieces):
            source, slope, target = row(x, i), row(g, i), row(g_x, i)
            scale = scales[i]
            along = real(0)
            for j in range(len(source)):
                along += slope[j] * gain[j] * (source[j] * scale)  # which cannot overflow
            along /= real(len(source))
            for j in range(len(source)):
                target[j] = scale * (slope[j] * gain[j] - source[j] * scale * along)
            for j in range(len(source)):
                total[j] += slope[j] * source[j] * scale
    add_rows(g_gain, sums)


def _plan_rms_norm(
    B: Backend, space: Workspace, x: Array, gain: Array | None, *, eps: float
) -> tuple[Array, Array, list[Call]]:
    calls: list[Call] = []
    out, rows = result(space, x.shape, x.dtype), rows_of(x, space, calls)
    scales = space.saved((len(rows),), x.dtype)
    weights = _vector(gain, 1.0, x, space, calls)
    function = _rms_norm_rows.of(x.dtype, size=x.size)
    calls.append((function, (out.target, scales, rows, weights, eps)))
    return out.array, scales, [*calls, *out.last_calls()]


def _plan_rms_norm_vjp(
    B: Backend,
    space: Workspace,
    g: Array,
    out: Array,
    scales: Array,
    x: Array,
    gain: Array | None,
    *,
    eps: float,
) -> tuple[tuple[Array, Array | None], list[Call]]:
    calls: list[Call] = []
    g_x = result(space, x.shape, x.dtype)
    size = x.shape[-1:]
    g_gain = space.scratch(size, x.dtype) if gain is None else space.result(size, x.dtype, 1)
    rows, g_rows = rows_of(x, space, calls), rows_of(g, space, calls)
    sums = space.scratch((parts(len(rows)), *size), x.dtype)
    weights = _vector(gain, 1.0, x, space, calls)
    function = _rms_norm_pull.of(x.dtype, size=x.size)
    calls.append((function, (g_x.target, g_gain, sums, g_rows, rows, weights, scales)))
    return (g_x.array, None if gain is None else g_gain), [*calls, *g_x.last_calls()]


def _vector(
    given: Array | None, otherwise: float, x: Array, space: Workspace, calls: list[Call]
) -> Array:
    """A gain or bias (n,) for rows of `x`."""
    if given is None:
        return constant(otherwise, x.shape[-1], x.dtype)
    return flat(given, space, calls)


# ---- layer_norm: y = (x - mean) / d gain + bias, d = (var + eps)**0.5 ---------------------------


@shared
def _layer_norm_rows(
    out: Rows, means: Row, scales: Row, x: Rows, gain: Row, bias: Row, eps: Real
) -> None:
    real = x.dtype.type
    for i in prange(x.shape[0]):
        source, target = row(x, i), row(out, i)
        size = real(len(source))
        total = real(0)
        for j in range(len(source)):
            total += source[j]
        mean = total / size
        squares = real(0)
        for j in range(len(source)):
            squares += (source[j] - mean) * (source[j] - mean)
        scale = real(1) / np.sqrt(squares / size + eps)
        means[i], scales[i] = mean, scale
        for j in range(len(source)):
            target[j] = (source[j] - mean) * scale * gain[j] + bias[j]


@shared
def _layer_norm_pull(
    g_x: Rows,
    g_gain: Row,
    g_bias: Row,
    gain_sums: Rows,
    bias_sums: Rows,
    g: Rows,
    x: Rows,
    gain: Row,
    means: Row,
    scales: Row,
) -> None:
    real = x.dtype.type
    count, pieces = x.shape[0], gain_sums.shape[0]
    for piece in prange(pieces):
        gains, biases = row(gain_sums, piece), row(bias_sums, piece)
        gains[:] = real(0)
        biases[:] = real(0)
        for i in range(piece * count // pieces, (piece + 1) * count // pieces):
            source, slope, target = row(x, i), row(g, i), row(g_x, i)
            mean, scale, size = means[i], scales[i], real(len(source))
            total = real(0)
            along = real(0)
            for j in range(len(source)):
                pulled = slope[j] * gain[j]
                total += pulled
                along += pulled * (source[j] - mean)
            total /= size
            along *= scale * scale / size
            for j in range(len(source)):
                target[j] = scale * (slope[j] * gain[j] - total - (source[j] - mean) * along)
            for j in range(len(source)):
                gains[j] += slope[j] * ((source[j] - mean) * scale)
            for j in range(len(source)):
                biases[j] += slope[j]
    add_rows(g_gain, gain_sums)
    add_rows(g_bias, bias_sums)


def _plan_layer_norm(
    B: Backend, space: Workspace, x: Array, gain: Array, bias: Array, *, eps: float
) -> tuple[Array, Any, list[Call]]:
    calls: list[Call] = []
    out, rows = result(space, x.shape, x.dtype), rows_of(x, space, calls)
    means, scales = space.saved((2, len(rows)), x.dtype)
    vectors = flat(gain, space, calls), flat(bias, space, calls)
    function = _layer_norm_rows.of(x.dtype, size=x.size)
    calls.append((function, (out.target, means, scales, rows, *vectors, eps)))
    return out.array, (means, scales), [*calls, *out.last_calls()]


def _plan_layer_norm_vjp(
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
) -> tuple[tuple[Array, Array, Array], list[Call]]:
    calls: list[Call] = []
    g_x = result(space, x.shape, x.dtype)
    g_gain, g_bias = (space.result(gain.shape, x.dtype, of) for of in (1, 2))
    rows, g_rows = rows_of(x, space, calls), rows_of(g, space, calls)
    sums = space.scratch((2, parts(len(rows)), *gain.shape), x.dtype)
    weights = flat(gain, space, calls)
    function = _layer_norm_pull.of(x.dtype, size=x.size)
    calls.append((function, (g_x.target, g_gain, g_bias, *sums, g_rows, rows, weights, *saved)))
    return (g_x.array, g_gain, g_bias), [*calls, *g_x.last_calls()]


RMS_NORM = planned("rms_norm", _plan_rms_norm, _plan_rms_norm_vjp, HOST.rms_norm)
LAYER_NORM = planned("layer_norm", _plan_layer_norm, _plan_layer_norm_vjp, HOST.layer_norm)
