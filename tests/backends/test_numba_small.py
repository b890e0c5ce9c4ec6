"""Small products against NumPy's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from tfx.backends.numba.small import small
from tfx.core.planning import FRESH

SIZES = st.sampled_from([1, 2, 3, 4, 5, 8, 9, 16, 19, 27, 64, 70])


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, SIZES, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_products(
    rows: int, inner: int, columns: int, turned: bool, back: bool, wide: bool, single: bool
) -> None:
    dtype: Any = np.float32 if single else np.float64
    rng = np.random.default_rng(rows + 100 * inner + 10_000 * columns)
    x = rng.normal(size=(inner, rows)).astype(dtype).T if back else None
    x = rng.normal(size=(rows, inner)).astype(dtype) if x is None else x
    w = rng.normal(size=(columns, inner)).astype(dtype).T if turned else None
    w = rng.normal(size=(inner, columns)).astype(dtype) if w is None else w
    around = np.full((rows + 1, columns + (7 if wide else 0)), 5, dtype)
    out = around[:rows, :columns]
    calls = small(x, w, out, FRESH)
    if calls is None:  # BLAS has it; never where both lie as they are computed
        assert turned or rows * inner * columns > 1 << 16
        return
    for function, args in calls:
        function(*args)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    size = np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64))
    assert np.all(np.abs(out - exact) <= inner * np.finfo(dtype).eps * size)
    assert np.all(around[rows:] == 5)  # nothing beyond
    assert np.all(around[:, columns:] == 5)


def test_a_product_with_a_matrix_of_outputs_is_small_too() -> None:
    x, w = np.ones((16, 16)), np.ones((27, 16))
    assert small(x, w.T, np.empty((16, 27)), FRESH) is not None
    assert small(x[:2], w.T, np.empty((2, 27)), FRESH) is None
