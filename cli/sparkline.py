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


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, higher where it is.

    >>> sparkline([4.0, 3.0, 2.5, 2.25]), sparkline([1.0, 1.0])
    ('█▄▂▁', '▁▁')
    """
    low = min(values, default=0.0)
    height = max(values, default=0.0) - low
    if not 0 < height < math.inf:
        return LEVELS[0] * len(values)
    return "".join(LEVELS[round((value - low) / height * (len(LEVELS) - 1))] for value in values)
