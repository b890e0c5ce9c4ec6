"""Guessed tokens change how often a model is asked, and nothing about the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from causal_models import TinyGPT, TransformersModel, one_thread, plain_logits, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.generation import (
    GenerationOptions,
    Rewinding,
    Speculation,
    Text,
    Verifying,
    generate,
    stream,
)
from tfx.core.generation.logits import choose, constrained, uniform
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend

HEADS, WORDS = 2, 6
"""Of so few tokens many are guessed right, and many are not."""

PROMPTS = [[5, 0, 3, 1], [2], [1, 2, 3, 4, 5, 1, 2, 3], [1, 0]]
DRAWN: dict[str, Any] = {"temperature": 1.0, "top_k": 5, "top_p": 0.95, "seed": 3}


def weights_of(seed: int = 0, positions: int = 64, noise: float = 0.0) -> dict[str, HostArray]:
    """A small model's weights, or those of another that agrees with it now and then."""
    weights = random_weights(seed, WORDS, positions, 8)
    rng = np.random.default_rng(seed + 1)
    return {name: x + rng.normal(0, noise, x.shape) for name, x in weights.items()}


def tiny(backend: Backend, **kind: Any) -> TinyGPT:
    return TinyGPT.of(weights_of(**kind), HEADS, backend, DType.float64)


def speculations(backend: Backend) -> dict[str, Speculation]:
    draft = tiny(backend, noise=0.1)
    return {
        "lookup": Speculation(length=3),
        "lookup at its pace": Speculation(),
        "draft": Speculation(draft, length=3),
        "draft at its pace": Speculation(draft),
        "short draft": Speculation(tiny(backend, positions=5), length=2),
    }


def plainly(prompt: Sequence[int], options: GenerationOptions, sample: int = 0) -> list[int]:
    """A text one token at a time, from the start at every token, with no cache and no batch."""
    ids, weights = list(prompt), weights_of()
    for step in range(options.max_new_tokens):
        row = constrained(plain_logits(weights, HEADS, ids), np.array(ids), step, options)
        ids.append(choose(row, options, uniform(options.seed, sample, step)))
        if ids[-1] in options.eos_ids:
            break
    return ids[len(prompt) :]


@pytest.fixture(scope="module", autouse=True)
def calm() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize(
    "chosen",
    [
        {"max_new_tokens": 10},
        {"max_new_tokens": 10, "repetition_penalty": 1.3},
        {"max_new_tokens": 10, **DRAWN},
        {"max_new_tokens": 10, "eos_ids": (4,), "min_new_tokens": 7, "num_samples": 2, **DRAWN},
    ],
    ids=str,
)
def test_texts_are_those_of_a_plain_model(chosen: dict[str, Any], backend: Backend) -> None:
    options = GenerationOptions(**chosen)
    expected = [
        [plainly(prompt, options, sample) for sample in range(options.num_samples)]
        for prompt in PROMPTS
    ]
    for name, speculation in speculations(backend).items():
        found = generate(tiny(backend), PROMPTS, options, speculation=speculation)
        assert [[text.token_ids for text in of] for of in found] == expected, name
        if "pace" not in name:
            assert 0 < speculation.accepted_tokens < speculation.drafted_tokens, name


def letters(ids: Sequence[int]) -> str:
    return "".join(chr(ord("A") + token) for token in ids)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_options_give_what_they_give_without(data: st.DataObject) -> None:
    backend = NumpyBackend()
    positions = data.draw(st.sampled_from([7, 16, 40]))
    model = tiny(backend, seed=data.draw(st.integers(0, 3)), positions=positions)
    ids = st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=12)
    prompts = data.draw(st.lists(ids, min_size=1, max_size=4))
    temperature = data.draw(st.sampled_from([0.0, 0.7, 1.5]))
    length = data.draw(st.integers(1, 25))
    options = GenerationOptions(
        max_new_tokens=length,
        min_new_tokens=data.draw(st.integers(0, length)),
        temperature=temperature,
        repetition_penalty=data.draw(st.sampled_from([1.0, 1.2])),
        num_samples=data.draw(st.integers(1, 3)) if temperature else 1,
        eos_ids=data.draw(st.sampled_from([(), (2,), (0, 3)])),
        stop=data.draw(st.sampled_from([(), ("AB",), ("CC", "DEA")])),
        seed=data.draw(st.integers(0, 9)),
        logprobs=data.draw(st.sampled_from([None, 0, 2])),
        window=positions < 40,
    )
    draft = data.draw(st.sampled_from([None, model, tiny(backend, noise=0.2, positions=9)]))
    speculation = Speculation(draft, data.draw(st.sampled_from([None, 1, 2, 5])))
    plain = generate(model, prompts, options, letters)
    found = generate(model, prompts, options, letters, speculation=speculation)
    assert [[_chosen(text) for text in of] for of in found] == [
        [_chosen(text) for text in of] for of in plain
    ]
    np.testing.assert_allclose(_likelihoods(found), _likelihoods(plain), rtol=1e-9)


