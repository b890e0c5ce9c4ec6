"""The real thing from end to end: microGPT trained, sampled and measured by the commands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NAMES = ["ann", "kamon", "karai", "jaire", "vialan", "karia", "yeran", "anna", "areli", "kaina"]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """As for the other tests, but with our own plugins and without the made-up one."""
    return environment | {"TFX_DISABLE_PLUGINS": "", "TFX_LOAD_PLUGINS": "", "TFX_OFFLINE": "1"}


@pytest.fixture
def names(tmp_path: Path) -> str:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    return str(path)


def test_train_run_eval(tfx: Any, names: str) -> None:
    train = ["train", "microgpt", "-b", "numpy", "--data", names, "--steps", "30", "--out", "here"]
    done = tfx(*train)
    assert done.returncode == 0, done.stderr
    head, counts, params, step, rule, *samples = done.stdout.splitlines()
    assert head == f"num docs: {len(NAMES)}"
    assert counts.startswith("vocab size: ")
    assert params.startswith("num params: ")
    assert step.startswith("step   30 /   30 | loss ")
    assert rule == "--- inference (new, hallucinated names) ---"
    assert [line[:11] for line in samples] == [f"sample {i:2d}: " for i in range(1, 21)]

    again = tfx("run", "microgpt", "-b", "numpy", "--weights", "here")
    assert again.stdout.splitlines() == samples

    measured = tfx(
        "eval", "microgpt", "-b", "numpy", "--weights", "here", "--docs", "2:8", "--json"
    )
    assert json.loads(measured.stdout)["loss"] > 0


def test_json_holds_what_is_promised(tfx: Any, names: str) -> None:
    done = tfx("train", "microgpt", "-b", "numpy", "--data", names, "--steps", "3", "--json")
    found = json.loads(done.stdout)
    promised = "backend dtype seed num_docs vocab_size num_params steps final_loss samples out"
    assert found.keys() >= {*promised.split(), "timing"}
    assert found["timing"].keys() >= {"load_s", "train_s", "sample_s"}
    assert (found["backend"], found["dtype"], found["seed"]) == ("numpy", "float64", 42)
    assert found["out"].startswith("runs")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--data", "none.txt"], 1, "no data file none.txt"),
        (["--lr", "1e300"], 3, "not finite"),
        (["--set", "n_leyer=2"], 2, "n_layer"),
        (["--num-beams", "2"], 2, "--num-beams"),
        (["--eval-every", "2"], 2, "microgpt has no use for --eval-every"),
        (["--dtype", "int8"], 2, "int8"),
        (["--resume", "nowhere"], 1, "nowhere"),
        (["--out", "/dev/null/x"], 1, "/dev/null/x"),
    ],
)
def test_mistakes(tfx: Any, names: str, args: list[str], code: int, message: str) -> None:
    given = ["--data", names] if "--data" not in args and "--resume" not in args else []
    done = tfx("train", "microgpt", "-b", "numpy", "--steps", "20", *given, *args)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("tfx: ")]
    assert len(said) == 1
    assert message in said[0]
