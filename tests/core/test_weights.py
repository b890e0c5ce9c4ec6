"""Tensors of every dtype and layout go to a file and come back, lazily and without a copy."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, WeightsError
from tfx.core.weights import StoredTensor, open_weights, write_weights

NUMPY_DTYPES = ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
NUMBERS = np.arange(24).reshape(2, 3, 4) % 7 - 2

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "transposed": lambda x: x.transpose(2, 0, 1),
    "strided": lambda x: x[:, ::2, 1::2],
    "negative strides": lambda x: x[::-1, :, ::-1],
    "one axis, backwards": lambda x: x.reshape(-1)[::-2],
    "broadcast": lambda x: np.broadcast_to(x[:1], (5, 3, 4)),
    "0-d": lambda x: x[1, 2, 3],
    "empty": lambda x: x[:, :0],
    "big endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "big endian, transposed": lambda x: x.astype(x.dtype.newbyteorder(">")).T,
}


def fault_of(path: Path) -> str:
    """The message that refuses `path`: one printable line that names the file."""
    with pytest.raises(WeightsError) as caught:
        open_weights(path)
    message = str(caught.value)
    assert message.isprintable()
    assert str(path) in message
    assert len(message) < len(str(path)) + 300
    return message


# Round trips


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_every_layout_is_written_by_value(tmp_path: Path, dtype: str, layout: str) -> None:
    array = np.asarray(LAYOUTS[layout](NUMBERS.astype(dtype)))
    array.flags.writeable = False
    path = tmp_path / "x.safetensors"

    write_weights(path, {"x": array})

    tensor = open_weights(path)["x"]
    assert (tensor.dtype, tensor.shape) == (DType(dtype), array.shape)
    np.testing.assert_array_equal(tensor.array, array)
    theirs = safetensors.numpy.load_file(path)["x"]
    assert theirs.dtype == dtype
    np.testing.assert_array_equal(theirs, array)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_reads_what_the_library_writes(tmp_path: Path, dtype: str) -> None:
    arrays = {
        "a.b": NUMBERS.astype(dtype),
        "scalar": np.array(1, dtype),
        "ü": np.zeros((3, 0), dtype),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(
        arrays, path, metadata={"format": "pt", 'a "quoted" key': "\n\u2028😀"}
    )

    file = open_weights(path)

    assert set(file) == set(arrays)
    assert file.metadata == {"format": "pt", 'a "quoted" key': "\n\u2028😀"}
    for name, array in arrays.items():
        assert file[name].dtype == dtype
        np.testing.assert_array_equal(file[name].array, array)


def test_bfloat16_both_ways_with_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    numbers = torch.tensor([1.5, -0.0, float("inf"), 3e38, 1e-40, -7.0]).to(torch.bfloat16)
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    save_file({"x": numbers}, theirs)

    stored = open_weights(theirs)["x"]
    write_weights(ours, {"x": stored})

    assert stored.dtype is DType.bfloat16
    assert stored.array.dtype == np.uint16
    np.testing.assert_array_equal(stored.to_float32(), numbers.float().numpy())
    assert load_file(ours)["x"].view(torch.int16).tolist() == numbers.view(torch.int16).tolist()


def test_to_float32_is_exact_or_refused() -> None:
    scalar = StoredTensor(DType.bfloat16, np.array(0x3FC0, ">u2")).to_float32()
    assert scalar.shape == ()
    assert scalar == 1.5
    half = np.array([65504, 6e-8], np.float16)
    np.testing.assert_array_equal(StoredTensor(DType.float16, half).to_float32(), half.astype("f4"))
    with pytest.raises(DTypeError, match="float64 does not fit float32"):
        StoredTensor(DType.float64, np.zeros(1)).to_float32()


def test_a_file_can_be_copied_as_it_was_read(tmp_path: Path) -> None:
    bits = StoredTensor(DType.bfloat16, np.arange(4, dtype=np.uint16))
    first, second = tmp_path / "1", tmp_path / "2"
    write_weights(first, {"bits": bits, "wide": np.ones(3), "flag": np.array(True)}, {"k": "v"})
    file = open_weights(first)
    write_weights(second, file, file.metadata)
    assert first.read_bytes() == second.read_bytes()
    write_weights(first, file)  # over the very file that is mapped
    assert open_weights(first)["wide"].array.tolist() == [1, 1, 1]


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    dtypes = ["uint8", "float64", "bool", "float16", "float32"]
    write_weights(tmp_path / "x", {f"{n}": np.ones(3, dtype) for n, dtype in enumerate(dtypes)})
    tensors = open_weights(tmp_path / "x").values()
    assert [t.array.ctypes.data % t.dtype.itemsize for t in tensors] == [0] * 5


def test_a_file_of_nothing(tmp_path: Path) -> None:
    write_weights(tmp_path / "x", {})
    assert dict(open_weights(tmp_path / "x")) == safetensors.numpy.load_file(tmp_path / "x") == {}


def test_arrays_are_read_only_views_that_outlive_file_and_name(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_weights(path, {"x": np.arange(3.0)})
    array = open_weights(path)["x"].array
    path.unlink()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert array.tolist() == [0, 1, 2]


# Refusals


@pytest.mark.parametrize(
    ("tensors", "metadata", "fault"),
    [
        ({"x": np.zeros(2, "uint16")}, {}, "'x': .*uint16; wrap bfloat16 bits in StoredTensor"),
        ({"x": np.zeros(2, "complex64")}, {}, "'x': .*complex64"),
        ({"x": np.array([None])}, {}, "'x': .*object"),
        ({"x": np.zeros(2, "datetime64[s]")}, {}, "'x': .*datetime64"),
        ({"x": [1.0]}, {}, "'x': expected a NumPy array, not a list"),
        ({"x": StoredTensor(DType.bfloat16, np.zeros(2, "f4"))}, {}, "'x': bfloat16 .* float32"),
        ({"x": StoredTensor(DType.float32, np.zeros(2, "i4"))}, {}, "'x': float32 .* int32"),
        ({"x": np.zeros((1,) * 9)}, {}, "'x': .*more than 8"),
        ({"__metadata__": np.zeros(1)}, {}, "no tensor may be called __metadata__"),
        ({"\ud800": np.zeros(1)}, {}, r"\\ud800' cannot be written as UTF-8"),
        ({"x\n" * 99: np.zeros(1, "u2")}, {}, r"x\\n"),
        ({}, {"k": 3}, "__metadata__: .* a string"),
        ({}, {3: "v"}, "must be text"),
        ({}, {"k": "v" * (16 << 20)}, "header of 167772"),
    ],
)
def test_what_a_file_cannot_hold(tmp_path: Path, tensors: Any, metadata: Any, fault: str) -> None:
    with pytest.raises(WeightsError, match=fault) as caught:
        write_weights(tmp_path / "x", tensors, metadata)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, fault in [
        (tmp_path / "folder", "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "missing" / "x", "No such file or directory"),
        (tmp_path / ("n" * 300), "File name too long"),
        (tmp_path / "a\0b", "null byte"),
    ]:
        with pytest.raises(WeightsError, match=fault) as caught:
            write_weights(path, {"x": np.zeros(1)})
        assert str(caught.value).isprintable()
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "pipe"}


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        (b"", "the file is empty"),
        (b"abc", "no safetensors file"),
        (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file"),
        (b"PK\x03\x04" + bytes(100), "a zip archive, probably PyTorch's; tfx reads no pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "a Python pickle"),
        (b"\x80\x04\x95\x1d\0\0\0\0\0\0\0}\x94", "a Python pickle"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "Git LFS pointer.*git lfs pull",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\xff" * 100, "no safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{}", "no safetensors file"),
        ((16 * 2**20 + 1).to_bytes(8, "little") + b"{}", "no safetensors file"),
        ((100).to_bytes(8, "little") + b"{}", "cut short: 10 bytes, its header takes 100"),
    ],
)
def test_other_files_are_recognised(tmp_path: Path, contents: bytes, fault: str) -> None:
    (tmp_path / "x").write_bytes(contents)
    assert re.search(fault, fault_of(tmp_path / "x"))


@pytest.fixture
def impatient() -> Iterator[None]:
    """Fails a test that waits for a pipe, instead of waiting with it."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)


