"""Axes, shapes and index expressions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx.core.errors import ShapeError
from tfx.core.shapes import complete_shape, normal_axes, parse_index, shape_argument

some = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("axis", "ndim", "expected"),
    [
        (None, 0, ()),
        (None, 3, (0, 1, 2)),
        (0, 1, (0,)),
        (-1, 3, (2,)),
        (np.int64(1), 2, (1,)),
        ((), 2, ()),
        ([1, -2], 2, (1, 0)),
    ],
)
def test_normal_axes(axis: Any, ndim: int, expected: tuple[int, ...]) -> None:
    axes = normal_axes(axis, ndim)
    assert axes == expected and all(type(a) is int for a in axes)


@pytest.mark.parametrize(("axis", "ndim"), [(0, 0), (2, 2), (-3, 2), ((0, 0), 2), ((1, -1), 2)])
def test_axes_that_do_not_fit(axis: Any, ndim: int) -> None:
    with pytest.raises(ShapeError, match="does not fit"):
        normal_axes(axis, ndim)


@pytest.mark.parametrize("lengths", [(2, 3), ((2, 3),), ([2, 3],), (np.zeros((2, 3)).shape,)])
def test_lengths_come_one_by_one_or_together(lengths: Any) -> None:
    assert shape_argument(lengths) == (2, 3)


def test_no_lengths_are_the_shape_of_a_scalar() -> None:
    assert shape_argument(()) == shape_argument(((),)) == ()


lengths = st.lists(st.integers(0, 6), max_size=4).map(tuple)


@some
@given(lengths, st.lists(st.integers(-2, 6), max_size=4).map(tuple))
def test_complete_shape_is_numpys(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    try:
        expected = np.zeros(old).reshape(new).shape
        if min(new, default=0) < -1:  # NumPy takes any negative length for -1
            raise ValueError
    except ValueError:
        with pytest.raises(ShapeError):
            complete_shape(new, old)
    else:
        assert complete_shape(new, old) == expected


@some
@given(lengths, st.data())
def test_complete_shape_finds_the_missing_length(old: tuple[int, ...], data: st.DataObject) -> None:
    if math.prod(old) == 0 or not old:
        return
    at = data.draw(st.integers(0, len(old) - 1))
    assert complete_shape((*old[:at], -1, *old[at + 1 :]), old) == old


def test_an_index_is_a_cut_a_shape_and_a_pick() -> None:
    class Ids:
        backend = "anything: what has one is taken for a tensor"

    i = Ids()
    found = parse_index((slice(None, None, 2), None, 1, i), (5, 4, 3))
    assert found == ((0, 1, 0), (5, 2, 3), (2, 1, 1), (3, 1, 3), (2, i))
    assert parse_index((), ()) == ((), (), (), (), None)
    assert parse_index(..., (2,)) == ((0,), (2,), (1,), (2,), None)
    assert parse_index(slice(4, 1), (5,)) == ((4,), (4,), (1,), (0,), None)
