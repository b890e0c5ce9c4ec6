"""The training loop on a toy problem: what it reads, saves and says, and how it stops."""

from __future__ import annotations

import json
import math
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core import training
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, NonFiniteError
from tfx.core.evaluation import Evaluation, Evaluations
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import linear
from tfx.core.tensor import Tensor
from tfx.core.training import Loop, Metrics, Stopped
from tfx.testing import StrictBackend

SCHEDULE = linear(200, 0.1, warmup=20)


@dataclass
class Listener:
    """A reporter that remembers."""

    steps: list[tuple[int, int, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    closed: int = 0

    def result(self, line: str) -> None:
        raise AssertionError("results are the recipe's")

    def note(self, line: str) -> None:
        self.notes.append(line)

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        self.steps.append((step, total, loss))
        self.seconds.append(seconds)

    def progress_done(self, *, is_result: bool = True) -> None:
        self.closed += 1

    def piece(self, text: str) -> None:
        raise AssertionError("results are the recipe's")


class Training:
    """Brings three numbers to 1, and does what a test asks for on the way."""

    def __init__(
        self, folder: Path, backend: Backend, save_every: int = 0, unused: float = 0.0
    ) -> None:
        host = {"x": np.array([3.0, -1.0, 0.5]), "unused": np.array(unused)}
        self.state = TrainState.start(Parameters.from_host(host, backend, DType.float64))
        self.optimizer = AdamW(SCHEDULE, self.state.params)
        self.asides: dict[int, Callable[[], None]] = {}
        self.spoiled: dict[int, float] = {}
        self.saved: dict[int, bytes] = {}
        self.on_disk: list[int] = []
        self.after: dict[int, bytes] = {0: self.bytes_of(self.state)}
        self.listener = Listener()
        self.metrics = Metrics(folder)
        self.loop = Loop(self.advance, self.save, self.metrics, self.listener, SCHEDULE, save_every)
        self.remember = True

    def run(self, last: int, first: int = 0) -> TrainState:
        with self.metrics:
            return self.loop.run(self.state, first, last)

    def advance(self, state: TrainState, i: int) -> tuple[TrainState, Tensor, Tensor]:
        spoil = self.spoiled.get(i + 1, 1.0)
        value, grads = value_and_grad(lambda p: ((p["x"] - 1) * (p["x"] - 1)).sum() * spoil)(
            state.params
        )
        state, norm = self.optimizer.update(state, value, state.params.flatten(grads))
        if self.remember:
            self.after[i + 1] = self.bytes_of(state)
        self.asides.get(i + 1, lambda: None)()
        return state, value, norm

    def save(self, state: TrainState, done: int) -> None:
        self.saved[done] = self.bytes_of(state)
        self.on_disk.append(len(lines(self.metrics.path)))

    @staticmethod
    def bytes_of(state: TrainState) -> bytes:
        return b"".join(x.numpy().tobytes() for x in (state.params.flat, state.m, state.v))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def numpy_backend() -> Backend:
    from tfx.backends.numpy.backend import NumpyBackend

    return NumpyBackend()


# ---- steps and metrics -----------------------------------------------------------------


def test_every_step_is_noted(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend)
    training.run(40)
    found = lines(tmp_path / "metrics.jsonl")
    assert [list(line) for line in found] == [["step", "loss", "grad_norm", "lr", "seconds"]] * 40
    assert [line["step"] for line in found] == list(range(1, 41))
    assert [line["lr"] for line in found] == SCHEDULE[:40].tolist()
    assert found[0]["loss"] == 4 + 4 + 0.25
    assert found[0]["grad_norm"] == math.sqrt(16 + 16 + 1)
    assert found[39]["loss"] < 0.9 * found[0]["loss"]
    seconds = [line["seconds"] for line in found]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] < 60
    assert training.listener.steps == [(line["step"], 40, line["loss"]) for line in found]
    assert training.listener.closed == 1
    assert training.metrics.last_loss == found[-1]["loss"]


def test_a_later_start_goes_on_in_schedule_and_numbers(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend)
    training.run(33, first=30)
    found = lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["lr"]) for line in found] == [
        (step, SCHEDULE[step - 1]) for step in (31, 32, 33)
    ]


