"""Every float16 there is comes out as the float32 that NumPy's own conversion gives."""

from __future__ import annotations

import numpy as np
import pytest

from tfx.backends.numpy import halves
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import HostArray
from tfx.core.dtypes import DType

EVERY = np.arange(2**16).astype(np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)]


@pytest.mark.parametrize("x", [EVERY, FINITE, FINITE[:8], FINITE[:0]], ids=len)
def test_every_number(x: HostArray) -> None:
    found = NumpyBackend().cast(x, dtype=DType.float32)
    assert found.dtype == np.float32
    assert found.tobytes() == x.astype(np.float32).tobytes()  # bit for bit, signs of zeros too


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_one_that_is_not_finite(odd: float) -> None:
    x = np.resize(FINITE, (80, 90))
    x[7, 8] = odd
    np.testing.assert_array_equal(halves.widened(x), x.astype(np.float32))


def test_any_layout() -> None:
    x = np.resize(FINITE, (200, 300))
    for view in (x.T, x[::2, ::-3], np.broadcast_to(x[:1], (90, 300))):
        np.testing.assert_array_equal(halves.widened(view), view.astype(np.float32))
