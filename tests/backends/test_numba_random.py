"""Dropout's factors by Numba: bit for bit those of the composed form, and of Python's integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from tfx.backends.numba import compiling, random
from tfx.backends.numba.compiling import Count, Ids, compiled
from tfx.backends.numba.random import DROPOUT_FACTOR, _words
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.capture import jit
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout, dropout_factor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.tensor import Tensor
from tfx.core.threefry import threefry2x32

WORDS = st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**31, 2**32 - 1])


@pytest.fixture(scope="module")
def B() -> NumpyBackend:
    """The NumPy backend with this kernel alone."""
    backend = NumpyBackend()
    backend.fused["dropout_factor"] = DROPOUT_FACTOR
    return backend


def both(step: Tensor, **how: Any) -> tuple[Any, Any]:
    """By the kernel, and composed."""
    found = dropout_factor(step, **how).numpy()
    with composed():
        return found, dropout_factor(step, **how).numpy()


@compiled
def _drawn(out: Ids, key0: Count, key1: Count, c0: Count, c1: Count) -> None:
    out[0], out[1] = _words(np.uint32(key0), np.uint32(key1), np.uint32(c0), np.uint32(c1))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(key=st.tuples(WORDS, WORDS), counters=st.tuples(WORDS, WORDS))
def test_words_are_those_of_threefry(key: tuple[int, int], counters: tuple[int, int]) -> None:
    """All 32 bits; a mask shows which are below one bound."""
    found = np.zeros(2, np.int64)
    _drawn.of(np.dtype(np.float32))(found, *key, *counters)
    assert tuple(found.tolist()) == threefry2x32(key, *counters)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    key=st.tuples(WORDS, WORDS),
    counter=st.integers(0, 2**31 - 1) | st.sampled_from([0, 2**31 - 1]),
    index=st.sampled_from([DType.int32, DType.int64]),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple) | st.tuples(st.integers(0, 999)),
    rate=st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.5, 2**-24, 1 - 2**-40]),
    dtype=st.sampled_from([DType.float32, DType.float64]),
)
def test_it_is_the_composed_form(
    B: NumpyBackend,
    key: tuple[int, int],
    counter: int,
    index: DType,
    shape: tuple[int, ...],
    rate: float,
    dtype: DType,
) -> None:
    step = tensor(counter, B, index)
    found, expected = both(step, key=key, shape=shape, rate=rate, dtype=dtype)
    assert found.dtype == expected.dtype and found.shape == shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("key", [(0, 0), (0x13198A2E, 0xFFFFFFFE)])
def test_zeros_are_where_python_draws_them(B: NumpyBackend, key: tuple[int, int]) -> None:
    step = tensor(2**31 - 1, B, DType.int64)
    words = [threefry2x32(key, i // 2, 2**31 - 1)[i % 2] for i in range(301)]
    for word in words[::50]:  # a rate that it just reaches, and one that it does not
        for above, rate in enumerate([word >> 8, (word >> 8) + 1]):
            how = {"key": key, "shape": (301,), "rate": rate / 2**24, "dtype": DType.float32}
            found = dropout_factor(step, **how).numpy()
            expected = [0 if other >> 8 < rate else 1 / (1 - rate / 2**24) for other in words]
            np.testing.assert_array_equal(found, np.array(expected, np.float32))
            assert (found[words.index(word)] == 0) == above


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 31, 1000, 1001])
def test_threads_draw_the_same(
    B: NumpyBackend, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numba

    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba is held to one thread")
    for module in (compiling, random):
        monkeypatch.setattr(module, "MANY", 1)
        monkeypatch.setattr(module, "threads", lambda: 2)
    how = {"key": (1, 2), "shape": (count,), "rate": 0.3, "dtype": DType.float32}
    np.testing.assert_array_equal(*both(tensor(5, B), **how))


def test_more_numbers_than_are_drawn_by_one_thread(B: NumpyBackend) -> None:
    how = {"key": (3, 4), "shape": (3, compiling.MANY // 3 + 2), "dtype": DType.float32}
    np.testing.assert_array_equal(*both(tensor(6, B), rate=0.1, **how))


@pytest.mark.parametrize("index", [DType.int32, DType.int64])
def test_a_replayed_pass_draws_anew(B: NumpyBackend, index: DType) -> None:
    x = tensor(np.random.default_rng(0).standard_normal((7, 9)), B)

    def dropped(step: Tensor) -> Tensor:
        dropout = Dropout((1, 2), step)
        return dropout(dropout(x, 0.5), 0.25)

    captured = jit(dropped)
    seen = set()
    for counter in (4, 5, 6, 4):
        step = tensor(counter, B, index)
        found = captured(step).numpy()
        with composed():
            np.testing.assert_array_equal(found, dropped(step).numpy())
        seen.add(found.tobytes())
    assert len(seen) == 3
    assert "less" not in captured.explain()  # drawn and compared in one


def test_what_is_declined() -> None:
    step = np.array(3)
    how = {"key": (1, 2), "shape": (4,), "rate": 0.5, "dtype": DType.float32}

    def takes(step: Any, **other: Any) -> bool:
        assert DROPOUT_FACTOR.supports is not None
        return DROPOUT_FACTOR.supports(NumpyBackend(), step, **{**how, **other})

    assert takes(step) and takes(step, dtype=DType.float64, rate=0.0)
    assert not takes(step, dtype=DType.float16)
    assert not takes(step, dtype=DType.int64)
    assert not takes(step, rate=1.0)
    assert not takes(step, rate=float("nan"))
    assert not takes(step.astype(np.float32))
    assert not takes(np.array([3]))
