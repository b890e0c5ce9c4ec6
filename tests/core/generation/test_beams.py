"""Beam search against enumeration: every text there is, scored one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from tfx.core.errors import UsageError
from tfx.core.generation.beams import BeamSearch
from tfx.core.generation.logits import Row, log_softmax
from tfx.core.generation.options import GenerationOptions

V = 3
EOS = 2


def table(seed: int) -> Callable[[Sequence[int]], Row]:
    """Log-probabilities of the next token, of its own for every text."""

    def log_probs(ids: Sequence[int]) -> Row:
        rng = np.random.default_rng([seed, *(i + 1 for i in ids)])
        return log_softmax(rng.normal(0, 2, V))

    return log_probs


def search(log_probs: Callable[[Sequence[int]], Row], options: GenerationOptions) -> BeamSearch:
    def ends(new: Sequence[int]) -> bool:
        return new[-1] in options.eos_ids or len(new) >= options.max_new_tokens

    found = BeamSearch(options, ends)
    while not found.over:
        rows = np.stack([log_probs(beam.ids) for beam in found.beams])
        found.advance(rows, rows)
    return found


def every_text(
    log_probs: Callable[[Sequence[int]], Row], options: GenerationOptions
) -> dict[tuple[int, ...], float]:
    """Each text that ends, with its score."""
    scores = {}
    for length in range(1, options.max_new_tokens + 1):
        for ids in product(range(V), repeat=length):
            whole = length == options.max_new_tokens or ids[-1] in options.eos_ids
            if whole and not set(ids[:-1]) & set(options.eos_ids):
                total = sum(log_probs(ids[:i])[token] for i, token in enumerate(ids))
                scores[ids] = float(total) / length**options.length_penalty
    return scores


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("eos_ids", [(), (EOS,)], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_a_search_that_drops_nothing_finds_the_best(
    seed: int, eos_ids: tuple[int, ...], penalty: float
) -> None:
    beams = V**3
    options = GenerationOptions(
        max_new_tokens=4, num_beams=beams, num_samples=beams, eos_ids=eos_ids,
        length_penalty=penalty, early_stopping="never",
    )  # fmt: skip
    log_probs = table(seed)
    scores = every_text(log_probs, options)
    expected = sorted(scores, key=lambda ids: -scores[ids])
    found = search(log_probs, options).found
    assert len(found) == beams
    assert [beam.ids for _, beam in found] == expected[:beams]
    np.testing.assert_allclose(
        [score for score, _ in found], [scores[ids] for ids in expected[:beams]], rtol=1e-5
    )


def test_early_stopping_takes_the_first_texts_and_never_waits_for_better() -> None:
    """`a` ends at once and badly; what ends later is far better."""
    late = {(): [0.5, 0.05, 0.45], (0,): [0.9, 0.05, 0.05], (0, 0): [0.01, 0.01, 0.98]}

    def log_probs(ids: Sequence[int]) -> Row:
        return np.log(late.get(tuple(ids), [0.2, 0.4, 0.4]))

    def best(**more: Any) -> list[tuple[int, ...]]:
        options = GenerationOptions(max_new_tokens=6, num_beams=2, eos_ids=(EOS,), **more)
        return [beam.ids for _, beam in search(log_probs, options).found]

    assert best(early_stopping=True) == [(0, 0, 2), (2,)]
    assert best(early_stopping=False)[0] == (0, 0, 2)
    assert best(early_stopping=True, length_penalty=-2.0)[0] == (2,)


def test_never_waits_for_what_length_may_make_better() -> None:
    """Two texts end at once; a third is behind them so far, and sure of all its further tokens."""

    def log_probs(ids: Sequence[int]) -> Row:
        first = [0.1, 0.45, 0.45]
        return np.log(np.maximum(first if not ids else [1, 0, 0] if ids[0] == 0 else first, 1e-30))

    def best(stopping: Any) -> tuple[int, ...]:
        options = GenerationOptions(
            max_new_tokens=9, num_beams=2, eos_ids=(1, 2), early_stopping=stopping
        )
        return search(log_probs, options).found[0][1].ids

    assert len(best(False)) == 1
    assert best("never") == (0,) * 9


def test_texts_that_end_make_room_for_texts_that_go_on() -> None:
    options = GenerationOptions(max_new_tokens=9, num_beams=3, eos_ids=(0, 1))
    beams = BeamSearch(options, lambda new: new[-1] in options.eos_ids)
    for step in range(1, 5):
        rows = np.tile(np.log([0.5, 0.4, 0.04, 0.03, 0.02, 0.01]), (3, 1))
        beams.advance(rows, rows)
        assert len({beam.ids for beam in beams.beams}) == 3
        assert all(len(beam.ids) == step and min(beam.ids) > 1 for beam in beams.beams)


def test_forbidden_texts_are_not_found() -> None:
    options = GenerationOptions(max_new_tokens=2, num_beams=2)
    beams = BeamSearch(options, lambda new: len(new) == 2)
    first = np.log([[0.6, 0.4], [0.6, 0.4]])
    beams.advance(first, first)
    second = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    beams.advance(second, second)
    assert beams.over
    assert [beam.ids for _, beam in beams.found] == [(1, 0)]


def test_one_beam_of_a_search_is_greedy() -> None:
    """Beams are independent of the last places: the best of two is at least as likely."""
    log_probs = table(11)
    ids: tuple[int, ...] = ()
    for _ in range(5):
        ids = (*ids, int(log_probs(ids).argmax()))
    found = search(log_probs, GenerationOptions(max_new_tokens=5, num_beams=1)).found
    assert [beam.ids for _, beam in found] == [ids]


def test_when_every_token_is_forbidden() -> None:
    beams = BeamSearch(GenerationOptions(num_beams=2), lambda new: False)
    forbidden = np.full((2, V), -np.inf)
    with pytest.raises(UsageError, match="no token is left to choose"):
        beams.advance(forbidden, forbidden)
