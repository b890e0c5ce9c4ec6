"""`tfx train | run | eval gpt2-tiny --task` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_tasks import records, written
from microgpt_cli import assert_refused

import tfx
from tfx.models.gpt2.tasks.kinds import TASKS

Invoke = Callable[..., Any]
ASKED: dict[str, tuple[str, ...]] = {
    "text-classification": ("the sea no",),
    "token-classification": ("the sea sees",),
    "question-answering": ("Where?", "--context", "he is in Ulm."),
    "multiple-choice": ("x or?", "--choice", "x", "--choice", "z"),
}


@pytest.fixture
def trained(invoke: Invoke, folder: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """Train for a task; the flags of who uses what comes of it."""

    def call(task: str) -> list[str]:
        data = written(tmp_path, task)
        how = ["-b", "numpy", "--task", task]
        done = invoke(
            *("train", "gpt2-tiny", *how, "--data", data, "--weights", folder, "--out", "run"),
            *("--batch-size", 8, "--steps", 3),
        )
        assert done.exit_code == 0, done.stderr
        assert done.stdout.splitlines()[0] == "examples: 54 to train on, 6 held out"
        assert f"tfx run gpt2-tiny --task {task} --weights run" in done.stderr
        return [*how, "--weights", "run"]

    return call


@pytest.mark.parametrize("task", TASKS)
def test_train_run_and_eval(task: str, trained: Any, invoke: Invoke, tmp_path: Path) -> None:
    how = trained(task)
    shown = invoke("run", "gpt2-tiny", *how, *ASKED[task])
    told = json.loads(invoke("run", "gpt2-tiny", *how, *ASKED[task], "--json").stdout)
    assert shown.exit_code == 0 and told["task"] == task
    lines = shown.stdout.splitlines()
    if task == "text-classification":
        assert lines[0].split()[0] == told["label"] and len(lines) == 2
        assert sum(told["scores"].values()) == pytest.approx(1)
    if task == "token-classification":
        assert [line.split()[0] for line in lines] == told["tokens"] == ["the", "sea", "sees"]
        assert [line.split()[1] for line in lines] == told["tags"]
    if task == "question-answering":
        assert told["answer"] in "he is in Ulm." and len(lines) == 1
    if task == "multiple-choice":
        assert lines[0].split()[0] == told["answer"] == told["choices"][told["label"]]

    flat, plain = (
        json.loads(invoke("run", "gpt2-tiny", *how, *ASKED[task], "--theta", x, "--json").stdout)
        for x in ("0", "1,1")
    )
    assert flat.pop("timing") and plain.pop("timing")
    assert plain.items() <= told.items() and flat != plain

    rows = records(task, 7, seed=5)
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    many = invoke("run", "gpt2-tiny", *how, "--jsonl", "some.jsonl", "--batch-size", 3)
    assert len([json.loads(line) for line in many.stdout.splitlines()]) == 7
    judged = invoke("eval", "gpt2-tiny", *how, "--data", "some.jsonl", "--json")
    found = json.loads(judged.stdout)
    assert found["num_examples"] == 7 and found["loss"] > 0
    if task == "multiple-choice":
        said = [json.loads(line)["label"] for line in many.stdout.splitlines()]
        right = [answer == row["label"] for answer, row in zip(said, rows, strict=True)]
        assert found["accuracy"] == pytest.approx(sum(right) / 7)


def test_refusals(invoke: Invoke, folder: Path, trained: Any) -> None:
    texts = ("--task", "text-classification")
    with_folder = ("-b", "numpy", "--weights", folder)
    for command, words in (
        (("run", "gpt2-tiny", *with_folder, *texts, "x"), ["has no head", "tfx train --task"]),
        (("run", "gpt2-tiny", *with_folder, "--task", "tagging", "x"), ["no such task"]),
        (("run", "gpt2-tiny", *with_folder, *texts, "x", "--top-k", 3), ["--top-k", *texts]),
        (("run", "gpt2-tiny", *with_folder, *texts, "x", "--context", "y"), ["--context is for"]),
        (("run", "gpt2-tiny", *with_folder, "x", "--context", "y"), ["--context", "--task"]),
        (("eval", "gpt2-tiny", *with_folder, *texts), ["--data"]),
        (("eval", "microgpt", "-b", "numpy", "--theta", 1), ["--theta"]),
        (("eval", "gpt2-tiny", *with_folder, *texts, "--stride", 3), ["--stride"]),
        (("run", "microgpt", "-b", "numpy", *texts, "x"), ["--task"]),
    ):
        assert_refused(invoke(*command), 2, *words)
    how = trained("question-answering")
    assert_refused(invoke("run", "gpt2-tiny", *how, "Where?"), 2, "--context")
    asked = ("Where?", "--context", "here", "--theta", "1,1,1")
    refused = invoke("run", "gpt2-tiny", *how, *asked)
    assert refused.exit_code == 2 and "--theta [1, 1, 1]: expected a number" in refused.stderr
    done = invoke("run", "gpt2-tiny", "-b", "numpy", "--weights", "run", "x")
    assert done.exit_code == 2
    assert "take it with --task question-answering" in done.stderr.splitlines()[-1]


def test_theta_of_a_task_is_that_of_python(trained: Any, invoke: Invoke, tmp_path: Path) -> None:
    how = trained("text-classification")
    one = {"text": "the sea no", "label": "yes"}
    (tmp_path / "one.jsonl").write_text(json.dumps(one))
    model = tfx.load("run", task="text-classification", backend="numpy")
    for theta in (0.3, [[0, 1, 0.3, 2], [1, 0.1, 0, 0.5]]):
        logits = model(one["text"], theta=theta).logits[0].astype(np.float64)
        chances = np.exp(logits) / np.exp(logits).sum()
        flags = (*how, "--theta", json.dumps(theta), "--json")
        told = json.loads(invoke("run", "gpt2-tiny", one["text"], *flags).stdout)["scores"]
        assert sorted(told.values()) == pytest.approx(sorted(chances), rel=1e-5)
        judged = json.loads(invoke("eval", "gpt2-tiny", "--data", "one.jsonl", *flags).stdout)
        assert judged["loss"] == pytest.approx(-np.log(told["yes"]), rel=1e-5)
