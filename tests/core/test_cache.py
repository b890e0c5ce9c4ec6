"""The key/value cache: what was put in, in order, and attention over it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tfx.core import tree
from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, ShapeError
from tfx.core.nn import attention, softmax
from tfx.core.ops import causal_mask, where
from tfx.testing import StrictBackend

T, SIZE, HEADS = 7, 4, 2


def numbers(seed: int, count: int = T) -> HostArray:
    return np.random.default_rng(seed).standard_normal((HEADS, count, SIZE))


@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 1, 2, 1], [2, 0, 5]], ids=str)
def test_attention_in_pieces_is_attention_at_once(chunks: list[int], backend: Backend) -> None:
    q, k, v = (numbers(seed) for seed in range(3))
    whole = attention(tensor(q, backend), tensor(k, backend), tensor(v, backend), 0.5)
    cache = KVCache(2, (HEADS, 9, SIZE), backend, DType.float64)
    pieces = []
    start = 0
    for count in chunks:
        here = slice(start, start + count)
        assert cache.positions(count).tolist() == list(range(start, start + count))
        for layer in (1, 0):
            new = (tensor(x[:, here] * (layer or 0.5), backend) for x in (q, k, v))
            q_new, k_new, v_new = new
            keys, values, offset = cache.extend(layer, k_new, v_new)
            assert keys.shape == values.shape == (HEADS, 9, SIZE)
            out = attention(q_new, keys, values, 0.5, offset)
            if layer == 1:
                pieces.append(out.numpy())
        cache.advance(count)
        start += count
    assert cache.length == T
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole.numpy(), rtol=1e-12)


def test_a_full_cache_says_so(backend: Backend) -> None:
    cache = KVCache(1, (HEADS, 3, SIZE), backend, DType.float32)
    k = tensor(numbers(0, 2), backend, "float32")
    cache.extend(0, k, k)
    cache.advance(2)
    full = "2 more tokens after 2 do not fit a cache of 3"
    with pytest.raises(ShapeError, match=full):
        cache.positions(2)
    with pytest.raises(ShapeError, match=full):
        cache.extend(0, k, k)
    with pytest.raises(ShapeError, match=full):
        cache.advance(2)
    assert cache.length == 2
    cache.extend(0, k[:, :1], k[:, :1])


def test_a_step_moves_nothing_between_host_and_device() -> None:
    strict = StrictBackend()
    cache = KVCache(1, (HEADS, 9, SIZE), strict, DType.float64)
    q, k, v = (tensor(numbers(seed, 1), strict) for seed in range(3))
    before = strict.transfers.copy()
    for _ in range(3):
        cache.positions(1)
        keys, values, offset = cache.extend(0, k, v)
        attention(q, keys, values, 0.5, offset)
        cache.advance(1)
    assert strict.transfers == before


# ---- several texts -------------------------------------------------------------------------------


def rows_of(cache: KVCache, new: HostArray) -> HostArray:
    """Attention of the new tokens (rows, HEADS, count, SIZE) over what the cache holds and them."""
    x = tensor(new, cache.positions(0).backend)
    keys, values, offset = cache.extend(0, x, x * 2)
    scores = x @ keys.swapaxes(-1, -2)
    seen = causal_mask(new.shape[2], cache.capacity, offset)
    if cache.visible is not None:
        seen = seen & cache.visible.reshape(-1, 1, 1, cache.capacity)
    cache.advance(new.shape[2])
    return (softmax(where(seen, scores, float("-inf"))) @ values).numpy()


def test_padded_rows_are_what_they_are_alone(backend: Backend) -> None:
    texts = np.random.default_rng(0).standard_normal((3, HEADS, T, SIZE))
    padding = [2, 0, 5]
    cache = KVCache(1, (3, HEADS, T + 1, SIZE), backend, DType.float64)
    cache.pad_left(padding)
    assert cache.positions(T).tolist() == [
        [0, 0, 0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert cache.visible is not None
    assert cache.visible.tolist() == [[i >= n for i in range(T + 1)] for n in padding]
    together = np.concatenate([rows_of(cache, texts[:, :, :6]), rows_of(cache, texts[:, :, 6:])], 2)
    assert cache.positions(1).tolist() == [[5], [7], [2]]
    for row, count in enumerate(padding):
        alone = KVCache(1, (1, HEADS, T, SIZE), backend, DType.float64)
        expected = rows_of(alone, texts[row : row + 1, :, count:])
        np.testing.assert_allclose(together[row : row + 1, :, count:], expected, rtol=1e-12)
        assert (together[row, :, :count] == 0).all()  # padding sees nothing


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1, 1, 1, 0], []], ids=str)
@pytest.mark.parametrize("padding", [[0, 0, 0], [2, 0, 5]], ids=str)
def test_reordered_rows_go_on_from_where_they_were(
    padding: list[int], rows: list[int], backend: Backend
) -> None:
    texts = np.random.default_rng(0).standard_normal((3, HEADS, T, SIZE))
    new = np.random.default_rng(1).standard_normal((len(rows), HEADS, 1, SIZE))
    chosen = KVCache(1, (3, HEADS, T + 1, SIZE), backend, DType.float64)
    chosen.pad_left(padding)
    rows_of(chosen, texts)
    chosen.reorder(rows)
    assert chosen.length == T
    fresh = KVCache(1, (len(rows), HEADS, T + 1, SIZE), backend, DType.float64)
    fresh.pad_left([padding[row] for row in rows])
    rows_of(fresh, texts[rows])
    np.testing.assert_allclose(rows_of(chosen, new), rows_of(fresh, new), rtol=1e-12)
    if fresh.visible is not None:
        assert chosen.visible is not None
        assert chosen.visible.tolist() == fresh.visible.tolist()
        assert chosen.length == fresh.length


@pytest.mark.parametrize("padding", [[0, 0, 0], [2, 0, 5]], ids=str)
@pytest.mark.parametrize("counts", [[2, 2, 2], [0, 1, 2], [2, 0, 1], [1, 2, 1], [0, 0, 0]], ids=str)
def test_rows_forget_their_last_tokens(
    counts: list[int], padding: list[int], backend: Backend
) -> None:
    """A row that forgets is what it would be had it never read the tokens; twice over."""
    rng = np.random.default_rng(0)
    texts = [[*rng.standard_normal((T - n, HEADS, SIZE))] for n in padding]
    cache = KVCache(1, (3, HEADS, 30, SIZE), backend, DType.float64)
    cache.pad_left(padding)
    rows_of(cache, stacked(texts, T))
    for _ in range(2):
        new = rng.standard_normal((3, HEADS, 3, SIZE))
        rows_of(cache, new)
        for row, text in enumerate(texts):
            text += [*new[row].swapaxes(0, 1)][: 3 - counts[row]]
        assert cache.rewind(counts) == cache.length
        last = rng.standard_normal((3, HEADS, 2, SIZE))
        assert cache.positions(2).numpy().reshape(-1, 2)[:, 0].tolist() == (
            [len(texts[0])] if cache.visible is None else [len(text) for text in texts]
        )
        together = rows_of(cache, last)
        for row, text in enumerate(texts):
            alone = KVCache(1, (1, HEADS, 30, SIZE), backend, DType.float64)
            rows_of(alone, stacked([text], len(text)))
            expected = rows_of(alone, last[row : row + 1])
            np.testing.assert_allclose(together[row : row + 1], expected, rtol=1e-12)
            text += [*last[row].swapaxes(0, 1)]


def stacked(texts: list[list[HostArray]], length: int) -> HostArray:
    """Texts of tokens (HEADS, SIZE), padded on the left: (rows, HEADS, length, SIZE)."""
    padded = [[np.zeros((HEADS, SIZE))] * (length - len(text)) + text for text in texts]
    return np.array(padded).swapaxes(1, 2)


def test_what_is_lost_to_holes_is_won_back(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows that forget in turn take more than either of them is long, but not 18 positions."""
    monkeypatch.setattr("tfx.core.cache.HOLES", 3)
    rng = np.random.default_rng(0)
    cache = KVCache(2, (2, HEADS, 17, SIZE), backend, DType.float64)
    texts: list[list[HostArray]] = [[], []]
    for step in range(9):
        new = rng.standard_normal((2, HEADS, 2, SIZE))
        cache.extend(1, tensor(new, backend), tensor(new, backend))
        together = rows_of(cache, new)
        counts = [step % 2, 1 - step % 2]
        for row, text in enumerate(texts):
            alone = KVCache(1, (1, HEADS, 30, SIZE), backend, DType.float64)
            if text:
                rows_of(alone, stacked([text], len(text)))
            expected = rows_of(alone, new[row : row + 1])
            np.testing.assert_allclose(together[row : row + 1], expected, rtol=1e-12)
            text += [*new[row].swapaxes(0, 1)][: 2 - counts[row]]
        assert cache.rewind(counts) < max(map(len, texts)) + 3
    assert [len(text) for text in texts] == [14, 13]