def _chosen(text: Text) -> tuple[Any, ...]:
    ranked = [[token for token, _ in x.top] for x in text.logprobs or ()]
    return text.token_ids, text.finish_reason, text.text, ranked


def _likelihoods(texts: list[list[Text]]) -> list[float]:
    found = [x for of in texts for text in of for x in text.logprobs or ()]
    return [p for x in found for p in (x.value, *(p for _, p in x.top))]


def test_tokens_come_in_the_order_of_each_text() -> None:
    model, options = tiny(StrictBackend()), GenerationOptions(max_new_tokens=9)
    plain, ahead = (
        [*stream(model, PROMPTS, options, speculation=how)] for how in (None, Speculation(length=4))
    )
    for prompt in range(len(PROMPTS)):
        assert [t for t in ahead if t.prompt == prompt] == [t for t in plain if t.prompt == prompt]


def test_rows_go_on_at_paces_of_their_own() -> None:
    """One text is guessed wholly, another never; the first is done in a fifth of the passes."""
    draft = Scripted([[*range(1, 40)], [0] * 39])
    model = Scripted([[*range(1, 40)], [*range(1, 40)]])
    options = GenerationOptions(max_new_tokens=20)
    done = [
        (token.prompt, len(model.read))
        for token in stream(model, [[0], [0]], options, speculation=Speculation(draft, 4))
        if token.finish_reason
    ]
    assert done == [(0, 5), (1, 20)]


# ---- a model that follows a script --------------------------------------------------------------


@dataclass
class Lists:
    """A cache of a stranger's: a list of tokens for each row, as long as it is."""

    rows: list[list[int]]
    scripts: list[int]

    def pad_left(self, counts: Sequence[int]) -> None:
        self.padding = list(counts)

    def reorder(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row][:] for row in rows]
        self.scripts = [self.scripts[row] for row in rows]

    def rewind(self, counts: Sequence[int]) -> int:
        for row, count in zip(self.rows, counts, strict=True):
            assert 0 <= count <= len(row)
            del row[len(row) - count :]
        return max(map(len, self.rows))


@dataclass
class Scripted:
    """Says of row i, whatever it read, that the script i goes on; notes how many it read."""

    scripts: list[list[int]]
    backend: Backend = field(default_factory=StrictBackend)
    vocab_size: int = 50
    max_positions: int = 100
    read: list[tuple[int, ...]] = field(default_factory=list)

    def start(self, batch: int, capacity: int) -> Lists:
        return Lists([[] for _ in range(batch)], [*range(batch)])

    def each_logits(self, ids: Tensor, cache: Lists) -> Tensor:
        self.read.append(ids.shape)
        logits = np.zeros((*ids.shape, self.vocab_size))
        for i, new in enumerate(ids.numpy().tolist()):
            for j, token in enumerate(new):
                cache.rows[i].append(token)
                logits[i, j, self.scripts[cache.scripts[i]][len(cache.rows[i]) - 1]] = 1
        return tensor(logits, self.backend)

    def logits(self, ids: Tensor, cache: Lists) -> Tensor:
        return self.each_logits(ids, cache)[:, -1]


def test_what_is_guessed_and_right_is_counted() -> None:
    """A draft that errs at every fifth token, asked for three at a time."""
    script = [*range(1, 40)]
    wrong = [token if token % 5 else 0 for token in script]
    model, speculation = Scripted([script]), Speculation(Scripted([wrong]), length=3)
    [[text]] = generate(model, [[0]], GenerationOptions(max_new_tokens=21), speculation=speculation)
    assert text.token_ids == script[:21]
    # 1; 2 3 4 and so 5; 6 7 8 and so 9; 10, not 0; 11 12 13 and so 14; 15, not 0; ... 19; 20; 21
    assert model.read == [(1, 1), *[(1, 4)] * 6, (1, 2), (1, 1)]
    assert (speculation.passes, speculation.new_tokens) == (8, 20)
    assert (speculation.drafted_tokens, speculation.accepted_tokens) == (19, 12)
    assert speculation.acceptance_rate == 12 / 19
    assert speculation.tokens_per_pass == 20 / 8


