"""Callbacks: code of the user's that a training run tells what happens, and that may steer it.

    class StopAt(Callback):
        '''End the run once the loss is low enough.'''

        def on_log(self, args, state, control, *, logs, **kwargs):
            control.should_training_stop = logs["loss"] < 2.5

    with listening(StopAt()):
        recipe.train(settings, backend, report)

The hooks have the names and the arguments that they have in transformers' `Trainer`, and come in
its order, but for one thing. Losses are read on the host in passing, several at a time, for a
device that had to hand over each before the next step would stand idle. So `on_log` comes up to
`tfx.core.training.PENDING_STEPS` steps, or a good `PENDING_SECONDS`, after the `on_step_end` of
its step, and what it asks for is done then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tfx.core.wording import one_line


@dataclass(frozen=True)
class RunArguments:
    """What a run was asked for.

    Attributes:
        output_dir: its folder; `metrics.jsonl` there has the steps that are behind it.
        max_steps: after how many steps it ends.
        save_steps: steps between checkpoints; 0: only at the end.
        eval_steps: steps between evaluations; 0: there are none.
        metric_for_best_model, greater_is_better, load_best_model_at_end, num_train_epochs: what
            those of transformers' callbacks ask for who judge a run; they are the same for all.
    """

    output_dir: Path
    max_steps: int
    save_steps: int = 0
    eval_steps: int = 0
    metric_for_best_model: ClassVar[str] = "eval_loss"
    greater_is_better: ClassVar[bool] = False
    load_best_model_at_end: ClassVar[bool] = False
    num_train_epochs: ClassVar[int] = 1

    @property
    def eval_strategy(self) -> str:
        return "steps" if self.eval_steps else "no"


@dataclass
class RunState:
    """How far a run is.

    Attributes:
        global_step: steps taken; in `on_log`, up to the one that the numbers are of.
        max_steps: after how many it ends.
        best_metric: the lowest `"val_loss"` so far; in `on_evaluate`, of the evaluations before.
            None if there was none.
        best_global_step: how many steps that one came after.
        log_history: what `on_log` was given, each with its `"step"`, since the run began or was
            resumed.
        is_world_process_zero, is_local_process_zero: True, as there is one process.
    """

    global_step: int
    max_steps: int
    best_metric: float | None = None
    best_global_step: int | None = None
    log_history: list[dict[str, float]] = field(default_factory=list)
    is_world_process_zero: ClassVar[bool] = True
    is_local_process_zero: ClassVar[bool] = True

    @property
    def epoch(self) -> float:
        """The share of the run that is behind it: a run is one epoch, as it is in transformers
        where data have no length."""
        return self.global_step / self.max_steps


@dataclass
class Control:
    """What a callback may ask of a run; to be changed in place.

    When a step has ended, the run first sets what is due by its own schedule, so that a callback
    may also put off an evaluation or a checkpoint. Each is False again when it is done.

    Attributes:
        should_training_stop: end the run in good order, with a checkpoint. It stays True.
        should_epoch_stop: the same, as a run is one epoch.
        should_evaluate: evaluate the state; nothing comes of it where a run has no evaluation.
            Asked for in `on_log` or later, it is done after the next step.
        should_save: write a checkpoint.
        should_log: read all losses now.
    """

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_evaluate: bool = False
    should_save: bool = False
    should_log: bool = False


class Callback:
    """What a run tells, in this order; each hook does nothing unless it is overridden.

    A callback need not be of this class: whatever has some of these hooks is one.

    There are no hooks within a step, which is one captured program; and none for predictions, which
    are no part of a run.

    `params` are the parameters by name, as they are in that moment: the next step writes over
    them, so copy what is to stay. What a hook returns is ignored.
    """

    def on_train_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """Before the first step, or the first of those that a resumed run has left."""

    def on_epoch_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """The same moment: a run is one epoch."""

    def on_step_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """Before each step."""

    def on_step_end(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """After each step, with `params`. Its loss was not read yet, nor perhaps computed."""

    def on_log(self, args: RunArguments, state: RunState, control: Control, **kwargs: Any) -> None:
        """The numbers of a step have been read: `logs`, what its line in `metrics.jsonl` has but
        for `"step"`, which is `state.global_step`: `"loss"`, `"grad_norm"`, `"lr"`, `"seconds"`,
        and what was measured where there was an evaluation after it."""

    def on_evaluate(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """The state was evaluated: `metrics`, with `"val_loss"`, and `params`. Each metric is there
        under transformers' name too, `"eval_loss"`."""

    def on_save(self, args: RunArguments, state: RunState, control: Control, **kwargs: Any) -> None:
        """A checkpoint was written, with `params`. There is always one after the last step."""

    def on_epoch_end(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """Just before `on_train_end`."""

    def on_train_end(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        """The run is over, be it by an error or by Ctrl-C."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""The names of the hooks, in their order."""

_listeners: ContextVar[tuple[object, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(*callbacks: object) -> Iterator[None]:
    """Every training run within is told to `callbacks`, whichever model it is of.

    >>> with listening(Callback()), listening(Callback()):
    ...     len(listeners())
    2
    """
    token = _listeners.set((*_listeners.get(), *callbacks))
    try:
        yield
    finally:
        _listeners.reset(token)


def listeners() -> tuple[object, ...]:
    """The callbacks that a run which begins here is told to."""
    return _listeners.get()


@dataclass
class Audience:
    """Tells callbacks what happens. One that raises is named once, and told no more.

    Attributes:
        callbacks: whom to tell, in this order.
        args, state, control: what each of them is handed.
        note: called with the line about one that raised.
    """

    callbacks: Sequence[object]
    args: RunArguments
    state: RunState
    note: Callable[[str], None]
    control: Control = field(default_factory=Control, init=False)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """A run from its beginning to its end."""
        self.tell("on_train_begin")
        self.tell("on_epoch_begin")
        try:
            yield
        finally:
            self.tell("on_epoch_end")
            self.tell("on_train_end")

    def tell(self, hook: str, **kwargs: Any) -> None:
        """Call a hook of every callback that has it."""
        for callback in self.callbacks:
            self._call(callback, hook, self.state, kwargs)

    def judge(self, measured: Mapping[str, float], params: object) -> None:
        """Call `on_evaluate` with what was measured."""
        theirs = {f"eval_{name.removeprefix('val_')}": x for name, x in measured.items()}
        self.tell("on_evaluate", metrics={**measured, **theirs}, params=params)

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        """Call `on_log` with the numbers of a step that may be some steps back."""
        if not self.callbacks:  # as in most runs, of which every step comes here
            return
        self.state.log_history.append({**logs, "step": step})
        state = replace(self.state, global_step=step)
        for callback in self.callbacks:
            self._call(callback, "on_log", state, {"logs": dict(logs)})

    def _call(
        self, callback: object, hook: str, state: RunState, kwargs: Mapping[str, Any]
    ) -> None:
        called = getattr(callback, hook, None)
        if called is None:
            return
        try:
            called(self.args, state, self.control, **kwargs)
        except Exception as error:
            self.callbacks = [other for other in self.callbacks if other is not callback]
            self.note(
                f"{_title(callback)} failed in {hook} ({one_line(error)}); "
                "it is left out from here on"
            )


def _title(callback: object) -> str:
    kind = type(callback)
    return f"callback {kind.__module__}:{kind.__qualname__}"
