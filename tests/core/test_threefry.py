"""The generator: its published vectors, and the same words on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.tensor import apply
from tfx.core.threefry import fold_in, key_from_seed, threefry2x32

PUBLISHED = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
"""Key, counter and words of threefry2x32 with 20 rounds, as Random123 publishes them."""

KEY = (0x13198A2E, 0xFFFFFFFE)
SHAPES = [(), (1,), (2,), (7,), (0,), (3, 0), (3, 5), (2, 1, 4)]


def expected(key: tuple[int, int], counter: int, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """One word after the other, by Python's integers."""
    count = int(np.prod(shape))
    words = [threefry2x32(key, i // 2, counter)[i % 2] >> (32 - bits) for i in range(count)]
    return np.array(words, np.uint32).view(np.int32).reshape(shape)


@pytest.mark.parametrize(("key", "counter", "words"), PUBLISHED)
def test_published_vectors(
    key: tuple[int, int], counter: tuple[int, int], words: tuple[int, int]
) -> None:
    assert threefry2x32(key, *counter) == words
    for dtype in (np.int64, np.uint64, np.uint32):
        arrays = threefry2x32(key, *(np.array([c, c], dtype) for c in counter))
        assert [a.tolist() for a in arrays] == [[w, w] for w in words]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("index", [DType.int32, DType.int64])
def test_the_same_words_everywhere(shape: tuple[int, ...], index: DType, backend: Backend) -> None:
    for counter, bits in [(0, 32), (1, 24), (2**31 - 1, 31), (12345, 1), (7, 8)]:
        raw = backend.asarray(np.array(counter), dtype=index)
        draws = [
            backend.random_bits(raw, key=KEY, shape=shape, bits=bits),
            Backend.random_bits(backend, raw, key=KEY, shape=shape, bits=bits),  # on the host
        ]
        for words in draws:
            assert backend.is_array(words) and backend.dtype(words) is DType.int32
            np.testing.assert_array_equal(
                backend.to_numpy(words), expected(KEY, counter, shape, bits)
            )


def test_a_counter_that_is_an_array_draws_anew(backend: Backend) -> None:
    counter = tensor([5, 6], backend)[0]
    draws = []
    for _ in range(3):
        draws.append(tuple(apply("random_bits", counter, key=KEY, shape=(9,), bits=24).tolist()))
        counter = counter + 1
    assert len(set(draws)) == 3
    assert draws[1] == tuple(expected(KEY, 6, (9,), 24).tolist())


def test_uniforms_are_uniform(backend: Backend) -> None:
    bits = apply("random_bits", tensor(0, backend), key=(0, 42), shape=(100, 100), bits=24)
    uniforms = (bits.cast("float32") * 2.0**-24).numpy()
    assert uniforms.min() >= 0 and uniforms.max() < 1
    counts, _ = np.histogram(uniforms, 10, (0, 1))
    assert np.abs(counts - 1000).max() < 120  # four standard deviations
    assert abs(np.corrcoef(uniforms[:, 0], uniforms[:, 1])[0, 1]) < 0.4


def test_keys() -> None:
    assert key_from_seed(0) == (0, 0)
    assert key_from_seed(2**40 + 3) == (2**8, 3)
    assert key_from_seed(-1) == (2**32 - 1, 2**32 - 1)
    places = {fold_in((0, 42), n) for n in (*range(1000), 2**32, 2**33 + 1, 2**63)}
    assert len(places) == 1003
    assert all(0 <= word < 2**32 for key in places for word in key)
    assert fold_in((0, 42), 7) == threefry2x32((0, 42), 7, 0)
