"""Activations and their derivatives, in few passes over memory.

The formulas are those of `tfx.core.nn` and `tfx.core.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tfx.backends.numpy.kernels.arrays import Array, Calls, filled
from tfx.core.ops import ERF_SMALL, ERFC_LARGE
from tfx.core.planning import Workspace

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBE = 0.044715


class Activation(NamedTuple):
    """An activation as calls. Arrays have one shape; an argument is not changed unless it is also
    the result.

    Attributes:
        value: `(space, x, y)`: the value at `x` into `y`.
        pull: `(space, g, kept, g_x)`: the gradient by x where `g` is that by the value.
        keeps_value: whether `kept` is the value, which may then lie over x, and not x.
    """

    value: Callable[[Workspace, Array, Array], Calls]
    pull: Callable[[Workspace, Array, Array, Array], Calls]
    keeps_value: bool = False


def _number(value: float, like: Array) -> Array:
    return filled((), value, like.dtype)


def _like(space: Workspace, x: Array) -> Array:
    room: Array = space.scratch(x.shape, x.dtype)
    return room


# ---- x (1 + tanh(u)) / 2, u = sqrt(2 / pi) (x + 0.044715 x**3) ---------------------------------


def _tanh_of_inner(x: Array, t: Array) -> Calls:
    return [
        (np.multiply, (x, x, t)),
        (np.multiply, (t, _number(_SQRT_2_OVER_PI * _CUBE, x), t)),
        (np.add, (t, _number(_SQRT_2_OVER_PI, x), t)),
        (np.multiply, (t, x, t)),
        (np.tanh, (t, t)),
    ]


def _gelu_new(space: Workspace, x: Array, y: Array) -> Calls:
    half = _like(space, x)
    return [
        *_tanh_of_inner(x, y),
        (np.multiply, (x, _number(0.5, x), half)),
        (np.multiply, (y, half, y)),
        (np.add, (y, half, y)),
    ]


def _gelu_new_pull(space: Workspace, g: Array, x: Array, g_x: Array) -> Calls:
    t, slope = _like(space, x), _like(space, x)
    one = _number(1.0, x)
    return [
        *_tanh_of_inner(x, t),
        (np.multiply, (t, t, slope)),
        (np.subtract, (one, slope, slope)),
        (np.add, (t, one, t)),
        (np.multiply, (t, _number(0.5, x), t)),
        (np.multiply, (slope, x, slope)),
        (np.multiply, (x, x, g_x)),  # to become u' / 2
        (np.multiply, (g_x, _number(1.5 * _SQRT_2_OVER_PI * _CUBE, x), g_x)),
        (np.add, (g_x, _number(0.5 * _SQRT_2_OVER_PI, x), g_x)),
        (np.multiply, (g_x, slope, g_x)),
        (np.add, (g_x, t, g_x)),
        (np.multiply, (g_x, g, g_x)),
    ]


# ---- x (1 + erf(x / sqrt(2))) / 2 -------------------------------------------------------------


def _one_plus_erf(space: Workspace, x: Array) -> tuple[Array, Calls]:
    """Of x / sqrt(2), by Cody's two approximations: where it will be, and the calls.

    Selects by products with masks: what NumPy has for it takes ten times as long where a mask
    changes often.
    """
    z, size, tail, near, y = (_like(space, x) for _ in range(5))
    mask = space.scratch(x.shape, np.bool_)
    return y, [
        (np.multiply, (x, _number(math.sqrt(0.5), x), z)),
        (np.abs, (z, size)),
        (np.fmin, (size, _number(30.0, x), size)),  # from where on exp(-size**2) is 0
        *_ratio(size, *ERFC_LARGE, tail, y),
        (np.multiply, (size, size, y)),
        (np.negative, (y, y)),
        (np.exp, (y, y)),
        (np.multiply, (tail, y, tail)),
        (np.subtract, (_number(2.0, x), tail, y)),
        (np.less, (z, _number(0.0, x), mask)),
        *_select(mask, tail, y),
        (np.less, (size, _number(0.46875, x), mask)),
        (np.fmax, (z, _number(-0.5, x), z)),
        (np.fmin, (z, _number(0.5, x), z)),
        (np.multiply, (z, z, size)),
        *_ratio(size, *ERF_SMALL, near, tail),
        (np.multiply, (near, z, near)),
        (np.add, (near, _number(1.0, x), near)),
        *_select(mask, near, y),
    ]


def _select(mask: Array, x: Array, y: Array) -> Calls:
    """`x` into `y` where the mask is True; both are finite, and only `y` is worth reading after."""
    return [
        (np.multiply, (x, mask, x)),
        (np.logical_not, (mask, mask)),
        (np.multiply, (y, mask, y)),
        (np.add, (y, x, y)),
    ]


def _ratio(
    x: Array, numerator: Sequence[float], denominator: Sequence[float], y: Array, work: Array
) -> Calls:
    return [
        *_horner(x, numerator, y),
        *_horner(x, denominator, work),
        (np.divide, (y, work, y)),
    ]


def _horner(x: Array, coefficients: Sequence[float], y: Array) -> Calls:
    calls: Calls = [(np.multiply, (x, _number(coefficients[0], x), y))]
    for c in coefficients[1:-1]:
        calls += ((np.add, (y, _number(c, x), y)), (np.multiply, (y, x, y)))
    calls.append((np.add, (y, _number(coefficients[-1], x), y)))
    return calls


def _gelu(space: Workspace, x: Array, y: Array) -> Calls:
    twice, calls = _one_plus_erf(space, x)
    return [
        *calls,
        (np.multiply, (twice, x, y)),
        (np.multiply, (y, _number(0.5, x), y)),
    ]


def _gelu_pull(space: Workspace, g: Array, x: Array, g_x: Array) -> Calls:
    bell = _like(space, x)
    twice, calls = _one_plus_erf(space, x)
    return [
        *calls,
        (np.multiply, (twice, _number(0.5, x), g_x)),
        (np.multiply, (x, x, bell)),
        (np.multiply, (bell, _number(-0.5, x), bell)),
        (np.exp, (bell, bell)),
        (np.multiply, (bell, _number(1 / math.sqrt(2 * math.pi), x), bell)),
        (np.multiply, (bell, x, bell)),
        (np.add, (g_x, bell, g_x)),
        (np.multiply, (g_x, g, g_x)),
    ]


# ---- the others ---------------------------------------------------------------------------------

_SMALL = 1 << 12  # as many zeros lie ready; NumPy is faster with them than with one


def _relu(space: Workspace, x: Array, y: Array) -> Calls:
    zeros = filled(x.shape if x.size <= _SMALL else (), 0.0, x.dtype)
    return [(np.fmax, (x, zeros, y))]


def _relu_pull(space: Workspace, g: Array, y: Array, g_x: Array) -> Calls:
    return [(np.sign, (y, g_x)), (np.multiply, (g_x, g, g_x))]


def _sigmoid(x: Array, y: Array) -> Calls:
    half = _number(0.5, x)
    return [
        (np.multiply, (x, half, y)),
        (np.tanh, (y, y)),
        (np.multiply, (y, half, y)),
        (np.add, (y, half, y)),
    ]


def _silu(space: Workspace, x: Array, y: Array) -> Calls:
    return [*_sigmoid(x, y), (np.multiply, (y, x, y))]


def _silu_pull(space: Workspace, g: Array, x: Array, g_x: Array) -> Calls:
    s = _like(space, x)
    one = _number(1.0, x)
    return [
        *_sigmoid(x, s),
        (np.subtract, (one, s, g_x)),
        (np.multiply, (g_x, x, g_x)),
        (np.add, (g_x, one, g_x)),
        (np.multiply, (g_x, s, g_x)),
        (np.multiply, (g_x, g, g_x)),
    ]


ACTIVATIONS = {
    "gelu_new": Activation(_gelu_new, _gelu_new_pull),
    "gelu": Activation(_gelu, _gelu_pull),
    "relu": Activation(_relu, _relu_pull, keeps_value=True),
    "silu": Activation(_silu, _silu_pull),
}
"""By the names in `tfx.core.nn.Activation`."""
