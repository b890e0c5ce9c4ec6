"""Streams: results on stdout, everything else on stderr; a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tfx.cli.output import emit_json, emit_table
from tfx.cli.progress import Bar, Lines
from tfx.cli.report import TextReporter, reporter

RESULT = ["num docs: 3", "step   20 /   20 | loss 0.1500", "sample  1: ann"]


def test_in_a_pipe_stdout_has_the_result_and_the_last_step_only(tfx: Any) -> None:
    done = tfx("train", "echo")
    assert done.returncode == 0
    assert done.stdout.splitlines() == RESULT


def test_in_a_pipe_progress_is_plain_lines(tfx: Any) -> None:
    said = tfx("train", "echo").stderr
    assert "\r" not in said and said.isascii()
    note, remark, *lines, memory = said.splitlines()
    assert note.startswith("backend: chip:0")
    assert remark == "a note"
    assert memory.startswith("peak memory ")
    assert lines[0] == "step    1 /   20 | loss 3.0000"
    assert [int(line.split()[1]) for line in lines] == [1, 20]  # all within a second
    assert "steps/s" in lines[-1] and lines[-1].endswith("0:00:00 left")


def test_with_json_stdout_is_one_object(tfx: Any) -> None:
    done = tfx("train", "echo", "--json", "--steps", "3")
    assert json.loads(done.stdout)["given"] == {"steps": 3}
    assert "a note" in done.stderr
    assert "step    3 /    3" in done.stderr


def test_no_steps_no_step_line(tfx: Any) -> None:
    assert tfx("train", "echo", "--steps", "0").stdout.splitlines() == [RESULT[0], RESULT[2]]


def on_terminal(
    *args: str, env: dict[str, str], cwd: Path, stdout: bool = True, stderr: bool = True
) -> tuple[int, str, str]:
    """Exit code, what a terminal showed, and what went into pipes where it was not the terminal."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tfx", *args],
        env=env,
        cwd=cwd,
        stdin=inside,
        stdout=inside if stdout else subprocess.PIPE,
        stderr=inside if stderr else subprocess.PIPE,
    )
    os.close(inside)
    shown: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                chunk = os.read(terminal, 4096)
            except OSError:  # how Linux says that the other side is gone
                return
            if not chunk:
                return
            shown.append(chunk)

    watcher = threading.Thread(target=watch)
    watcher.start()
    piped = b"".join(part for part in process.communicate(timeout=60) if part)
    watcher.join()
    os.close(terminal)
    return process.returncode, b"".join(shown).decode(), piped.decode()


def test_on_a_terminal_a_bar_takes_the_place_of_the_step_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    args = ["train", "echo", "--set", "pause=0.02"]
    code, shown, _ = on_terminal(*args, env=environment, cwd=tmp_path)
    assert code == 0
    assert RESULT[0] in shown
    assert RESULT[1] not in shown
    *_, last, result, memory = shown.splitlines()
    assert (result, memory[:12]) == (RESULT[2], "peak memory ")
    bar = last.split("\r")[-1]
    assert "20/20" in bar
    assert "loss 0.1500" in bar
    assert "steps/s" in bar
    assert "0:00:00 left, █" in bar  # and from there on the loss falls
    assert bar.rstrip()[-1] == "▁"


def test_a_bar_on_stderr_leaves_a_piped_stdout_alone(
    environment: dict[str, str], tmp_path: Path
) -> None:
    _, shown, piped = on_terminal("train", "echo", env=environment, cwd=tmp_path, stdout=False)
    assert piped.splitlines() == RESULT
    assert "20/20" in shown


def test_without_a_bar_the_terminal_gets_the_step_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    _, shown, _ = on_terminal("train", "echo", env=environment, cwd=tmp_path, stderr=False)
    assert shown.splitlines() == RESULT


def test_an_error_does_not_hang_on_to_the_bar(environment: dict[str, str], tmp_path: Path) -> None:
    args = ["train", "echo", "--set", "end_early=nonfinite"]
    code, shown, _ = on_terminal(*args, env=environment, cwd=tmp_path)
    assert code == 3
    assert shown.splitlines()[-1] == "tfx: the loss became nan at step 3"


