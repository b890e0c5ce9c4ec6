"""What goes wrong on the way: numbers that are none, and a full disk."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from microgpt_cli import (
    Invoke,
    assert_refused,
    finish,
    kept,
    metrics,
    redone,
    resumed,
    seal,
    weights,
)

from tfx.core.checkpoint import find_checkpoint
from tfx.core.weights import write_weights
from tfx.models.microgpt.data import BUNDLED

# ---- numbers that are none -----------------------------------------------------------------


def test_a_loss_that_is_not_finite(invoke: Invoke) -> None:
    common = ("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--steps", 20)
    result = invoke(*common, "--lr", "1e300", "--out", "run")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == (
        "tfx: the loss (nan) of step 2 is not finite; parameters and optimizer stayed as "
        "after step 1, and were not saved; lower --lr or set --grad-clip"
    )
    assert os.listdir("run") == ["metrics.jsonl"]
    assert [line["step"] for line in metrics(Path("run"))] == [1]
    assert "sample" not in result.stdout


def test_what_was_saved_before_a_bad_loss_stays(invoke: Invoke, run: Path) -> None:
    state = find_checkpoint(run) / "state.json"
    redone(run, state.name, lambda s: s | {"options": s["options"] | {"lr": 1e300, "steps": 50}})
    before = kept(run)
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run)
    assert result.exit_code == 3
    assert "of step 32 is not finite; parameters and optimizer stayed as" in result.stderr
    assert kept(run) | {"metrics": []} == before | {"metrics": []}
    assert [line["step"] for line in metrics(run)] == list(range(1, 32))


def test_a_bad_gradient_leaves_the_last_healthy_state(train: Invoke, invoke: Invoke) -> None:
    """The decay multiplies the parameters every step, until the gradient's norm overflows."""
    growing = ("--warmup-steps", 20, "--weight-decay", 1e10)
    common = ("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--save-every", 10)
    result = invoke(*common, *growing, "--steps", 20, "--out", "run")
    assert result.exit_code == 3
    assert "the gradient norm (inf) of step 12 is not finite" in result.stderr
    train(*growing, "--steps", 10, "--num-samples", 0, "--out", "stopped")  # of the same rates
    found, expected = kept(Path("run")), kept(Path("stopped"))
    assert [line["step"] for line in found["metrics"]] == list(range(1, 12))
    assert found | {"metrics": found["metrics"][:10]} == expected


def test_parameters_that_are_not_finite_are_never_saved(invoke: Invoke) -> None:
    common = ("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--dtype", "float32")
    result = invoke(*common, "--lr", "1e300", "--steps", 1, "--out", "run")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == (
        "tfx: the parameters after step 1 are not finite, and were not saved; lower --lr"
    )
    assert os.listdir("run") == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "flags", ["run", "run --temperature 0", "eval --docs 0:3", "eval --docs 0:3 --json"]
)
def test_a_model_that_overflows(invoke: Invoke, run: Path, flags: str) -> None:
    folder = find_checkpoint(run)
    path = folder / "model.safetensors"
    spoiled = weights(run)
    spoiled["lm_head"] = np.full((27, 16), 1.7e308)  # finite, but their products with x are not
    write_weights(path, spoiled)
    seal(path)
    command, *rest = flags.split()
    result = invoke(command, "microgpt", "-b", "numpy", "--weights", run, *rest)
    assert_refused(result, 3, "not finite", "too large")
    assert result.stdout == ""


# ---- a full disk ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB: room for two checkpoints, not for three."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up(small_disk: Path, tmp_path: Path) -> None:
    command = ("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--steps", 60)
    _, err = finish(*command, "--save-every", 10, "--out", small_disk / "run", cwd=tmp_path, code=1)
    run = small_disk / "run"
    assert err.splitlines()[-1] == (
        f"tfx: cannot save {run}/checkpoint-30: No space left on device"
    )
    assert sorted(os.listdir(run)) == ["checkpoint-10", "checkpoint-20", "metrics.jsonl"]

    shutil.copytree(run, tmp_path / "run")
    resumed(tmp_path / "run", command)
    finish(*command, "--out", "straight", cwd=tmp_path)
    assert kept(tmp_path / "run") == kept(tmp_path / "straight")


@pytest.mark.parametrize(
    ("size", "what"), [(50_000, "run/checkpoint-50"), (80_000, "run/metrics.jsonl")]
)
def test_a_file_that_cannot_grow(tmp_path: Path, size: int, what: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    command = ("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--save-every", 50)
    _, err = finish(*command, "--out", "run", cwd=tmp_path, code=1, preexec_fn=limit)
    verb = "save" if "checkpoint" in what else "write"
    assert err.splitlines()[-1] == f"tfx: cannot {verb} {what}: File too large"
    left = [name for name in os.listdir(tmp_path / "run") if not name.startswith("checkpoint-")]
    assert left == ["metrics.jsonl"]
    if verb == "write":
        assert resumed(tmp_path / "run", (*command, "-b", "numpy")).count("sample") == 20
        assert len(metrics(tmp_path / "run")) == 1000
