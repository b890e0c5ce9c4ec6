"""Learning-rate schedules: float64 tables on the host, one number a step.

A table is uploaded once and read by `take` at the step, so a recorded training step never holds a
learning rate of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]


def linear(steps: int, peak: float, end: float = 0.0, warmup: int = 0) -> Table:
    """Up from 0 in `warmup` steps, then straight down towards `end`, reached after the last step.

    >>> linear(4, 1.0).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    down = end + (peak - end) * (1 - _way(steps, warmup))
    return _with_warmup(down, peak, warmup, steps)


def cosine(steps: int, peak: float, end: float = 0.0, warmup: int = 0) -> Table:
    """Up from 0 in `warmup` steps, then half a cosine down towards `end` (Loshchilov and Hutter
    2017, arXiv:1608.03983).

    >>> cosine(4, 1.0, warmup=2).round(2).tolist()
    [0.5, 1.0, 1.0, 0.5]
    """
    down = end + (peak - end) * (1 + np.cos(np.pi * _way(steps, warmup))) / 2
    return _with_warmup(down, peak, warmup, steps)


def _way(steps: int, warmup: int) -> Table:
    """How far each step after the warm-up has come, from 0 up to, not including, 1."""
    left = max(steps - warmup, 0)
    return np.arange(left) / left if left else np.zeros(0)


def _with_warmup(down: Table, peak: float, warmup: int, steps: int) -> Table:
    up = peak * np.arange(1, warmup + 1) / max(warmup, 1)
    return np.concatenate([up, down])[:steps]
