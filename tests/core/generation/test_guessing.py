"""What is looked up in a text, against a search through all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfx.core.generation.guessing import LONGEST, Guess, looked_up


def found_slowly(ids: list[int], count: int) -> Guess:
    for size in range(LONGEST, 0, -1):
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start : start + size] == ids[-size:]:
                text = list(ids)
                for i in range(count):
                    text.append(text[start + size + i])
                return Guess(text[len(ids) :], size)
    return Guess()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 9))
def test_what_followed_is_found(ids: list[int], count: int) -> None:
    assert looked_up(np.array(ids), count) == found_slowly(ids, count)


@pytest.mark.parametrize(
    ("ids", "expected", "found_by"),
    [
        ([7], [], 0),
        ([1, 2, 3], [], 0),
        ([4, 4], [4, 4, 4], 1),
        ([1, 2, 9, 1, 2, 8, 1, 2], [8, 1, 2], 2),  # the last place
        ([1, 2, 9, 5, 2, 8, 1, 2], [9, 5, 2], 2),  # with the longest part of the end
    ],
    ids=str,
)
def test_where_it_looks(ids: list[int], expected: list[int], found_by: int) -> None:
    assert looked_up(np.array(ids), 3) == Guess(expected or (), found_by)
