"""How far a run has come, on stderr: a live bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

from tfx.cli.output import tell

SECONDS_BETWEEN_LINES = 30


class Bar:
    """tqdm's bar with loss, steps a second and the time left."""

    def __init__(self, first: int, total: int) -> None:
        from tqdm import tqdm

        # tqdm would show nothing on a terminal that does not tell its size.
        told = os.get_terminal_size(sys.stderr.fileno()).columns > 0
        size = {"dynamic_ncols": True} if told else {"ncols": 80, "nrows": 24}
        self._bar = tqdm(total=total, initial=first - 1, unit="step", file=sys.stderr, **size)

    def update(self, step: int, loss: float) -> None:
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def aside(self) -> AbstractContextManager[None]:
        """Within it the bar makes room for other lines."""
        return self._bar.external_write_mode(sys.stderr)

    def close(self) -> None:
        self._bar.close()


class Lines:
    """A line at the first step, at every tenth of the way, after half a minute, and at the end."""

    def __init__(self, first: int, total: int) -> None:
        self._first, self._total = first, total
        self._begun = self._said = time.monotonic()
        self._tenth = -1

    def update(self, step: int, loss: float) -> None:
        now = time.monotonic()
        tenth = 10 * step // self._total
        if tenth > self._tenth or now - self._said >= SECONDS_BETWEEN_LINES:
            self._tenth, self._said = tenth, now
            tell(self._line(step, loss, now - self._begun))

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass

    def _line(self, step: int, loss: float, seconds: float) -> str:
        line = f"step {step:4d} / {self._total:4d} | loss {loss:.4f}"
        done = step - self._first
        if done == 0 or seconds == 0:
            return line
        left = timedelta(seconds=round((self._total - step) * seconds / done))
        return f"{line} | {done / seconds:.1f} steps/s | {left} left"
