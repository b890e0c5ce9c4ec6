"""`gelu`, both kinds, and its derivative: one launch each."""

from __future__ import annotations

from typing import Any

import cupy

from tfx.backends.cupy.kernels.cuda import Program, blocks_of_numbers, contiguous, floats
from tfx.core.backend import Array, Backend, Fused

_GELU = Program(r"""
const Wide SQRT_2_OVER_PI = 0.79788456080286536, CUBE = 0.044715;
const Wide SQRT_HALF = 0.70710678118654752, BELL_TOP = 0.39894228040143268;  // 1 / sqrt(2 pi)

// tanh(sqrt(2 / pi) (x + 0.044715 x**3))
__device__ Wide tanh_of_inner(Wide x) {
    return tanh(SQRT_2_OVER_PI * x * (1 + CUBE * x * x));
}

// Half of the error function's complement is the normal distribution function, with all its digits
// on the left as well.
__device__ Wide normal_below(Wide x) { return erfc(-SQRT_HALF * x) / 2; }

extern "C" __global__ void gelu(const T* x, T* y, Index count, bool by_tanh) {
    EACH_NUMBER(i, count) {
        Wide at = x[i];
        y[i] = at * (by_tanh ? (1 + tanh_of_inner(at)) / 2 : normal_below(at));
    }
}

extern "C" __global__ void gelu_vjp(const T* g, const T* x, T* g_x, Index count, bool by_tanh) {
    EACH_NUMBER(i, count) {
        Wide at = x[i], slope;
        if (by_tanh) {
            Wide t = tanh_of_inner(at), inner_slope = SQRT_2_OVER_PI * (1 + 3 * CUBE * at * at);
            slope = (1 + t + at * (1 - t * t) * inner_slope) / 2;
        } else {
            slope = normal_below(at) + at * BELL_TOP * exp(-at * at / 2);
        }
        g_x[i] = (Wide)g[i] * slope;
    }
}
""")


def _gelu(B: Backend, x: Array, *, approximate: str) -> tuple[Array, None]:
    y = cupy.empty(x.shape, x.dtype)
    _launch("gelu", contiguous(x), y, approximate)
    return y, None


def _gelu_vjp(
    B: Backend, g: Array, out: Array, saved: None, x: Array, *, approximate: str
) -> tuple[Array]:
    g_x = cupy.empty(x.shape, x.dtype)
    _launch("gelu_vjp", contiguous(g), contiguous(x), g_x, approximate)
    return (g_x,)


def _launch(name: str, *args: Any) -> None:
    *arrays, approximate = args
    x = arrays[0]
    by_tanh = approximate == "tanh"
    _GELU.launch(name, (x.dtype,), blocks_of_numbers(x.size), 256, *arrays, x.size, by_tanh)


def _takes_gelu(B: Backend, x: Array, *, approximate: str) -> bool:
    return approximate in ("none", "tanh") and x.size > 0 and floats(x)


KERNELS = (Fused("gelu", _gelu, _gelu_vjp, _takes_gelu),)
