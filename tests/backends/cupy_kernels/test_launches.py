"""What kernels spare a training step of GPT-2: launches, which set the pace of a small model."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tfx.core.autograd import value_and_grad
from tfx.core.capture import eager
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import cosine
from tfx.models.gpt2.initial import initial_weights
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config, loss


def test_a_training_step(B: Any, launches: Any) -> None:
    config = Config(vocab_size=101, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    params = Parameters.from_host(initial_weights(config, 0), B, DType.float32)
    optimizer = AdamW(cosine(100, 1e-3), params, decay=0.1, grad_clip=1.0)
    start = TrainState.start(params)
    rng = np.random.default_rng(0)
    ids, targets = (tensor(rng.integers(0, 101, (2, 16)), B) for _ in range(2))
    found = []

    def step() -> None:
        value, grads = value_and_grad(loss)(params, config, ids, targets)
        state, norm = optimizer.update(start, value, params.flatten(grads))
        found[:] = [value, norm, state.params.flat]

    fused = launches(step)
    by_kernels = [x.numpy() for x in found]
    with composed():
        by_primitives = launches(step)
    print(f"launches: {by_primitives} composed, {fused} with kernels")
    assert 2 * fused < by_primitives
    for x, y in zip(by_kernels, found, strict=True):
        np.testing.assert_allclose(x, y.numpy(), rtol=1e-4, atol=1e-5)


def test_what_a_layer_adds(B: Any, counts: Any) -> None:
    """Where cuBLAS multiplies, when a prompt is read and when a step of training differentiates a
    text, as docs/gpu.md has it: launches and products."""
    ids, targets = (tensor(np.full((1, 32), 7), B) for _ in range(2))
    found = []
    for layers in (2, 3):
        config = Config(vocab_size=101, n_positions=64, n_embd=32, n_layer=layers, n_head=2)
        params = Parameters.from_host(initial_weights(config, 0), B, DType.float32)
        model = LanguageModel(config, params)

        def read(model: LanguageModel = model) -> None:
            with eager():
                model.logits(ids, model.start(1, 64))

        learnt = partial(value_and_grad(loss), params, config, ids, targets)
        each = (counts(read), counts(learnt))
        found.append([x[name] for x in each for name in ("launches", "library_calls")])
    fewer, more = found
    assert [b - a for a, b in zip(fewer, more, strict=True)] == [9, 4, 27, 12]


def test_the_same_step_gives_the_same_bits(B: Any) -> None:
    config = Config(vocab_size=11, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    params = Parameters.from_host(initial_weights(config, 0), B, DType.float32)
    rng = np.random.default_rng(0)
    ids, targets = (tensor(rng.integers(0, 11, (4, 20)), B) for _ in range(2))
    runs = []
    for _ in range(2):
        value, grads = value_and_grad(loss)(params, config, ids, targets)
        runs.append([value.numpy(), *(g.numpy() for g in grads.values())])
    for x, y in zip(*runs, strict=True):
        np.testing.assert_array_equal(x, y)
