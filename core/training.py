"""The training loop: steps, losses read in passing, evaluations, checkpoints, an orderly stop."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfx.core import host_memory
from tfx.core.callbacks import Audience, RunArguments, RunState, listeners
from tfx.core.errors import CheckpointError, NonFiniteError
from tfx.core.evaluation import Evaluation
from tfx.core.files import reason, shown
from tfx.core.optim import TrainState
from tfx.core.recipe import Reporter
from tfx.core.runs import METRICS
from tfx.core.schedules import Table
from tfx.core.tensor import Tensor

# Losses are read on the host when so many wait or so much time has passed: reading waits for the
# device, and a device that waits for the host at every step stands idle.
PENDING_STEPS = 16
PENDING_SECONDS = 0.5


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a run in good order: its state after `step` is saved in the run `folder`."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(step, folder)
        self.step, self.folder = step, folder


class Metrics:
    """`metrics.jsonl` of a run folder: one JSON object a step. Its `seconds` count from the first
    step on, pauses left out. Leaving the context closes it.

    Args:
        run_dir: the folder. What the file holds beyond `step`, and a last line torn by a kill, is
            cut off.
        step: how many steps the run has behind it.
        before: the folder where it took them, when it goes on in another.

    Attributes:
        last_loss: the loss of the latest step in the file; None before the first.
        seconds: what training took before this process went on with it.

    Raises:
        CheckpointError: the file cannot be written.
    """

    def __init__(self, run_dir: Path, step: int = 0, before: Path | None = None) -> None:
        self.path = run_dir / METRICS
        self.last_loss: float | None = None
        self.seconds = 0.0
        with self._refusals():
            if before is not None and (before / METRICS).exists() and not before.samefile(run_dir):
                shutil.copyfile(before / METRICS, self.path)
            self._file = self.path.open("a+b")
            self._file.truncate(self._end_of(step))

    def _end_of(self, step: int) -> int:
        """Where the lines of the steps up to `step` end, in bytes."""
        end = 0
        self._file.seek(0)
        for line in self._file:
            values = _parsed(line)
            if values is None or values["step"] > step:
                break
            end += len(line)
            self.last_loss = values["loss"]
            self.seconds = values.get("seconds", 0.0)
        return end

    def add(self, *, step: int, loss: float, **values: float) -> None:
        """Note a step; `flush` writes it."""
        self.last_loss = loss
        line = json.dumps({"step": step, "loss": loss, **values}).encode() + b"\n"
        try:  # every step comes here, and a context costs as much as writing
            self._file.write(line)
        except OSError as error:
            raise self._refusal(error) from error

    def flush(self) -> None:
        with self._refusals():
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # whatever could not be written, `flush` has said so
            self._file.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"cannot write {shown(self.path)}: {reason(error)}")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None for anything else."""
    try:
        values = json.loads(line)
        sound = line.endswith(b"\n") and {"step", "loss"} <= values.keys()
    except (ValueError, AttributeError):
        return None
    return values if sound else None


