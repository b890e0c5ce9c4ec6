"""Judging a model while it is trained: what was measured, which was best, and when to give up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tfx.core.errors import NonFiniteError
from tfx.core.optim import TrainState
from tfx.core.recipe import Reporter


@dataclass
class Evaluations:
    """What the evaluations of a run have shown; all of it JSON values, for its checkpoints.

    Attributes:
        latest: what the last one measured, by name: `"val_loss"` and perhaps more.
        best: the same of the one with the lowest `"val_loss"`.
        best_step: how many steps that one came after.
        since_best: how many evaluations there were after it.
    """

    latest: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    since_best: int = 0

    def add(self, step: int, measured: dict[str, float]) -> bool:
        """Note what was measured after `step`; True when it is the best so far."""
        self.latest = measured
        if self.best and measured["val_loss"] >= self.best["val_loss"]:
            self.since_best += 1
            return False
        self.best, self.best_step, self.since_best = measured, step, 0
        return True


@dataclass
class Evaluation:
    """How a run is evaluated on its way.

    Attributes:
        every: steps between evaluations; there is always one after the last step.
        measure: `"val_loss"` of a state, and perhaps more numbers by name.
        keep: writes the best state so far, after so many steps.
        past: what earlier evaluations have shown; grows.
        patience: the run ends after so many evaluations without a better one; 0: never.
        seconds: what the evaluations of this process took, writing the best included.
    """

    every: int
    measure: Callable[[TrainState], dict[str, float]]
    keep: Callable[[TrainState, int], None]
    past: Evaluations = field(default_factory=Evaluations)
    patience: int = 0
    seconds: float = field(default=0.0, init=False)

    @property
    def exhausted(self) -> bool:
        """Whether it is time to give up."""
        return 0 < self.patience <= self.past.since_best

    def is_due(self, done: int, last: int) -> bool:
        return done % self.every == 0 or done == last

    def look(self, state: TrainState, done: int, report: Reporter) -> Mapping[str, float]:
        """Measure a state after `done` steps, say what was found, and keep the best."""
        began = time.monotonic()
        measured = self.measure(state)
        if not math.isfinite(measured["val_loss"]):
            raise NonFiniteError(
                f"the validation loss after step {done} is not finite, and the parameters were not "
                "saved; lower --lr"
            )
        best = self.past.add(done, measured)
        named = ((name.replace("_", " "), value) for name, value in measured.items())
        numbers = " | ".join(f"{name} {value:.4f}" for name, value in named)
        report.note(f"step {done:4d} | {numbers}{' | best so far' if best else ''}")
        if best:
            self.keep(state, done)
        self.seconds += time.monotonic() - began
        return measured
