"""Runs that were stopped, interrupted or killed, and taken up again to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupts import heed_ctrl_c
from microgpt_cli import (
    Invoke,
    assert_refused,
    fingerprints,
    finish,
    kept,
    metrics,
    resumed,
    start,
    weights,
)

from tfx.core.checkpoint import find_checkpoint
from tfx.core.schedules import linear
from tfx.models.microgpt import data
from tfx.models.microgpt.data import BUNDLED

RUN = ("train", "microgpt", "--data", BUNDLED, "--batch-size", 4, "--num-samples", 5)


@pytest.fixture(
    scope="module",
    params=["numpy", pytest.param("torch", marks=pytest.mark.slow)],
)
def straight(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[object, ...], Path, str]:
    """A command that trains, the run it made at one go, and what it printed; differentiated on the
    tape, and by torch itself."""
    backend = request.param
    steps = 400 if backend == "numpy" else 60
    command: tuple[object, ...] = (*RUN, "-b", backend, "--steps", steps)
    if backend == "torch":
        pytest.importorskip("torch")
        command += ("--autograd", "native")
    folder = tmp_path_factory.mktemp("straight")
    out, _ = finish(*command, "--out", "run", cwd=folder)
    return command, folder / "run", out


def test_ctrl_c_saves_and_resume_is_bitwise(
    straight: tuple[tuple[object, ...], Path, str], tmp_path: Path
) -> None:
    command, whole, printed = straight
    process = start(*command, "--out", "run", cwd=tmp_path, preexec_fn=heed_ctrl_c)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    stopped = int(find_checkpoint(tmp_path / "run").name.partition("-")[2])
    assert 0 < stopped < len(metrics(whole))
    *_, saving, saved, last = (line for line in err.splitlines() if " | loss " not in line)
    assert saving == "saving after this step; Ctrl-C again stops at once"
    assert saved == f"step {stopped} is saved; to go on: tfx train microgpt --resume run"
    assert last == "tfx: interrupted"
    assert "sample" not in out
    assert len(metrics(tmp_path / "run")) == stopped

    assert resumed(tmp_path / "run", command) == printed
    assert kept(tmp_path / "run") == kept(whole)


def test_kill_and_resume_is_bitwise(
    straight: tuple[tuple[object, ...], Path, str], tmp_path: Path
) -> None:
    command, whole, printed = straight
    process = start(*command, "--save-every", 7, "--out", "run", cwd=tmp_path)
    wait_for(lambda: (tmp_path / "run/checkpoint-14").exists(), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert resumed(tmp_path / "run", command) == printed
    assert kept(tmp_path / "run") == kept(whole)


def test_resume_elsewhere_is_bitwise_and_leaves_the_first_alone(
    straight: tuple[tuple[object, ...], Path, str], tmp_path: Path
) -> None:
    command, whole, printed = straight
    half = len(metrics(whole)) // 2
    finish(*command, "--save-every", half, "--out", "first", cwd=tmp_path)
    before = fingerprints(tmp_path / "first")
    out = resumed(tmp_path / "first" / f"checkpoint-{half}", command, "--out", tmp_path / "run")
    assert out == printed
    assert kept(tmp_path / "run") == kept(whole) == kept(tmp_path / "first")
    assert fingerprints(tmp_path / "first") == before


def test_ctrl_c_twice_aborts_at_once(tmp_path: Path) -> None:
    command = ("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--out", "run")
    process = start(*command, "--batch-size", 4000, cwd=tmp_path, preexec_fn=heed_ctrl_c)
    assert process.stdout is not None
    assert process.stderr is not None
    assert [next(process.stdout)[:10] for _ in range(3)][2] == "num params"
    wait_for(lambda: (tmp_path / "run/metrics.jsonl").exists(), process)
    time.sleep(0.2)  # the file is there a moment before the loop
    process.send_signal(signal.SIGINT)
    assert next(process.stderr) == "saving after this step; Ctrl-C again stops at once\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "tfx: interrupted\n"
    assert sorted(os.listdir(tmp_path / "run")) == ["metrics.jsonl"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


def test_resume_of_a_finished_run(invoke: Invoke, run: Path, trained: Any) -> None:
    before = kept(run)
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run)
    assert result.exit_code == 0, result.stderr
    assert f"{run}/checkpoint-30 has taken all 30 steps; --steps adds more\n" in result.stderr
    assert result.stdout.splitlines()[-20:] == trained[1]
    assert kept(run) == before
    said = json.loads(invoke("train", "microgpt", "-b", "numpy", "--resume", run, "--json").stdout)
    assert said["final_loss"] == before["metrics"][-1]["loss"]


def test_resume_with_more_steps(invoke: Invoke, run: Path) -> None:
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run, "--steps", 35)
    assert result.exit_code == 0, result.stderr
    assert "--steps 35 instead of 30: the learning rate follows the new schedule\n" in result.stderr
    found = metrics(run)
    assert [line["step"] for line in found] == list(range(1, 36))
    assert [line["lr"] for line in found[30:]] == linear(35, 0.01)[30:].tolist()
    assert find_checkpoint(run).name == "checkpoint-35"


def test_resume_at_another_temperature(invoke: Invoke, run: Path) -> None:
    def sampled(*more: object) -> list[str]:
        result = invoke("train", "microgpt", "-b", "numpy", "--resume", run, *more)
        assert result.exit_code == 0, result.stderr
        assert "instead of" not in result.stderr
        return [line.split(": ")[1] for line in result.stdout.splitlines()[-20:]]

    assert len(set(sampled())) > 1
    assert len(set(sampled("--set", "temperature=0"))) == 1
    state = json.loads((find_checkpoint(run) / "state.json").read_text())
    assert state["options"]["temperature"] == 0


def test_the_default_names_are_those_of_the_run(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has come into the cache, or gone from it, since."""
    names = data.NAMES.name, b"anna\nbob\nclara\n"
    cached = tmp_path / "cache" / names[0]
    stand_in = replace(data.NAMES, sha256=hashlib.sha256(names[1]).hexdigest())
    monkeypatch.setattr(data, "NAMES", stand_in)
    common = ("train", "microgpt", "-b", "numpy", "--num-samples", 0)

    def judged(run: str) -> Any:
        return invoke("eval", "microgpt", "-b", "numpy", "--weights", run, "--docs", "0:2")

    invoke(*common, "--steps", 2, "--out", "census")
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(names[1])
    result = invoke(*common, "--resume", "census", "--steps", 3)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("num docs: 5163\n")
    assert judged("census").exit_code == 0

    result = invoke(*common, "--steps", 2, "--out", "reference")
    assert result.stdout.startswith("num docs: 3\n")
    assert judged("reference").exit_code == 0
    cached.unlink()
    for result in (invoke(*common, "--resume", "reference"), judged("reference")):
        assert_refused(result, 1, "names.txt does not exist", "give names.txt with --data")
    (tmp_path / "mine.txt").write_bytes(names[1])
    result = invoke(*common, "--resume", "reference", "--steps", 3, "--data", "mine.txt")
    assert result.exit_code == 0, result.stderr


