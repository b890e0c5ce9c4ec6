"""Where a GPT-2 is looked for, what is said when there is none, and how one is written."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_disk import Killed, faults

from tfx.core.checkpoint import Checkpoint, save_checkpoint
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, TfxError, WeightsError
from tfx.core.safetensors import Layout, build_header
from tfx.core.weights import StoredTensor, open_weights, write_weights
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.weights import Pretrained, read_pretrained, write_pretrained

CONFIG = Config(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)
INDEX = "model.safetensors.index.json"


def tensors(mark: float = 1.0, config: Config = CONFIG) -> dict[str, Any]:
    return {name: np.full(shape, mark, "float32") for name, shape in config.shapes().items()}


def mark_of(found: Pretrained) -> float:
    """The number that all tensors are full of."""
    (mark,) = {float(x) for tensor in found.tensors.values() for x in tensor.array.flat}
    return mark


def quiet(line: str) -> None:
    raise AssertionError(f"nothing to note here, but: {line}")


def fault_of(path: Path, kind: type[TfxError] = WeightsError) -> str:
    """The message that refuses `path`: one printable line that names it."""
    with pytest.raises(kind) as caught:
        read_pretrained(path, lambda _: None)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.isprintable()
    assert str(path) in message or repr(str(path)) in message
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hugging Face folder of ones."""
    folder = tmp_path / "gpt"
    write_pretrained(folder, CONFIG, tensors())
    return folder


def sharded(folder: Path) -> None:
    """Cut the folder's one file in two, with an index."""
    file = open_weights(folder / "model.safetensors")
    names = list(file)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, half in halves.items():
        write_weights(folder / shard, {name: file[name] for name in half})
    homes = {name: shard for shard, half in halves.items() for name in half}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    (folder / "model.safetensors").unlink()


# Where it may be


def test_a_folder_or_its_file(folder: Path) -> None:
    for path in [folder, folder / "model.safetensors"]:
        found = read_pretrained(path, quiet)
        assert (found.path, found.config, mark_of(found)) == (path, CONFIG, 1.0)


def test_a_folder_of_shards_or_their_index(folder: Path) -> None:
    sharded(folder)
    for path in [folder, folder / INDEX]:
        found = read_pretrained(path, quiet)
        assert (found.path, found.config, mark_of(found)) == (path, CONFIG, 1.0)
        assert list(found.tensors) == list(CONFIG.shapes())


def test_another_file_beside_a_configuration(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    assert mark_of(read_pretrained(folder / "mine.safetensors", quiet)) == 1.0
    assert f"name the file, as in {folder / 'mine.safetensors'}" in fault_of(folder)


def test_a_cache_of_hugging_face(folder: Path, tmp_path: Path) -> None:
    sharded(folder)
    repository = tmp_path / "models--acme--gpt"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "blobs").mkdir()
    snapshot = folder.rename(repository / "snapshots" / "0123")
    for file in list(snapshot.iterdir()):
        file.rename(repository / "blobs" / file.name)
        file.symlink_to(Path("../../blobs", file.name))
    assert mark_of(read_pretrained(snapshot, quiet)) == 1.0


def trained(run: Path, step: int, mark: float, model: str = "gpt2") -> Path:
    config = config_json(CONFIG)
    return save_checkpoint(run, Checkpoint(model, step, config, tensors(mark), {}, {}))


def test_a_run_and_its_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first, second = trained(run, 1, 1.0), trained(run, 2, 2.0)
    for path, checkpoint, mark in [(run, second, 2.0), (first, first, 1.0)]:
        found = read_pretrained(path, quiet)
        assert (found.path, found.config, mark_of(found)) == (checkpoint, CONFIG, mark)


def test_the_best_checkpoint_of_a_run_is_preferred(tmp_path: Path) -> None:
    run = tmp_path / "run"
    last, best = trained(run, 9, 9.0), trained(run / "best", 4, 4.0)
    notes: list[str] = []
    found = read_pretrained(run, notes.append)
    assert (found.path, mark_of(found)) == (best, 4.0)
    assert notes == [f"taking the run's best checkpoint, {best}"]
    assert mark_of(read_pretrained(last, quiet)) == 9.0
    assert mark_of(read_pretrained(run / "best", quiet)) == 4.0


def test_a_checkpoint_copied_without_its_manifest(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path / "run", 1, 1.0)
    for name in ("manifest.json", "optimizer.safetensors", "state.json"):
        (checkpoint / name).unlink()
    found = read_pretrained(checkpoint, quiet)
    assert (found.config, mark_of(found)) == (CONFIG, 1.0)


def test_the_checkpoints_of_another_trainer(folder: Path) -> None:
    """transformers' Trainer calls its folders as tfx does, and keeps them beside the last model."""
    shutil.copytree(folder, folder / "checkpoint-500")
    assert read_pretrained(folder, quiet).path == folder
    assert read_pretrained(folder / "checkpoint-500", quiet).path == folder / "checkpoint-500"


