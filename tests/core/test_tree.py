"""Nests of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from tfx.core import tree
from tfx.core.creation import tensor
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend

B = StrictBackend()


class Pair(NamedTuple):
    first: Any
    second: Any


def numbered(*numbers: int) -> list[Tensor]:
    return [tensor(np.array(n), B) for n in numbers]


a, b, c, d = numbered(0, 1, 2, 3)

NESTS = [
    (a, 1),
    ([], 0),
    ({}, 0),
    ([a, b], 2),
    ((a, [b, (c,)]), 3),
    ({"z": a, "a": {"y": b, "x": [c]}}, 3),
    (Pair(a, {"w": Pair(b, c)}), 3),
    ([a, a], 2),
]


@pytest.mark.parametrize(("nest", "count"), NESTS)
def test_leaves_and_back(nest: Any, count: int) -> None:
    found = tree.leaves(nest)
    assert len(found) == count
    again = tree.like(nest, iter(found))
    assert type(again) is type(nest) and repr(again) == repr(nest)
    assert all(x is y for x, y in zip(tree.leaves(again), found, strict=True))


def test_leaves_stand_in_the_order_of_the_dict() -> None:
    assert [x.item() for x in tree.leaves({"z": c, "a": (a, b)})] == [2, 0, 1]


def test_other_mappings_become_dicts() -> None:
    assert tree.like(MappingProxyType({"x": a}), iter([1])) == {"x": 1}


class Grown:
    """A branch of two tensors and a name."""

    def __init__(self, name: str, one: Any, two: Any) -> None:
        self.name, self.one, self.two = name, one, two

    def tree_leaves(self) -> list[Tensor]:
        return [self.one, self.two]

    def tree_like(self, values: Iterator[Any]) -> Grown:
        return Grown(self.name, next(values), next(values))


def test_an_object_that_says_what_it_consists_of() -> None:
    nest = [a, {"x": Grown("kept", b, c)}, d]
    assert [x.item() for x in tree.leaves(nest)] == [0, 1, 2, 3]
    first, named, last = tree.like(nest, iter("pqrs"))
    assert (first, named["x"].one, named["x"].two, last) == ("p", "q", "r", "s")
    assert named["x"].name == "kept"


@pytest.mark.parametrize("odd", [1.0, None, [a, 2], {"x": np.zeros(2)}, "ab", {1, 2}])
def test_what_is_no_nest(odd: Any) -> None:
    for use in (tree.leaves, lambda nest: tree.like(nest, iter([a, b]))):
        with pytest.raises(TypeError, match="expected tensors in dicts, lists and tuples, found"):
            use(odd)
