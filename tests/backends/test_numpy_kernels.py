"""The NumPy backend's kernels where they go another way than for the small arrays of the tables."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.backends.numpy.kernels import few_scores, optimizer, score_tiles, stored, tokens
from tfx.backends.numpy.kernels.softmax import softmax_into
from tfx.core import nn, quantized
from tfx.core.autograd import value_and_grad
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.tensor import Tensor
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.trials import check_gradients, check_values

B = NumpyBackend()


def in_tiles(monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    """From here on, no more than so many queries of one head are looked at together."""
    monkeypatch.setattr(few_scores, "_MANY", 0)
    monkeypatch.setattr(score_tiles, "_TILE", 0)
    monkeypatch.setattr(score_tiles, "_FEWEST", queries)


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_attention_in_tiles(monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    in_tiles(monkeypatch, queries)
    for op in FUSED_OPS:
        if op.name.startswith("attention"):
            for dtype in (DType.float64, DType.float32):
                check_values(op, B, op.samples, dtype)
                check_gradients(op, B, op.samples, dtype)


def test_tiles_leave_out_what_nobody_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    in_tiles(monkeypatch, queries=2)
    looked_at = 0

    def counted(x: Any, out: Any) -> None:
        nonlocal looked_at
        looked_at += x.size
        softmax_into(x, out)

    monkeypatch.setattr(score_tiles, "softmax_into", counted)
    x = tensor(np.ones((1, 8, 4)), B)
    nn.attention(x, x, x, 0.5, heads=2)
    assert looked_at == 2 * 2 * (2 + 4 + 6 + 8)


@pytest.mark.parametrize("block", [1, 20])
def test_stored_weights_in_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(stored, "BLOCK", block)
    for op in FUSED_OPS:
        if op.name in ("linear_q8", "linear_q4", "linear_half"):
            for dtype in (DType.float64, DType.float32):
                check_values(op, B, op.samples, dtype)


def test_a_stored_weight_is_never_there_as_a_whole() -> None:
    q = tensor(np.ones((999, 1000), np.int8), B)
    scales, x = tensor(np.ones((999, 10), np.float32), B), tensor(np.ones((1, 1000), np.float32), B)
    tracemalloc.start()
    found = quantized.linear_q8(x, q, scales)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.tolist() == [[1000.0] * 999]
    assert peak < 4 * 999 * 1000 / 4


def test_a_cache_is_read_as_far_as_it_is_written() -> None:
    x = np.random.default_rng(0).standard_normal((2, 9, 4))
    x[:, 6:] = np.nan
    cache, offset = tensor(x, B), tensor(5, B)
    found = nn.attention(cache[:, 5:6], cache, cache, 0.5, offset, heads=2).numpy()
    expected = nn.attention(cache[:, 5:6], cache[:, :6], cache[:, :6], 0.5, offset, heads=2)
    np.testing.assert_array_equal(found, expected.numpy())


def test_weights_that_were_borrowed_stay_as_they_are() -> None:
    weights = np.ones((4, 4), np.float32)
    w = Tensor(B.borrow(weights, dtype=DType.float32), B)
    x = tensor(np.ones((2, 4), np.float32), B)
    for name in ("gelu_new", "gelu", "relu", "silu"):
        nn.linear(x, w, w[0], w[:2], activation=name)
    nn.layer_norm(w, w[0], w[1])
    assert (weights == 1).all()


@pytest.mark.parametrize("block", [1, 5, 20])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    def results() -> list[Any]:
        rng = np.random.default_rng(3)
        p, g, m, v, decay = (tensor(x, B) for x in rng.random((5, 13)))
        rates = tensor([0.1, 1.5, 1.25], B, "float64")
        steps = [
            nn.adamw_step(p, g, m, v, rates, d, beta1=0.9, beta2=0.95, eps=1e-8)
            for d in (None, decay, tensor(0.1, B, "float64"))
        ]
        logits = tensor(rng.standard_normal((2, 3, 7)), B)
        targets = tensor(rng.integers(0, 7, (2, 3)), B)
        loss = value_and_grad(lambda x: nn.cross_entropy(x, targets).sum())(logits)
        return [x.tolist() for x in (*sum(steps, ()), *loss)]

    monkeypatch.setattr(tokens, "_FEW_LOGITS", 0)
    expected = results()
    monkeypatch.setattr(optimizer, "_BLOCK", block)
    monkeypatch.setattr(tokens, "_BLOCK", block)
    assert results() == expected


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64])
@pytest.mark.parametrize("name", ["gelu_new", "gelu", "silu", "relu"])
def test_activations_of_large_numbers(name: Any, dtype: DType) -> None:
    """Far from 0, where nothing may overflow, and both branches of erf."""
    x = tensor(
        [[-1e4, -40.0, -8.0, -5.0, -0.7, -0.6, 0.0, 0.6, 0.7, 5.0, 8.0, 40.0, 1e4]], B, dtype
    )
    one = tensor(np.eye(13), B, dtype)

    def value(x: Tensor) -> Tensor:
        return nn.linear(x, one, activation=name)

    found = value(x), value_and_grad(lambda x: value(x).sum())(x)[1]
    with composed():
        expected = value(x), value_and_grad(lambda x: value(x).sum())(x)[1]
    for mine, theirs in zip(found, expected, strict=True):
        tolerance = 1e-6 if dtype is DType.float32 else 1e-14
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance)
