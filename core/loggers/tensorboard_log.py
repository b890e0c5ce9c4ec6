"""`--log tensorboard`: the metrics of a run as TensorBoard's library writes them."""

from __future__ import annotations

import time
from typing import Any

from tfx.core.callbacks import Callback, Control, RunArguments, RunState
from tfx.core.errors import TfxError
from tfx.core.runs import METRICS, read_metrics

FOLDER = "tensorboard"
"""The folder, in that of a run, to give to `tensorboard --logdir`."""


class TensorBoardLog(Callback):
    """Writes a scalar for each number of a step, under the name it has in `metrics.jsonl`.

    A run that goes on in its folder drops from the display what was written beyond its last
    checkpoint; in a folder without such files, it writes the steps behind it first.

    Raises:
        TfxError: the library is not installed.
    """

    def __init__(self) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise TfxError(
                f"--log tensorboard needs its library ({error}): pip install 'tfx-lm[tensorboard]'"
            ) from None
        self._event, self._session, self._summary = Event, SessionLog, Summary
        self._open = EventFileWriter
        self._writer: Any = None

    def on_train_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        folder = args.output_dir / FOLDER
        goes_on = any(folder.glob("events.out.tfevents.*"))
        self._writer = self._open(str(folder))
        if goes_on:
            start = self._session(status=self._session.START)
            self._add(state.global_step + 1, session_log=start)
            return
        for line in read_metrics(args.output_dir / METRICS):
            self._log(line.pop("step"), line)

    def on_log(self, args: RunArguments, state: RunState, control: Control, **kwargs: Any) -> None:
        self._log(state.global_step, kwargs["logs"])

    def on_train_end(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def _log(self, step: int, numbers: dict[str, float]) -> None:
        scalar = self._summary.Value
        values = [scalar(tag=name, simple_value=value) for name, value in numbers.items()]
        self._add(step, summary=self._summary(value=values))

    def _add(self, step: int, **what: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=step, **what))
