"""A device that is full, and weights on their way to one that is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.dtypes import DType
from tfx.core.errors import OutOfMemory
from tfx.core.memory import memory_watched
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.weights import write_pretrained

MB = 10**6


@pytest.fixture
def simulated(B: Any, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a process of its own, on a simulated device of so many MB."""
    pytest.importorskip("cudasim", reason="only a simulated device can be as small as one likes")

    def call(megabytes: int, *args: str) -> subprocess.CompletedProcess[str]:
        small = {
            "CUDASIM_MEMORY_MB": str(megabytes),
            "CUDASIM_DEFER": "0",  # work that is put off keeps a copy of what it will need
            "TFX_OFFLINE": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "cudasim", *args],
            capture_output=True, encoding="utf-8", cwd=tmp_path, env=os.environ | small,
        )  # fmt: skip

    return call


# ---- no room -------------------------------------------------------------------------------------

FULL = (
    r"tfx: out of memory on cupy:0: [\d.,]+ MB more asked for, [\d.,]+ MB of [\d.,]+ MB free, "
    r"[\d.,]+ MB taken by this process \(it takes less with {}, where the model has that\)\n"
)


def test_loading_a_model_that_is_too_large(simulated: Any) -> None:
    done = simulated(3, "-m", "tfx", "run", "gpt2-tiny", "a", "-b", "cupy", "--no-stream")
    assert (done.returncode, done.stdout) == (1, "")
    less = "fewer --max-new-tokens, --quantize int8 and --kv-dtype float16"
    assert re.fullmatch(FULL.format(less), done.stderr.splitlines(True)[-1])


def test_training_batches_that_are_too_large(simulated: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("to be or not to be " * 500)
    train = "-m tfx train gpt2-tiny -b cupy --data text --out run --steps 2 --batch-size 64"
    done = simulated(24, *train.split())
    assert done.returncode == 1
    less = "a smaller --batch-size, --checkpoint-activations and a smaller --set block_size"
    assert re.fullmatch(FULL.format(less), done.stderr.splitlines(True)[-1])
    left = [path.name for path in (tmp_path / "run").iterdir()]
    assert left == ["metrics.jsonl"] and not (tmp_path / "run/metrics.jsonl").read_text()


@contextmanager
def limited(cupy: Any, size: int) -> Iterator[None]:
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() + size)
    try:
        yield
    finally:
        pool.set_limit(size=0)


def test_running_out_in_the_midst_of_a_text(
    B: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfx.cli.main import main

    cupy = sys.modules["cupy"]
    run = "tfx run gpt2-tiny a -b cupy --num-samples 400 --kv-dtype float16 --seed 1"
    monkeypatch.setattr(sys, "argv", run.split())
    with limited(cupy, 8 * MB), pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert re.search(
        r"tfx: out of memory on cupy:0: [\d.,]+ MB more asked for, [\d.,]+ MB taken by this "
        r"process, which may take [\d.,]+ MB \(CUPY_GPU_MEMORY_LIMIT\) \(it takes less with fewer "
        r"--max-new-tokens and --quantize int8, where the model has that\)\n$",
        capsys.readouterr().err,
    )


def test_what_else_means_that_there_is_no_room(B: Any) -> None:
    cuda = sys.modules["cupy"].cuda
    for error in (
        cuda.runtime.CUDARuntimeError(2),
        cuda.driver.CUDADriverError(2),
        cuda.cublas.CUBLASError(3),
    ):
        told = B.out_of_memory(error)
        assert told and told.startswith("CUDA asked for room of its own, ")
    for error in (cuda.runtime.CUDARuntimeError(1), cuda.cublas.CUBLASError(1), ValueError("x")):
        assert B.out_of_memory(error) is None


def test_any_backend_may_say_that_there_is_no_room() -> None:
    B = NumpyBackend()
    refused = pytest.raises(OutOfMemory, match=r"^out of memory on numpy: Unable to allocate 7\.1")
    with refused, memory_watched(B):
        B.full(shape=(10**15,), value=1.0, dtype=DType.float64)
    with pytest.raises(KeyError), memory_watched(B):
        {}["other errors pass"]


def test_torch_says_it_too() -> None:
    pytest.importorskip("torch")
    from tfx.backends.torch.backend import TorchBackend

    refused = pytest.raises(OutOfMemory, match=r"^out of memory on torch: 4,000,000,000\.0 MB more")
    with refused, memory_watched(B := TorchBackend()):
        B.full(shape=(10**15,), value=1.0, dtype=DType.float32)
    told = B.out_of_memory(
        sys.modules["torch"].OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 "
            "GiB of which 1.20 GiB is free. Process 7 has 3 GiB memory in use."
        )
    )
    asked = "Tried to allocate 2.00 GiB"
    assert told == f"{asked}. GPU 0 has a total capacity of 7.79 GiB of which 1.20 GiB is free"


