"""Every backend against the scalar oracle: weights, losses, gradients, samples."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scalar_microgpt import ScalarMicroGPT

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import NonFiniteError
from tfx.core.optim import AdamW
from tfx.core.parameters import Parameters
from tfx.core.schedules import linear
from tfx.core.tensor import Tensor
from tfx.models.microgpt.data import BUNDLED
from tfx.models.microgpt.model import Config, forward, initial_weights, loss
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import Model, Run
from tfx.models.microgpt.sampling import Sampler
from tfx.models.microgpt.vocabulary import Vocabulary

STEPS = 30
SIZES: dict[str, dict[str, int]] = {
    "the original's": {},
    "two layers": {"n_layer": 2, "n_embd": 8, "n_head": 2, "block_size": 6},
    "one head": {"n_layer": 1, "n_embd": 6, "n_head": 1, "block_size": 3},
    "heads of one": {"n_layer": 3, "n_embd": 4, "n_head": 4, "block_size": 9},
}


@dataclass
class Told:
    """What the oracle says, step by step, and then about samples."""

    oracle: ScalarMicroGPT
    first: dict[str, HostArray]
    losses: list[float]
    gradients: list[dict[str, HostArray]]
    last: dict[str, HostArray]
    samples: list[str]


def as_arrays(rows: dict[str, list[list[float]]]) -> dict[str, HostArray]:
    return {name: np.array(matrix) for name, matrix in rows.items()}


@cache
def told(size: str, seed: int = 42) -> Told:
    documents = BUNDLED.read_text().split()
    oracle = ScalarMicroGPT(documents, seed=seed, num_steps=STEPS, **SIZES[size])
    first, gradients = as_arrays(oracle.parameters), []
    for _ in range(STEPS):
        oracle.step()
        gradients.append(as_arrays(oracle.gradients))
    samples = [oracle.sample() for _ in range(10)]
    return Told(oracle, first, oracle.losses, gradients, as_arrays(oracle.parameters), samples)


def begun(backend: Backend, size: str, seed: int = 42, dtype: str = "float64") -> Run:
    options = replace(Options(steps=STEPS, seed=seed, dtype=dtype), **SIZES[size])
    return Run.begin(options, BUNDLED, backend, pytest.fail)


def steps(run: Run, autograd: Any) -> Iterator[tuple[float, dict[str, HostArray]]]:
    """Train; the loss and the gradients of each step."""
    differentiate = value_and_grad(loss, autograd=autograd)
    optimizer = AdamW(linear(STEPS, 0.01), run.model.params, beta1=0.85, beta2=0.99)
    for text in run.documents[:STEPS]:
        window = run.model.windows(text)
        value, grads = differentiate(run.state.params, run.model.config, *window)
        flat = run.state.params.flatten(grads)
        run.state, _ = optimizer.update(run.state, value, flat)
        yield value.item(), {name: g.numpy() for name, g in grads.items()}


@pytest.mark.parametrize("autograd", ["core", "native"])
@pytest.mark.parametrize("size", SIZES)
def test_losses_and_gradients(backend: Backend, size: str, autograd: str) -> None:
    if autograd == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    expected = told(size)
    run = begun(backend, size)
    for step, (value, grads) in enumerate(steps(run, autograd)):
        assert value == pytest.approx(expected.losses[step], rel=0, abs=1e-10), f"step {step + 1}"
        assert grads.keys() == expected.gradients[step].keys()
        for name, g in grads.items():
            np.testing.assert_allclose(
                g, expected.gradients[step][name], rtol=0, atol=1e-10, err_msg=f"{step} {name}"
            )
    for name, stored in run.state.params.to_host().items():
        np.testing.assert_allclose(
            stored.array, expected.last[name], rtol=0, atol=1e-9, err_msg=name
        )


def test_some_documents_are_longer_than_the_block() -> None:
    for size, given in SIZES.items():
        block = given.get("block_size", 16)
        longer = [len(text) >= block for text in told(size).oracle.docs[:STEPS]]
        assert any(longer) == (block < 16)


def test_float32_follows_from_afar(backend: Backend) -> None:
    expected = told("two layers")
    run = begun(backend, "two layers", dtype="float32")
    losses = [value for value, _ in steps(run, "auto")]
    np.testing.assert_allclose(losses, expected.losses, rtol=0, atol=1e-4)
    assert run.state.params.flat.dtype is DType.float32


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [42, 7])
def test_the_start_is_the_same_to_the_last_bit(size: str, seed: int) -> None:
    oracle = ScalarMicroGPT(BUNDLED.read_text().split(), seed=seed, **SIZES[size])
    run = begun(_numpy(), size, seed)
    assert run.documents == oracle.docs
    assert run.rng.getstate() == oracle.random.getstate()
    assert run.model.config.vocab_size == oracle.vocab_size
    assert run.model.params.flat.size == oracle.num_params
    found, expected = run.model.params.to_host(), as_arrays(oracle.parameters)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].array.tobytes() == array.tobytes(), name


def test_the_mean_of_a_batch_is_the_mean_of_its_gradients(backend: Backend) -> None:
    """By `--batch-size 2 --grad-accum 2`, seen through the first moment after one step."""
    from tfx.models.microgpt import recipe

    documents = BUNDLED.read_text().split()
    total: dict[str, HostArray] = {}
    losses = []
    for i in range(4):  # the oracle at the start, turned to one document after the other
        oracle = ScalarMicroGPT(documents, **SIZES["two layers"])
        oracle.docs = oracle.docs[i:]
        losses.append(oracle.step())
        for name, g in as_arrays(oracle.gradients).items():
            total[name] = total.get(name, 0) + g / 4

    for batch_size, grad_accum in ((4, 1), (2, 2), (1, 4)):
        run = begun(backend, "two layers")
        run.options = Options(steps=1, batch_size=batch_size, grad_accum=grad_accum)
        loop = recipe._loop(run, Path(), None, None)  # type: ignore[arg-type]
        state, value, _ = loop.advance(run.state, 0)
        assert value.item() == pytest.approx(np.mean(losses), rel=0, abs=1e-12)
        for name, m in state.params.to_host(state.m).items():
            np.testing.assert_allclose(m.array / (1 - 0.85), total[name], rtol=0, atol=1e-12)


# ---- samples -----------------------------------------------------------------------------------


def model_on(backend: Backend, size: str) -> Model:
    """The model that the oracle trained."""
    expected = told(size)
    config = Config(expected.oracle.vocab_size, **SIZES[size])
    vocabulary = Vocabulary(tuple(expected.oracle.characters))
    return Model(config, vocabulary, Parameters.from_host(expected.last, backend, DType.float64))


def sampler_of(model: Model) -> Sampler:
    return Sampler(model.params, model.config, model.vocabulary)


@pytest.mark.parametrize("size", SIZES)
def test_the_same_names(backend: Backend, size: str) -> None:
    expected = told(size)
    run = begun(_numpy(), size)  # whose generator is where the oracle's was before it drew names
    model = model_on(backend, size)
    names = [sampler_of(model).sample(run.rng) for _ in range(10)]
    assert names == expected.samples
    assert run.rng.getstate() == expected.oracle.random.getstate()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0])
def test_the_same_names_at_any_temperature(temperature: float) -> None:
    oracle = told("two layers").oracle
    before = oracle.random.getstate()
    sampler, rng = sampler_of(model_on(_numpy(), "two layers")), random.Random(5)
    try:
        oracle.random.seed(5)
        for _ in range(20):
            name = sampler.sample(rng, temperature)
            assert name == oracle.sample(temperature)
    finally:
        oracle.random.setstate(before)


def test_the_cache_changes_nothing(backend: Backend) -> None:
    model = model_on(backend, "two layers")
    config, ids = model.config, [26, 0, 13, 5, 7, 2]

    def logits(tokens: list[int], cache: KVCache | None) -> HostArray:
        given = tensor(np.array(tokens), backend, backend.index_dtype)
        return forward(model.params, config, given, cache).numpy()

    whole = logits(ids, None)
    for cuts in ([1] * 6, [6], [2, 1, 3], [5, 1]):
        shape = (config.block_size, config.n_embd)
        cache = KVCache(config.n_layer, shape, backend, DType.float64)
        parts, start = [], 0
        for count in cuts:
            parts.append(logits(ids[start : start + count], cache))
            cache.advance(count)
            start += count
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)


def test_a_cold_sample_takes_the_likeliest_without_the_generator(backend: Backend) -> None:
    model, rng = model_on(backend, "two layers"), random.Random(0)
    before = rng.getstate()
    sample = partial(sampler_of(model).sample, rng)
    cold = sample(temperature=0.0)
    assert rng.getstate() == before
    assert sample(temperature=1e-9) == cold
    with np.errstate(over="ignore"):
        assert sample(temperature=5e-324) == cold  # logits / 5e-324 are infinite


def test_a_prompt_is_gone_on_from(backend: Backend) -> None:
    model = model_on(backend, "two layers")
    sample = sampler_of(model).sample
    names = [sample(random.Random(i), prompt="ka") for i in range(8)]
    assert all(name.startswith("ka") for name in names)
    assert len(set(names)) > 1
    assert max(map(len, names)) == model.config.block_size
    assert len(sample(random.Random(0), prompt="kaila")) <= 6
    assert len(sample(random.Random(3), temperature=9, max_new_tokens=2)) == 2
    assert len(sample(random.Random(3), temperature=9, prompt="a", max_new_tokens=2)) == 3


def test_a_prompt_means_what_was_drawn_before(backend: Backend) -> None:
    """To go on from a prompt is to go on from the same letters drawn one by one."""
    model = model_on(backend, "two layers")
    sample = sampler_of(model).sample
    cold = sample(random.Random(0), temperature=0.0)
    assert len(cold) > 2
    for length in range(len(cold)):
        assert sample(random.Random(0), temperature=0.0, prompt=cold[:length]) == cold


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_parameters_that_are_too_large_are_told_of(backend: Backend, temperature: float) -> None:
    model = model_on(backend, "two layers")
    arrays = model.params.to_host()
    arrays["lm_head"].array[:] = 1.7e308  # finite, but their products with x are not
    spoiled = Parameters.from_host(arrays, backend, DType.float64)
    sampler = Sampler(spoiled, model.config, model.vocabulary)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="logits"):
        sampler.sample(random.Random(0), temperature)


# ---- the pieces --------------------------------------------------------------------------------


def test_the_order_of_the_parameters() -> None:
    shapes = Config(27, n_layer=2).shapes()
    per_layer = ["attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2"]
    assert list(shapes) == [
        *("wte", "wpe", "lm_head"),
        *(f"layer{i}.{name}" for i in range(2) for name in per_layer),
    ]
    assert shapes["wte"] == shapes["lm_head"] == (27, 16)
    assert shapes["wpe"] == shapes["layer0.attn_wo"] == (16, 16)
    assert (shapes["layer1.mlp_fc1"], shapes["layer1.mlp_fc2"]) == ((64, 16), (16, 64))
    drawn = initial_weights(Config(27), random.Random(0), std=0.5)
    assert sum(array.size for array in drawn.values()) == 4192
    assert np.std(np.concatenate([a.ravel() for a in drawn.values()])) == pytest.approx(0.5, 0.05)


def test_windows_and_vocabulary() -> None:
    vocabulary = Vocabulary.of(["ba", "éa", "z"])
    assert vocabulary.characters == ("a", "b", "z", "é")
    assert (len(vocabulary), vocabulary.bos) == (5, 4)
    params = Parameters.from_host({"x": np.zeros(1)}, _numpy(), DType.float64)

    def windows(text: str, block_size: int = 3) -> tuple[list[int], list[int], list[float]]:
        model = Model(Config(5, block_size=block_size), vocabulary, params)
        ids, targets, shares = model.windows(text)
        assert ids.dtype is targets.dtype is DType.int64
        assert shares.dtype is DType.float64
        return ids.tolist(), targets.tolist(), shares.tolist()

    third = 1 / 3
    assert windows("ab") == ([4, 0, 1], [0, 1, 4], [third] * 3)
    assert windows("z") == ([4, 2, 0], [2, 4, 0], [0.5, 0.5, 0])
    assert windows("abz") == ([4, 0, 1], [0, 1, 2], [third] * 3)  # no room for the end
    assert windows("abzézaz") == ([4, 0, 1], [0, 1, 2], [third] * 3)
    lengths = [len(windows("a" * n, 40)[0]) for n in (1, 15, 16, 31, 32, 50)]
    assert lengths == [16, 16, 32, 32, 40, 40]


def _numpy() -> Backend:
    from tfx.backends.numpy.backend import NumpyBackend

    return NumpyBackend()


def test_a_loss_is_one_number(backend: Backend) -> None:
    model = model_on(backend, "two layers")
    value: Tensor = loss(model.params, model.config, *model.windows("anna"))
    assert (value.shape, value.dtype) == ((), DType.float64)
    assert value.item() == pytest.approx(told("two layers").oracle.loss("anna"), abs=1e-12)
