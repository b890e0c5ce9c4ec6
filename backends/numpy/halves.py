"""float16 to float32 in whole-array steps: NumPy's own conversion goes number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FEW = 4096
"""Below so many numbers, one call costs less than several."""

# A half has its 5 bits of exponent and 10 of fraction where float32 has the lowest 5 of 8 and the
# highest 10 of 23. Moved there it is too small by the difference of the exponents' offsets.
_SHIFT, _RISE = 23 - 10, np.float32(2.0 ** (127 - 15))
_SIGN_COPIES = 0b0111 << 28  # what the shift of a negative number leaves below its sign
_LARGEST = 65504


def widened(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The same numbers, NaN and infinities included.

    >>> widened(np.array([1.5, -2.0**-24, -np.inf], np.float16)).tolist()
    [1.5, -5.960464477539063e-08, -inf]
    """
    if x.size < FEW:
        return x.astype(np.float32)
    words = x.view(np.int16).astype(np.int32)
    words <<= _SHIFT
    words &= ~_SIGN_COPIES
    wide = words.view(np.float32)
    wide *= _RISE
    if wide.max() > _LARGEST or wide.min() < -_LARGEST:  # as NaN and infinities look now
        return x.astype(np.float32)
    return wide
