"""How many tokens are guessed, where passes cost what they are said to and guesses are as good."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tfx.core.generation.pace import Offer, Pace

LENGTHS = (0, 1, 2, 4, 8)

Cost = Callable[[int], float]


def settled(cost: Cost, rate: float, rows: int = 1, draft: float = 0.0) -> list[int]:
    """The lengths that are chosen, pass by pass, where each guess is right with this chance."""
    rng, pace, chosen = np.random.default_rng(0), Pace(), []
    for _ in range(300):
        length = pace.best(LENGTHS, [Offer(8)] * rows)
        chosen.append(length)
        pace.passed(rows * (1 + length), cost(rows * (1 + length)) * rng.uniform(0.9, 1.1))
        if length and draft:
            pace.drafted(length, draft * length)
        for _ in range(rows):
            right = int(np.argmin([*(rng.random(max(length, 1)) < rate), False]))
            pace.verified(0, right, int(right < max(length, 1)))
    return chosen


def best(cost: Cost, rate: float, rows: int, draft: float) -> int:
    def speed(length: int) -> float:
        tokens = sum(rate**i for i in range(length + 1))
        return tokens / (cost(rows * (1 + length)) + draft * length)

    return max(LENGTHS, key=speed)


@pytest.mark.parametrize(
    ("cost", "rate", "rows", "draft", "expected"),
    [
        (lambda n: 1 + 0.02 * n, 0.9, 1, 0.0, 8),  # calls cost, not tokens
        (lambda n: 1 + 0.1 * n, 0.75, 1, 0.0, 4),
        (lambda n: n, 0.95, 1, 0.0, 0),  # nothing is gained by reading together
        (lambda n: 1 + 0.02 * n, 0.75, 1, 0.25, 2),  # a draft that costs
        (lambda n: 1 + 0.02 * n, 0.6, 1, 1.0, 0),
        (lambda n: 1.0 if n == 1 else 2.2 + 0.02 * n, 0.4, 1, 0.0, 0),  # one token is a case apart
        (lambda n: 1 + 0.1 * n, 0.6, 8, 0.0, 1),
        (lambda n: 1 + 0.02 * n, 0.75, 8, 0.0, 4),
    ],
)
def test_the_length_that_pays_is_found(
    cost: Cost, rate: float, rows: int, draft: float, expected: int
) -> None:
    assert best(cost, rate, rows, draft) == expected
    chosen = settled(cost, rate, rows, draft)
    assert chosen[-100:].count(expected) >= 70
    assert chosen[:3] == [0, 0, 0]


def test_a_slow_beginning_is_not_held_against_a_length() -> None:
    """As where a backend prepares for each number of tokens."""
    seen: set[int] = set()

    def cost(tokens: int) -> float:
        first = tokens not in seen
        seen.add(tokens)
        return 50.0 if first else 1 + 0.02 * tokens

    assert settled(cost, 0.9)[-100:].count(8) >= 90


def test_without_guesses_there_is_nothing_to_decide() -> None:
    pace = Pace()
    for _ in range(5):
        pace.passed(1, 1.0)
    assert pace.best(LENGTHS, [Offer(0)] * 2) == 0
    assert pace.best((0,), [Offer(0)]) == 0
    assert pace.best(LENGTHS, [Offer(8)]) == 8


def test_guesses_that_were_bad_are_tried_again() -> None:
    pace = Pace()
    for tokens in (1, 2, 3, 5, 9):
        for _ in range(5):
            pace.passed(tokens, 1 + 0.1 * tokens)
    for _ in range(40):
        pace.verified(0, 0, 1)
    waited = next(i for i in range(1000) if pace.best(LENGTHS, [Offer(8)]))
    assert 20 < waited < 300


def test_kinds_of_guesses_are_told_apart() -> None:
    """Of two texts, the one with the better guess says how long they are."""
    pace = Pace()
    for tokens in (1, 2, 3, 5, 9, 18):
        for _ in range(3):
            pace.passed(tokens, 1 + 0.1 * tokens)
    pace.verified(1, 5, 95)
    pace.verified(3, 95, 5)
    assert pace.acceptance(1) == 6 / 102
    assert pace.best(LENGTHS, [Offer(8, 1)]) == 0
    assert pace.best(LENGTHS, [Offer(8, 3)]) == 8
    assert pace.best(LENGTHS, [Offer(8, 1), Offer(8, 3)]) >= 4
    assert pace.best(LENGTHS, [Offer(2, 3)]) == 2
    assert pace.best(LENGTHS, [Offer(8, 2)]) == 2  # of which nobody knows


def test_what_was_measured_long_ago_is_measured_again() -> None:
    """A pass that was slow for another reason is not slow for ever."""
    pace, seen = Pace(), set()
    for step in range(600):
        pace.verified(0, 9, 1)
        length = pace.best(LENGTHS, [Offer(8)])
        slow = step < 100 and length
        pace.passed(1 + length, 50.0 if slow else 1.0 + 0.02 * length)
        seen.add((step // 300, length))
    assert pace.best(LENGTHS, [Offer(8)]) == 8
    assert (0, 0) in seen
