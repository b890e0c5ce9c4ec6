"""Judging a model on its way: which was best, what is kept and said, and when to give up."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import evaluation
from tfx.core.dtypes import DType
from tfx.core.errors import NonFiniteError
from tfx.core.evaluation import Evaluation, Evaluations
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters

STATE = TrainState.start(Parameters.from_host({"x": np.ones(2)}, NumpyBackend(), DType.float64))


@dataclass
class Judged:
    """An evaluation that finds the losses it is given, one after the other."""

    losses: list[float]
    how: dict[str, Any] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = iter(self.losses)

        def measure(state: TrainState) -> dict[str, float]:
            assert state is STATE
            return {"val_loss": next(found)}

        def keep(state: TrainState, done: int) -> None:
            assert state is STATE
            self.kept.append(done)

        self.evaluation = Evaluation(2, measure, keep, **self.how)

    def note(self, line: str) -> None:
        self.notes.append(line)

    def look(self, done: int) -> dict[str, float]:
        return dict(self.evaluation.look(STATE, done, self))  # type: ignore[arg-type]


# ---- which is best -----------------------------------------------------------------------------


def test_the_best_is_the_first_of_the_lowest() -> None:
    past = Evaluations()
    losses = [3.0, 2.0, 2.5, 2.0, 1.5, 9.0]
    assert [past.add(step, {"val_loss": loss}) for step, loss in enumerate(losses, 1)] == [
        *(True, True, False, False, True, False)
    ]
    assert (past.best_step, past.best, past.latest) == (5, {"val_loss": 1.5}, {"val_loss": 9.0})
    assert past.since_best == 1


def test_all_that_was_measured_is_remembered() -> None:
    past = Evaluations()
    past.add(4, {"val_loss": 2.0, "other": 7.0})
    past.add(8, {"val_loss": 3.0, "other": 1.0})
    assert (past.best["other"], past.latest["other"]) == (7.0, 1.0)


def test_it_goes_on_after_a_checkpoint() -> None:
    past = Evaluations()
    for step, loss in ((2, 3.0), (4, 1.0), (6, 2.0)):
        past.add(step, {"val_loss": loss})
    again = Evaluations(**json.loads(json.dumps(asdict(past))))
    assert again == past
    assert not again.add(8, {"val_loss": 1.0})
    assert (again.best_step, again.since_best) == (4, 2)


def test_two_of_them_share_nothing() -> None:
    Evaluations().add(1, {"val_loss": 1.0})
    assert Evaluations() == Evaluations({}, {}, 0, 0)


# ---- looking -----------------------------------------------------------------------------------


def test_the_best_is_kept_and_said() -> None:
    judged = Judged([2.0, 3.0, 1.25])
    assert [judged.look(step) for step in (2, 4, 6)] == [
        {"val_loss": 2.0},
        {"val_loss": 3.0},
        {"val_loss": 1.25},
    ]
    assert judged.kept == [2, 6]
    assert judged.notes == [
        "step    2 | val loss 2.0000 | best so far",
        "step    4 | val loss 3.0000",
        "step    6 | val loss 1.2500 | best so far",
    ]


def test_what_is_kept_knows_that_it_is_the_best() -> None:
    """The checkpoint that `keep` writes has the evaluations in it."""
    judged = Judged([2.0])
    steps = []
    judged.evaluation.keep = lambda state, done: steps.append(judged.evaluation.past.best_step)
    judged.look(10)
    assert steps == [10]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(loss: float) -> None:
    judged = Judged([2.0, loss])
    judged.look(2)
    with pytest.raises(NonFiniteError, match=r"^the validation loss after step 4 "):
        judged.look(4)
    assert (judged.kept, len(judged.notes)) == ([2], 1)
    assert judged.evaluation.past.latest == {"val_loss": 2.0}


def test_the_time_it_takes_has_the_writing_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: next(clock))
    judged = Judged([2.0, 3.0])
    judged.look(2)
    judged.look(4)
    assert judged.evaluation.seconds == 4.0


# ---- when --------------------------------------------------------------------------------------


def test_when_it_is_due() -> None:
    due = Judged([]).evaluation.is_due
    assert [step for step in range(1, 8) if due(step, 7)] == [2, 4, 6, 7]
    assert [step for step in range(1, 7) if due(step, 6)] == [2, 4, 6]


@pytest.mark.parametrize(("patience", "exhausted"), [(0, []), (1, [4, 8, 10]), (2, [10]), (3, [])])
def test_patience(patience: int, exhausted: list[int]) -> None:
    judged = Judged([2.0, 2.5, 1.0, 1.0, 1.5], {"patience": patience})
    found = []
    for step in (2, 4, 6, 8, 10):
        judged.look(step)
        if judged.evaluation.exhausted:
            found.append(step)
    assert found == exhausted


def test_patience_counts_what_was_before_a_pause() -> None:
    past = Evaluations({"val_loss": 2.0}, {"val_loss": 1.0}, best_step=2, since_best=1)
    judged = Judged([1.5], {"patience": 2, "past": past})
    assert not judged.evaluation.exhausted
    judged.look(6)
    assert judged.evaluation.exhausted
