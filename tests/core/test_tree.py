"""Nests of tensors."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from tfx.core import tree
from tfx.core.tensor import Tensor, tensor
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


def test_map_leaves() -> None:
    nest = Pair([a, b], {"x": c})
    doubled = tree.map_leaves(lambda x: x.item() * 2, nest)
    assert doubled == Pair([0, 2], {"x": 4})


@pytest.mark.parametrize("odd", [1.0, None, [a, 2], {"x": np.zeros(2)}, "ab", {1, 2}])
def test_what_is_no_nest(odd: Any) -> None:
    for use in (tree.leaves, lambda nest: tree.like(nest, iter([a, b]))):
        with pytest.raises(TypeError, match="expected tensors in dicts, lists and tuples, found"):
            use(odd)