def test_seconds_count_on_where_they_stopped(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    training.run(3)
    path = tmp_path / "metrics.jsonl"
    told = lines(path)
    told[1]["seconds"] = 3600.0
    path.write_text("".join(json.dumps(line) + "\n" for line in told))
    training.metrics = training.loop.metrics = Metrics(tmp_path, step=2)
    training.run(4, first=2)
    seconds = [line["seconds"] for line in lines(path)]
    assert seconds[1] == 3600 < seconds[2] <= seconds[3] < 3660
    assert 0 < training.listener.seconds[-1] < 60  # progress tells how fast it is now


# ---- transfers -------------------------------------------------------------------------


def transfers(folder: Path, steps: int, save_every: int = 0) -> int:
    strict = StrictBackend()
    training = Training(folder, strict, save_every)
    training.remember = False
    training.save = training.loop.save = lambda state, done: None  # type: ignore[method-assign]
    before = strict.transfers.copy()
    training.run(steps)
    counted = strict.transfers - before
    assert set(counted) == {"to_numpy"}
    return counted["to_numpy"]


def test_losses_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PENDING_SECONDS", 60)
    looks_before_saving = 1
    assert transfers(tmp_path, 16) == 1 + looks_before_saving
    assert transfers(tmp_path, 17) == 2 + looks_before_saving
    assert transfers(tmp_path, 100) == 7 + looks_before_saving
    assert transfers(tmp_path, 100, save_every=40) == 3 + 3 + 2 + 3 * looks_before_saving


def test_slow_steps_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PENDING_SECONDS", 0)
    assert transfers(tmp_path, 20) == 20 + 1


# ---- saving ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("save_every", "first", "last", "saved"),
    [
        (0, 0, 25, [25]),
        (10, 0, 25, [10, 20, 25]),
        (10, 0, 20, [10, 20]),
        (10, 7, 21, [10, 20, 21]),
        (1, 0, 3, [1, 2, 3]),
        (100, 0, 5, [5]),
        (0, 0, 0, [0]),
        (2, 6, 6, [6]),
    ],
)
def test_when_it_saves(
    tmp_path: Path, numpy_backend: Backend, save_every: int, first: int, last: int, saved: list[int]
) -> None:
    training = Training(tmp_path, numpy_backend, save_every)
    training.run(last, first)
    assert list(training.saved) == saved
    assert training.on_disk == [step - first for step in saved]  # metrics are never behind


def test_what_it_saves(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend, save_every=4)
    last = training.run(10)
    assert training.saved == {step: training.after[step] for step in (4, 8, 10)}
    assert training.bytes_of(last) == training.after[10]


# ---- numbers that are none -------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 2, 13, 16, 20])
def test_a_loss_that_is_not_finite(tmp_path: Path, backend: Backend, step: int, bad: float) -> None:
    training = Training(tmp_path, backend, save_every=10)
    training.spoiled[step] = bad
    with pytest.raises(NonFiniteError) as caught:
        training.run(40)
    assert f"the loss ({bad}) of step {step} is not finite" in str(caught.value)
    assert f"as after step {step - 1}, and were not saved" in str(caught.value)
    assert list(training.saved) == [10][: step > 10]
    # Steps that were asked for before the loss was read changed nothing.
    frozen = {state for number, state in training.after.items() if number >= step}
    assert frozen == {training.after[step - 1]}
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == list(range(1, step))