def test_an_end_that_was_guessed_counts_as_right() -> None:
    script = [*range(1, 40)]
    speculation = Speculation(Scripted([script]), length=4)
    options = GenerationOptions(max_new_tokens=21, eos_ids=(4,))
    [[text]] = generate(Scripted([script]), [[0]], options, speculation=speculation)
    assert text.token_ids == [1, 2, 3, 4]
    counts = speculation.passes, speculation.new_tokens, speculation.drafted_tokens
    assert (*counts, speculation.accepted_tokens) == (1, 3, 4, 3)


@pytest.mark.parametrize("chosen", [{}, DRAWN], ids=["greedy", "drawn"])
def test_a_draft_that_is_the_model_is_always_right(chosen: dict[str, Any]) -> None:
    model = tiny(StrictBackend())
    speculation = Speculation(model, length=4)
    options = GenerationOptions(max_new_tokens=21, **chosen)
    generate(model, PROMPTS, options, speculation=speculation)
    assert speculation.acceptance_rate == 1
    assert speculation.passes == 4 * 4
    assert speculation.tokens_per_pass == 5


def test_guesses_have_few_lengths() -> None:
    """Each is a shape of its own, for which a backend may have to prepare."""
    model = tiny(NumpyBackend(), positions=200)
    for length, widths in ((None, {1, 2, 3, 5, 9}), (4, {1, 2, 3, 5}), (3, {1, 2, 3, 4})):
        model.read.clear()
        options = GenerationOptions(max_new_tokens=100)
        generate(model, PROMPTS[:1], options, speculation=Speculation(length=length))
        assert {width for _, width in model.read[1:]} <= widths


# ---- how far ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [56, 60, 63])
def test_every_position_can_be_used_and_no_more(count: int) -> None:
    prompt = [i % 3 for i in range(count)]
    model = tiny(NumpyBackend())
    options = GenerationOptions(max_new_tokens=65 - count)
    for speculation in speculations(model.backend).values():
        [[text]] = generate(model, [prompt], options, speculation=speculation)
        assert text.token_ids == plainly(prompt, options)


def test_a_long_batch_does_not_outgrow_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfx.core.cache.HOLES", 5)
    monkeypatch.setattr("tfx.core.generation.causal.HOLES", 5)
    model = tiny(NumpyBackend())
    options = GenerationOptions(max_new_tokens=57)
    speculation = Speculation(tiny(model.backend, noise=0.1), length=3)
    found = generate(model, PROMPTS, options, speculation=speculation)
    assert [text.token_ids for [text] in found] == [plainly(p, options) for p in PROMPTS]
    assert [width for _, width in model.read if width > 4] == [8]  # nothing is read anew


# ---- what is refused ----------------------------------------------------------------------------


def test_what_cannot_verify_is_refused_before_any_work() -> None:
    class NoRewinding(Scripted):
        def start(self, batch: int, capacity: int) -> Any:
            return object()

    class Plain:
        """A causal model and no more."""

        backend, vocab_size, max_positions = StrictBackend(), 50, 99

    script = [[*range(40)]]
    good, fewer = Scripted(script), Scripted(script, vocab_size=49)
    cannot = "this model cannot verify guesses, which takes `each_logits`, and `rewind` of its"
    for model, draft, message in (
        (Plain(), None, cannot),
        (NoRewinding(script), None, cannot),
        (good, NoRewinding(script), "the draft model cannot forget what it guessed wrong"),
        (good, fewer, "the draft model has 49 tokens and the model 50; expected a draft model"),
    ):
        with pytest.raises(UsageError) as caught:
            stream(model, [[0]], speculation=Speculation(draft))  # type: ignore[arg-type]
        assert str(caught.value).startswith(message)
        assert good.read == []
    with pytest.raises(UsageError, match="num_beams 2: a search takes no guesses; use 1, or no"):
        stream(good, [[0]], GenerationOptions(num_beams=2), speculation=Speculation())
    for length in (-1, 1.5, True):
        with pytest.raises(UsageError, match=f"num_draft_tokens {length}: expected a whole"):
            Speculation(length=length)  # type: ignore[arg-type]


def test_models_and_caches_are_told_apart() -> None:
    model = tiny(StrictBackend())
    assert isinstance(model, Verifying)
    assert isinstance(model.start(1, 1), Rewinding)
    assert not isinstance(TransformersModel, Verifying)
