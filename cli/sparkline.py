"""The course of a loss in a few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"
LONGEST = 16


class Course:
    """Means of what was added, each over as many values, at most `LONGEST` of them."""

    def __init__(self) -> None:
        self._means: list[float] = []
        self._span = 1
        self._waiting: list[float] = []

    def add(self, value: float) -> None:
        self._waiting.append(value)
        if len(self._waiting) < self._span:
            return
        if len(self._means) == LONGEST:
            pairs = zip(self._means[::2], self._means[1::2], strict=True)
            self._means = [_mean(pair) for pair in pairs]
            self._span *= 2
        else:
            self._means.append(_mean(self._waiting))
            self._waiting = []

    def __str__(self) -> str:
        return sparkline(self._means)


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)


def sparkline(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """A character for each value, higher where it is, between `low` and `high`; by default the
    lowest and the highest of them.

    >>> sparkline([4.0, 3.0, 2.5, 2.25]), sparkline([1.0, 1.0]), sparkline([0.5], 0.0, 1.0)
    ('█▄▂▁', '▁▁', '▅')
    """
    least = min(values, default=0.0) if low is None else low
    height = (max(values, default=0.0) if high is None else high) - least
    if not 0 < height < math.inf:
        return LEVELS[0] * len(values)
    steps = ((value - least) / height * (len(LEVELS) - 1) for value in values)
    return "".join(LEVELS[round(step + 1e-9)] for step in steps)
