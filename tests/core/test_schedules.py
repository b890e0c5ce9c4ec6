"""Learning rates against their formulas, one step at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfx.core.schedules import cosine, linear


def rate(form: str, step: int, steps: int, peak: float, end: float, warmup: int) -> float:
    """The rate of `step`, counted from 0, as the docstrings say it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    way = (step - warmup) / (steps - warmup)
    if form == "linear":
        return peak * (1 - way) + end * way
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * way))


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("warmup", [0, 1, 7, 19])
@pytest.mark.parametrize("end", [0.0, 1e-4])
def test_every_rate(schedule: object, warmup: int, end: float) -> None:
    form = schedule.__name__  # type: ignore[attr-defined]
    table = {"linear": linear, "cosine": cosine}[form](20, 0.01, end, warmup)
    expected = [rate(form, step, 20, 0.01, end, warmup) for step in range(20)]
    assert table.dtype == np.float64
    np.testing.assert_allclose(table, expected, rtol=1e-14, atol=0)


def test_linear_is_the_originals_to_the_last_bit() -> None:
    assert linear(1000, 0.01).tolist() == [0.01 * (1 - step / 1000) for step in range(1000)]


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_no_step_and_no_way_down(schedule: object) -> None:
    assert callable(schedule)
    assert schedule(0, 1.0).shape == (0,)
    assert schedule(0, 1.0, warmup=3).shape == (0,)
    assert schedule(3, 1.0, warmup=3).tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert schedule(2, 1.0, warmup=4).tolist() == [0.25, 0.5]  # stopped on the way up
    assert schedule(1, 1.0).tolist() == [1.0]


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
    peak=st.floats(1e-6, 10),
    share=st.floats(0, 1),
)
def test_up_then_down_and_never_out_of_bounds(
    steps: int, warmup: int, peak: float, share: float
) -> None:
    for schedule in (linear, cosine):
        table = schedule(steps, peak, share * peak, warmup)
        assert table.shape == (steps,)
        assert (table > 0).all()
        assert (table <= peak * (1 + 1e-15)).all()
        assert (np.diff(table[:warmup]) > 0).all()
        assert (np.diff(table[warmup:]) <= 1e-15 * peak).all()
