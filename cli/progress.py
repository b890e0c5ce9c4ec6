"""How far a run has come, on stderr: a live bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

from tfx.cli.output import tell
from tfx.cli.sparkline import LEVELS, Course

SECONDS_BETWEEN_LINES = 30
LARGE = 1e6
"""From here on a loss is written with an exponent."""


class Bar:
    """tqdm's bar with loss, steps a second, the time left, and the course of the loss so far."""

    def __init__(self, first: int, total: int) -> None:
        from tqdm import tqdm

        self._first, self._total = first, total
        self._course = Course() if _can_show(LEVELS, sys.stderr.encoding) else None
        # tqdm would show nothing on a terminal that does not tell its size.
        told = os.get_terminal_size(sys.stderr.fileno()).columns > 0
        size = {"dynamic_ncols": True} if told else {"ncols": 80, "nrows": 24}
        # Its own rate would count from the moment at which the first losses were read.
        form = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"
        self._bar = tqdm(total=total, initial=first - 1, bar_format=form, file=sys.stderr, **size)

    def update(self, step: int, loss: float, seconds: float) -> None:
        speed = pace(step - self._first + 1, self._total - step, seconds)
        words = [f"loss {shown_loss(loss)}", *speed]
        if self._course is not None:
            self._course.add(loss)
            words.append(str(self._course))
        self._bar.set_postfix_str(", ".join(words), refresh=False)
        self._bar.update(step - self._bar.n)

    def aside(self) -> AbstractContextManager[None]:
        """Within it the bar makes room for other lines."""
        return self._bar.external_write_mode(sys.stderr)

    def close(self) -> None:
        self._bar.close()


class Lines:
    """A line at the first and the last step; between them at every tenth of the way and after
    each half minute, but never two within a second."""

    def __init__(self, first: int, total: int) -> None:
        self._first, self._total = first, total
        self._said = 0.0
        self._tenth = 0

    def update(self, step: int, loss: float, seconds: float) -> None:
        tenth, waited = 10 * step // self._total, seconds - self._said
        due = tenth > self._tenth or waited >= SECONDS_BETWEEN_LINES
        if step in (self._first, self._total) or (due and waited >= 1):
            self._tenth, self._said = tenth, seconds
            taken = step - self._first + 1
            speed = pace(taken, self._total - step, seconds) if taken > 1 else ()
            tell(" | ".join((step_line(step, self._total, loss), *speed)))

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass


def _can_show(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def step_line(step: int, total: int, loss: float) -> str:
    """`step   20 / 1000 | loss 2.6497`."""
    return f"step {step:4d} / {total:4d} | loss {shown_loss(loss)}"


def shown_loss(loss: float) -> str:
    """Four decimals, with an exponent where the number is large.

    >>> shown_loss(2.6496944697), shown_loss(1e93)
    ('2.6497', '1.0000e+93')
    """
    return f"{loss:.4f}" if abs(loss) < LARGE else f"{loss:.4e}"


def pace(taken: int, remaining: int, seconds: float) -> tuple[str, ...]:
    """How fast a run is that took so many steps in so many seconds, and when it will end.

    >>> pace(30, 70, 15.0), pace(3, 7, 90.0)
    (('2.0 steps/s', '0:00:35 left'), ('30.0 s/step', '0:03:30 left'))
    """
    if seconds <= 0:
        return ()
    rate = taken / seconds
    speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"
    return speed, f"{timedelta(seconds=round(remaining / rate))} left"
