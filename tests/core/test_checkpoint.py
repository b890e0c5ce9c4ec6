"""Checkpoints come back exactly, and nothing but a whole one of the right model is accepted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tfx.core.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    prepare_run_dir,
    restore_random,
    save_checkpoint,
)
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError
from tfx.core.weights import StoredTensor

FILES = ["config.json", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def checkpoint(step: int = 1, **changes: Any) -> Checkpoint:
    fields: dict[str, Any] = {
        "model": "microgpt",
        "step": step,
        "config": {"n_layer": 1},
        "weights": {"wte": np.full((3, 2), step, np.float32)},
        "optimizer": {"m.wte": np.full((3, 2), -step, np.float32)},
        "state": {"document": step},
    }
    return Checkpoint(**fields | changes)


def refusal(path: Path, model: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, model)
    message = str(caught.value)
    assert message.isprintable()
    return message


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_everything_comes_back(tmp_path: Path) -> None:
    generator = random.Random(42)
    generator.gauss(0, 1)  # leaves half a pair behind, which belongs to the state
    weights: dict[str, Any] = {
        "wte": np.arange(6, dtype=">f8").reshape(2, 3).T,
        "half": StoredTensor(DType.bfloat16, np.array([0x3FC0], np.uint16)),
    }
    optimizer = {"m.wte": np.ones((3, 2)), "step": np.array(7, np.int64)}
    config = {"n_layer": 1, "lr": 0.1 + 0.2, "tiny": 5e-324, "name": "ü\n\ud800"}
    state = {"random": generator.getstate(), "order": [2, 0, 1], "big": 2**70, "none": None}

    folder = save_checkpoint(tmp_path, Checkpoint("microgpt", 7, config, weights, optimizer, state))
    loaded = load_checkpoint(tmp_path, "microgpt")

    assert folder == loaded.path == tmp_path / "checkpoint-7"
    assert (loaded.model, loaded.step, loaded.config) == ("microgpt", 7, config)
    assert set(loaded.weights) == set(weights)
    np.testing.assert_array_equal(loaded.weights["wte"].array, weights["wte"])
    assert loaded.weights["half"].to_float32() == [1.5]
    assert loaded.optimizer["step"].array == 7
    assert loaded.state["order"] == [2, 0, 1]
    assert loaded.state["big"] == 2**70
    restored = random.Random()
    restore_random(restored, loaded.state["random"])
    assert restored.getstate() == generator.getstate()
    assert [restored.gauss(0, 1) for _ in range(5)] == [generator.gauss(0, 1) for _ in range(5)]


def test_a_loaded_checkpoint_can_be_saved_as_it_is(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", checkpoint(3))
    second = save_checkpoint(tmp_path / "b", load_checkpoint(first))
    assert [(first / f).read_bytes() for f in FILES] == [(second / f).read_bytes() for f in FILES]


def test_the_files_are_what_the_module_says(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(5))
    assert sorted(names(folder)) == FILES
    assert json.loads((folder / "config.json").read_text()) == {"model": "microgpt", "n_layer": 1}
    assert json.loads((folder / "state.json").read_text()) == {"step": 5, "document": 5}
    assert safetensors.numpy.load_file(folder / "model.safetensors")["wte"].tolist() == [[5, 5]] * 3
    assert sorted(json.loads((folder / "manifest.json").read_text())["files"]) == sorted(
        set(FILES) - {"manifest.json"}
    )


# Other files beside the weights

OTHERS = {"tokenizer.json": b'{"model": 1}', "merges.txt": b"\xff\0", "empty": b""}


def test_other_files_travel_along(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", checkpoint(3, files=OTHERS))
    assert names(first) == {*FILES, *OTHERS}
    assert {name: (first / name).read_bytes() for name in OTHERS} == OTHERS
    loaded = load_checkpoint(first)
    assert loaded.files == OTHERS
    second = save_checkpoint(tmp_path / "b", loaded)
    assert load_checkpoint(second).files == OTHERS
    assert load_checkpoint(save_checkpoint(tmp_path / "c", checkpoint())).files == {}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_checked(tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(3, files=OTHERS))
    (folder / name).write_bytes(OTHERS[name] + b".")
    assert f"damaged: {name} is not what manifest.json says" in refusal(tmp_path)
    (folder / name).unlink()
    assert f"damaged: {name}: No such file" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a\\b", "C:a", "a\n", "\0", *FILES],
)
def test_other_files_have_plain_names_of_their_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be the name of a file") as caught:
        save_checkpoint(tmp_path, checkpoint(3, files={name: b"x"}))
    assert str(caught.value).isprintable()
    assert names(tmp_path) == set()
    if name in FILES and name != "manifest.json":
        return
    folder = save_checkpoint(tmp_path, checkpoint(3))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "which is no file of a checkpoint" in refusal(tmp_path)


def test_the_weights_say_what_transformers_asks_for(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(3))
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


# Which checkpoints stay, and which is found


def test_the_latest_stay(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    assert names(tmp_path) == {"checkpoint-9", "checkpoint-10", "checkpoint-11"}
    assert load_checkpoint(tmp_path).step == 11
    save_checkpoint(tmp_path, checkpoint(12), keep=1)
    assert names(tmp_path) == {"checkpoint-12"}


def test_later_steps_and_strangers_are_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(50))
    for name in ("metrics.jsonl", "checkpoint-x", ".hidden", "checkpoint-1"):
        (tmp_path / name).mkdir()
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, checkpoint(step), keep=1)
    assert names(tmp_path) == {
        *("metrics.jsonl", "checkpoint-x", ".hidden", "checkpoint-1"),
        *("checkpoint-30", "checkpoint-50"),
    }
    assert load_checkpoint(tmp_path).step == 50


def test_one_alone(tmp_path: Path) -> None:
    for step in (8, 9, 50):
        save_checkpoint(tmp_path, checkpoint(step), keep=9)
    for name in ("metrics.jsonl", "checkpoint-1"):
        (tmp_path / name).mkdir()
    save_checkpoint(tmp_path, checkpoint(10), alone=True)
    assert names(tmp_path) == {"metrics.jsonl", "checkpoint-1", "checkpoint-10"}
    assert load_checkpoint(tmp_path).step == 10


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_weights_without_the_optimizer(tmp_path: Path, fault: str) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(5, files={"notes.txt": b"x"}))
    whole = load_checkpoint(tmp_path)
    if fault == "missing":
        (folder / "optimizer.safetensors").unlink()
    else:
        (folder / "optimizer.safetensors").write_bytes(b"x")
    found = load_checkpoint(tmp_path, "microgpt", optimizer=False)
    assert dict(found.optimizer) == {}
    assert found.weights["wte"].array.tolist() == whole.weights["wte"].array.tolist()
    assert (found.step, found.config, found.files) == (5, whole.config, whole.files)
    assert "optimizer.safetensors" in refusal(tmp_path)
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what"):
        load_checkpoint(tmp_path, optimizer=False)


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        save_checkpoint(tmp_path, checkpoint(4, weights={"wte": np.array(number)}))
    assert names(tmp_path) == {"checkpoint-4"}
    assert load_checkpoint(tmp_path).weights["wte"].array == 2.0
    (tmp_path / "checkpoint-4" / "manifest.json").unlink()  # also where half of one stands
    save_checkpoint(tmp_path, checkpoint(4))
    assert names(tmp_path) == {"checkpoint-4"}
    assert load_checkpoint(tmp_path).step == 4


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    for name in (".checkpoint-3.0123456789abcdef.tmp", "checkpoint-4.old-0123456789abcdef"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").touch()
    save_checkpoint(tmp_path, checkpoint(4))
    assert names(tmp_path) == {"checkpoint-4"}


def test_one_replaced_by_a_killed_run_does_not_count(tmp_path: Path) -> None:
    for step in (3, 4):
        save_checkpoint(tmp_path, checkpoint(step))
    shutil.copytree(tmp_path / "checkpoint-4", tmp_path / "checkpoint-4.old-0123456789abcdef")
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    save_checkpoint(tmp_path, checkpoint(5), keep=3)
    assert names(tmp_path) == {"checkpoint-3", "checkpoint-4", "checkpoint-5"}


def test_what_cannot_be_removed_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step), keep=9)
    rename = os.rename

    def stubborn(source: Path, target: Path) -> None:
        if source.name == "checkpoint-2":
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", stubborn)
    save_checkpoint(tmp_path, checkpoint(4), keep=1)
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-4"}
    monkeypatch.undo()
    save_checkpoint(tmp_path, checkpoint(4), keep=1)
    assert names(tmp_path) == {"checkpoint-4"}


def test_an_incomplete_one_is_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    newest = save_checkpoint(tmp_path, checkpoint(2))
    (newest / "manifest.json").unlink()
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert "checkpoint-2 is incomplete" in refusal(newest)


def test_a_damaged_one_stops_and_names_the_older(tmp_path: Path) -> None:
    older = save_checkpoint(tmp_path, checkpoint(1))
    newest = save_checkpoint(tmp_path, checkpoint(2))
    (newest / "state.json").write_text("{}")
    message = refusal(tmp_path)
    assert f"{newest} is damaged: state.json is not what manifest.json says" in message
    assert message.endswith(f"; the one before it is {older}")
    assert load_checkpoint(older).step == 1


def test_any_flipped_byte_is_damage(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint())
    for name in FILES:
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), 7):
            flipped = bytearray(whole)
            flipped[place] ^= 1
            (folder / name).write_bytes(flipped)
            with pytest.raises(CheckpointError, match=r"is damaged|is of format"):
                load_checkpoint(tmp_path)
        (folder / name).write_bytes(whole)
    assert load_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("name", set(FILES) - {"manifest.json"})
def test_a_missing_or_cut_or_strange_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(tmp_path, checkpoint())
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    assert f"is damaged: {name} is not" in refusal(folder)
    (folder / name).unlink()
    assert f"is damaged: {name}: No such file or directory" in refusal(folder)
    os.mkfifo(folder / name)
    assert f"is damaged: {name}: it is a pipe" in refusal(folder)


def forge(folder: Path, name: str, contents: bytes) -> None:
    """Replace a file and its line in the manifest, as a damaged disk never would."""
    (folder / name).write_bytes(contents)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = {"size": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
    manifest["files"][name] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "contents", "fault"),
    [
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("config.json", b"{}", "config.json names no model"),
        ("config.json", b'{"model": 3}', "config.json names no model"),
        ("config.json", b"[" * 100_000, "config.json is not JSON"),
        ("config.json", b"\xff\xff", "config.json is not JSON"),
        ("state.json", b'{"step": "1"}', "state.json names no step"),
        ("model.safetensors", b"{}", "no safetensors file"),
    ],
)
def test_a_forged_file_is_damage_too(
    tmp_path: Path, name: str, contents: bytes, fault: str
) -> None:
    folder = save_checkpoint(tmp_path, checkpoint())
    forge(folder, name, contents)
    assert fault in refusal(folder)


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        ("", "is damaged: manifest.json is not JSON"),
        ('{"format": 1', "is damaged: manifest.json is not JSON"),
        ('{"format": 1}', "is damaged: manifest.json lists no files"),
        ('{"format": 1, "files": {}}', "is damaged: config.json is not what"),
        ('{"format": 2, "files": {}}', "is of format 2, this tfx reads 1"),
        ("[]", "is damaged: manifest.json is not a JSON object"),
    ],
)
def test_a_broken_manifest(tmp_path: Path, manifest: str, fault: str) -> None:
    folder = save_checkpoint(tmp_path, checkpoint())
    (folder / "manifest.json").write_text(manifest)
    assert fault in refusal(folder)


def test_where_no_checkpoint_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert "missing does not exist" in refusal(tmp_path / "missing")
    assert "file is a file; give its folder" in refusal(tmp_path / "file")
    assert "empty holds no complete checkpoint" in refusal(tmp_path / "empty")
    assert "does not exist" in refusal(tmp_path / "a\nb")
    assert "does not exist" in refusal(Path("a\0b"))


def test_of_another_model(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(model="gpt2"))
    (folder / "model.safetensors").unlink()  # said before the large files are read
    assert refusal(tmp_path, "microgpt").endswith("is of model 'gpt2', not 'microgpt'")


@pytest.mark.parametrize(
    "saved", [None, 3, [], [3, [1, 2], None], [1, [0] * 625, None], [3, ["a"] * 625, None]]
)
def test_a_random_state_that_is_none(saved: object) -> None:
    generator = random.Random(1)
    before = generator.getstate()
    with pytest.raises(CheckpointError, match="the saved random state is not Python's"):
        restore_random(generator, saved)
    assert generator.getstate() == before


# Writing


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"state": {"loss": float("nan")}}, "state.json: .*JSON"),
        ({"state": {"loss": np.int64(3)}}, "state.json: .*int64"),
        ({"state": {"step": 3}}, "the key 'step' is the checkpoint's own"),
        ({"config": {"model": "x"}}, "the key 'model' is the checkpoint's own"),
        ({"weights": {"x": np.zeros(2, "complex128")}}, "tensor 'x'"),
        ({"optimizer": {"x": [1]}}, "tensor 'x'"),
        ({"step": -1}, "step >= 0"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(CheckpointError, match=fault) as caught:
        save_checkpoint(tmp_path, checkpoint(**changes))
    assert str(caught.value).isprintable()
    assert names(tmp_path) == set()


def test_keep_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="keep >= 1"):
        save_checkpoint(tmp_path, checkpoint(), keep=0)


def test_a_run_folder_is_made_and_proved(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "of" / "today"
    assert prepare_run_dir(run_dir) == run_dir
    assert prepare_run_dir(run_dir) == run_dir
    assert names(run_dir) == set()


def test_a_run_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path, fault in [
        (tmp_path / "file", "it is a file, not a folder"),
        (tmp_path / "file" / "run", "Not a directory"),
        (tmp_path / ("n" * 300), "File name too long"),
        (tmp_path / "a\0b", "null byte"),
        (Path("/proc/run"), ""),
    ]:
        with pytest.raises(CheckpointError, match=f"cannot write to the run folder .*{fault}"):
            prepare_run_dir(path)
    shutil.rmtree(tmp_path)
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(CheckpointError, match="No space left; choose another"):
        prepare_run_dir(tmp_path / "full")
    assert names(tmp_path / "full") == set()
