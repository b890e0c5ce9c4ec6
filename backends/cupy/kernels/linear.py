"""`linear`: few rows by kernels of our own, in one launch; many by cuBLAS and one launch behind it.

Backward: the products by cuBLAS, before them one launch for the activation and the bias.
"""

from __future__ import annotations

from typing import Any

from tfx.backends.cupy.kernels.activations import ACTIVATIONS
from tfx.backends.cupy.kernels.cuda import CALLS, contiguous
from tfx.backends.cupy.kernels.epilogue import epilogue, epilogue_backward
from tfx.backends.cupy.kernels.product import FEW, Weight, product
from tfx.core.backend import Array, Backend, Fused


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
    rows, b, more = as_rows(x), contiguous(b), as_rows(residual)
    if len(rows) <= FEW:
        y, before = product(rows, weight_of(w, outputs_first), b, more, activation)
    else:
        y, before = epilogue(rows @ (w.T if outputs_first else w), b, more, activation)
    return y.reshape(*x.shape[:-1], y.shape[-1]), before


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
    rows = as_rows(x)
    g_y, g_b = epilogue_backward(as_rows(g), before, activation, bias=b is not None)
    g_x = (g_y @ (w if outputs_first else w.T)).reshape(x.shape)
    g_w = g_y.T @ rows if outputs_first else rows.T @ g_y
    return g_x, g_w, g_b, None if residual is None else g


def as_rows(x: Array | None) -> Any:
    """All but the last axis as one, contiguous."""
    return None if x is None else contiguous(x.reshape(-1, x.shape[-1]))


def weight_of(w: Array, outputs_first: bool) -> Weight:
    """A matrix of floats as it lies in memory, which may be the other way round."""
    if w.flags.f_contiguous and not w.flags.c_contiguous:
        w, outputs_first = w.T, not outputs_first
    return Weight(contiguous(w), outputs_first)


def fits(
    x: Array,
    inputs: int,
    outputs: int,
    b: Array | None,
    residual: Array | None,
    activation: str | None,
) -> bool:
    """Whether arguments suit a product of so many inputs and outputs, of the dtype of x."""
    return bool(
        CALLS.floats(x, b, residual)
        and x.ndim
        and x.size
        and outputs
        and x.shape[-1] == inputs
        and activation in ACTIVATIONS
        and (b is None or b.shape == (outputs,))
        and (residual is None or residual.shape == (*x.shape[:-1], outputs))
    )


def _supports(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    if w.ndim != 2 or w.dtype != x.dtype:
        return False
    outputs, inputs = w.shape if outputs_first else w.shape[::-1]
    return fits(x, inputs, outputs, b, residual, activation)


LINEAR = Fused("linear", _linear, _linear_vjp, _supports)
