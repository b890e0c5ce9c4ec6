"""Adding to rows that indices name, on cupy: `scatter_add` and the gradient of `embedding`, by
sorted segments. The oracle is NumPy's `add.at` in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.core.dtypes import DType
from tfx.testing.calling import LAYOUTS, put

COUNTS = [1, 31, 32, 33, 64, 65, 200]
"""Around the length of a chunk, and several of them."""


def _indices(count: int, length: int, dtype: str = "int64") -> Any:
    return np.random.default_rng(count).integers(0, length, count).astype(dtype)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("length", [1, 2, 27, 256, 257, 70_000])
def test_the_sort_keeps_the_order_of_equal_ones(B: Any, length: int, dtype: str) -> None:
    from tfx.backends.cupy.kernels.segments import _order

    for count in (1, 33, 511, 512, 513, 1500):
        ids = _indices(count, length, dtype)
        found = B.to_numpy(_order(put(B, ids), length))
        np.testing.assert_array_equal(found, np.argsort(ids, kind="stable"))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("length", [1, 3, 50])
def test_scatter_add(B: Any, near: Any, count: int, length: int) -> None:
    """Segments within chunks, across two of them and across many."""
    rng = np.random.default_rng(0)
    x, updates = (rng.standard_normal((n, 3)).astype(np.float32) for n in (length, count))
    for ids in (_indices(count, length), np.sort(_indices(count, length)), np.zeros(count, int)):
        out = B.scatter_add(*(put(B, a) for a in (x, ids, updates)), axis=0)
        expected = x.astype(np.float64)
        np.add.at(expected, ids, updates.astype(np.float64))
        near(B.to_numpy(out), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_along_any_axis_and_in_any_layout(B: Any, axis: int, layout: str) -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[2, 0, 2], [1, 2, 0]])
    shape = (3, 4, 5)
    x = rng.integers(-9, 9, shape).astype(np.float64)
    updates = rng.integers(-9, 9, (*shape[:axis], *ids.shape, *shape[axis + 1 :])).astype(float)
    if layout == "repeated":
        x, ids, updates = (np.broadcast_to(a[:1], a.shape) for a in (x, ids, updates))
    out = B.scatter_add(*(put(B, a, layout) for a in (x, ids, updates)), axis=axis)
    expected = x.copy()
    np.add.at(expected, (slice(None),) * axis + (ids,), updates)
    np.testing.assert_array_equal(B.to_numpy(out), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_whole_numbers_wrap(B: Any, dtype: str) -> None:
    top = np.iinfo(dtype).max
    x, updates = np.full((2, 1), top, dtype), np.full((70, 1), top // 3, dtype)
    ids = _indices(70, 2)
    expected = x.copy()
    np.add.at(expected, ids, updates)
    out = B.scatter_add(*(put(B, a) for a in (x, ids, updates)), axis=0)
    np.testing.assert_array_equal(B.to_numpy(out), expected, strict=True)


def test_halves_are_added_up_in_float32(B: Any) -> None:
    """Ones would stop at 2048 if they were not."""
    x, updates = np.zeros((1, 2), np.float16), np.ones((4000, 2), np.float16)
    out = B.scatter_add(*(put(B, a) for a in (x, np.zeros(4000, int), updates)), axis=0)
    assert B.to_numpy(out).tolist() == [[4000, 4000]]


def test_nothing_to_add(B: Any) -> None:
    x = put(B, np.ones((3, 2), np.float32))
    none = put(B, np.ones((0, 2), np.float32)), put(B, np.ones(0, np.int64))
    out = B.scatter_add(x, none[1], none[0], axis=0)
    assert B.to_numpy(out).tolist() == [[1, 1]] * 3
    assert out.data.ptr != x.data.ptr
    empty = put(B, np.ones((3, 0), np.float32))
    ids = put(B, np.zeros(2, np.int64))
    assert B.scatter_add(empty, ids, empty[:2], axis=0).shape == (3, 0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 40)])
def test_embedding(run: Any, near: Any, dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((7, 5)).astype(dtype)
    ids = np.asarray(rng.integers(0, 7, shape), np.int32)
    g = np.asarray(rng.standard_normal((*shape, 5))).astype(dtype)
    rows, (g_table, none) = run("embedding", table, ids, g=g)
    expected = np.zeros(table.shape)
    np.add.at(expected, ids, g.astype(np.float64))
    np.testing.assert_array_equal(rows, table[ids])
    near(g_table, expected)
    assert none is None and g_table.dtype == dtype


def test_ids_that_no_row_has_touch_no_memory(B: Any) -> None:
    """Outside the contract: what comes is open, but it stays in the array."""
    room = B.full(shape=(6, 2), value=0.0, dtype=DType.float32)
    room[2:4] = B.scatter_add(
        room[2:4],
        put(B, np.array([-1, 5, 1 << 40, 0])),
        B.full(shape=(4, 2), value=1.0, dtype=DType.float32),
        axis=0,
    )
    assert B.to_numpy(room).tolist() == [[0, 0]] * 2 + [[1, 1], [0, 0]] + [[0, 0]] * 2


def test_three_launches_whatever_the_count_and_no_waiting(B: Any, launches: Any) -> None:
    kernel = B.fused["embedding"]
    table, g = put(B, np.ones((300, 4), np.float32)), put(B, np.ones((99, 4), np.float32))
    ids = put(B, _indices(99, 300))
    assert launches(lambda: kernel.forward(B, table, ids)) == 1
    assert launches(lambda: kernel.vjp(B, g, g, None, table, ids)) <= 4  # with zeros
    assert launches(lambda: kernel.vjp(B, g[:9], g, None, table, ids[:9])) <= 3


def test_the_backend_says_that_it_is_deterministic(B: Any) -> None:
    assert B.deterministic
