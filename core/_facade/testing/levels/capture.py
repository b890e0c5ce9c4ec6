"""L5, capture: what was recorded once comes out the same when it is replayed on other numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfx.core.autograd import value_and_grad
from tfx.core.cache import KVCache
from tfx.core.capture import jit
from tfx.core.creation import full, tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import cosine
from tfx.core.tensor import Tensor
from tfx.testing.kit import Checks, Level, Subject
from tfx.testing.levels.models import GPT, SMALLEST, example_of
from tfx.testing.nearness import Mismatch

CHECKS = Checks(Level.BEHAVIOUR)

STEPS = 3
TEXT = "themoonrising"
"""Short: that longer ones are read rightly, and learned from, is for the level below."""
TRACE = 1e-3
"""How far losses may part in a few steps of float32, in each of which the last error grows."""


def replays_training(subject: Subject, model: str) -> str:
    """Steps of AdamW, gradient and clipping included, each from where the last one led: replayed
    and computed, the losses are the same. Differentiated on the tape, whose calls can be seen."""
    subject.needs(DType.float32)
    B = subject.backend
    example = example_of(model, B, prompt=TEXT)
    host = {name: x.numpy() for name, x in example.params.items()}

    def begun() -> TrainState:
        return TrainState.start(Parameters.from_host(host, B, DType.float32))

    optimizer = AdamW(cosine(STEPS, 1e-3), begun().params, decay=0.1, grad_clip=1.0)
    differentiate = value_and_grad(lambda params: example.loss(params), autograd="core")

    def step(state: TrainState) -> tuple[TrainState, Tensor]:
        loss, grads = differentiate(state.params)
        state, _ = optimizer.update(state, loss, state.params.flatten(grads))
        return state, loss

    captured = jit(step, donate_argnums=(0,))
    computed, replayed = (list(_losses(f, begun())) for f in (step, captured))
    if not captured.is_replayed:
        raise Mismatch(f"the step was not captured: {captured.explain()}")
    if not np.allclose(replayed, computed, rtol=TRACE, atol=0):
        raise Mismatch(f"losses {replayed} when replayed, {computed} when computed")
    return f"losses {replayed[0]:.4f} to {replayed[-1]:.4f}"


def _losses(step: Any, state: TrainState) -> Iterator[float]:
    for _ in range(STEPS):
        state, loss = step(state)
        yield loss.item()


for _model in (SMALLEST, GPT):
    CHECKS.add(f"{_model}: a training step is replayed", replays_training, _model)


def replays_a_cache(subject: Subject) -> str:
    """What is written to a cache at a position that moves, on the device, from replay to replay."""
    subject.needs(DType.float32)
    B = subject.backend
    slabs = np.arange(24, dtype=np.float32).reshape(6, 1, 2, 2)

    @jit
    def append(cache: KVCache, slab: Tensor) -> tuple[KVCache, Tensor]:
        keys, _, start = cache.extend(0, slab, slab + 1)
        cache.advance(slab.shape[1])
        return cache, keys.sum() + start.cast(DType.float32)

    cache = KVCache(1, (1, 12, 2), B, DType.float32)
    for i, slab in enumerate(slabs):
        length = cache.length + 2
        kept, seen = append(cache, tensor(slab, B))
        cache.become(kept, length)
        expected = float(slabs[: i + 1].sum()) + 2 * i
        if seen.item() != expected:
            raise Mismatch(f"after {i + 1} slabs the sum is {seen.item()}, expected {expected}")
    return "6 slabs, each in its place"


CHECKS.add("a cache is filled by replays", replays_a_cache)


def draws_anew(subject: Subject) -> str:
    """A replayed step draws by its counter: other masks in each step, those that it draws alone."""
    subject.needs(DType.float32)
    B = subject.backend
    ones = full((64,), 1.0, B)

    def dropped(step: Tensor) -> Tensor:
        return Dropout((1, 2), step)(ones, 0.5)

    captured = jit(dropped)
    steps = [tensor(i, B, B.index_dtype) for i in range(3)]
    expected = [dropped(step).tolist() for step in steps]
    found = [captured(step).tolist() for step in steps]
    if found != expected:
        raise Mismatch("masks are others when they are replayed")
    if found[1] == found[2]:
        raise Mismatch("two replays drew the same mask")
    return "3 steps, 3 masks"


CHECKS.add("a replayed step draws anew", draws_anew)
