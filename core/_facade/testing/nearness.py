"""Whether a result is near enough to what is expected."""

from __future__ import annotations

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.dtypes import DType
from tfx.core.tolerances import TOLERANCES, Tolerance, gaps

LARGEST = {
    DType.float16: 65504.0,
    DType.bfloat16: 2.0**127 * (2 - 2**-7),
    DType.float32: float(np.finfo(np.float32).max),
    DType.float64: float(np.finfo(np.float64).max),
}
"""The largest finite number of each float dtype; what is expected beyond it is infinite."""

SLOPE = Tolerance(
    2e-7, "central differences in float64 with a step of 1e-5, whose own error is up to 1e-8"
)
"""For slopes of float64, against finite differences."""


class Mismatch(AssertionError):
    """A backend gave something else than was promised or expected."""


def assert_close(found: HostArray, expected: HostArray, dtype: DType, share: float = 0.0) -> None:
    """Equal up to the rounding of `dtype`; other dtypes exactly, integers after wrapping.

    The bound is a share of the largest number expected, or of 1 where that is larger: `share`,
    where the dtype's own is smaller.

    Raises:
        Mismatch: they are not; names the first element where they are furthest apart.
    """
    if found.shape != expected.shape:
        raise Mismatch(f"shape {found.shape}, expected {expected.shape}")
    if not dtype.is_float:
        expected = expected.astype(found.dtype)
        apart, bound = np.where(found == expected, 0.0, 1.0), 0.0
    else:
        over = np.abs(expected) > LARGEST[dtype]
        expected = np.where(over, np.copysign(np.inf, expected), expected)
        finite = np.isfinite(expected)
        scale = max(1.0, np.abs(expected).max(initial=0.0, where=finite))
        bound = max(TOLERANCES[dtype].bound, share) * scale
        apart = gaps(found.astype(np.float64), expected)
    if not (apart <= bound).all():
        at = tuple(map(int, np.unravel_index(np.argmax(apart), apart.shape)))
        within = f" within {bound:.1e}" if bound else ""
        raise Mismatch(f"{found[at]} at {at}, expected {expected[at]}{within}")
