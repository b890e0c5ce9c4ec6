"""Which folder a run writes to, and which run is meant."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tfx.core.checkpoint import Checkpoint, save_checkpoint
from tfx.core.errors import CheckpointError
from tfx.core.runs import (
    BEST,
    METRICS,
    claim_run_dir,
    new_run_dir,
    newest_in,
    newest_run,
    run_folder,
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(folder: str | Path, step: int = 1, model: str = "acme") -> Path:
    weights = {"w": np.zeros(2)}
    return save_checkpoint(folder, Checkpoint(model, step, {}, weights, weights, {}))


# ---- a folder for a new run ------------------------------------------------------------------


def test_a_new_folder_is_named_after_the_model_and_the_time() -> None:
    folder = new_run_dir("acme")
    assert re.fullmatch(r"runs/acme-20\d{6}-\d{6}", str(folder))
    assert folder.is_dir()


def test_runs_of_one_second_do_not_meet() -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(new_run_dir, ["acme"] * 24))
    assert len(set(folders)) == 24
    assert {folder.name for folder in folders} == set(os.listdir("runs"))


@pytest.mark.parametrize("obstacle", ["a file", "a dangling link"])
def test_no_room_for_runs(obstacle: str) -> None:
    if obstacle == "a file":
        Path("runs").write_text("")
    else:
        Path("runs").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"cannot make the run folder runs/acme-.*--out"):
        new_run_dir("acme")


# ---- the folder of a run ---------------------------------------------------------------------


def test_where_a_run_goes() -> None:
    before = save("before")
    assert claim_run_dir("acme", Path("out")) == Path("out")
    assert Path("out").is_dir()
    assert claim_run_dir("acme", resumed=before) == Path("before")
    assert claim_run_dir("acme", Path("elsewhere"), before) == Path("elsewhere")
    assert claim_run_dir("acme").parent == Path("runs")


def test_a_folder_without_checkpoints_is_free() -> None:
    Path("out").mkdir()
    Path("out/metrics.jsonl").write_text("")
    Path("out/checkpoint-7").mkdir()  # never complete
    assert claim_run_dir("acme", Path("out")) == Path("out")


def test_another_run_is_in_the_way() -> None:
    save("out", 3)
    with pytest.raises(CheckpointError) as caught:
        claim_run_dir("acme", Path("out"))
    assert str(caught.value) == (
        "out/checkpoint-3 is in the way of this run; "
        "go on from it with --resume out, or choose another folder with --out"
    )
    with pytest.raises(CheckpointError, match="in the way"):
        claim_run_dir("acme", Path("out"), save("before", 5))


def test_later_checkpoints_of_the_same_run_are_in_the_way() -> None:
    early, late = save("out", 3), save("out", 6)
    assert claim_run_dir("acme", resumed=late) == Path("out")
    assert claim_run_dir("acme", Path("out").absolute(), late) == Path("out").absolute()
    assert claim_run_dir("acme", Path("branch"), early) == Path("branch")
    with pytest.raises(CheckpointError, match="checkpoint-6 is in the way"):
        claim_run_dir("acme", resumed=early)


def test_a_checkpoint_is_no_folder_for_a_run() -> None:
    inside = save("before", 60)
    for resumed in (inside, None):
        with pytest.raises(CheckpointError) as caught:
            claim_run_dir("acme", Path("before/checkpoint-60"), resumed)
        assert str(caught.value) == (
            "before/checkpoint-60 is a checkpoint, not the folder of a run; "
            "choose another with --out"
        )


def killed_run(folder: str, step: int = 4) -> Path:
    """What is left of a run that was killed after its best, and before it saved another."""
    best = save(f"{folder}/{BEST}", step)
    Path(folder, METRICS).touch()
    return best


def test_the_best_of_another_run_is_in_the_way() -> None:
    killed_run("out")
    for resumed in (None, save("before", 5)):
        with pytest.raises(CheckpointError) as caught:
            claim_run_dir("acme", Path("out"), resumed)
        assert str(caught.value) == (
            "out/best/checkpoint-4 is in the way of this run; go on from it with "
            "--resume out/best --out out, or choose another folder with --out"
        )


def test_a_run_may_have_a_best_of_its_own() -> None:
    newest = save("out", 6)
    killed_run("out")
    assert claim_run_dir("acme", resumed=newest) == Path("out")


def test_a_run_that_goes_on_from_its_best() -> None:
    best = killed_run("out")
    for out in (None, Path("out/best")):
        with pytest.raises(CheckpointError) as caught:
            claim_run_dir("acme", out, best)
        assert str(caught.value) == (
            "out/best holds the best checkpoint of a run, and no other; "
            "choose another folder with --out"
        )
    assert claim_run_dir("acme", Path("elsewhere"), best) == Path("elsewhere")
    assert claim_run_dir("acme", Path("out"), best) == Path("out")
    save("out", 6)
    with pytest.raises(CheckpointError, match="out/checkpoint-6 is in the way"):
        claim_run_dir("acme", Path("out"), best)


def test_no_run_goes_where_another_keeps_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    killed_run("out")
    monkeypatch.chdir("out/best")
    with pytest.raises(CheckpointError, match="holds the best checkpoint of a run"):
        claim_run_dir("acme", Path())


def test_a_run_may_be_called_best() -> None:
    newest = save(BEST, 6)
    assert claim_run_dir("acme", resumed=newest) == Path(BEST)


def test_the_run_folder_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    best = killed_run("out")
    assert run_folder(best).samefile("out")
    assert run_folder(save("out", 6)) == Path("out")
    assert run_folder(save(BEST, 6)) == Path(BEST)
    monkeypatch.chdir("out/best")
    assert run_folder(Path("checkpoint-4")).samefile("..")


def test_the_newest_in_a_folder() -> None:
    save("out", 3)
    assert newest_in(Path("out")) == Path("out/checkpoint-3")
    assert newest_in(Path("nowhere")) is None


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_a_folder_that_cannot_be_written(out: str) -> None:
    Path("taken").write_text("")
    with pytest.raises(CheckpointError, match=f"cannot write to the run folder {out}"):
        claim_run_dir("acme", Path(out))


# ---- the newest run --------------------------------------------------------------------------


def run_of(name: str, time: int, complete: bool = True) -> Path:
    folder = Path("runs") / name
    if complete:
        save(folder)
    else:
        (folder / "checkpoint-1").mkdir(parents=True)
    os.utime(folder, (time, time))
    return folder


def test_the_newest_run_is_the_one_last_written_to() -> None:
    run_of("acme-20260101-000001", 30)
    resumed = run_of("acme-20250101-000001", 40)
    run_of("acme-20270101-000001-2", 20)
    assert newest_run("acme") == resumed


def test_what_is_no_run_of_the_model_is_passed_over() -> None:
    ours = run_of("acme-20260101-000001", 10)
    run_of("acme-20260101-000002", 20, complete=False)
    run_of("acme-xl-20260101-000003", 30)
    run_of("other-20260101-000004", 40)
    Path("runs/acme-20260101-000005").write_text("a file")
    Path("runs/acme-20260101-000006").symlink_to("nowhere")
    assert newest_run("acme") == ours


@pytest.mark.parametrize("there", [False, True])
def test_no_run_at_all(there: bool) -> None:
    if there:
        run_of("acme-20260101-000002", 20, complete=False)
    with pytest.raises(CheckpointError) as caught:
        newest_run("acme")
    assert str(caught.value) == (
        "no trained acme in runs/; "
        "train one with: tfx train acme, or name a run's folder with --weights"
    )
