"""What a training run tells callbacks, in which order, and what they may ask of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import training
from tfx.core.autograd import value_and_grad
from tfx.core.callbacks import HOOKS, Callback, Control, RunState, listening
from tfx.core.dtypes import DType
from tfx.core.errors import NonFiniteError
from tfx.core.evaluation import Evaluation, Evaluations
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import linear
from tfx.core.tensor import Tensor
from tfx.core.training import Loop, Metrics, Stopped

BEGIN = [("on_train_begin", 0), ("on_epoch_begin", 0)]
END = ["on_epoch_end", "on_train_end"]


class Quiet:
    """A reporter that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None: ...
    def progress_done(self, *, is_result: bool = True) -> None: ...
    def result(self, line: str) -> None: ...
    def piece(self, text: str) -> None: ...


class Recorder:
    """Not a `Callback` by class; remembers every hook with the step, and does what it is told."""

    def __init__(self, **actions: Callable[..., None]) -> None:
        self.heard: list[tuple[str, int]] = []
        self.told: list[dict[str, Any]] = []
        for hook in HOOKS:
            setattr(self, hook, self._hook(hook, actions.get(hook)))

    def _hook(self, name: str, action: Callable[..., None] | None) -> Callable[..., None]:
        def hook(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.heard.append((name, state.global_step))
            self.told.append(kwargs)
            if action is not None:
                action(args, state, control, **kwargs)

        return hook

    def steps(self, hook: str) -> list[int]:
        return [step for name, step in self.heard if name == hook]


class Run:
    """Brings a number to 1 in steps of AdamW; the loss is what `spoil` multiplies."""

    def __init__(self, folder: Path, *callbacks: object, save_every: int = 0) -> None:
        params = Parameters.from_host({"x": np.array([3.0])}, NumpyBackend(), DType.float64)
        schedule = linear(100, 0.1, warmup=2)
        optimizer = AdamW(schedule, params)
        self.state, self.report, self.saved = TrainState.start(params), Quiet(), list[int]()
        self.spoil: Mapping[int, float] = {}
        self.metrics = Metrics(folder)

        def advance(state: TrainState, i: int) -> tuple[TrainState, Tensor, Tensor]:
            square = value_and_grad(lambda p: ((p["x"] - 1) * (p["x"] - 1)).sum())
            value, grads = square(state.params)
            value = value * self.spoil.get(i + 1, 1.0)
            state, norm = optimizer.update(state, value, state.params.flatten(grads))
            return state, value, norm

        def save(state: TrainState, done: int) -> None:
            self.saved.append(done)

        self.loop = Loop(
            advance, save, self.metrics, self.report, schedule, save_every, callbacks=callbacks
        )

    def evaluated(self, every: int, *losses: float, patience: int = 0) -> Run:
        coming = iter(losses)
        self.loop.evaluation = Evaluation(
            every,
            lambda state: {"val_loss": next(coming)},
            lambda state, done: None,
            Evaluations(),
            patience,
        )
        return self

    def run(self, last: int, first: int = 0) -> None:
        with self.metrics:
            self.loop.run(self.state, first, last)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.path.read_text().splitlines()]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loss is read when its step has ended."""
    monkeypatch.setattr(training, "PENDING_SECONDS", 0)


# ---- the order -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_the_order_is_that_of_the_trainer(tmp_path: Path) -> None:
    """As its documentation has it: log, then evaluate, then save, all after the end of a step."""
    heard = Recorder()
    Run(tmp_path, heard, save_every=2).evaluated(2, 3.0, 2.0).run(3)
    assert heard.heard == [
        *BEGIN,
        *[("on_step_begin", 0), ("on_step_end", 1), ("on_log", 1)],
        *[("on_step_begin", 1), ("on_step_end", 2), ("on_log", 2)],
        *[("on_evaluate", 2), ("on_save", 2)],
        *[("on_step_begin", 2), ("on_step_end", 3), ("on_log", 3)],
        *[("on_evaluate", 3), ("on_save", 3)],
        *[(hook, 3) for hook in END],
    ]


def test_transformers_has_these_hooks_in_this_order() -> None:
    theirs = pytest.importorskip("transformers").TrainerCallback
    named = [name for name in vars(theirs) if name.startswith("on_")]
    left_out = {
        *("on_init_end", "on_pre_optimizer_step", "on_optimizer_step", "on_substep_end"),
        *("on_predict", "on_prediction_step", "on_push_begin"),
    }
    assert set(named) - left_out == set(HOOKS)


@pytest.mark.usefixtures("at_once")
def test_a_callback_written_for_transformers_is_told(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    losses: list[tuple[int, float]] = []

    class Theirs(transformers.TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            losses.append((state.global_step, logs["loss"]))

        def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> Any:
            control.should_training_stop = state.global_step >= 2
            return control

    run = Run(tmp_path, Theirs())
    run.run(9)
    assert [(line["step"], line["loss"]) for line in run.lines] == losses
    assert len(losses) == 2
    assert run.report.notes == ["ended early: a callback asked for it"]


@pytest.mark.usefixtures("at_once")
def test_callbacks_of_transformers_work_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    patient = transformers.EarlyStoppingCallback(early_stopping_patience=2)
    theirs = [patient, transformers.PrinterCallback(), transformers.ProgressCallback()]
    losses = [3.0, 2.0, 2.5, 1.5, 1.6, 1.6, 1.0]
    run = Run(tmp_path, *theirs).evaluated(2, *losses)
    run.run(50)
    assert run.report.notes[-1] == "ended early: a callback asked for it"
    assert not any("failed" in line for line in run.report.notes)
    assert [line["val_loss"] for line in run.lines if "val_loss" in line] == losses[:6]
    printed = capsys.readouterr()
    assert printed.out.count("'grad_norm'") == 2 * 12  # a printer's, and the bar's
    assert "12/50" in printed.err


@pytest.mark.usefixtures("at_once")
def test_what_transformers_state_has(tmp_path: Path) -> None:
    """Read as its documentation and many callbacks do; what both have is spelled alike."""
    seen: list[tuple[float, int, bool]] = []

    def logged(args: Any, state: Any, control: Any, **_: Any) -> None:
        last = state.log_history[-1]
        seen.append((state.epoch, last["step"], state.is_world_process_zero))
        control.should_epoch_stop = state.global_step == 3

    run = Run(tmp_path, Recorder(on_log=logged))
    run.run(4)
    assert seen == [(0.25, 1, True), (0.5, 2, True), (0.75, 3, True)]
    assert run.saved == [3]
    theirs = pytest.importorskip("transformers.trainer_callback")
    for ours, other in (
        (RunState(0, 1), theirs.TrainerState()),
        (Control(), theirs.TrainerControl()),
    ):
        names = {name for name in dir(ours) if not name.startswith("_")}
        assert names <= set(dir(other)), names - set(dir(other))


def test_losses_come_late_and_say_of_which_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PENDING_SECONDS", 60)
    heard = Recorder()
    run = Run(tmp_path, heard)
    run.run(20)
    assert heard.steps("on_log") == list(range(1, 21))
    at = [heard.heard.index(("on_log", step)) for step in (1, 16, 17)]
    assert heard.heard[at[0] - 1] == ("on_step_end", 16) and at[1] == at[0] + 15
    assert heard.heard[at[2] - 1] == ("on_step_end", 20)
    logs = [told["logs"] for told in heard.told if "logs" in told]
    assert [{"step": i + 1, **log} for i, log in enumerate(logs)] == run.lines


def test_what_else_is_told(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def begins(args: Any, state: Any, control: Any, **_: Any) -> None:
        seen["args"], seen["max"] = args, state.max_steps

    def evaluated(args: Any, state: Any, control: Any, *, metrics: Any, params: Any) -> None:
        seen.setdefault("judged", []).append((metrics, state.best_metric, state.best_global_step))

    def saved(args: Any, state: Any, control: Any, *, params: Any) -> None:
        seen["x"] = params["x"].item()

    heard = Recorder(on_train_begin=begins, on_evaluate=evaluated, on_save=saved)
    Run(tmp_path, heard, save_every=5).evaluated(2, 3.0, 4.0).run(4)
    args = seen["args"]
    assert (args.output_dir, args.max_steps, args.save_steps, args.eval_steps) == (
        *(tmp_path, 4, 5, 2),
    )
    assert seen["max"] == 4
    assert seen["judged"] == [
        ({"val_loss": 3.0, "eval_loss": 3.0}, None, None),
        ({"val_loss": 4.0, "eval_loss": 4.0}, 3.0, 2),
    ]
    assert 2 < seen["x"] < 3


def test_a_resumed_run_begins_where_it_goes_on(tmp_path: Path) -> None:
    best: list[Any] = []

    def begins(args: Any, state: Any, control: Any, **_: Any) -> None:
        best.extend([state.best_metric, state.best_global_step])

    heard = Recorder(on_train_begin=begins)
    run = Run(tmp_path, heard).evaluated(99, 3.0)
    assert run.loop.evaluation is not None
    run.loop.evaluation.past.add(5, {"val_loss": 2.0})
    run.run(9, first=7)
    assert heard.heard[:2] == [(hook, 7) for hook, _ in BEGIN]
    assert best == [2.0, 5]
    assert heard.steps("on_step_end") == [8, 9]


# ---- control -------------------------------------------------------------------------------------


def asks(**wishes: list[int]) -> Callable[..., None]:
    """Sets `should_WISH` at these steps."""

    def ask(args: Any, state: Any, control: Any, **_: Any) -> None:
        for wish, steps in wishes.items():
            if state.global_step in steps:
                setattr(control, f"should_{wish}", True)

    return ask


def test_a_stop_in_good_order(tmp_path: Path) -> None:
    heard = Recorder(on_step_end=asks(training_stop=[3], save=[3]))
    run = Run(tmp_path, heard)
    run.run(50)
    assert (run.saved, len(run.lines)) == ([3], 3)
    assert heard.heard[-2:] == [(hook, 3) for hook in END]
    assert run.report.notes == ["ended early: a callback asked for it"]


@pytest.mark.usefixtures("at_once")
def test_early_stopping_by_a_callback(tmp_path: Path) -> None:
    """As users of the Trainer write it: by what an evaluation measured."""

    def judge(args: Any, state: Any, control: Any, *, metrics: Any, **_: Any) -> None:
        best = state.best_metric
        control.should_training_stop = best is not None and metrics["val_loss"] > best

    run = Run(tmp_path, Recorder(on_evaluate=judge)).evaluated(2, 3.0, 2.0, 2.5, 1.0)
    run.run(50)
    assert [line["step"] for line in run.lines if "val_loss" in line] == [2, 4, 6]
    assert run.saved == [6]


def test_patience_still_says_that_it_was_patience(tmp_path: Path) -> None:
    run = Run(tmp_path, Recorder()).evaluated(1, 3.0, 4.0, 5.0, patience=2)
    run.run(50)
    assert run.saved == [3]
    assert run.report.notes[-1] == "ended early: evaluations without a better one: 2"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("hook", ["on_step_end", "on_log"])
def test_a_checkpoint_when_asked_for(tmp_path: Path, hook: str) -> None:
    heard = Recorder(**{hook: asks(save=[2, 5])})
    run = Run(tmp_path, heard)
    run.run(6)
    assert run.saved == heard.steps("on_save") == [2, 5, 6]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("hook", "judged"), [("on_step_end", [2, 9]), ("on_log", [3, 9])])
def test_an_evaluation_when_asked_for(tmp_path: Path, hook: str, judged: list[int]) -> None:
    heard = Recorder(**{hook: asks(evaluate=[2])})
    run = Run(tmp_path, heard).evaluated(50, 3.0, 2.0)
    run.run(9)
    assert heard.steps("on_evaluate") == judged
    assert [line["step"] for line in run.lines if "val_loss" in line] == judged


def test_without_an_evaluation_there_is_none_to_ask_for(tmp_path: Path) -> None:
    heard = Recorder(on_step_end=asks(evaluate=[2]))
    Run(tmp_path, heard).run(4)
    assert heard.steps("on_evaluate") == []


def test_what_is_due_can_be_put_off(tmp_path: Path) -> None:
    def later(args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = False

    run = Run(tmp_path, Recorder(on_step_end=later), save_every=2)
    run.run(7)
    assert run.saved == [7]


def test_losses_are_read_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PENDING_SECONDS", 60)
    heard = Recorder(on_step_end=asks(log=[3]))
    Run(tmp_path, heard).run(8)
    at = heard.heard.index(("on_log", 3))
    assert heard.heard[at + 1] == ("on_step_begin", 3)


# ---- what goes wrong -----------------------------------------------------------------------------


class Broken(Callback):
    """Raises at every step."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no\n  paper")


