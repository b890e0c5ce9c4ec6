"""`--log csv`: the metrics of a run as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from tfx.core.callbacks import Callback, Control, RunArguments, RunState
from tfx.core.files import replace_file
from tfx.core.runs import METRICS, read_metrics

TABLE = "metrics.csv"
"""The file, in the folder of a run, with a row for each step."""


class CsvLog(Callback):
    """Keeps `metrics.csv`: the numbers of `metrics.jsonl`, with an empty cell where there is none.

    A run that goes on begins with the steps that are behind it, whether they were logged so or
    not; what a killed run wrote beyond its last checkpoint goes.
    """

    def on_train_begin(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        self._path: Path = args.output_dir / TABLE
        self._file: TextIO | None = None
        self._write_anew(read_metrics(args.output_dir / METRICS))

    def on_log(self, args: RunArguments, state: RunState, control: Control, **kwargs: Any) -> None:
        row = {"step": state.global_step, **kwargs["logs"]}
        if row.keys() <= set(self._columns):
            self._writer.writerow(row)
        else:  # the first of its kind: the table gets a column
            with self._path.open(encoding="utf-8", newline="") as table:
                before = list(csv.DictReader(table))
            self._write_anew([*before, row])

    def on_train_end(
        self, args: RunArguments, state: RunState, control: Control, **kwargs: Any
    ) -> None:
        self._close()

    def _write_anew(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._close()
        rows = list(rows)
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        table = io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(table, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        replace_file(self._path, [table.getvalue().encode()])
        self._file = self._path.open("a", encoding="utf-8", newline="", buffering=1)
        self._writer = csv.DictWriter(self._file, self._columns)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
