"""Theta on every backend: the formula, its gradient, and other values from token to token."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from causal_models import TinyGPT, plain_logits, random_weights

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError
from tfx.core.fused import composed
from tfx.core.plugins import import_target
from tfx.core.tensor import Tensor
from tfx.models.gpt2.model import logits, loss
from tfx.models.gpt2.passing import Pass

pytestmark = pytest.mark.usefixtures("calm")

LAYERS, HEADS, WIDTH = 2, 4, 16
WEIGHTS = random_weights(seed=3, vocabulary=31, positions=64, width=WIDTH, layers=LAYERS)
IDS = np.random.default_rng(5).integers(0, 31, 12)
BY_HEAD = np.array([[0.2, 1.0, 1.7, 0.0], [0.4, 0.9, 0.1, 1.1]])
SHAPES = [(), (LAYERS,), (LAYERS, HEADS)]


def model_on(backend: Backend, dtype: DType = DType.float64) -> TinyGPT:
    return TinyGPT.of(WEIGHTS, HEADS, backend, dtype)


def theta_on(backend: Backend, value: Any, dtype: DType = DType.float64) -> Tensor:
    return tensor(np.asarray(value), backend, dtype)


def ids_on(backend: Backend, ids: Any = IDS) -> Tensor:
    return tensor(np.asarray(ids)[None], backend, backend.index_dtype)


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.0, 2.5, np.array([0.5, 1.5]), BY_HEAD], ids=str)
def test_scores_are_multiplied(theta: Any, backend: Backend) -> None:
    model = model_on(backend)
    found = model(IDS[None], theta=theta).logits[0, -1]
    per_head = np.reshape(theta, np.shape(theta) + (1,) * (3 - np.ndim(theta)))
    expected = plain_logits(WEIGHTS, HEADS, IDS, per_head)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "torch", "cupy"], indirect=True)
def test_one_is_none_bit_for_bit(shape: tuple[int, ...], dtype: str, backend: Backend) -> None:
    """Not on the strict backend, which scatters its arrays over memory, each otherwise: there two
    products of the same numbers differ."""
    model = model_on(backend, DType(dtype))
    one = theta_on(backend, np.ones(shape), DType(dtype))
    ids = ids_on(backend)

    def results(theta: Tensor | None) -> list[Any]:
        through = Pass(theta=theta)
        slope = value_and_grad(lambda p: loss(p, model.config, ids[:, :-1], ids[:, 1:], through))
        value, grads = slope(dict(model.params))
        cache = model.start(1, len(IDS) + 4)
        read = [model.logits(ids, cache, theta)]
        read += [model.logits(ids[:, i : i + 1], cache, theta) for i in range(4)]
        whole = logits(model.params, model.config, ids, through)
        return [x.tolist() for x in (whole, value, *grads.values(), *read)]

    assert results(one) == results(None)
    with composed():
        assert results(one) == results(None)


def test_zero_is_uniform_over_what_may_be_seen(backend: Backend) -> None:
    visible = np.ones((1, len(IDS)), bool)
    visible[:, :3] = False
    found = model_on(backend)(IDS[None], visible, theta=0.0, output_attentions=True).attentions
    assert found is not None
    seen = np.tril(np.ones((len(IDS), len(IDS)))) * visible
    expected = seen / np.maximum(seen.sum(-1, keepdims=True), 1)
    for weights in found:
        np.testing.assert_allclose(weights[0], np.tile(expected, (HEADS, 1, 1)), atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernels", [True, False])
def test_gradient_is_that_of_finite_differences(
    shape: tuple[int, ...], kernels: bool, backend: Backend
) -> None:
    model, ids = model_on(backend), ids_on(backend)
    at = np.random.default_rng(1).uniform(0.3, 1.2, shape)

    def value(theta: Tensor) -> Tensor:
        through = Pass(theta=theta)
        return loss(model.params, model.config, ids[:, :-1], ids[:, 1:], through)

    def slope() -> Any:
        return value_and_grad(value)(theta_on(backend, at))[1].numpy()

    if kernels:
        found = slope()
    else:
        with composed():
            found = slope()
    step = 1e-5
    for place in np.ndindex(shape):
        ahead, behind = at.copy(), at.copy()
        ahead[place] += step
        behind[place] -= step
        rise = value(theta_on(backend, ahead)).item() - value(theta_on(backend, behind)).item()
        assert found[place] == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_another_at_every_token_with_one_cache(shape: tuple[int, ...], backend: Backend) -> None:
    """Read token by token, each by a theta of its own: as computed anew without a cache."""
    model = model_on(backend)
    thetas = np.random.default_rng(2).uniform(0, 1.5, (len(IDS), *shape))
    cache = model.start(1, len(IDS))
    for i, token in enumerate(IDS):
        found = model.logits(ids_on(backend, [token]), cache, theta_on(backend, thetas[i])).numpy()
        so_far = np.moveaxis(thetas[: i + 1], 0, -1)  # (..., tokens)
        so_far = so_far.reshape(*shape, *(1,) * (2 - len(shape)), i + 1)
        expected = plain_logits(WEIGHTS, HEADS, IDS[: i + 1], so_far)
        np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-9)


def test_another_at_every_token_of_a_text_read_whole(backend: Backend) -> None:
    """As an array, and as what gives it; a pruned head has its place in both."""
    model = model_on(backend)
    by_token = np.random.default_rng(4).uniform(0, 1.5, (len(IDS), LAYERS, HEADS))
    expected = plain_logits(WEIGHTS, HEADS, IDS, np.moveaxis(by_token, 0, -1))
    for theta in (by_token, lambda token: by_token[token]):
        found = model(np.stack([IDS, IDS[::-1]]), theta=theta).logits[0, -1]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    mask = np.ones((LAYERS, HEADS))
    mask[1, 2] = 0
    small = model.prune_heads({1: [2]})(IDS[None], theta=by_token).logits
    np.testing.assert_allclose(small, model(IDS[None], theta=by_token, head_mask=mask).logits)
    for shape in SHAPES[:2]:
        rows = by_token.reshape(len(IDS), -1)[:, : max(1, int(np.prod(shape)))].reshape(-1, *shape)
        wide = np.broadcast_to(rows.reshape(*rows.shape, *(1,) * (3 - rows.ndim)), by_token.shape)
        found = model(IDS[None], theta=lambda token, rows=rows: rows[token]).logits
        np.testing.assert_allclose(found, model(IDS[None], theta=wide).logits, rtol=1e-12)
    with pytest.raises(
        ShapeError, match=r"theta of token 0 has the shape \(3,\); expected \(\) or"
    ):
        model(IDS[None], theta=lambda token: [1, 1, 1])


def test_reading_is_captured_once_for_all_values(backend: Backend) -> None:
    model = model_on(backend)
    cache = model.start(1, 16)
    for i, theta in enumerate([0.1, 0.2, 0.3, 0.4]):
        model.logits(ids_on(backend, [i]), cache, theta_on(backend, theta))
    assert len(model._reading._step._kept) == 1


def test_a_model_of_its_own_theta(backend: Backend) -> None:
    plain = model_on(backend)
    model = replace(plain, theta=theta_on(backend, BY_HEAD))
    expected = plain(IDS[None], theta=BY_HEAD).logits
    ids = ids_on(backend)
    found = [model(IDS[None]).logits, model.all_logits(ids).numpy()]
    found.append(model.each_logits(ids, model.start(1, 12)).numpy())
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-10, atol=1e-10)
    last = model.logits(ids, model.start(1, 12)).numpy()
    np.testing.assert_allclose(last, expected[:, -1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype: str, backend: Backend) -> None:
    if DType(dtype) not in backend.dtypes or backend.name == "strict":
        pytest.skip(f"{backend} does not compute in {dtype}")
    if dtype == "bfloat16" and backend.name != "torch":
        pytest.skip("storage alone")
    model = model_on(backend, DType(dtype))
    wide = model_on(backend)
    found = model(IDS[None], theta=BY_HEAD).logits
    expected = wide(IDS[None], theta=BY_HEAD).logits
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("shape", [(3,), (HEADS,), (HEADS, LAYERS), (1, LAYERS, HEADS)])
def test_another_shape_is_refused(shape: tuple[int, ...], backend: Backend) -> None:
    model = model_on(backend)
    message = r"theta has the shape .*; expected \(\) or \(2,\) or \(2, 4\) or \(12, 2, 4\)"
    with pytest.raises(ShapeError, match=message):
        model(IDS[None], theta=np.ones(shape))
    theta = theta_on(backend, np.ones(shape))
    with pytest.raises(ShapeError, match=message):
        logits(model.params, model.config, ids_on(backend), Pass(theta=theta))


@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_of_numba(shape: tuple[int, ...]) -> None:
    pytest.importorskip("numba")
    backend = NumpyBackend()
    specs = import_module("tfx.backends.numba.plugin").tfx_kernels()
    kernels = [import_target(spec.target) for spec in specs]
    backend.fused.update({kernel.name: kernel for kernel in kernels})
    test_one_is_none_bit_for_bit(shape, "float32", backend)
    test_gradient_is_that_of_finite_differences(shape, True, backend)
    test_another_at_every_token_with_one_cache(shape, backend)
