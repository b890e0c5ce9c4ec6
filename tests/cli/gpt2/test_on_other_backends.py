"""`tfx resonate`, `tfx explain` and `--task` say on torch and CuPy what they say on NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt2_tasks import written
from opening import open_or_skip

from tfx.models.gpt2.tasks.kinds import TASKS

Said = Callable[..., Any]
PROMPT = "the thin error in"
APART = {"backend", "device", "timing", "memory", "id", "time"}


@pytest.fixture
def said(invoke: Any) -> Said:
    """What a command says on a backend, but for what sets one run apart from another."""

    def call(backend: str, command: str, *args: object) -> Any:
        done = invoke(command, "gpt2-tiny", "-b", backend, *args, "--json")
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        return {key: told[key] for key in told.keys() - APART}

    return call


@pytest.fixture(params=["torch", "cupy"])
def other(request: pytest.FixtureRequest) -> str:
    open_or_skip(request.param)
    return str(request.param)


def assert_alike(found: Any, expected: Any) -> None:
    """The same but for rounding in numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, two in zip(found, expected, strict=True):
            assert_alike(one, two)
    else:
        near = isinstance(expected, float)
        assert found == (pytest.approx(expected, rel=1e-3, abs=1e-5) if near else expected)


def test_resonate(other: str, said: Said, folder: Path) -> None:
    Path("keys").write_text("snnsusns")
    args = (PROMPT, "--weights", folder, "--feedback-file", "keys", "--theta", 0.9)
    expected, found = (said(name, "resonate", *args) for name in ("numpy", other))
    assert len(expected["token_ids"]) == 3
    assert_alike(found, expected)


def test_explain(other: str, said: Said, folder: Path) -> None:
    args = (PROMPT, "--weights", folder, "--theta", 0.8)
    expected, found = (said(name, "explain", *args) for name in ("numpy", other))
    assert_alike(found, expected)


ASKED: dict[str, tuple[object, ...]] = {
    "text-classification": ("the sea no",),
    "token-classification": ("the sea sees",),
    "question-answering": ("Where?", "--context", "he is in Ulm."),
    "multiple-choice": ("x or?", "--choice", "x", "--choice", "z"),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task(other: str, task: str, said: Said, folder: Path, tmp_path: Path) -> None:
    if other == "cupy" and task != "text-classification":
        pytest.skip("one task is enough of the simulated device")
    data = written(tmp_path, task, 12)
    steps = ("--weights", folder, "--batch-size", 4, "--steps", 2, "--seed", 3)
    for name in ("numpy", other):
        said(name, "train", "--task", task, "--data", data, *steps, "--out", f"on-{name}")
    for command, args in (("run", ASKED[task]), ("eval", ("--data", data))):
        for run in ("on-numpy", f"on-{other}"):
            how = ("--task", task, "--weights", run, *args)
            expected, found = (said(name, command, *how) for name in ("numpy", other))
            assert_alike(found, expected)