@dataclass
class Loop:
    """Runs training steps, and sees to it that what they did is known and kept.

    Attributes:
        advance: one training step, `(state, i) -> (state, loss, gradient norm)`: i counts from 0,
            loss and norm are 0-d.
        save: writes a checkpoint of a state after so many steps.
        metrics: where every step is noted.
        report: where progress goes.
        schedule: the learning rate of each step, for the metrics.
        save_every: steps between checkpoints; 0 saves at the end alone.
        evaluation: how the state is judged on the way; None: not at all.
        callbacks: told what happens, before those of `tfx.core.callbacks.listening`.
    """

    advance: Callable[[TrainState, int], tuple[TrainState, Tensor, Tensor]]
    save: Callable[[TrainState, int], None]
    metrics: Metrics
    report: Reporter
    schedule: Table
    save_every: int = 0
    evaluation: Evaluation | None = None
    callbacks: Sequence[object] = ()
    _audience: Audience = field(init=False)
    _pending: list[_Step] = field(default_factory=list, init=False)
    _began: float = field(default=0.0, init=False)
    _read_at: float = field(default=0.0, init=False)
    _saved: int = field(default=-1, init=False)

    def run(self, state: TrainState, first: int, last: int) -> TrainState:
        """Take steps `first`, `first + 1`, ... `last - 1`; the state after them, which is saved.

        There are fewer of them when the evaluation's patience is at an end, or a callback asks for
        it.

        Raises:
            NonFiniteError: a loss or gradient was not finite, or the parameters it would save are
                not. Nothing was saved since.
            Stopped: Ctrl-C; the state after the last whole step was saved.
        """
        self._audience = audience = self._audience_of(first, last)
        control, done, self._saved = audience.control, first, -1
        with (
            _interrupts(self._acknowledge) as interrupted,
            np.errstate(all="ignore"),
            host_memory.retained(),
            audience.attending(),
        ):
            self._began = self._read_at = time.monotonic()
            while done < last and not (interrupted.is_set() or self._given_up()):
                audience.tell("on_step_begin")
                state, loss, norm = self.advance(state, done)
                done += 1
                seconds = round(time.monotonic() - self._began, 6)
                self._pending.append(_Step(done, loss, norm, seconds))
                self._end_step(state, done, last)
                if control.should_evaluate:
                    self._read(last, state)
                elif control.should_save or control.should_log or self._overdue():
                    self._read(last)
                if control.should_save:
                    self._save(state, done)
            self._read(last)
            if self._saved != done:
                self._save(state, done)
        if interrupted.is_set():
            raise Stopped(done, self.metrics.path.parent)
        self.report.progress_done()
        if done < last:
            self.report.note(f"ended early: {self._why_given_up()}")
        return state

    def _audience_of(self, first: int, last: int) -> Audience:
        every = self.evaluation.every if self.evaluation else 0
        args = RunArguments(self.metrics.path.parent, last, self.save_every, every)
        state = RunState(first, last)
        self._know_the_best(state)
        return Audience((*self.callbacks, *listeners()), args, state, self.report.note)

    def _know_the_best(self, state: RunState) -> None:
        if self.evaluation and self.evaluation.past.best:
            state.best_metric = self.evaluation.past.best["val_loss"]
            state.best_global_step = self.evaluation.past.best_step

    def _end_step(self, state: TrainState, done: int, last: int) -> None:
        """Ask for what is due, and let the callbacks ask for more, or for less."""
        control = self._audience.control
        if self.evaluation and self.evaluation.is_due(done, last):
            control.should_evaluate = True
        if self.save_every and done % self.save_every == 0:
            control.should_save = True
        self._audience.state.global_step = done
        self._audience.tell("on_step_end", params=state.params)

    def _acknowledge(self) -> None:
        self.report.note("saving after this step; Ctrl-C again stops at once")

    def _given_up(self) -> bool:
        control = self._audience.control
        return self._exhausted() or control.should_training_stop or control.should_epoch_stop

    def _exhausted(self) -> bool:
        return self.evaluation is not None and self.evaluation.exhausted

    def _why_given_up(self) -> str:
        if self.evaluation and self.evaluation.exhausted:
            return f"evaluations without a better one: {self.evaluation.patience}"
        return "a callback asked for it"

    def _overdue(self) -> bool:
        waited = time.monotonic() - self._read_at
        return len(self._pending) >= PENDING_STEPS or waited >= PENDING_SECONDS

    def _save(self, state: TrainState, done: int) -> None:
        flat = state.params.flat
        if not math.isfinite((flat * 0).sum().item()):
            raise NonFiniteError(
                f"the parameters after step {done} are not finite, and were not saved; lower --lr"
            )
        self.save(state, done)
        self._saved = done
        self._audience.control.should_save = False
        self._audience.tell("on_save", params=state.params)

    def _read(self, last: int, state: TrainState | None = None) -> None:
        """Bring the waiting losses to the host, all at once, and pass them on; evaluate `state`,
        where the last of them led."""
        steps, self._pending = self._pending, []
        self._audience.control.should_log = False
        measured: dict[str, float] = {}
        if steps:
            numbers = _on_host([x for step in steps for x in (step.loss, step.norm)])
            for step, loss, norm in zip(steps, numbers[::2], numbers[1::2], strict=True):
                _refuse_non_finite(step.number, loss, norm, self.metrics)
                self.report.progress(step.number, last, loss, step.seconds)
                if step is steps[-1] and state is not None:
                    measured = self._evaluate(state, step.number)
                self._note(step, loss, norm, measured)
            self.metrics.flush()
        if measured and state is not None:
            self._audience.judge(measured, state.params)
            self._know_the_best(self._audience.state)
        self._read_at = time.monotonic()

    def _evaluate(self, state: TrainState, done: int) -> dict[str, float]:
        self._audience.control.should_evaluate = False
        if self.evaluation is None:
            return {}
        return dict(self.evaluation.look(state, done, self.report))

    def _note(self, step: _Step, loss: float, norm: float, measured: dict[str, float]) -> None:
        logs = {
            "loss": loss,
            "grad_norm": norm,
            "lr": float(self.schedule[step.number - 1]),
            "seconds": round(self.metrics.seconds + step.seconds, 6),
            **measured,
        }
        self.metrics.add(step=step.number, **logs)
        self._audience.log(step.number, logs)


def _on_host(scalars: Sequence[Tensor]) -> list[float]:
    """The numbers of 0-d tensors, brought over as one array. Made of raw arrays, as `stack` would
    take longer, past the tape and checks, than all else that is done with them."""
    backend = scalars[0].backend
    rows = [backend.reshape(x.data, shape=(1,)) for x in scalars]
    numbers: list[float] = Tensor(backend.concat(*rows, axis=0), backend).tolist()
    return numbers


def _refuse_non_finite(step: int, loss: float, norm: float, metrics: Metrics) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        metrics.flush()
        what = f"gradient norm ({norm})" if math.isfinite(loss) else f"loss ({loss})"
        raise NonFiniteError(
            f"the {what} of step {step} is not finite; parameters and optimizer stayed "
            f"as after step {step - 1}, and were not saved; lower --lr or set --grad-clip"
        )


@dataclass(frozen=True)
class _Step:
    """A step whose loss was not read yet; `seconds` since the loop began, when it was asked for."""

    number: int
    loss: Tensor
    norm: Tensor
    seconds: float


@contextmanager
def _interrupts(acknowledge: Callable[[], None]) -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, for the loop to stop after its step; a second one aborts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(signum: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError, RuntimeError):  # a stream that is closed, or in the middle of a line
            acknowledge()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
