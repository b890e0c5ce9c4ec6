"""Who follows docs/tasks.md sees what it shows."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

from tfx.models.gpt2.tasks.kinds import TASKS

TEXT = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    (found,) = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return str(found)


def test_every_task_is_told_of() -> None:
    for name in TASKS:
        assert f"| `{name}` |" in TEXT
        assert f"- **{name}**: " in TEXT


@pytest.mark.parametrize("script", ["classify", "tag"])
def test_the_runs_that_are_shown_are_those_of_the_scripts(script: str) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "gpt2" / f"{script}.py"))
    assert f" {' '.join(made['TRAINING'])}\n" in TEXT
    assert f"{script}.py " in TEXT and "--write" in TEXT


@pytest.mark.slow
def test_the_example_can_be_followed(tmp_path: Path) -> None:
    (tmp_path / "reviews.jsonl").write_text(block("file: reviews.jsonl"), encoding="utf-8")
    shown = []
    for line in block("commands: tasks").splitlines():
        words = [sys.executable, "-m", *shlex.split(line)]
        if words[3] != "convert":
            words += ["-b", "numpy"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (line, done.stderr)
        shown.append(done.stdout)
    found, expected = (text.split() for text in (shown[1], block("output: tasks")))
    assert found[::2] == expected[::2]
    chances = [[float(x) for x in words[1::2]] for words in (found, expected)]
    assert chances[0] == pytest.approx(chances[1], abs=0.001)
    assert "accuracy 1.0000" in shown[3]
