"""How many tokens it pays to guess, by what passes have cost and how often guesses were right."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from statistics import median

import numpy as np

ENOUGH = 3
"""A cost is known when it was measured so often."""

RECENT = 15
"""Of so many measurements the median holds."""

FADING = 0.98
"""What an earlier guess counts for, for each pass since: what texts are like changes."""


class Pace:
    """Measures passes, and says how long guesses should be.

    A pass costs what its number of tokens costs, those of all texts together. A number that was
    not measured costs what its neighbours say; with none above it, no more than the one below: so
    longer guesses are tried while they could pay, and what nobody measured is tried at once.
    """

    def __init__(self) -> None:
        self._passes: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._drafts: deque[float] = deque([0.0], maxlen=RECENT)
        self._right = self._tried = 0.0

    def passed(self, tokens: int, seconds: float) -> None:
        """A pass that read so many tokens took so long."""
        self._passes[tokens].append(seconds)

    def drafted(self, length: int, seconds: float) -> None:
        """To guess so many tokens of each text took so long."""
        self._drafts.append(seconds / length)

    def verified(self, right: int, wrong: int) -> None:
        """Of the tokens that were guessed, in order, so many were right before one was not."""
        self._right += right
        self._tried += right + wrong

    @property
    def acceptance(self) -> float:
        """How likely a guess is right, the one before it being right; 1/2 where nobody knows."""
        return (self._right + 1) / (self._tried + 2)

    def best(self, lengths: Sequence[int], offered: Sequence[int]) -> int:
        """The one of `lengths` that gives the most tokens a second, the shortest of equals.

        Args:
            lengths: rising, 0 for no guesses among them.
            offered: how many tokens there are to be verified for each text.
        """
        self._right *= FADING
        self._tried *= FADING
        known = {n: median(times) for n, times in self._passes.items() if len(times) >= ENOUGH}
        if not known or not any(offered):
            return 0
        counts = sorted(known)
        tokens = [len(offered) * (1 + length) for length in lengths]
        costs = np.interp(tokens, counts, [known[n] for n in counts])
        costs += np.multiply(lengths, median(self._drafts))
        gains = [sum(self._expected(min(n, length)) for n in offered) for length in lengths]
        return lengths[int(np.argmax(gains / costs))]

    def _expected(self, length: int) -> float:
        """How many tokens a text gains in a pass: the guesses before the first wrong, and one."""
        rate = self.acceptance
        return (1 - rate ** (length + 1)) / (1 - rate)
