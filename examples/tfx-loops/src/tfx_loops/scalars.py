"""Functions of single numbers, with the answers of IEEE 754 where Python raises an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from math import copysign, inf, nan


def exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return inf


def log(x: float) -> float:
    return math.log(x) if x > 0 else -inf if x == 0 else nan


def sqrt(x: float) -> float:
    return nan if x < 0 else math.sqrt(x)


def divide(x: float, y: float) -> float:
    return x / y if y else x * copysign(inf, y)


def power(x: float, exponent: float) -> float:
    try:
        return math.pow(x, exponent)
    except (OverflowError, ValueError):  # too large; 0 to a negative power; a root below 0
        if x < 0 and exponent % 1:
            return nan
        return copysign(inf, x) if exponent % 2 == 1 else inf


def maximum(x: float, y: float) -> float:
    """The larger; NaN where either is, which is larger than nothing and equal to nothing."""
    return x if x > y or x != x else y


def choose(condition: bool, x: float, y: float) -> float:
    return x if condition else y


def place_of_largest(numbers: Sequence[float]) -> int:
    """Where the largest stands, or NaN; the first of equals."""
    largest = reduce(maximum, numbers)
    return next(i for i, x in enumerate(numbers) if x == largest or x != x)


def whole(x: float) -> int:
    """The integer towards 0; 0 where there is none."""
    return int(x) if math.isfinite(x) else 0
