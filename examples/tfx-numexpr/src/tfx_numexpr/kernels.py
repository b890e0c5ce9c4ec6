"""`gelu` for NumPy arrays, its value and its derivative an expression each.

numexpr compiles an expression, cuts the arrays into blocks that fit a core's cache, and takes each
block through the whole of it, on as many threads as it is set to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numexpr
import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend, Fused
from tfx.core.ops import ERF_SMALL, ERFC_LARGE

Array = npt.NDArray[Any]


# ---- expressions ---------------------------------------------------------------------------------


def _polynomial(name: str, degree: int, x: str) -> str:
    """Horner's rule over the constants name0, name1, ..., the highest power first.

    >>> _polynomial("a", 2, "x")
    '((a0) * x + a1) * x + a2'
    """
    text = f"{name}0"
    for i in range(1, degree + 1):
        text = f"({text}) * {x} + {name}{i}"
    return text


def _ratio(above: str, below: str, coefficients: Sequence[Sequence[float]], x: str) -> str:
    """One polynomial divided by another."""
    numerator, denominator = (len(row) - 1 for row in coefficients)
    return f"({_polynomial(above, numerator, x)}) / ({_polynomial(below, denominator, x)})"


# Cody's approximations of the error function, as `tfx.core.ops.erf` has them. What stands here
# twice, numexpr computes once.
_U = "(x * root_half)"
_SIZE = f"where(abs(x) < far, abs({_U}), far)"
_TAIL = f"exp(-{_SIZE} * {_SIZE}) * {_ratio('c', 'd', ERFC_LARGE, _SIZE)}"
_FAR = f"where(x < 0, {_TAIL}, 2 - {_TAIL})"
_NEAR = f"1 + {_U} * {_ratio('a', 'b', ERF_SMALL, f'({_U} * {_U})')}"

_ONE_PLUS_ERF = {
    np.dtype(np.float32): _FAR,  # wrong by 5e-12 near 0, where float32 does not see it
    np.dtype(np.float64): f"where({_SIZE} < near, {_NEAR}, {_FAR})",
}
_VALUE = {dtype: f"half * x * {y}" for dtype, y in _ONE_PLUS_ERF.items()}
_PULL = {
    dtype: f"g * (half * {y} + x * density_at_0 * exp(-half * x * x))"
    for dtype, y in _ONE_PLUS_ERF.items()
}


@cache
def _constants(dtype: np.dtype[Any]) -> dict[str, Array]:
    """The names in the expressions that are no arguments.

    A number in the text of an expression would be float64, and make the result so.
    """
    numbers = {
        "half": 0.5,
        "root_half": math.sqrt(0.5),
        "density_at_0": 1 / math.sqrt(2 * math.pi),
        "near": 0.46875,  # where Cody's first approximation ends
        "far": 30.0,  # beyond it, nothing changes and powers overflow
    }
    for name, row in zip("abcd", (*ERF_SMALL, *ERFC_LARGE), strict=True):
        numbers |= {f"{name}{i}": x for i, x in enumerate(row)}
    return {name: np.array(x, dtype) for name, x in numbers.items()}


# ---- the kernel ----------------------------------------------------------------------------------


def _gelu(B: Backend, x: Array, *, approximate: str) -> tuple[Array, None]:
    return numexpr.evaluate(_VALUE[x.dtype], {"x": x} | _constants(x.dtype), {}), None


def _gelu_vjp(
    B: Backend, g: Array, out: Array, saved: None, x: Array, *, approximate: str
) -> tuple[Array]:
    return (numexpr.evaluate(_PULL[x.dtype], {"g": g, "x": x} | _constants(x.dtype), {}),)


def _can_gelu(B: Backend, x: Array, *, approximate: str) -> bool:
    """The exact form alone; the tanh form is left to the composed one."""
    return approximate == "none" and x.dtype in _VALUE


GELU = Fused("gelu", _gelu, _gelu_vjp, _can_gelu)
