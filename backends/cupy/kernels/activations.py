"""The functions between layers and their slopes, for every kernel that applies one; and `gelu`,
both kinds, and its derivative: one launch each."""

from __future__ import annotations

import cupy

from tfx.backends.cupy.kernels.cuda import CALLS, THREADS, Program, blocks_for, contiguous
from tfx.core.backend import Array, Backend, Fused

ACTIVATIONS = {None: 0, "gelu_new": 1, "gelu": 2, "relu": 3, "silu": 4}
"""The number by which a kernel knows each."""

ACTIVATED = r"""
const Wide SQRT_2_OVER_PI = 0.79788456080286536, CUBE = 0.044715;
const Wide SQRT_HALF = 0.70710678118654752, BELL_TOP = 0.39894228040143268;  // 1 / sqrt(2 pi)

// tanh(sqrt(2 / pi) (x + 0.044715 x**3))
__device__ inline Wide tanh_of_inner(Wide x) {
    return tanh(SQRT_2_OVER_PI * x * (1 + CUBE * x * x));
}

// Half of the error function's complement is the normal distribution function, with all its digits
// on the left as well.
__device__ inline Wide normal_below(Wide x) { return erfc(-SQRT_HALF * x) / 2; }

__device__ inline Wide logistic(Wide x) { return 1 / (1 + exp(-x)); }

__device__ inline Wide activated(Wide x, int activation) {
    switch (activation) {
        case 1: return x * ((1 + tanh_of_inner(x)) / 2);
        case 2: return x * normal_below(x);
        case 3: return x > 0 ? x : 0;
        case 4: return x * logistic(x);
        default: return x;
    }
}

// Its derivative.
__device__ inline Wide slope(Wide x, int activation) {
    switch (activation) {
        case 1: {
            Wide t = tanh_of_inner(x), inner_slope = SQRT_2_OVER_PI * (1 + 3 * CUBE * x * x);
            return (1 + t + x * (1 - t * t) * inner_slope) / 2;
        }
        case 2: return normal_below(x) + x * BELL_TOP * exp(-x * x / 2);
        case 3: return x > 0;
        case 4: {
            Wide s = logistic(x);
            return s * (1 + x * (1 - s));
        }
        default: return 1;
    }
}
"""

_GELU = Program(
    ACTIVATED,
    r"""
extern "C" __global__ void gelu(const T* x, T* y, Index count, Index activation) {
    EACH_NUMBER(i, count) y[i] = activated(x[i], activation);
}

extern "C" __global__ void gelu_vjp(
    const T* g, const T* x, T* g_x, Index count, Index activation
) {
    EACH_NUMBER(i, count) g_x[i] = (Wide)g[i] * slope(x[i], activation);
}
""",
)

_KINDS = {"tanh": ACTIVATIONS["gelu_new"], "none": ACTIVATIONS["gelu"]}


def _gelu(B: Backend, x: Array, *, approximate: str) -> tuple[Array, None]:
    y = cupy.empty(x.shape, x.dtype)
    _launch("gelu", approximate, contiguous(x), y)
    return y, None


def _gelu_vjp(
    B: Backend, g: Array, out: Array, saved: None, x: Array, *, approximate: str
) -> tuple[Array]:
    g_x = cupy.empty(x.shape, x.dtype)
    _launch("gelu_vjp", approximate, contiguous(g), contiguous(x), g_x)
    return (g_x,)


def _launch(name: str, approximate: str, *arrays: Array) -> None:
    count, T = arrays[0].size, arrays[0].dtype
    _GELU.launch(name, blocks_for(count), THREADS, *arrays, count, _KINDS[approximate], T=T)


KERNELS = (Fused("gelu", _gelu, _gelu_vjp, CALLS.gelu),)
