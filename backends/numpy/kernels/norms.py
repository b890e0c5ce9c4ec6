"""`rms_norm` and `layer_norm`, over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import (
    Array,
    as_few_axes,
    as_rows,
    beside,
    floats,
    means,
)
from tfx.core.backend import Backend, Fused

# ---- rms_norm: y = x / d, d = (mean(x**2) + eps)**0.5 ----------------------------------


def _rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> tuple[Array, Any]:
    rows = as_few_axes(x)
    d = beside(rows, (means(np.square(rows)) + eps) ** 0.5)
    normal = rows / d
    y = normal if gain is None else normal * gain
    return y.reshape(x.shape), (normal, d)


def _can_rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> bool:
    return _has_rows(x) and floats(x, gain) and (gain is None or gain.shape == x.shape[-1:])


def _rms_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array | None, *, eps: float
) -> tuple[Array, Array | None]:
    normal, d = saved
    g = g.reshape(normal.shape)
    g_normal = g if gain is None else g * gain
    g_x = g_normal - normal * beside(g, means(g_normal * normal))
    g_x /= d
    g_gain = None if gain is None else g * normal
    return g_x.reshape(x.shape), g_gain


# ---- layer_norm: y = (x - mean) / d gain + bias, d = (var + eps)**0.5 ----------------------


def _layer_norm(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> tuple[Array, Any]:
    rows = as_few_axes(x)
    normal = rows - beside(rows, means(rows))
    d = beside(rows, (means(np.square(normal)) + eps) ** 0.5)
    normal /= d
    y = normal * gain
    y += bias
    return y.reshape(x.shape), (normal, d)


def _layer_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array, bias: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    normal, d = saved
    g = g.reshape(normal.shape)
    g_x = g * gain
    g_x -= beside(g, means(g_x))
    # Its product with `normal` is not changed by what was taken off: a row of that sums to 0.
    g_x -= normal * beside(g, means(g_x * normal))
    g_x /= d
    g_rows = as_rows(g)
    g_gain = np.einsum("ij,ij->j", g_rows, as_rows(normal))
    return g_x.reshape(x.shape), g_gain, np.add.reduce(g_rows, 0)


def _can_layer_norm(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> bool:
    return _has_rows(x) and floats(x, gain, bias) and gain.shape == bias.shape == x.shape[-1:]


def _has_rows(x: Array) -> bool:
    return x.ndim > 0 and x.size > 0


RMS_NORM = Fused("rms_norm", _rms_norm, _rms_norm_vjp, _can_rms_norm)
LAYER_NORM = Fused("layer_norm", _layer_norm, _layer_norm_vjp, _can_layer_norm)
