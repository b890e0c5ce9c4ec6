"""Whenever a save fails or dies, the old file or the new one is there, whole.

A made-up disk stands between tfx and the real one: it fails, fills up or kills the program at
the k-th call that changes something, for every k. A real kill follows at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_disk import Killed, faults

from tfx.core.checkpoint import Checkpoint, load_checkpoint, prepare_run_dir, save_checkpoint
from tfx.core.errors import CheckpointError, WeightsError
from tfx.core.weights import open_weights, write_weights


def test_a_weight_file_is_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    seen = set()

    def reset() -> None:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        write_weights(path, {"x": np.array(1.0)})

    for how, outcome in faults(
        lambda: write_weights(path, {"x": np.array(2.0)}), reset, monkeypatch
    ):
        value = float(open_weights(path)["x"].array)
        assert value in (1.0, 2.0)
        if how == "kill":
            assert isinstance(outcome, Killed)
        elif outcome is None:
            assert value == 2.0
        else:
            assert isinstance(outcome, WeightsError)
            assert str(outcome) == f"cannot write {path}: No space left on device"
        if how != "kill":
            assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        seen.add((how, value))
    assert len(seen) == 6  # every kind of fault struck before the change and after it


def checkpoint(step: int, mark: float) -> Checkpoint:
    return Checkpoint(
        model="microgpt",
        step=step,
        config={"mark": mark},
        weights={"a": np.full(1000, mark), "b": np.full((), mark)},
        optimizer={"m.a": np.full(1000, mark)},
        state={"mark": mark},
    )


def mark_of(run_dir: Path) -> float:
    """The mark of the checkpoint found in `run_dir`, which all its parts bear."""
    found = load_checkpoint(run_dir)
    tensors = [*found.weights.values(), *found.optimizer.values()]
    marks = {float(x) for tensor in tensors for x in tensor.array.flat}
    (mark,) = marks | {found.config["mark"], found.state["mark"]}
    return mark


@pytest.mark.parametrize("step", [3, 2], ids=["next step", "same step"])
def test_a_checkpoint_is_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    run_dir, initial = tmp_path / "run", tmp_path / "initial"
    save_checkpoint(initial, checkpoint(1, 1.0))
    save_checkpoint(initial, checkpoint(2, 2.0))
    seen = set()

    def reset() -> None:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(initial, run_dir)

    def save() -> None:
        save_checkpoint(run_dir, checkpoint(step, 3.0))

    for how, outcome in faults(save, reset, monkeypatch):
        mark = mark_of(run_dir)
        assert mark in (2.0, 3.0)
        seen.add((how, mark))
        if how == "kill":
            assert isinstance(outcome, Killed)
        elif outcome is None:
            assert mark == 3.0
        else:
            assert isinstance(outcome, CheckpointError)
            assert str(outcome).endswith("No space left on device")
            assert not [entry for entry in run_dir.iterdir() if entry.name.endswith(".tmp")]
        save_checkpoint(run_dir, checkpoint(4, 4.0))
        assert mark_of(run_dir) == 4.0
        assert len(list(run_dir.iterdir())) == 2
    assert len(seen) == 6


def test_a_run_folder_is_proved_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "runs" / "run"

    def reset() -> None:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()

    for how, outcome in faults(lambda: prepare_run_dir(run_dir), reset, monkeypatch):
        if how != "kill":
            assert outcome is None or isinstance(outcome, CheckpointError)
        save_checkpoint(run_dir, checkpoint(1, 1.0))
        assert [entry.name for entry in run_dir.iterdir()] == ["checkpoint-1"]


class Ledger:
    """Knows which names and contents are not yet forced to disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unforced: set[str] = set()
        self.renames: list[tuple[str, str]] = []
        self._paths: dict[int, str] = {}
        for name in ("open", "write", "fsync", "mkdir", "rename", "replace"):
            monkeypatch.setattr(os, name, getattr(self, name)(getattr(os, name)))

    def open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            descriptor = real(path, flags, *args, **kwargs)
            self._paths[descriptor] = str(path)
            if flags & os.O_CREAT:
                self.unforced |= {str(path), os.path.dirname(path)}
            return descriptor

        return call

    def write(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, data: Any) -> int:
            self.unforced.add(self._paths[descriptor])
            return real(descriptor, data[:100])  # a write may take less than it is given

        return call

    def fsync(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(descriptor: int) -> None:
            self.unforced.discard(self._paths[descriptor])
            real(descriptor)

        return call

    def mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *args: Any) -> None:
            self.unforced |= {str(path), os.path.dirname(path)}
            real(path, *args)

        return call

    def rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any) -> None:
            at_risk = {path for path in self.unforced if path.startswith(str(source))}
            assert not at_risk, f"{source} takes its name before {at_risk} are on the disk"
            if ".checkpoint-discarded" in str(target) or ".old-" in str(source):
                assert os.path.dirname(source) not in self.unforced, (
                    "the old goes before the new is safe"
                )
            self.unforced.add(os.path.dirname(target))
            real(source, target)

        return call

    replace = rename


def test_nothing_takes_its_name_before_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "runs" / "run"
    ledger = Ledger(monkeypatch)
    save_checkpoint(run_dir, checkpoint(1, 1.0), keep=1)
    assert not ledger.unforced
    save_checkpoint(run_dir, checkpoint(2, 2.0), keep=1)
    save_checkpoint(run_dir, checkpoint(2, 3.0), keep=1)
    assert mark_of(run_dir) == 3.0


SAVES_FOR_EVER = """
import itertools, sys
import numpy as np
from tfx.core.checkpoint import Checkpoint, save_checkpoint
for mark in itertools.count(1.0):
    tensors = {"a": np.full(200_000, mark)}
    step = int(mark) // 2  # each step is saved twice
    saved = Checkpoint("microgpt", step, {"mark": mark}, tensors, tensors, {"mark": mark})
    save_checkpoint(sys.argv[1], saved)
    print(mark, flush=True)
"""


def test_a_real_kill_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    for number in range(6):
        run_dir = tmp_path / str(number)
        child = subprocess.Popen(
            [sys.executable, "-c", SAVES_FOR_EVER, str(run_dir)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout
        reported = [child.stdout.readline() for _ in range(3)]
        time.sleep(0.004 * number)
        child.send_signal(signal.SIGKILL)
        reported += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        assert mark_of(run_dir) >= float(reported[-1])
