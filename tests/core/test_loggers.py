"""What the loggers of tfx write, read back; and those that strangers offer."""

from __future__ import annotations

import csv
import json
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tfx.core.callbacks import Control, RunArguments, RunState
from tfx.core.errors import PluginError, TfxError, UsageError
from tfx.core.loggers.csv_log import CsvLog
from tfx.core.plugins import PluginHost
from tfx.core.resolve import open_logger

if TYPE_CHECKING:
    from conftest import Shelf


def line(step: int, **more: float) -> dict[str, Any]:
    return {"step": step, "loss": 4 / step, "lr": 0.5, **more}


def behind(folder: Path, *lines: dict[str, Any]) -> None:
    """The folder of a run that took these steps."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def log(logger: Any, folder: Path, *lines: dict[str, Any], first: int = 0) -> None:
    """A run that begins after `first` steps."""
    args, control = RunArguments(folder, 9), Control()
    logger.on_train_begin(args, RunState(first, 9), control)
    for found in lines:
        logs = {name: value for name, value in found.items() if name != "step"}
        logger.on_log(args, RunState(found["step"], 9), control, logs=logs)
    logger.on_train_end(args, RunState(9, 9), control)


def table(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]


# ---- csv -----------------------------------------------------------------------------------------


def test_a_row_a_step(tmp_path: Path) -> None:
    lines = [line(1), line(2), line(3, val_loss=2.5), line(4), line(5, val_loss=2.25, f1=0.5)]
    log(CsvLog(), tmp_path, *lines)
    assert table(tmp_path) == lines
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step,loss,lr,val_loss,f1"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_run_that_goes_on_has_all_its_rows_and_no_others(tmp_path: Path) -> None:
    log(CsvLog(), tmp_path, *[line(step) for step in range(1, 6)])
    behind(tmp_path, line(1), line(2, val_loss=3.0))  # it was killed: its checkpoint is of step 2
    log(CsvLog(), tmp_path, line(3), first=2)
    assert table(tmp_path) == [line(1), line(2, val_loss=3.0), line(3)]


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    logger, args = CsvLog(), RunArguments(tmp_path, 9)
    logger.on_train_begin(args, RunState(0, 9), Control())
    logger.on_log(args, RunState(1, 9), Control(), logs={"loss": 4.0, "lr": 0.5})
    assert table(tmp_path) == [line(1)]


# ---- tensorboard ---------------------------------------------------------------------------------


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in shown.Scalars(name)]


def test_scalars_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tfx.core.loggers.tensorboard_log import TensorBoardLog

    log(TensorBoardLog(), tmp_path, line(1), line(2, val_loss=2.5), line(4))
    assert scalars(tmp_path, "loss") == [(1, 4.0), (2, 2.0), (4, 1.0)]
    assert scalars(tmp_path, "val_loss") == [(2, 2.5)]
    behind(tmp_path, line(1), line(2))
    log(TensorBoardLog(), tmp_path, line(3, val_loss=2.25), first=2)
    assert [step for step, _ in scalars(tmp_path, "loss")] == [1, 2, 3]
    assert scalars(tmp_path, "val_loss") == [(2, 2.5), (3, 2.25)]


def test_tensorboard_gets_the_steps_that_are_behind(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tfx.core.loggers.tensorboard_log import TensorBoardLog

    behind(tmp_path, line(1), line(2))
    log(TensorBoardLog(), tmp_path, line(4), first=2)
    assert scalars(tmp_path, "loss") == [(1, 4.0), (2, 2.0), (4, 1.0)]


def test_without_its_library_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TfxError, match=r"^--log tensorboard needs .*pip install 'tfx-lm\[tensorb"):
        open_logger(PluginHost(environ={}), "tensorboard")


# ---- plugins -------------------------------------------------------------------------------------

ACME = """
from tfx.core.specs import LoggerSpec

@hookimpl
def tfx_loggers():
    return [LoggerSpec(name="acme", target="tfx_acme:{target}", summary="on paper")]

class AcmeLog:
    def on_log(self, args, state, control, *, logs, **kwargs): pass

def broken(): raise OSError("no paper")
def number(): return 3
"""


def test_ours_come_in_by_the_same_hook() -> None:
    host = PluginHost(environ={})
    assert {"csv", "tensorboard"} <= set(host.loggers())
    assert isinstance(open_logger(host, "csv"), CsvLog)
    off = PluginHost(distributions(), {"TFX_DISABLE_PLUGINS": "tfx-lm"})
    assert "csv" not in off.loggers()


def test_a_stranger_offers_one(shelf: Shelf) -> None:
    shelf.add("tfx-acme", ACME.format(target="AcmeLog"))
    host = shelf.host()
    assert type(open_logger(host, "acme")).__name__ == "AcmeLog"
    assert [plugin.offers for plugin in host.plugins()] == [("acme",)]
    with pytest.raises(UsageError) as caught:
        open_logger(host, "acne")
    assert str(caught.value) == ("no logger named 'acne'. Did you mean 'acme'? Loggers here: acme.")


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("broken", "logger 'acme' of tfx-acme 1.0 cannot be opened (OSError: no paper)"),
        ("number", "logger 'acme' of tfx-acme 1.0: tfx_acme:number gave an int without on_log"),
    ],
)
def test_one_that_does_not_work_is_refused(shelf: Shelf, target: str, fault: str) -> None:
    shelf.add("tfx-acme", ACME.format(target=target))
    with pytest.raises(PluginError) as caught:
        open_logger(shelf.host(), "acme")
    assert str(caught.value) == f"{fault}. Upgrade it, or: pip uninstall tfx-acme"
