"""Dropout: which numbers go, what becomes of the rest, and when the mask is another."""

from __future__ import annotations

import numpy as np
import pytest

from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.threefry import fold_in, key_from_seed, words
from tfx.testing import StrictBackend

KEY = key_from_seed(42)
SHAPE = 40, 50


def at(step: int, backend: Backend, key: tuple[int, int] = KEY) -> Dropout:
    return Dropout(key, tensor(step, backend))


def factor(dropout: Dropout, rate: float, shape: tuple[int, ...] = SHAPE) -> HostArray:
    found = dropout.factor(shape, rate, DType.float64)
    assert found is not None
    return found.numpy()


def kept(counter: int, call: int, rate: float) -> HostArray:
    """Where a uniform number, the top 24 bits of a word, is not below the rate."""
    uniform = words(fold_in(KEY, call), counter, SHAPE[0] * SHAPE[1], 24) / 2**24
    return np.asarray(uniform.reshape(SHAPE) >= rate)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_what_is_kept_is_the_same_everywhere(rate: float, backend: Backend) -> None:
    dropout = at(7, backend)
    for call in (1, 2):
        expected = np.where(kept(7, call, rate), 1 / (1 - rate), 0)
        np.testing.assert_allclose(factor(dropout, rate), expected, rtol=1e-15)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.99])
def test_the_share_that_goes_is_the_rate_and_the_mean_stays(rate: float) -> None:
    count = 250_000
    found = factor(at(0, StrictBackend()), rate, (500, 500))
    spread = (rate * (1 - rate) / count) ** 0.5
    assert (found == 0).mean() == pytest.approx(rate, abs=4 * spread)
    assert found.mean() == pytest.approx(1, abs=4 * spread / (1 - rate))
    for axis in (0, 1):  # no row and no column is favoured
        shares = (found == 0).mean(axis)
        assert np.abs(shares - rate).max() < 6 * (rate * (1 - rate) / 500) ** 0.5


def test_every_step_call_and_key_has_a_mask_of_its_own() -> None:
    strict = StrictBackend()
    masks = [factor(at(step, strict), 0.5) > 0 for step in (0, 1, 1000)]
    again = at(0, strict)
    masks += [factor(again, 0.5) > 0, factor(again, 0.5) > 0]
    masks.append(factor(at(0, strict, key_from_seed(43)), 0.5) > 0)
    np.testing.assert_array_equal(masks[0], masks[3])
    del masks[3]
    for i, a in enumerate(masks):
        for b in masks[:i]:  # half of the places agree by chance
            assert (a == b).mean() == pytest.approx(0.5, abs=4 * 0.5 / a.size**0.5)


@pytest.mark.parametrize("autograd", ["core", "native"])
def test_values_and_gradients_pass_where_they_are_kept(
    autograd: Autograd, backend: Backend
) -> None:
    if autograd == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    x, weights = np.random.default_rng(0).standard_normal((2, *SHAPE))
    expected = np.where(kept(3, 1, 0.25), 4 / 3, 0)
    np.testing.assert_allclose(at(3, backend)(tensor(x, backend), 0.25).numpy(), x * expected)
    _, slope = value_and_grad(
        lambda x: (at(3, backend)(x, 0.25) * tensor(weights, backend)).sum(), autograd=autograd
    )(tensor(x, backend))
    np.testing.assert_allclose(slope.numpy(), weights * expected)


def test_a_rate_of_zero_changes_nothing_and_draws_nothing(backend: Backend) -> None:
    x = tensor([1.0, 2.0], backend)
    dropout = at(0, backend)
    assert dropout(x, 0.0) is x
    assert dropout.factor((2,), 0.0, x.dtype) is None
    np.testing.assert_array_equal(factor(dropout, 0.5), factor(at(0, backend), 0.5))


def test_the_dtype_stays(backend: Backend) -> None:
    for dtype in {DType.float16, DType.bfloat16, DType.float32, DType.float64} & backend.dtypes:
        x = tensor(np.ones(100), backend, dtype)
        found = at(0, backend)(x, 0.5)
        assert found.dtype is dtype
        assert set(found.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match=f"dropout {rate}: expected a share from 0 up to, not inc"):
        at(0, StrictBackend()).factor((2,), rate, DType.float32)


def test_a_mask_needs_nothing_from_the_host() -> None:
    """The step is a tensor, so a pass that is replayed with another step draws anew."""
    strict = StrictBackend()
    strict.device_random = True
    dropout = at(0, strict)
    before = strict.transfers.copy()
    dropout.factor(SHAPE, 0.5, DType.float32)
    assert strict.transfers == before
