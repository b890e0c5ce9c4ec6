"""`rms_norm` and `layer_norm`, over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numpy.kernels.arrays import Array, as_rows, floats
from tfx.core.backend import Backend, Fused

# ---- rms_norm: y = x r, r = (mean(x**2) + eps)**-0.5 -----------------------------------


def _rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> tuple[Array, Any]:
    r = 1 / np.sqrt(np.vecdot(x, x) / x.shape[-1] + eps)[..., None]
    normal = x * r
    return (normal if gain is None else normal * gain), (normal, r)


def _can_rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> bool:
    return x.ndim > 0 and floats(x, gain) and (gain is None or gain.shape == x.shape[-1:])


def _rms_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array | None, *, eps: float
) -> tuple[Array, Array | None]:
    normal, r = saved
    g_normal = g if gain is None else g * gain
    along = (np.vecdot(g_normal, normal) / x.shape[-1])[..., None]
    g_gain = None if gain is None else g * normal
    return (g_normal - normal * along) * r, g_gain


# ---- layer_norm: y = (x - mean) r gain + bias, r = (var + eps)**-0.5 -----------------------


def _layer_norm(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> tuple[Array, Any]:
    normal = x - np.add.reduce(x, -1, keepdims=True) / x.shape[-1]
    r = 1 / np.sqrt(np.vecdot(normal, normal) / x.shape[-1] + eps)[..., None]
    normal *= r
    y = normal * gain
    y += bias
    return y, (normal, r)


def _layer_norm_vjp(
    B: Backend, g: Array, out: Array, saved: Any, x: Array, gain: Array, bias: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    normal, r = saved
    g_x = g * gain
    g_x -= np.add.reduce(g_x, -1, keepdims=True) / x.shape[-1]
    # Its product with `normal` is not changed by what was taken off: a row of that sums to 0.
    g_x -= normal * (np.vecdot(g_x, normal) / x.shape[-1])[..., None]
    g_x *= r
    g_rows = as_rows(g)
    return g_x, np.einsum("ij,ij->j", g_rows, as_rows(normal)), np.add.reduce(g_rows, 0)


def _can_layer_norm(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> bool:
    return x.ndim > 0 and floats(x, gain, bias) and gain.shape == bias.shape == x.shape[-1:]


RMS_NORM = Fused("rms_norm", _rms_norm, _rms_norm_vjp, _can_rms_norm)
LAYER_NORM = Fused("layer_norm", _layer_norm, _layer_norm_vjp, _can_layer_norm)
