"""Activations and their derivatives, in few passes over memory.

The formulas are those of `tfx.core.nn` and `tfx.core.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tfx.backends.numpy.kernels.arrays import Array
from tfx.core.ops import ERF_SMALL, ERFC_LARGE

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBE = 0.044715


class Activation(NamedTuple):
    """`value(x)`, and `pull(g, x)`: the gradient by x where `g` is that by the value.

    Neither changes its arguments.
    """

    value: Callable[[Array], Array]
    pull: Callable[[Array, Array], Array]


# ---- x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x**3) ---------------------------------


def _tanh_of_inner(x: Array) -> Array:
    t = np.square(x)
    t *= _SQRT_2_OVER_PI * _CUBE
    t += _SQRT_2_OVER_PI
    t *= x
    return np.tanh(t, out=t)


def _gelu_new(x: Array) -> Array:
    y = _tanh_of_inner(x)
    half = x * 0.5
    y *= half
    y += half
    return y


def _gelu_new_pull(g: Array, x: Array) -> Array:
    t = _tanh_of_inner(x)
    inner = np.square(x)  # to become x u' / 2
    inner *= 1.5 * _SQRT_2_OVER_PI * _CUBE
    inner += 0.5 * _SQRT_2_OVER_PI
    inner *= x
    slope = np.square(t)
    np.subtract(1, slope, out=slope)
    slope *= inner
    t += 1
    t *= 0.5
    slope += t
    slope *= g
    return slope


# ---- x (1 + erf(x / sqrt(2))) / 2 -------------------------------------------------------------


def _one_plus_erf(x: Array) -> Array:
    """Of x / sqrt(2), by Cody's two approximations."""
    x = x * math.sqrt(0.5)
    size = np.minimum(np.abs(x), 30)  # from where on exp(-size**2) is 0
    tail = np.exp(-size * size)
    tail *= _ratio(size, *ERFC_LARGE)
    near = np.clip(x, -0.5, 0.5)
    near *= _ratio(near * near, *ERF_SMALL)
    near += 1
    return np.where(size < 0.46875, near, np.where(x < 0, tail, 2 - tail))


def _ratio(x: Array, numerator: Sequence[float], denominator: Sequence[float]) -> Array:
    y = _horner(x, numerator)
    y /= _horner(x, denominator)
    return y


def _horner(x: Array, coefficients: Sequence[float]) -> Array:
    y = x * coefficients[0]
    for c in coefficients[1:-1]:
        y += c
        y *= x
    y += coefficients[-1]
    return y


def _gelu(x: Array) -> Array:
    y = _one_plus_erf(x)
    y *= x
    y *= 0.5
    return y


def _gelu_pull(g: Array, x: Array) -> Array:
    slope = _one_plus_erf(x)
    slope *= 0.5
    bell = np.square(x)
    bell *= -0.5
    np.exp(bell, out=bell)
    bell *= 1 / math.sqrt(2 * math.pi)
    bell *= x
    slope += bell
    slope *= g
    return slope


# ---- the others ---------------------------------------------------------------------------------


def _relu(x: Array) -> Array:
    return np.where(x > 0, x, 0)


def _relu_pull(g: Array, x: Array) -> Array:
    return np.where(x > 0, g, 0)


def _sigmoid(x: Array) -> Array:
    y = x * 0.5
    np.tanh(y, out=y)
    y *= 0.5
    y += 0.5
    return y


def _silu(x: Array) -> Array:
    y = _sigmoid(x)
    y *= x
    return y


def _silu_pull(g: Array, x: Array) -> Array:
    s = _sigmoid(x)
    slope = 1 - s
    slope *= x
    slope += 1
    slope *= s
    slope *= g
    return slope


ACTIVATIONS = {
    "gelu_new": Activation(_gelu_new, _gelu_new_pull),
    "gelu": Activation(_gelu, _gelu_pull),
    "relu": Activation(_relu, _relu_pull),
    "silu": Activation(_silu, _silu_pull),
}
"""By the names in `tfx.core.nn.Activation`."""