def test_the_bar_of_a_resumed_run_begins_where_the_run_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, inside = pty.openpty()
    with open(inside, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        bar = Bar(901, 1000)
        bar.update(1000, 2.0, 50.0)
        bar.close()
        shown = ""
        while "\n" not in shown:  # with which the bar ends
            shown += os.read(terminal, 4096).decode()
    os.close(terminal)
    assert "| 900/1000" in shown
    assert "| 1000/1000" in shown
    assert "2.0 steps/s" in shown


def said(capsys: pytest.CaptureFixture[str], total: int, seconds_a_step: float) -> list[str]:
    """The lines of a run of `total` steps."""
    lines = Lines(1, total)
    for step in range(1, total + 1):
        lines.update(step, 2.0, step * seconds_a_step)
    return capsys.readouterr().err.splitlines()


def steps(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines]


def test_lines_are_few_when_steps_are_many(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, 10_000, 0.01)
    assert steps(found) == [1, *range(1000, 10_001, 1000)]
    assert found[1] == "step 1000 / 10000 | loss 2.0000 | 100.0 steps/s | 0:01:30 left"


def test_a_run_of_two_seconds_gets_a_line_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    assert steps(said(capsys, 30, 1 / 16)) == [1, 17, 30]


def test_slow_steps_get_a_line_each_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(1, 10_000)
    for step in range(1, 11):
        lines.update(step, 2.0, step * 10.0)
    found = capsys.readouterr().err.splitlines()
    assert steps(found) == [1, 4, 7, 10]
    assert found[1] == "step    4 / 10000 | loss 2.0000 | 10.0 s/step | 1 day, 3:46:00 left"


def test_losses_that_are_read_together_do_not_distort_the_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines(1, 16)
    for step in range(1, 17):  # all read after the last of them
        lines.update(step, 2.0, step * 0.5)
    assert capsys.readouterr().err.splitlines()[-1].split(" | ")[2] == "2.0 steps/s"


def test_a_resumed_run_is_timed_from_where_it_went_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines(901, 1000)
    lines.update(901, 2.0, 0.01)
    lines.update(1000, 2.0, 1.0)
    assert "100.0 steps/s" in capsys.readouterr().err


def test_a_large_loss_stays_short(capsys: pytest.CaptureFixture[str]) -> None:
    Lines(1, 9).update(1, 1.5e93, 0.1)
    assert capsys.readouterr().err == "step    1 /    9 | loss 1.5000e+93\n"
    report = TextReporter()
    report.progress(9, 9, -2e7, 0.1)
    report.progress_done()
    assert capsys.readouterr().out == "step    9 /    9 | loss -2.0000e+07\n"


def test_pieces_make_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with TextReporter() as report:
        report.piece("a")
        assert capsys.readouterr().out == "a"
        report.piece("b\n")
        report.result("c")
    assert capsys.readouterr().out == "b\nc\n"


def test_a_line_that_was_begun_is_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TextReporter() as report:
        report.piece("once upon")
    assert capsys.readouterr().out == "once upon\n"


def test_late_is_the_same_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=False, live=False) as report:
        report.piece("a")
        report.piece("b\n")
        report.result("c")
        report.note("d")
        assert capsys.readouterr() == ("", "d\n")
        report.finish({})
    assert capsys.readouterr().out == "ab\nc\n"


def test_with_json_pieces_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter(as_json=True) as report:
        report.piece("a")
        report.finish({"b": 1})
    assert json.loads(capsys.readouterr().out) == {"b": 1}


def test_progress_that_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    with TextReporter() as report:
        report.progress(9, 9, 2.0, 0.1)
        report.progress_done(is_result=False)
    assert capsys.readouterr().out == ""


def test_a_table_is_aligned_and_has_no_trailing_blanks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit_table(("NAME", "WHAT"), [("a", None), ("longer", "x y")])
    assert capsys.readouterr().out == "NAME    WHAT\na       -\nlonger  x y\n"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"path": Path("a/b"), "name": "Zoë"})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "name": "Zoë"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit_json({"loss": float("nan")})
