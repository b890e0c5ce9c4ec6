"""`tfx train --log`, the picture drawn on the way, and the course of the loss on the bar."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tfx.cli import live_picture
from tfx.cli.live_picture import LivePicture
from tfx.cli.sparkline import LONGEST, Course
from tfx.core.callbacks import Control, RunArguments, RunState

TINY = ("--set", "n_embd=8", "--set", "n_head=2", "--num-samples", "0", "--backend", "numpy")


@pytest.fixture
def ours(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`invoke` with the plugins of tfx."""
    monkeypatch.delenv("TFX_DISABLE_PLUGINS")
    return invoke


def table(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_table_that_goes_on_with_the_run(ours: Any) -> None:
    run = ("train", "microgpt", *TINY, "--log", "csv", "--log", "csv")
    assert ours(*run, "--steps", "3", "--out", "a").exit_code == 0
    assert table(Path("a")) == lines(Path("a"))
    again = ("train", "microgpt", "--backend", "numpy", "--log", "csv", "--steps", "5")
    for more in (("--resume", "a", "--out", "b"), ("--resume", "a")):
        done = ours(*again, *more)
        assert done.exit_code == 0, done.stderr
        folder = Path(more[-1])
        assert table(folder) == lines(folder)
        assert len(lines(folder)) == 5


def test_an_unknown_logger_is_found_before_the_training(ours: Any, tmp_path: Path) -> None:
    done = ours("train", "microgpt", "--log", "cvs", "--out", "a")
    assert done.exit_code == 2
    assert "no logger named 'cvs'. Did you mean 'csv'? Loggers here: csv, tens" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_loop_of_its_own_is_no_secret(ours: Any) -> None:
    done = ours("train", "echo", "--log", "csv", "--json", "--backend", "chip", "--out", "a")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["out"] == "a"
    assert done.stderr.splitlines()[-1] == (
        "tfx: --log csv: echo does not train by the loop of tfx, and has told no logger anything"
    )


def test_the_picture_is_drawn_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(live_picture, "SECONDS_BETWEEN", 0)
    args, control = RunArguments(tmp_path, 9), Control()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n')
    picture, drawn = LivePicture("", "a title"), tmp_path / "loss.png"
    picture.on_train_begin(args, RunState(1, 9), control)
    assert not drawn.exists()
    picture.on_log(args, RunState(2, 9), control, logs={"loss": 2.0, "val_loss": 2.5})
    first = drawn.read_bytes()
    assert first.startswith(b"\x89PNG")
    picture.on_log(args, RunState(3, 9), control, logs={"loss": 1.0})
    assert drawn.read_bytes() == first  # a run does not spend its time on drawing
    picture.on_train_end(args, RunState(3, 9), control)  # by Ctrl-C
    assert drawn.read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


@pytest.mark.parametrize("count", [0, 1, LONGEST, LONGEST + 1, 1000])
def test_the_course_of_a_loss(count: int) -> None:
    course = Course()
    for step in range(count):
        course.add(5.0 - step / max(count, 1))
    shown = str(course)
    assert min(count, LONGEST // 2) <= len(shown) <= LONGEST
    assert sorted(shown, reverse=True) == list(shown)
    if count > 1:
        assert (shown[0], shown[-1]) == ("█", "▁")


def test_a_course_of_losses_too_large_to_compare() -> None:
    course = Course()
    for loss in (1.7e308, -1.7e308):
        course.add(loss)
    assert str(course) == "▁▁"