# ---- weights on their way ------------------------------------------------------------------------

LOADING = """
import sys
from pathlib import Path
import cudasim, cupy
from tfx.backends.cupy.backend import CupyBackend
from tfx.core.memory import forget_peak, peak_resident
from tfx.core.dtypes import DType
from tfx.core.parameters import Parameters, borrowed
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.weights import read_pretrained

B = CupyBackend()
(B.full(shape=(9,), value=1.0, dtype=DType.float32) + 1).sum()
if not forget_peak():
    sys.exit("no peak")
cudasim.counts(reset=True)
before = peak_resident()
if sys.argv[1] == "run":
    kept = LanguageModel.load(Path(sys.argv[2]), B, print)
else:
    tensors = read_pretrained(Path(sys.argv[2]), print).tensors
    kept = Parameters.from_host(tensors, B, DType.float32)
counts = cudasim.counts()
print(peak_resident() - before, counts["host_to_device_bytes"], counts["device_to_host"])
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """A folder, the bytes of its weights, and those of the largest of them."""
    folder = tmp_path_factory.mktemp("weights") / "model"
    config = Config(n_layer=6, n_embd=384, n_head=6, vocab_size=10_000, n_positions=256)
    values = np.random.default_rng(0)
    arrays = {name: values.random(s, np.float32) for name, s in config.shapes().items()}
    write_pretrained(folder, config, arrays)
    sizes = [array.nbytes for array in arrays.values()]
    return folder, sum(sizes), max(sizes)


@pytest.mark.parametrize("purpose", ["run", "train"])
def test_weights_go_from_the_file_to_the_device(
    simulated: Any, checkpoint: tuple[Path, int, int], purpose: str
) -> None:
    """The memory of a simulated device is the host's, and so is the mapped file; beyond those two
    there is no copy of the model, but of one tensor at most."""
    folder, size, largest = checkpoint
    assert size > 55 * MB
    done = simulated(1000, "-c", LOADING, purpose, str(folder))
    if "no peak" in done.stderr:
        pytest.skip("this system lets nobody reset the peak")
    assert done.returncode == 0, done.stderr
    grown, uploaded, downloads = map(int, done.stdout.split())
    assert (uploaded, downloads) == (size, 0)
    assert size < grown < 2 * size + largest + 6 * MB


def test_an_array_is_its_own_once_it_is_there(B: Any) -> None:
    """However large it is, and however it lies."""
    for values in (
        np.arange(400_000, dtype="f4"),
        np.arange(800_000, dtype="f4")[::2],
        np.arange(400_000, dtype=">f4"),
        np.arange(400_000, dtype="f8"),
        np.arange(600_000, dtype="f4").reshape(600, 1000).T,
    ):
        expected = values.astype("f4")
        x = B.asarray(values, dtype=DType.float32)
        values[:] = -1
        np.testing.assert_array_equal(B.to_numpy(x), expected, strict=True)
    words = np.arange(600_000, dtype="u4").astype("u2")
    y = B.asarray(words, dtype=DType.bfloat16)
    np.testing.assert_array_equal(B.to_numpy(y), words, strict=True)