def test_a_cache_that_forgets_nothing_moves_nothing() -> None:
    strict = StrictBackend()
    cache = KVCache(1, (2, HEADS, 9, SIZE), strict, DType.float64)
    cache.advance(5)
    before = strict.transfers.copy()
    assert cache.rewind([0, 0]) == 5
    assert cache.rewind([2, 2]) == 3
    assert cache.positions(1).shape == (1,)
    assert cache.visible is None
    assert strict.transfers == before


def test_what_a_cache_of_rows_refuses(backend: Backend) -> None:
    cache = KVCache(1, (2, HEADS, 3, SIZE), backend, DType.float64)
    with pytest.raises(ShapeError, match="padding of 3 rows for a cache of 2 rows"):
        cache.pad_left([0, 1, 0])
    with pytest.raises(ShapeError, match=r"rows \[0, 2\] of a cache of 2 rows"):
        cache.reorder([0, 2])
    cache.advance(1)
    with pytest.raises(ShapeError, match="that holds 1 tokens: expected one count a row, before"):
        cache.pad_left([0, 1])
    for counts in ([0, 2], [-1, 0], [1]):
        with pytest.raises(ShapeError, match=re.escape(f"cannot forget {counts}: expected one")):
            cache.rewind(counts)


@pytest.mark.parametrize("kept", ["float16", "bfloat16"])
def test_a_cache_of_halves(kept: str, backend: Backend) -> None:
    """Half the memory; attention gets what was rounded, in the dtype of its queries."""
    k, v = (np.round(numbers(seed) * 16) / 16 for seed in range(2))  # which both of them hold
    q = tensor(numbers(2), backend, "float32")
    cache = KVCache(1, (HEADS, T, SIZE), backend, DType(kept))
    keys, values, offset = cache.extend(
        0, tensor(k, backend, "float32"), tensor(v, backend, "float32")
    )
    assert keys.dtype == values.dtype == "float32"
    assert [leaf.dtype for leaf in tree.leaves([keys, values])] == [kept, kept]
    np.testing.assert_array_equal(keys.numpy(), k)
    plain = (tensor(x, backend, "float32") for x in (k, v))
    found = attention(q, keys, values, 0.5, offset).numpy()
    np.testing.assert_allclose(found, attention(q, *plain, 0.5).numpy(), rtol=1e-6)
    cache.advance(T)
    cache.reorder([1, 0])
    keys, _, _ = cache.extend(0, *(tensor(x[:, :0], backend, "float32") for x in (k, v)))
    np.testing.assert_array_equal(keys.numpy(), k[::-1])


def test_a_cache_of_another_dtype_is_refused(backend: Backend) -> None:
    cache = KVCache(1, (HEADS, T, SIZE), backend, DType.float64)
    k = tensor(numbers(0), backend, "float32")
    with pytest.raises(DTypeError, match="write of float64 and float32"):
        cache.extend(0, k, k)
