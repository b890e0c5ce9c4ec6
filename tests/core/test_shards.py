"""Weights in several files: what an index may say, and the lies that one could tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core.errors import WeightsError
from tfx.core.shards import ShardedWeights, open_shards
from tfx.core.weights import write_weights

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
TENSORS = {
    FIRST: {"a": np.arange(3.0), "b": np.arange(4, dtype="int8")},
    SECOND: {"c": np.ones((2, 2), "float32")},
}
HOMES = {tensor: name for name, tensors in TENSORS.items() for tensor in tensors}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two shards and a sound index."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, tensors in TENSORS.items():
        write_weights(folder / name, tensors)
    write_index(folder, HOMES)
    return folder


def write_index(folder: Path, homes: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": homes}))


def contents(weights: ShardedWeights) -> dict[str, list[Any]]:
    return {name: tensor.array.tolist() for name, tensor in weights.items()}


EVERYTHING = {name: x.tolist() for tensors in TENSORS.values() for name, x in tensors.items()}


def fault_of(folder: Path) -> str:
    """The message that refuses the index: one printable line of reasonable length."""
    with pytest.raises(WeightsError) as caught:
        open_shards(folder / INDEX)
    message = str(caught.value)
    assert message.isprintable()
    assert str(folder) in message
    assert len(message) < 2 * len(str(folder)) + 400
    return message


def test_tensors_of_all_shards_in_the_order_of_the_index(folder: Path) -> None:
    write_index(folder, {name: HOMES[name] for name in "cab"})
    weights = open_shards(folder / INDEX)
    assert list(weights) == ["c", "a", "b"]
    assert contents(weights) == EVERYTHING
    assert len(weights) == 3
    assert "3 tensors" in repr(weights)
    with pytest.raises(KeyError):
        weights["d"]


def test_reads_what_the_hub_writes(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    torch = pytest.importorskip("torch")
    tensors = {f"layer.{n}": torch.arange(50.0) + n for n in range(5)}
    hub.save_torch_state_dict(tensors, tmp_path, max_shard_size=450)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert contents(open_shards(tmp_path / INDEX)) == {k: x.tolist() for k, x in tensors.items()}


def test_nothing_is_read_but_headers(tmp_path: Path) -> None:
    size = 2**30
    for name, tensor in [(FIRST, "x"), (SECOND, "y")]:
        entry = {tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
        text = json.dumps(entry).encode()
        with open(tmp_path / name, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(file.tell() + size)
    write_index(tmp_path, {"x": FIRST, "y": SECOND})
    assert open_shards(tmp_path / INDEX)["y"].array[-1] == 0


# Names


@pytest.mark.parametrize(
    "name",
    [
        "../model/" + FIRST,
        "..",
        ".",
        "",
        "/etc/passwd",
        "//server/share/x.safetensors",
        "sub/" + FIRST,
        "./" + FIRST,
        "..\\" + FIRST,
        "\\\\server\\share\\x",
        "C:\\x.safetensors",
        "C:x.safetensors",
        FIRST + ":stream",
        FIRST + "\0",
        "\0",
        "x\n.safetensors",
        "\u202ex.safetensors",
        "\ud800",
    ],
)
def test_only_plain_names(folder: Path, name: str) -> None:
    (folder / "sub").mkdir()
    write_weights(folder / "sub" / FIRST, TENSORS[FIRST])
    write_index(folder, HOMES | {"a": name, "b": name})
    assert "expected the plain name of a file in the folder of the index" in fault_of(folder)


def test_the_real_file_may_not_be_elsewhere(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "private.safetensors"
    (folder / FIRST).rename(outside)
    for target in [outside, Path("..", outside.name), Path("..", "model", "..", outside.name)]:
        (folder / FIRST).unlink(missing_ok=True)
        (folder / FIRST).symlink_to(target)
        assert "is a link that leads out of the folder" in fault_of(folder)


def test_a_link_within_the_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / FIRST).rename(folder / "one")
    (folder / FIRST).symlink_to("one")
    assert contents(open_shards(folder / INDEX)) == EVERYTHING
    (tmp_path / "name").symlink_to(folder)
    assert contents(open_shards(tmp_path / "name" / INDEX)) == EVERYTHING


@pytest.mark.parametrize("below", ["", "part"])
def test_a_hugging_face_cache(folder: Path, tmp_path: Path, below: str) -> None:
    repository = tmp_path / "hub" / "models--acme--gpt"
    snapshot = repository / "snapshots" / "0123abcd" / below
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in list(folder.iterdir()):
        blob = repository / "blobs" / f"digest-{file.name}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    assert contents(open_shards(snapshot / INDEX)) == EVERYTHING

    of_all = tmp_path / "hub" / "blobs" / "ab"  # which newer versions share between repositories
    of_all.mkdir(parents=True)
    (repository / "blobs" / f"digest-{FIRST}").rename(of_all / "hash")
    (repository / "blobs" / f"digest-{FIRST}").symlink_to(of_all / "hash")
    assert contents(open_shards(snapshot / INDEX)) == EVERYTHING

    secret = tmp_path / "hub" / "models--other" / "blobs"
    secret.mkdir(parents=True)
    (of_all / "hash").rename(secret / "x")
    (snapshot / FIRST).unlink()
    (snapshot / FIRST).symlink_to(secret / "x")
    assert "leads out of the folder" in fault_of(snapshot)


def test_a_cache_is_known_by_the_name_of_its_repository(folder: Path, tmp_path: Path) -> None:
    """Two folders that happen to be called as a cache's are none."""
    snapshot, blobs = tmp_path / "own" / "snapshots" / "x", tmp_path / "own" / "blobs"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    blobs.mkdir()
    (snapshot / FIRST).rename(blobs / "x")
    (snapshot / FIRST).symlink_to(blobs / "x")
    assert "leads out of the folder" in fault_of(snapshot)


