"""`tfx train`, `run` and `eval` where a model or a backend cannot do all that was asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tfx.core.backend import Backend
from tfx.core.creation import arange, full


def test_an_orderly_stop_says_how_to_go_on(invoke: Any) -> None:
    kept = Path("runs/my run/checkpoint-20")
    kept.mkdir(parents=True)
    (kept / "manifest.json").touch()
    said = invoke("train", "echo", "--set", "end=stopped").stderr.splitlines()
    assert said[-2] == "step 20 is saved; to go on: tfx train echo --resume 'runs/my run'"


def test_without_a_checkpoint_there_is_nothing_to_resume(invoke: Any) -> None:
    said = invoke("train", "echo", "--set", "end=stopped").stderr
    assert said.splitlines()[-2] == "step 20 is saved in runs/my run"
    assert "--resume" not in said


def test_a_model_without_evaluation_says_so(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import tfx_fake

    others = {name: part for name, part in vars(tfx_fake.Echo).items() if name != "evaluate"}
    monkeypatch.setattr(tfx_fake, "Echo", type("Echo", (), others))
    assert invoke("run", "echo", "Hi").exit_code == 0
    done = invoke("eval", "echo")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "tfx: echo offers no evaluation; it has `tfx train echo` and `tfx run echo`"
    )


def test_a_primitive_that_is_not_there_yet_is_one_line(
    invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tfx_fake

    def train(self: Any, settings: Any, backend: Backend, report: Any) -> Any:
        table = full((3,), 0.0, backend)
        return table.scatter_add(arange(3, backend), table)

    monkeypatch.setattr(tfx_fake.Echo, "train", train)
    done = invoke("train", "echo", "--backend", "chip")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "tfx: backend 'chip' does not implement 'scatter_add' yet; "
        "`tfx conformance chip` lists what is left"
    )
