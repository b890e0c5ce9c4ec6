"""A text that is longer than a model's positions, read in windows that overlap or not."""

from __future__ import annotations

from dataclasses import dataclass

LOGITS_AT_ONCE = 2**23
"""So many logits are in memory at a time where only something of each is kept."""


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `stop` of a text are read; from `counted` on, their predictions count."""

    start: int
    counted: int
    stop: int


def windows_over(count: int, size: int, stride: int) -> list[Window]:
    """Windows of at most `size` tokens, `stride` apart, in which each of `count` counts once.

    >>> [(w.start, w.counted, w.stop) for w in windows_over(10, 4, 3)]
    [(0, 0, 4), (3, 4, 7), (6, 7, 10)]
    """
    windows = [Window(0, 0, min(size, count))]
    while (last := windows[-1]).stop < count:
        start = last.start + stride
        windows.append(Window(start, last.stop, min(start + size, count)))
    return windows