# Disagreements


def missing(folder: Path) -> None:
    (folder / SECOND).unlink()


def dangling(folder: Path) -> None:
    missing(folder)
    (folder / SECOND).symlink_to("nowhere")


def loop(folder: Path) -> None:
    missing(folder)
    (folder / SECOND).symlink_to(SECOND)


def pipe(folder: Path) -> None:
    missing(folder)
    os.mkfifo(folder / SECOND)


def directory(folder: Path) -> None:
    missing(folder)
    (folder / SECOND).mkdir()


def cut(folder: Path) -> None:
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-1])


def pointer(folder: Path) -> None:
    (folder / SECOND).write_text("version https://git-lfs.github.com/spec/v1\n")


def lacking(folder: Path) -> None:
    write_weights(folder / FIRST, {"a": np.ones(3)})


def twice(folder: Path) -> None:
    write_weights(folder / SECOND, TENSORS[SECOND] | {"a": np.zeros(3)})


def twice_by_a_link(folder: Path) -> None:
    missing(folder)
    (folder / SECOND).symlink_to(FIRST)
    write_index(folder, {"a": FIRST, "b": SECOND})


def too_much(folder: Path) -> None:
    write_weights(folder / SECOND, TENSORS[SECOND] | {"d": np.zeros(3)})


def long_name(folder: Path) -> None:
    write_index(folder, HOMES | {"c": "n" * 300})


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (missing, f"its shard '{SECOND}' is missing"),
        (dangling, f"its shard '{SECOND}' is missing"),
        (loop, f"its shard '{SECOND}' is missing"),
        (long_name, "is missing"),
        (pipe, "not a regular file"),
        (directory, "it is a folder"),
        (cut, f"{SECOND}: the file is cut short"),
        (pointer, "a Git LFS pointer"),
        (lacking, f"tensor 'b' should be in '{FIRST}' and is not"),
        (twice, f"tensor 'a' is in two shards, '{FIRST}' and '{SECOND}'"),
        (twice_by_a_link, f"tensor 'b' is in two shards, '{SECOND}' and '{FIRST}'"),
        (too_much, f"tensor 'd' in '{SECOND}' is not in the index"),
    ],
)
def test_index_and_shards_must_agree(
    folder: Path, damage: Callable[[Path], None], fault: str
) -> None:
    damage(folder)
    assert fault in fault_of(folder)


# The index itself

