"""How near is near enough, and why."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.dtypes import DType


class Tolerance(NamedTuple):
    """The largest error that rounding explains, as a share of the largest number expected.

    Attributes:
        bound: the share.
        reason: what it leaves room for, and what it does not.
    """

    bound: float
    reason: str


TOLERANCES = {
    DType.float64: Tolerance(
        1e-11,
        "sums in any order and functions good to some units in the last place (2e-16); a float32 "
        "anywhere on the way shows, with its 6e-8",
    ),
    DType.float32: Tolerance(
        3e-5,
        "sums of a few hundred terms in any order (6e-8 each); a half or TF32 anywhere on the way "
        "shows, with its 5e-4",
    ),
    DType.float16: Tolerance(6e-3, "a few roundings of 5e-4 each; sums are in float32"),
    DType.bfloat16: Tolerance(4e-2, "a few roundings of 4e-3 each; sums are in float32"),
}
"""For results of each float dtype. Integers and bool are exact."""


def gaps(x: HostArray, y: HostArray) -> HostArray:
    """How far each element of one float64 array is from that of another: 0 for equal ones, NaN
    being equal to itself; infinite where NaN or infinity stands on one side only.

    >>> gaps(np.array([1.0, np.nan, np.inf]), np.array([1.5, np.nan, 0.0])).tolist()
    [0.5, 0.0, inf]
    """
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(all="ignore"):
        apart = np.abs(x - y)
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
