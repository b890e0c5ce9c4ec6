"""`--plot` while a run goes on: the picture is drawn again now and then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tfx.cli.plot import IN_RUN_FOLDER, draw_points
from tfx.core.callbacks import Callback, Control, RunArguments, RunState
from tfx.core.runs import METRICS, read_metrics

SECONDS_BETWEEN = 3.0
SHARE = 0.05
"""Of the time of a run, drawing takes no more."""


class LivePicture(Callback):
    """Draws the loss curve into `picture`, or where that is empty into the folder of the run.

    The last picture of a run that comes to its end is not drawn here: it is part of the result.
    """

    def __init__(self, picture: str, title: str) -> None:
        self._picture, self._title = picture, title
        self._points: list[dict[str, Any]] = []
        self._due = 0.0

    def on_train_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        self._path = Path(self._picture) if self._picture else args.output_dir / IN_RUN_FOLDER
        self._points = read_metrics(args.output_dir / METRICS)
        self._due = time.monotonic() + SECONDS_BETWEEN

    def on_log(self, args: RunArguments, state: RunState, control: Control, **kwargs: Any) -> None:
        self._points.append({"step": state.global_step, **kwargs["logs"]})
        if time.monotonic() >= self._due:
            self._draw()

    def on_train_end(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        if self._points and state.global_step < state.max_steps:
            self._draw()

    def _draw(self) -> None:
        began = time.monotonic()
        draw_points(self._points, self._path, self._title)
        ended = time.monotonic()
        self._due = ended + max(SECONDS_BETWEEN, (ended - began) / SHARE)


class Attendance(Callback):
    """Knows whether a run told its callbacks anything."""

    began = False

    def on_train_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        self.began = True