SOUND = json.dumps({"metadata": {"total_size": 44}, "weight_map": HOMES})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is not sound JSON"),
        ("nothing", "it is not sound JSON"),
        (b"\xff\xff\xff", "it is not UTF-8 text"),
        ("[]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ("{}", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": "x"}', "no weight_map"),
        ('{"weight_map": {"a": 1}}', "tensor 'a' is in 1, not in a file"),
        ('{"weight_map": {"a": null}}', "tensor 'a' is in None, not in a file"),
        ('{"weight_map": {"a": {"a": "b"}}}', "not in a file"),
        ('{"weight_map": {"a": ["b"]}}', "not in a file"),
        (SOUND.replace('"b":', '"a":'), "the key 'a' comes twice"),
        (SOUND.replace('"b":', '"\\u0061":'), "the key 'a' comes twice"),
        (SOUND.replace('"metadata"', '"weight_map"'), "the key 'weight_map' comes twice"),
        (SOUND.replace("44", '{"x": 1, "x": 2}'), "the key 'x' comes twice"),
        (SOUND.replace("44", "[" * 100_000 + "]" * 100_000), "nested too deep"),
        (SOUND.replace("44", "9" * 5000), "Exceeds the limit"),
        (SOUND + " " * 2**22, "bytes; as JSON at most 4194304 are read"),
        (SOUND + "x", "Extra data"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ('{"weight_map": {"a\\n' + "x" * 300 + '": 1}}', r"tensor 'a\nxxx"),
    ],
)
def test_an_index_that_is_none(folder: Path, text: str | bytes, fault: str) -> None:
    (folder / INDEX).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert fault in fault_of(folder)


def test_where_there_is_no_index(tmp_path: Path) -> None:
    assert "No such file" in fault_of(tmp_path)
    (tmp_path / INDEX).mkdir()
    assert "it is a folder" in fault_of(tmp_path)
    (tmp_path / INDEX).rmdir()
    os.mkfifo(tmp_path / INDEX)
    assert "not a regular file" in fault_of(tmp_path)
    with pytest.raises(WeightsError, match="null byte"):
        open_shards(tmp_path / "a\0b")


def test_every_cut_and_every_flipped_bit_is_refused_or_harmless(folder: Path) -> None:
    text = (folder / INDEX).read_bytes()
    variants = [text[:length] for length in range(len(text))]
    for bit in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        variants.append(bytes(flipped))
    assert len(variants) > 1300
    accepted = 0
    for variant in variants:
        (folder / INDEX).write_bytes(variant)
        try:
            found = contents(open_shards(folder / INDEX))
        except WeightsError as error:
            refusal = str(error)
        else:
            assert found == EVERYTHING
            accepted += 1
            continue
        assert refusal.isprintable()
    assert 0 < accepted < 80  # letters of "metadata", which says nothing


UNDER_A_LIMIT = """
import resource, sys
from tfx.core.shards import open_shards
from tfx.core.errors import WeightsError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        open_shards(path)
    except WeightsError as error:
        print("refused", error)
"""


def bombs() -> dict[str, str]:
    """Indexes as long as may be, of what takes Python the most memory."""
    room = 2**22 - 100

    def filled(pattern: str) -> str:
        count = room // (len(pattern % 0xFFFFF) + 1)
        return ",".join(pattern % (0x80000 + n) for n in range(count))

    return {
        "lists": "[" + "[]," * (room // 3) + "[]]",
        "objects": "[" + "{}," * (room // 3) + "{}]",
        "floats": "[" + "0.1," * (room // 4) + "0]",
        "numbers": "[" + "999," * (room // 4) + "0]",
        "keys": '{"x":{' + filled('"%x":[]') + "}}",
        "repeated keys": '{"x":{' + '"":[],' * (room // 6) + '"":0}}',
        "nesting": "[" * room,
        "tensors": '{"weight_map":{' + filled('"%x":"b"') + "}}",
        "wide text": '{"\U0001f600' + "a" * (room - 10) + '":0}',
        "backslashes": '{"' + "\\" * room,
    }


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_no_index_takes_200_mb(tmp_path: Path) -> None:
    for name, text in bombs().items():
        (tmp_path / name).write_text(text)
        assert (tmp_path / name).stat().st_size <= 2**22
    run = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, *(str(tmp_path / name) for name in bombs())],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("refused") == len(bombs())
