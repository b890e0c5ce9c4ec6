"""Texts longer than the model's positions, against a plain model that reads from the start."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
from causal_models import TinyGPT, one_thread, plain_logits, random_weights

from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.generation import GenerationOptions, Token, generate, stream
from tfx.core.generation.causal import window_start
from tfx.core.generation.logits import choose, constrained, log_softmax, uniform
from tfx.testing import StrictBackend

HEADS, POSITIONS = 4, 13
WEIGHTS = random_weights(positions=POSITIONS)
PROMPTS = [
    [5, 9, 3, 1],
    [7],
    [i * 7 % 61 for i in range(POSITIONS)],
    [i * 5 % 61 for i in range(30)],
]
SAMPLED: dict[str, Any] = {"temperature": 1.5, "top_k": 40, "seed": 3}


def in_view(ids: Sequence[int], positions: int = POSITIONS) -> list[int]:
    """What is left of a text whose tokens come one by one: when full, the later half stays."""
    view: list[int] = []
    for token in ids:
        if len(view) == positions:
            view = view[len(view) - positions // 2 :]
        view.append(token)
    return view


def plain(ids: Sequence[int]) -> HostArray:
    return plain_logits(WEIGHTS, HEADS, in_view(ids))


def plainly(prompt: Sequence[int], options: GenerationOptions) -> list[int]:
    ids = list(prompt)
    for step in range(options.max_new_tokens):
        row = constrained(plain(ids), np.array(ids), step, options)
        ids.append(choose(row, options, uniform(options.seed, 0, step)))
    return ids[len(prompt) :]


@pytest.mark.parametrize("given", [{"repetition_penalty": 1.2}, SAMPLED], ids=str)
def test_texts_slide_each_by_its_own_length(given: dict[str, Any], backend: Backend) -> None:
    options = GenerationOptions(max_new_tokens=40, window=True, **given)
    model = TinyGPT.of(WEIGHTS, HEADS, backend, DType.float64)
    with one_thread():
        found = [text.token_ids for [text] in generate(model, PROMPTS, options)]
    assert found == [plainly(prompt, options) for prompt in PROMPTS]
    assert len({token for ids in found for token in ids}) >= 20


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_beams_slide_too(prompt: list[int]) -> None:
    beams = [(0.0, prompt)]
    for _ in range(15):
        grown = [
            (score + float(x), [*ids, token])
            for score, ids in beams
            for token, x in enumerate(log_softmax(plain(ids)))
        ]
        beams = sorted(grown, key=lambda beam: -beam[0])[:3]
    options = GenerationOptions(max_new_tokens=15, num_beams=3, num_samples=3, window=True)
    model = TinyGPT.of(WEIGHTS, HEADS, StrictBackend(), DType.float64)
    _, found = generate(model, [PROMPTS[0], prompt], options)
    assert [text.token_ids for text in found] == [ids[len(prompt) :] for _, ids in beams]


def test_the_later_half_is_read_when_the_positions_are_full() -> None:
    class Room(TinyGPT):
        def start(self, batch: int, capacity: int) -> KVCache:
            capacities.append(capacity)
            return super().start(batch, capacity)

    capacities: list[int] = []
    model = Room.of(WEIGHTS, HEADS, StrictBackend())
    generate(model, [[7]], GenerationOptions(max_new_tokens=25, window=True))
    again = (1, POSITIONS // 2 + 1)
    assert model.read == [*[(1, 1)] * 13, again, *[(1, 1)] * 6, again, *[(1, 1)] * 4]
    assert capacities == [13, 13, 11]  # no more than what is still to be read


@pytest.mark.parametrize("positions", [1, 2, 3, 8, 13])
def test_what_is_in_view_depends_on_the_length_alone(positions: int) -> None:
    for length in range(1, 60):
        ids = list(range(length))
        assert ids[window_start(length, positions) :] == in_view(ids, positions)


def test_a_text_that_is_gone_on_from_goes_on_as_it_would_have() -> None:
    model = TinyGPT.of(WEIGHTS, HEADS, StrictBackend(), DType.float64)

    def text(prompt: list[int], count: int) -> list[int]:
        options = GenerationOptions(max_new_tokens=count, window=True)
        return generate(model, [prompt], options)[0][0].token_ids

    whole = text([7], 40)
    assert text([7, *whole[:23]], 17) == whole[23:]


def test_there_is_room_for_as_many_tokens_as_come(monkeypatch: pytest.MonkeyPatch) -> None:
    def texts(count: int) -> list[Token]:
        options = GenerationOptions(max_new_tokens=count, window=True, **SAMPLED)
        model = TinyGPT.of(WEIGHTS, HEADS, StrictBackend())
        return list(islice(stream(model, PROMPTS[:2], options), 90))

    expected = texts(45)
    monkeypatch.setattr("tfx.core.generation.causal.ROOM", 3)
    found = texts(2**31 - 1)  # which would be 32 GB
    assert [token.id for token in found] == [token.id for token in expected]


def test_only_where_it_is_asked_for() -> None:
    model = TinyGPT.of(WEIGHTS, HEADS, StrictBackend())
    with pytest.raises(UsageError, match=r"lower max_new_tokens to 13 .*, or go past them with"):
        generate(model, [[7]], GenerationOptions(max_new_tokens=14))
    assert model.read == []
