"""`linear`, and `gelu` by itself."""

from __future__ import annotations

import numpy as np

from tfx.backends.numpy.kernels.activations import ACTIVATIONS
from tfx.backends.numpy.kernels.arrays import Array, as_few_axes, as_rows, floats
from tfx.core.backend import Backend, Fused

# ---- linear: residual + activation(x w + b) -----------------------------------------------


def _linear(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> tuple[Array, Array | None]:
    # One large product: with three axes, NumPy would read the weights once for each leading index.
    y = as_few_axes(x).dot(w.T if outputs_first else w)
    if b is not None:
        y += b
    before = None
    if activation is not None:
        before, y = y, ACTIVATIONS[activation].value(y)
    if x.ndim != y.ndim:
        y = y.reshape(*x.shape[:-1], y.shape[-1])
    if residual is not None:
        y += residual
    return y, before


def _linear_vjp(
    B: Backend,
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
) -> tuple[Array, Array, Array | None, Array | None]:
    rows, g_rows = as_rows(x), as_rows(g)
    if activation is not None and before is not None:
        g_rows = ACTIVATIONS[activation].pull(g_rows, as_rows(before))
    g_x = g_rows.dot(w if outputs_first else w.T).reshape(x.shape)
    g_w = g_rows.T.dot(rows) if outputs_first else rows.T.dot(g_rows)
    g_b = None if b is None else np.add.reduce(g_rows, 0)
    return g_x, g_w, g_b, None if residual is None else g


def _can_linear(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if x.ndim < 2 or w.ndim != 2 or not x.size or not w.size:
        return False
    if activation is not None and activation not in ACTIVATIONS:
        return False
    outputs, inputs = w.shape if outputs_first else w.shape[::-1]
    return (
        x.shape[-1] == inputs
        and (b is None or b.shape == (outputs,))
        and (residual is None or residual.shape == (*x.shape[:-1], outputs))
        and floats(x, w, b, residual)
    )


# ---- gelu -------------------------------------------------------------------------------------

_BY_FORM = {"none": ACTIVATIONS["gelu"], "tanh": ACTIVATIONS["gelu_new"]}


def _gelu(B: Backend, x: Array, *, approximate: str) -> tuple[Array, None]:
    return _BY_FORM[approximate].value(x), None


def _gelu_vjp(
    B: Backend, g: Array, out: Array, saved: None, x: Array, *, approximate: str
) -> tuple[Array]:
    return (_BY_FORM[approximate].pull(g, x),)


def _can_gelu(B: Backend, x: Array, *, approximate: str) -> bool:
    return x.ndim > 0 and approximate in _BY_FORM and floats(x)


LINEAR = Fused("linear", _linear, _linear_vjp, _can_linear)
GELU = Fused("gelu", _gelu, _gelu_vjp, _can_gelu)