def test_resume_on_another_backend(invoke: Invoke, run: Path) -> None:
    pytest.importorskip("torch")
    elsewhere = invoke(
        *("train", "microgpt", "-b", "torch", "--resume", run / "checkpoint-20"),
        *("--out", "there"),
    )
    assert elsewhere.exit_code == 0, elsewhere.stderr
    for name, array in weights(Path("there")).items():
        np.testing.assert_allclose(array, weights(run)[name], rtol=0, atol=1e-9)


def test_resume_finds_its_data_where_it_is_now(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("anna\nbob\nclara\n")
    common = ("train", "microgpt", "-b", "numpy")
    invoke(*common, "--data", "here.txt", "--steps", 3, "--out", "run")
    (tmp_path / "here.txt").rename("there.txt")
    result = invoke(*common, "--resume", "run", "--steps", 4)
    assert_refused(result, 1, f"no data file {tmp_path}/here.txt")
    result = invoke(*common, "--resume", "run", "--steps", 4, "--data", "there.txt")
    assert result.exit_code == 0
    (tmp_path / "there.txt").write_text("anna\nbob\nclaro\n")
    result = invoke(*common, "--resume", "run", "--steps", 5)
    assert_refused(result, 1, "the documents are not those run/checkpoint-4 was trained on")
    result = invoke("eval", "microgpt", "-b", "numpy", "--weights", "run")
    assert_refused(result, 1, "the documents are not those run/checkpoint-4 was trained on")
    assert find_checkpoint("run").name == "checkpoint-4"