def test_strange_keys_are_told_once(folder: Path) -> None:
    config = config_json(CONFIG) | {"rotary\n": 1} | {f"key{n}": n for n in range(20)}
    (folder / "config.json").write_text(json.dumps(config))
    notes: list[str] = []
    read_pretrained(folder, notes.append)
    (note,) = notes
    assert note.isprintable()
    assert note.startswith(f"{folder / 'config.json'}: tfx knows nothing of 'key0', 'key1', ")
    assert note.endswith(" and 13 more, and goes on without")


def test_a_model_that_was_published(shared_data: Path) -> None:
    found = read_pretrained(shared_data / "gpt-nano-sort", quiet)
    assert (found.config.n_layer, found.config.n_positions) == (3, 11)
    assert not found.config.tie_word_embeddings
    assert {k: x.shape for k, x in found.tensors.items()} == found.config.shapes()


# What is wrong with a path


def test_nothing_there(tmp_path: Path) -> None:
    expected = "does not exist; expected a folder with config.json and model.safetensors"
    assert expected in fault_of(tmp_path / "missing")
    assert expected in fault_of(tmp_path / "a\nb")
    assert expected in fault_of(Path("a\0b"))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "holds no weights; expected config.json with model.safetensors" in fault_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "ckpt.pt", "model.pth"]
)
def test_a_folder_with_pickles_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    fault = fault_of(tmp_path)
    assert f"holds '{name}' and no safetensors, and tfx reads no pickle; fetch the model" in fault
    assert f"M.from_pretrained('{tmp_path}').save_pretrained('converted')" in fault


def test_the_remedy_for_pickles_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config_json(CONFIG)))
    model.config.save_pretrained("pickled")
    torch.save(model.state_dict(), "pickled/pytorch_model.bin")
    fault = fault_of(Path("pickled"))
    (command,) = re.findall(r'python -c "(.*)"$', fault)
    exec(command, {})
    found = read_pretrained(Path("converted"), lambda _: None)
    expected = model.transformer.wte.weight.detach().numpy()
    np.testing.assert_array_equal(found.tensors["wte.weight"].array, expected)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def cut_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "two.safetensors").write_bytes((folder / "two.safetensors").read_bytes()[:-1])


def lost_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "two.safetensors").unlink()


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
    (folder / "model.safetensors").write_text(text)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))


def dangling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/gone")


def pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (cut, "the file is cut short"),
        (cut_shard, "two.safetensors: the file is cut short"),
        (lost_shard, "its shard 'two.safetensors' is missing"),
        (pointer, "a Git LFS pointer"),
        (pickled, "a zip archive, probably PyTorch's; tfx reads no pickle"),
        (dangling, "No such file or directory"),
        (pipe, "not a regular file"),
        (no_config, "config.json does not exist; a GPT-2 needs it"),
    ],
)
def test_damaged_weights(folder: Path, damage: Callable[[Path], None], fault: str) -> None:
    damage(folder)
    assert fault in fault_of(folder)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ("", "config.json: it is not sound JSON"),
        ("[]", "config.json: it holds a list; expected a JSON object"),
        ('{"n_layer": 1, "n_layer": 2}', "the key 'n_layer' comes twice"),
        ("[" * 100_000, "config.json: its JSON is nested too deep"),
        (" " * 2**23, "config.json: it takes 8388608 bytes; as JSON at most"),
        ("version https://git-lfs.github.com/spec/v1\n", "config.json: it is a Git LFS pointer"),
        ('{"model_type": "llama"}', "config.json is of model type 'llama', not 'gpt2'"),
        ('{"n_layer": "12"}', "config.json: n_layer is '12'; expected a whole number"),
    ],
)
def test_a_wrong_configuration(folder: Path, config: str, fault: str) -> None:
    (folder / "config.json").write_text(config)
    assert fault in fault_of(folder, CheckpointError)


def test_weights_of_another_size(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config_json(replace(CONFIG, n_embd=6))))
    fault = fault_of(folder)
    assert f"{folder} does not fit {folder / 'config.json'}: wrong: " in fault
    assert "'transformer.wte.weight' is [11, 12], expected [11, 6]" in fault


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, 1, 1.0, model="microgpt")
    assert "is of model 'microgpt', not 'gpt2'" in fault_of(checkpoint, CheckpointError)


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path, 1, 1.0)
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(content)
    assert "is damaged: model.safetensors is not" in fault_of(checkpoint, CheckpointError)


def test_the_optimizer_of_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path / "run", 1, 1.0)
    (checkpoint / "optimizer.safetensors").write_bytes(b"damaged")
    assert mark_of(read_pretrained(tmp_path / "run", quiet)) == 1.0


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may look anywhere"
)
def test_a_folder_that_may_not_be_looked_into(folder: Path) -> None:
    folder.chmod(0)
    try:
        assert "Permission denied" in fault_of(folder)
    finally:
        folder.chmod(0o700)


# Time and memory