@pytest.mark.usefixtures("at_once")
def test_one_that_raises_is_named_once_and_left_out(tmp_path: Path) -> None:
    before, after = Recorder(), Recorder()
    run = Run(tmp_path, before, Broken(), after)
    run.run(4)
    assert run.report.notes == [
        f"callback {__name__}:Broken failed in on_step_end (RuntimeError: no paper); "
        "it is left out from here on"
    ]
    assert before.heard == after.heard
    assert before.steps("on_log") == [1, 2, 3, 4]
    assert run.saved == [4]


def test_the_end_is_told_when_it_is_an_error(tmp_path: Path) -> None:
    heard = Recorder()
    run = Run(tmp_path, heard)
    run.spoil = {3: float("nan")}
    with pytest.raises(NonFiniteError):
        run.run(20)
    assert [hook for hook, _ in heard.heard[-2:]] == END
    assert heard.steps("on_log") == [1, 2]


def test_ctrl_c_in_a_callback_is_the_users(tmp_path: Path) -> None:
    import signal

    heard = Recorder(on_step_end=lambda *_, **__: signal.raise_signal(signal.SIGINT))
    run = Run(tmp_path, heard)
    with pytest.raises(Stopped):
        run.run(20)
    assert run.saved == [1]
    assert heard.heard[-3:] == [("on_save", 1), *((hook, 1) for hook in END)]


# ---- who is told ---------------------------------------------------------------------------------


def test_those_who_listen_hear_every_run_within(tmp_path: Path) -> None:
    own, outer, inner = Recorder(), Recorder(), Recorder()
    with listening(outer):
        with listening(inner):
            Run(tmp_path, own).run(1)
        Run(tmp_path).run(1)
    Run(tmp_path).run(1)
    assert [len(who.steps("on_train_end")) for who in (own, outer, inner)] == [1, 2, 1]
