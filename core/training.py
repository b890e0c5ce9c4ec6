"""The training loop: steps, losses read in passing, checkpoints, and an orderly stop."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tfx.core.errors import CheckpointError, NonFiniteError
from tfx.core.optim import TrainState
from tfx.core.recipe import Reporter
from tfx.core.tensor import Tensor

PENDING_STEPS = 16
PENDING_SECONDS = 0.5
"""A loss is read on the host when so many wait or so much time has passed: reading one waits for
the device, and a device that waits for the host at every step stands idle."""


class Metrics:
    """`metrics.jsonl` of a run: one JSON object a step, appended.

    Args:
        path: the file; it is made, or cut back to what happened up to `step`.
        step: how many steps the run has behind it.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        try:
            kept = path.read_text().splitlines() if step and path.exists() else []
            self._file: TextIO = path.open("w")
            self._file.writelines(f"{line}\n" for line in kept if _step_of(line) <= step)
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror}") from error

    def add(self, **values: Any) -> None:
        self._write(json.dumps(values) + "\n")

    def flush(self) -> None:
        self._write("", flush=True)

    def close(self) -> None:
        self._file.close()

    def _write(self, text: str, flush: bool = False) -> None:
        try:
            self._file.write(text)
            if flush:
                self._file.flush()
        except OSError as error:
            raise CheckpointError(f"cannot write {self._file.name}: {error.strerror}") from error


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # the torn last line of a killed run


@dataclass
class Loop:
    """Runs steps `first`, `first + 1`, ... `last - 1`.

    Attributes:
        advance: one training step, `(state, i) -> (state, loss, gradient norm)`, i counted from 0.
        save: writes a checkpoint of a state after so many steps.
        metrics: where every step is noted.
        report: where progress goes.
        schedule: the learning rate of each step, for the metrics.
        save_every: steps between checkpoints; 0 saves at the end alone.
    """

    advance: Callable[[TrainState, int], tuple[TrainState, Tensor, Tensor]]
    save: Callable[[TrainState, int], None]
    metrics: Metrics
    report: Reporter
    schedule: Any
    save_every: int = 0
    last_loss: float = math.nan
    _pending: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    _began: float = 0.0
    _read_at: float = 0.0

    def run(self, state: TrainState, first: int, last: int) -> TrainState:
        """Train; the state after the last step, saved.

        Raises:
            NonFiniteError: a loss or gradient was not finite. The state stayed as it was before
                that step, and nothing was saved since.
            KeyboardInterrupt: asked for; a checkpoint of the last whole step was saved.
        """
        self._began = self._read_at = time.monotonic()
        done = first
        with _interrupts() as interrupted, np.errstate(all="ignore"):
            while done < last:
                state, loss, norm = self.advance(state, done)
                done += 1
                self._pending.append((done, loss, norm))
                stop = interrupted.is_set()
                due = bool(self.save_every) and done % self.save_every == 0
                if stop or due or done == last or self._overdue():
                    self._read(last)
                if stop or due or done == last:
                    self.save(state, done)
                if stop:
                    raise KeyboardInterrupt
            if first >= last:
                self.save(state, done)
        self.report.progress_done()
        return state

    def _overdue(self) -> bool:
        waited = time.monotonic() - self._read_at
        return len(self._pending) >= PENDING_STEPS or waited >= PENDING_SECONDS

    def _read(self, last: int) -> None:
        """Bring the waiting losses to the host and pass them on."""
        for step, loss, norm in self._pending:
            values = loss.item(), norm.item()
            if not all(map(math.isfinite, values)):
                self._pending.clear()
                self.metrics.flush()
                what = "gradient" if math.isfinite(values[0]) else f"loss ({values[0]})"
                raise NonFiniteError(
                    f"the {what} of step {step} is not finite; parameters and optimizer are as "
                    f"after step {step - 1}, and were not saved; lower --lr or set --grad-clip"
                )
            self.last_loss = values[0]
            seconds = round(time.monotonic() - self._began, 4)
            self.metrics.add(
                step=step,
                loss=values[0],
                grad_norm=values[1],
                lr=float(self.schedule[step - 1]),
                seconds=seconds,
            )
            self.report.progress(step, last, values[0])
        self._pending.clear()
        self.metrics.flush()
        self._read_at = time.monotonic()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event and the loop stops after its step; a second one aborts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(signum: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