def test_a_gradient_that_is_not_finite(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    training.spoiled[3] = 1e200  # the loss is finite, the square of its gradient is not
    with pytest.raises(NonFiniteError, match=r"the gradient norm \(inf\) of step 3 is not finite"):
        training.run(10)
    assert training.saved == {}


def test_parameters_that_are_not_finite_are_not_saved(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend, unused=math.inf)
    with pytest.raises(NonFiniteError, match="the parameters after step 3 are not finite"):
        training.run(3)
    assert training.saved == {}


# ---- evaluation ------------------------------------------------------------------------


class Judge:
    """Gives one number after the other for what it measures, and remembers what it was given."""

    def __init__(self, training: Training, *numbers: float, every: int = 5, patience: int = 0):
        self.numbers = list(numbers)
        self.judged: list[bytes] = []
        self.best: dict[int, bytes] = {}
        self.training = training
        self.evaluation = Evaluation(every, self.measure, self.keep, patience=patience)
        training.loop.evaluation = self.evaluation

    def measure(self, state: TrainState) -> dict[str, float]:
        self.judged.append(Training.bytes_of(state))
        return {"val_loss": self.numbers.pop(0), "val_other": 7.0}

    def keep(self, state: TrainState, done: int) -> None:
        self.best[done] = Training.bytes_of(state)


def test_evaluations_are_noted_with_their_steps(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend, save_every=5)
    judge = Judge(training, 3.0, 2.0, 2.5, 1.0)
    training.run(17)
    assert judge.judged == [training.after[step] for step in (5, 10, 15, 17)]
    assert judge.best == {step: training.after[step] for step in (5, 10, 17)}
    found = {line["step"]: line for line in lines(tmp_path / "metrics.jsonl")}
    assert len(found) == 17
    assert {step: line["val_loss"] for step, line in found.items() if "val_loss" in line} == {
        **{5: 3.0, 10: 2.0, 15: 2.5, 17: 1.0}
    }
    assert found[5]["val_other"] == 7.0
    assert training.saved == {step: training.after[step] for step in (5, 10, 15, 17)}
    assert training.listener.notes == [
        "step    5 | val loss 3.0000 | val other 7.0000 | best so far",
        "step   10 | val loss 2.0000 | val other 7.0000 | best so far",
        "step   15 | val loss 2.5000 | val other 7.0000",
        "step   17 | val loss 1.0000 | val other 7.0000 | best so far",
    ]
    assert judge.evaluation.past == Evaluations(
        latest={"val_loss": 1.0, "val_other": 7.0},
        best={"val_loss": 1.0, "val_other": 7.0},
        best_step=17,
    )


def test_evaluation_changes_nothing_else(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "plain").mkdir()
    plain, judged = Training(tmp_path / "plain", backend), Training(tmp_path, backend)
    Judge(judged, *range(20), every=1)
    plain.run(20)
    judged.run(20)
    assert judged.after == plain.after


@pytest.mark.parametrize(
    ("numbers", "patience", "ends"),
    [
        ([5, 4, 4, 4, 9, 9], 2, 20),
        ([5, 4, 5, 4.5, 3, 9], 3, 30),
        ([5, 4, 3, 2, 1, 0], 1, 30),
        ([1, 2, 3, 4, 5, 6], 0, 30),
        ([1, 2, 3, 4, 5, 6], 5, 30),
        ([1, 2, 3, 4, 5, 6], 1, 10),
    ],
)
def test_patience(
    tmp_path: Path, numpy_backend: Backend, numbers: list[float], patience: int, ends: int
) -> None:
    training = Training(tmp_path, numpy_backend)
    Judge(training, *numbers, patience=patience)
    last = training.run(30)
    assert last.step.item() == ends
    assert training.saved == {ends: training.after[ends]}
    assert len(lines(tmp_path / "metrics.jsonl")) == ends
    assert training.listener.closed == 1


def test_patience_goes_on_with_what_was_seen_before(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    judge = Judge(training, 5, 5, 5, patience=4)
    judge.evaluation.past = Evaluations({"val_loss": 1.0}, {"val_loss": 1.0}, 3, since_best=2)
    assert training.run(30).step.item() == 10
    assert judge.evaluation.past.best_step == 3
    again = Training(tmp_path, numpy_backend)
    again.loop.evaluation = judge.evaluation
    again.run(30, first=10)
    assert again.saved == {10: again.after[0]}  # not one step more


def test_a_state_that_is_not_healthy_is_not_judged(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend)
    training.spoiled[4] = math.nan
    judge = Judge(training, 1.0)
    with pytest.raises(NonFiniteError, match="of step 4 is not finite"):
        training.run(10)
    assert judge.judged == []
    assert len(lines(tmp_path / "metrics.jsonl")) == 3


def test_a_validation_loss_that_is_not_finite(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    judge = Judge(training, 1.0, math.nan)
    with pytest.raises(NonFiniteError, match="the validation loss after step 10 is not finite"):
        training.run(10)
    assert list(judge.best) == [5]
    assert training.saved == {}


# ---- interrupts ------------------------------------------------------------------------


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_after_the_step_and_saves(tmp_path: Path, backend: Backend) -> None:
    training = Training(tmp_path, backend)
    training.asides[7] = interrupt
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        training.run(40)
    assert (stopped.value.step, stopped.value.folder) == (7, tmp_path)
    assert training.saved == {7: training.after[7]}
    assert len(lines(tmp_path / "metrics.jsonl")) == 7
    assert training.listener.notes == ["saving after this step; Ctrl-C again stops at once"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_the_last_step(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    training.asides[10] = interrupt
    with pytest.raises(KeyboardInterrupt):
        training.run(10)
    assert list(training.saved) == [10]


def test_ctrl_c_twice_aborts_at_once(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    after: list[str] = []

    def twice() -> None:
        interrupt()
        interrupt()
        after.append("still here")

    training.asides[7] = twice
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.run(40)
    assert after == []
    assert training.saved == {}
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_while_nobody_can_be_told(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    told = training.listener.note

    def closed(line: str) -> None:
        training.listener.note = told  # type: ignore[method-assign]
        raise BrokenPipeError

    training.listener.note = closed  # type: ignore[method-assign]
    training.asides[7] = interrupt
    with pytest.raises(KeyboardInterrupt):
        training.run(40)
    assert list(training.saved) == [7]


def test_a_bad_loss_comes_before_ctrl_c(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    training.spoiled[6] = math.nan
    training.asides[7] = interrupt
    with pytest.raises(NonFiniteError, match="step 6"):
        training.run(40)
    assert training.saved == {}


def test_outside_the_main_thread(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend)
    thread = threading.Thread(target=training.run, args=(5,))
    thread.start()
    thread.join()
    assert list(training.saved) == [5]


# ---- the metrics file ------------------------------------------------------------------


def write(folder: Path, *steps: int, end: str = "") -> Path:
    path = folder / "metrics.jsonl"
    texts = [json.dumps({"step": step, "loss": step / 2}) + "\n" for step in steps]
    path.write_text("".join(texts) + end)
    return path


@pytest.mark.parametrize(
    "end",
    ["", '{"step": 4, "lo', '{"step": 4}\n', "[4]\n", "4\n", "\0\0\0", '{"step": 3, "loss": 1.5}'],
)
def test_a_resumed_run_keeps_what_happened(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, 1, 2, 3, end=end)
    with Metrics(tmp_path, 3) as metrics:
        assert metrics.last_loss == 1.5
        metrics.add(step=4, loss=9.0)
        metrics.flush()
    assert [line["loss"] for line in lines(path)] == [0.5, 1.0, 1.5, 9.0]


def test_a_resumed_run_forgets_what_was_not_saved(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2, 3, 4, 5, end='{"st')
    with Metrics(tmp_path, 2) as metrics:
        assert metrics.last_loss == 1.0
    assert [line["step"] for line in lines(path)] == [1, 2]


def test_what_is_kept_is_never_off_the_disk(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2, 3)
    node = path.stat().st_ino
    with Metrics(tmp_path, 2):
        assert [line["step"] for line in lines(path)] == [1, 2]
        assert path.stat().st_ino == node  # cut, not written anew


def test_a_new_run_begins_with_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    with Metrics(tmp_path) as metrics:
        assert metrics.last_loss is None
    assert path.read_text() == ""


def test_a_run_that_goes_on_elsewhere_takes_its_past_along(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    write(here, 1, 2, 3, 4)
    write(there, 1, 2, 3)
    with Metrics(there, 2, before=here) as metrics:
        metrics.add(step=3, loss=7.0)
        metrics.flush()
    assert [line["loss"] for line in lines(there / "metrics.jsonl")] == [0.5, 1.0, 7.0]
    assert [line["step"] for line in lines(here / "metrics.jsonl")] == [1, 2, 3, 4]
    with Metrics(here, 2, before=here / ".." / "here") as metrics:
        assert metrics.last_loss == 1.0
    with Metrics(here, 2, before=tmp_path) as metrics:  # where there is no such file
        assert metrics.last_loss == 1.0


def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*metrics\.jsonl: Is a directory"):
        Metrics(tmp_path)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within, no file can grow beyond `size` bytes: the write fails as on a full disk."""
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))


def test_a_full_disk(tmp_path: Path, numpy_backend: Backend) -> None:
    training = Training(tmp_path, numpy_backend, save_every=10)
    with largest_file(2000), pytest.raises(CheckpointError) as caught:
        training.run(100)
    assert str(caught.value) == f"cannot write {tmp_path / 'metrics.jsonl'}: File too large"
    assert list(training.saved) == [10]
    with Metrics(tmp_path, 10):
        pass
    assert len(lines(tmp_path / "metrics.jsonl")) == 10
