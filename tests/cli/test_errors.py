"""How a command ends: one line, and an exit code that says what kind of thing went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from interrupts import heed_ctrl_c

RESULT = "num docs: 3\nstep   20 /   20 | loss 0.1500\nsample  1: ann\n"


@pytest.mark.parametrize(
    ("ending", "code", "line"),
    [
        ("data", 1, "tfx: no data file x.txt; expected a text file"),
        ("nonfinite", 3, "tfx: the loss became nan at step 3"),
        ("interrupt", 130, "tfx: interrupted"),
        ("stopped", 130, "tfx: interrupted"),
        (
            "memory",
            1,
            "tfx: out of memory on chip:0: Unable to allocate 8 TiB (it takes less with a smaller "
            "--batch-size, --checkpoint-activations and a smaller --set block_size, where the "
            "model has that)",
        ),
        ("disk", 1, "tfx: model.safetensors: No space left on device"),
        ("network", 1, "tfx: ConnectionError: the other side hung up"),
    ],
)
def test_an_expected_failure_is_one_line(invoke: Any, ending: str, code: int, line: str) -> None:
    done = invoke("train", "echo", "--set", f"end={ending}")
    assert done.exit_code == code
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr


def test_tfx_traceback_shows_the_traceback_too(tfx: Any) -> None:
    done = tfx("train", "echo", "--set", "end=data", env={"TFX_TRACEBACK": "1"})
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == "tfx: no data file x.txt; expected a text file"


def test_a_bug_keeps_its_traceback(tfx: Any) -> None:
    done = tfx("train", "echo", "--set", "end=bug")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "ZeroDivisionError: division by zero\nThis is a bug in tfx" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["train", "ehco"], 2, "no model named 'ehco'. Did you mean 'echo'?"),
        (["train", "echo", "-b", "chpi"], 2, "no backend named 'chpi'. Did you mean 'chip'?"),
        (["train", "echo", "-b", "absent"], 1, "pip install absent"),
        (["train", "echo", "-b", "dead"], 1, "(deadware 1) but cannot run here: no device found"),
        (["train", "echo", "-b", "chip:7"], 1, "no device '7'"),
        (["train", "echo", "-b", "chip:0", "--device", "1"], 2, "two devices"),
        (["train", "echo", "--warmup-steps", "3"], 2, "echo has no use for --warmup-steps"),
        (["train", "echo", "--set", "n_leyer=3"], 2, "echo has no use for --set"),
    ],
)
def test_what_was_asked_for_is_not_there(
    invoke: Any, args: list[str], code: int, message: str
) -> None:
    done = invoke(*args)
    assert done.exit_code == code
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("backend: ")]
    assert line.startswith("tfx: ")
    assert message in line


@pytest.mark.parametrize(
    "args", [["backends"], ["--help"], ["--version"], ["train", "echo"], ["doctor", "--json"]]
)
def test_a_closed_pipe_ends_it_quietly(tfx: Any, args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = tfx(*args, stdout=writer)
    os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "tfx:" not in done.stderr


def test_head_closes_the_pipe_on_a_real_shell_line(environment: dict[str, str]) -> None:
    line = f"{sys.executable} -m tfx backends | head -n 0; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_both_streams_closed(tfx: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = tfx("train", "echo", stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("args", [["backends"], ["train", "echo", "--json"], ["--help"]])
def test_no_room_for_the_output_is_one_line(tfx: Any, args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = tfx(*args, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(("missing", "expected"), [(">&-", ""), ("2>&-", RESULT), (">&- 2>&-", "")])
def test_a_stream_may_be_missing(
    environment: dict[str, str], tmp_path: Path, missing: str, expected: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tfx train echo {missing}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert done.stdout == expected
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_training(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tfx", "train", "echo", "--set", "pause=0.05"]
    process = subprocess.Popen(
        [*command, "--steps", "1000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "num docs: 3\n"  # it is under way
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "tfx: interrupted"
    assert "Traceback" not in said


def test_so_does_one_before_there_is_a_command(environment: dict[str, str]) -> None:
    code = (
        "import runpy, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "runpy.run_module('tfx', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tfx: interrupted\n")