def test_a_large_model_opens_at_once_and_unread(tmp_path: Path) -> None:
    """The real shape: 498 MB, no byte of which is on the disk."""
    config = Config()
    layouts, position = {}, 0
    for name, shape in config.shapes().items():
        end = position + 4 * math.prod(shape)
        layouts[name] = Layout(DType.float32, shape, position, end)
        position = end
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(build_header(layouts, {}))
        file.truncate(file.tell() + position)
    (tmp_path / "config.json").write_text(json.dumps(config_json(config)))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    linux = Path("/proc/self/statm").exists()
    read_pretrained(tmp_path, quiet)  # the code itself is paged in
    before = resident() if linux else 0
    started = time.perf_counter()
    found = read_pretrained(tmp_path, quiet)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    read_pretrained(tmp_path, quiet)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert position > 497_000_000
    assert seconds < 0.25  # 10 ms on an idle machine
    assert peak < 2**20
    assert not linux or resident() - before < 4 * 2**20
    assert found.tensors["ln_f.bias"].array[-1] == 0


# Writing


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    untied = replace(CONFIG, tie_word_embeddings=False, n_inner=20, activation_function="relu")
    half = {
        k: StoredTensor(DType.bfloat16, x.view("u2")[..., 1::2])
        for k, x in tensors(3.0, untied).items()
    }  # the upper halves of float32 words
    out = tmp_path / "a" / "b"
    write_pretrained(out, untied, half, {"tokenizer.json": b"{}", "merges.txt": b""})
    found = read_pretrained(out, quiet)
    assert found.config == untied
    assert all((x.to_float32() == 3.0).all() for x in found.tensors.values())
    names = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"]
    assert sorted(entry.name for entry in out.iterdir()) == names
    assert (out / "tokenizer.json").read_bytes() == b"{}"
    assert [entry.name for entry in out.parent.iterdir()] == ["b"]


def test_transformers_finds_all_it_wants_and_nothing_more(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    numbers = np.random.default_rng(0)
    for tied in (True, False):
        config = replace(CONFIG, tie_word_embeddings=tied)
        drawn = {k: numbers.normal(size=s).astype("f4") for k, s in config.shapes().items()}
        write_pretrained(tmp_path / str(tied), config, drawn)
        theirs, loading = transformers.GPT2LMHeadModel.from_pretrained(
            tmp_path / str(tied), output_loading_info=True
        )
        assert not any(loading.values())
        state = {name.removeprefix("transformer."): x for name, x in theirs.state_dict().items()}
        for name, array in drawn.items():
            np.testing.assert_array_equal(state[name].numpy(), array)


def test_an_empty_folder_is_filled_and_nothing_else_is_touched(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(WeightsError, match="is not empty; choose another folder"):
        write_pretrained(folder, CONFIG, tensors(2.0))
    with pytest.raises(WeightsError, match="is no folder; choose another folder"):
        write_pretrained(folder / "config.json", CONFIG, tensors(2.0))
    assert (folder / "model.safetensors").read_bytes() == before
    (folder.parent / "empty").mkdir()
    write_pretrained(folder.parent / "empty", CONFIG, tensors(2.0))
    assert mark_of(read_pretrained(folder.parent / "empty", quiet)) == 2.0
    assert {entry.name for entry in folder.parent.iterdir()} == {"gpt", "empty"}


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lacking, wrong = tensors(), tensors()
    del lacking["ln_f.bias"]
    wrong["wte.weight"] = wrong["wte.weight"].T
    words = {name: x.astype("uint16") for name, x in tensors().items()}
    for path, content, fault in [
        (tmp_path / "x", lacking, "'ln_f.bias' is not as its configuration says"),
        (tmp_path / "x", wrong, "'wte.weight' is not as its configuration says"),
        (tmp_path / "x", words, "wrap bfloat16 bits in StoredTensor"),
        (tmp_path / "file" / "x", tensors(), "Not a directory|it is a file, not a folder"),
        (tmp_path / ("n" * 300), tensors(), "File name too long"),
        (tmp_path / "a\0b", tensors(), "null byte"),
    ]:
        with pytest.raises(WeightsError, match=fault) as caught:
            write_pretrained(path, CONFIG, content)
        assert str(caught.value).isprintable()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_is_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    """A fault at every call in turn: no `out`, an empty one, or one in which nothing is missing."""
    out = tmp_path / "models" / "out"

    def reset() -> None:
        shutil.rmtree(tmp_path)
        (out if empty else tmp_path).mkdir(parents=True)

    def save() -> None:
        write_pretrained(out, CONFIG, tensors(2.0), {"vocab.json": b"{}"})

    seen = set()
    for how, outcome in faults(save, reset, monkeypatch):
        written = out.exists() and any(out.iterdir())
        if written:
            assert mark_of(read_pretrained(out, quiet)) == 2.0
            assert (out / "vocab.json").read_bytes() == b"{}"
        if how == "kill":
            assert isinstance(outcome, Killed)
        elif outcome is None:
            assert written
        else:
            assert isinstance(outcome, WeightsError)
            assert str(outcome) == f"cannot write {out}: No space left on device"
        if how != "kill" and out.parent.exists():
            assert {entry.name for entry in out.parent.iterdir()} <= {"out"}
        seen.add((how, written))
    assert len(seen) == 6  # every kind of fault struck before the change and after it
