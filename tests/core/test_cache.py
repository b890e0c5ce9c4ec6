"""The key/value cache: what was put in, in order, and attention over it."""

from __future__ import annotations

import numpy as np
import pytest

from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError
from tfx.core.nn import attention
from tfx.core.tensor import tensor
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