@pytest.mark.usefixtures("impatient")
def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to pipe").symlink_to("pipe")
    assert "No such file" in fault_of(tmp_path / "missing")
    assert "a folder; give the file in it" in fault_of(tmp_path)
    assert "not a regular file" in fault_of(tmp_path / "pipe")
    assert "not a regular file" in fault_of(tmp_path / "to pipe")
    assert "symbolic links" in fault_of(tmp_path / "loop")
    with pytest.raises(WeightsError, match="null byte"):
        open_weights("a\0b")
    with pytest.raises(WeightsError, match=r"'.*a\\nb'"):
        open_weights(tmp_path / "a\nb")


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    write_weights(tmp_path / "blob", {"x": np.arange(3)})
    (tmp_path / "model.safetensors").symlink_to("blob")
    assert open_weights(tmp_path / "model.safetensors")["x"].array.tolist() == [0, 1, 2]


# Memory and time


def test_a_large_file_opens_at_once_and_unread(tmp_path: Path) -> None:
    size = 500 * 2**20
    path = tmp_path / "large.safetensors"
    header = {"x": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(header).encode().ljust(80)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + size)  # a sparse file: no byte of it is on the disk

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    linux = Path("/proc/self/statm").exists()
    open_weights(path)  # the code itself is paged in
    before = resident() if linux else 0
    tracemalloc.start()
    started = time.perf_counter()
    array = open_weights(path)["x"].array
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert array.nbytes == size
    assert seconds < 0.1
    assert peak < 2**20
    assert not linux or resident() - before < 4 * 2**20
    assert array[-1] == 0


def test_writing_copies_one_tensor_at_a_time(tmp_path: Path) -> None:
    arrays = {str(n): np.zeros((512, 1024)).T for n in range(8)}  # 4 MB each, none contiguous
    tracemalloc.start()
    write_weights(tmp_path / "x", arrays)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 9 * 2**20  # the one written, and the one before it until it is let go
