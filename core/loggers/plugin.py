"""The loggers of tfx itself, for `tfx train --log`."""

from __future__ import annotations

from tfx.core.hookspecs import hookimpl
from tfx.core.specs import LoggerSpec


@hookimpl
def tfx_loggers() -> list[LoggerSpec]:
    return [
        LoggerSpec(
            name="csv",
            target="tfx.core.loggers.csv_log:CsvLog",
            summary="a row a step in metrics.csv, in the folder of the run",
        ),
        LoggerSpec(
            name="tensorboard",
            target="tfx.core.loggers.tensorboard_log:TensorBoardLog",
            summary="scalars for TensorBoard, below the folder of the run",
        ),
    ]
