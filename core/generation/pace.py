"""How many tokens it pays to guess, by what passes have cost and how often guesses were right."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ENOUGH = 3
"""A cost is known when it was measured so often. The least of the last so many holds: what else the
machine does can only add, and of more measurements the least would be less."""

LASTING = 128
"""A cost that was not measured in so many passes is not known any more."""

FADING = 0.98
"""What an earlier guess counts for, for each pass since: what texts are like changes."""


class Offer(NamedTuple):
    """A guess that could be verified.

    Attributes:
        tokens: how many there are.
        kind: what it was made from. Guesses of one kind are taken to be right equally often.
    """

    tokens: int
    kind: int = 0


class Pace:
    """Measures passes, and says how long guesses should be.

    A pass costs what its number of tokens costs, those of all texts together. A number that was
    not measured costs what its neighbours say, and no more than the one below where none is above:
    so longer guesses are tried where they could pay.
    """

    def __init__(self) -> None:
        self._passes: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=ENOUGH))
        self._measured: dict[int, int] = {}
        self._count = 0
        self._drafts: deque[float] = deque(maxlen=ENOUGH)
        self._right: dict[int, float] = defaultdict(float)
        self._tried: dict[int, float] = defaultdict(float)

    def passed(self, tokens: int, seconds: float) -> None:
        """A pass that read so many tokens took so long."""
        self._count += 1
        if self._count - self._measured.get(tokens, 0) > LASTING:
            self._passes[tokens].clear()
        self._passes[tokens].append(seconds)
        self._measured[tokens] = self._count

    def drafted(self, length: int, seconds: float) -> None:
        """To guess so many tokens of each text took so long."""
        self._drafts.append(seconds / length)

    def verified(self, kind: int, right: int, wrong: int) -> None:
        """Of the tokens of a guess, in order, so many were right before one was not."""
        self._right[kind] += right
        self._tried[kind] += right + wrong

    def acceptance(self, kind: int = 0) -> float:
        """How likely a guess is right, the one before it being right; 1/2 where nobody knows."""
        return (self._right[kind] + 1) / (self._tried[kind] + 2)

    def best(self, lengths: Sequence[int], offers: Sequence[Offer]) -> int:
        """The one of `lengths` that gives the most tokens a second, the shortest of equals.

        Args:
            lengths: rising, 0 for no guesses among them.
            offers: what there is to be verified, for each text.
        """
        for kind in self._tried:
            self._right[kind] *= FADING
            self._tried[kind] *= FADING
        costs = self._costs([len(offers) * (1 + length) for length in lengths])
        if costs is None or not any(offer.tokens for offer in offers):
            return 0
        draft = min(self._drafts, default=0.0)
        rates = [
            sum(self._gain(offer, length) for offer in offers) / (cost + draft * length)
            for length, cost in zip(lengths, costs, strict=True)
        ]
        return lengths[rates.index(max(rates))]

    def _costs(self, tokens: Sequence[int]) -> list[float] | None:
        """Of passes over so many tokens; None where no pass is known."""
        counts = sorted(
            n
            for n, times in self._passes.items()
            if len(times) >= ENOUGH and self._count - self._measured[n] <= LASTING
        )
        if not counts:
            return None
        costs: list[float] = np.interp(
            tokens, counts, [min(self._passes[n]) for n in counts]
        ).tolist()
        return costs

    def _gain(self, offer: Offer, length: int) -> float:
        """How many tokens a text gains in a pass: the guesses before the first wrong, and one."""
        rate = self.acceptance(offer.kind)
        return (1 - rate ** (min(offer.tokens, length) + 1)) / (1 - rate)
