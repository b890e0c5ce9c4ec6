"""Where the prompt of `tfx run` comes from, and what the command adds to the result."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def prompt(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.removeprefix("prompt: ").rstrip("\n")


def test_a_prompt_given_in_words_or_by_flag(invoke: Any) -> None:
    assert invoke("run", "echo", "ka ra").stdout == "prompt: 'ka ra'\n"
    assert invoke("run", "echo", "--prompt", "ka").stdout == "prompt: 'ka'\n"
    assert invoke("run", "echo", "-p", "").stdout == "prompt: ''\n"
    assert invoke("run", "echo").stdout == "prompt: None\n"


def test_from_a_file_without_its_last_line_feed(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("zwei\nZeilen ä\n".encode())
    assert invoke("run", "echo", "-f", "p.txt").stdout == "prompt: 'zwei\\nZeilen ä'\n"
    (tmp_path / "p.txt").write_bytes(b"\n")
    assert invoke("run", "echo", "--file", "p.txt").stdout == "prompt: ''\n"


def test_from_a_pipe(tfx: Any) -> None:
    assert prompt(tfx("run", "echo", input="ka\n")) == "'ka'"
    assert prompt(tfx("run", "echo", input="ka\r\n")) == "'ka'"
    assert prompt(tfx("run", "echo", "-f", "-", input="ka")) == "'ka'"


def test_from_a_redirected_file(tfx: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("ka\n")
    with (tmp_path / "p.txt").open() as file:
        assert prompt(tfx("run", "echo", stdin=file)) == "'ka'"


def test_from_a_socket_as_node_opens_it(tfx: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"ka\n")
        ours.shutdown(socket.SHUT_WR)
        assert prompt(tfx("run", "echo", stdin=theirs)) == "'ka'"


def test_nothing_in_the_pipe_is_no_prompt(tfx: Any) -> None:
    assert prompt(tfx("run", "echo", input="")) == "None"
    assert prompt(tfx("run", "echo", stdin=subprocess.DEVNULL)) == "None"


def test_stdin_may_be_closed(environment: dict[str, str], tmp_path: Path) -> None:
    line = f"{sys.executable} -m tfx run echo <&-"
    done = subprocess.run(
        ["bash", "-c", line],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert prompt(done) == "None"


def test_a_prompt_in_words_leaves_the_pipe_alone(tfx: Any) -> None:
    reader, writer = os.pipe()  # nobody ever writes to it or closes it
    assert prompt(tfx("run", "echo", "ka", stdin=reader)) == "'ka'"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["ka", "--prompt", "ra"], "PROMPT and --prompt"),
        (["ka", "-f", "p.txt"], "PROMPT and --file"),
        (["-p", "ka", "-f", "p.txt"], "--prompt and --file"),
    ],
)
def test_two_prompts_are_a_usage_error(invoke: Any, args: list[str], names: str) -> None:
    done = invoke("run", "echo", *args)
    assert done.exit_code == 2
    assert done.stderr == f"tfx: {names} each give a prompt; keep one of them\n"


def test_a_prompt_that_cannot_be_read(tfx: Any, tmp_path: Path) -> None:
    done = tfx("run", "echo", "-f", "none.txt")
    assert done.returncode == 1
    assert done.stderr == ("tfx: cannot read the prompt from none.txt: No such file or directory\n")
    (tmp_path / "raw").write_bytes(b"ab\xff")
    with (tmp_path / "raw").open() as file:
        done = tfx("run", "echo", stdin=file)
    assert done.returncode == 1
    assert done.stderr == "tfx: the prompt from stdin is not UTF-8 text: byte 0xff at offset 2\n"


def test_statistics_of_a_model_that_measures_nothing(invoke: Any) -> None:
    done = invoke("run", "echo", "--stats")
    assert (done.exit_code, done.stdout) == (0, "prompt: None\n")
    assert done.stderr.splitlines()[-1].startswith("peak memory ")
