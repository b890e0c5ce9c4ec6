"""The original's run on names.txt: its counts, its losses, its names, its mean loss on the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core.backend import Backend
from tfx.core.recipe import EvalSettings, RunSettings, TrainSettings
from tfx.models.microgpt.recipe import MicroGPT

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "microgpt_losses.json").read_text())
FINAL_LOSS = 2.6496944697
ON = pytest.mark.parametrize
SLOW = pytest.mark.slow


class Quiet:
    """A reporter that keeps the lines of the result."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def result(self, line: str) -> None:
        self.lines.append(line)

    def note(self, line: str) -> None:
        pass

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        pass

    def progress_done(self) -> None:
        pass


@pytest.fixture
def names(shared_data: Path) -> Path:
    path = shared_data / "names.txt"
    if not path.is_file():
        pytest.skip(f"no {path}: the reference's names")
    return path


@pytest.fixture(autouse=True)
def _one_torch_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """More threads would only wait for one another: the products are of 16 by 16 numbers."""
    if "torch" not in request.node.name:
        yield
        return
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(backend: Backend, names: Path, out: Path, **given: Any) -> dict[str, Any]:
    return MicroGPT().train(TrainSettings(data=names, out=out, **given), backend, Quiet())


def losses(out: Path) -> list[float]:
    text = (out / "metrics.jsonl").read_text()
    return [json.loads(line)["loss"] for line in text.splitlines()]


@ON(
    ("backend", "dtype", "autograd"),
    [
        ("numpy", "float64", "core"),
        pytest.param("numpy", "float32", "core", marks=SLOW),
        pytest.param("torch", "float64", "core", marks=SLOW),
        pytest.param("torch", "float64", "native", marks=SLOW),
        pytest.param("torch", "float32", "core", marks=SLOW),
        pytest.param("torch", "float32", "native", marks=SLOW),
        pytest.param("cupy", "float64", "core", marks=SLOW),
        pytest.param("cupy", "float32", "core", marks=SLOW),
        pytest.param("strict", "float64", "core", marks=SLOW),
    ],
    indirect=["backend"],
)
def test_the_whole_run(
    backend: Backend, dtype: str, autograd: str, names: Path, tmp_path: Path
) -> None:
    result = train(backend, names, tmp_path, dtype=dtype, autograd=autograd)
    assert (result["num_docs"], result["vocab_size"], result["num_params"]) == (32033, 27, 4192)
    assert (result["backend"], result["dtype"], result["steps"]) == (str(backend), dtype, 1000)
    assert f"{result['final_loss']:.4f}" == "2.6497"
    assert result["samples"] == RECORDED["samples"]
    found = losses(tmp_path)
    assert len(found) == 1000
    if dtype == "float64":
        assert abs(result["final_loss"] - FINAL_LOSS) < 1e-9
        np.testing.assert_allclose(found, RECORDED["losses"], rtol=0, atol=1e-11)
    else:
        np.testing.assert_allclose(found, RECORDED["losses"], rtol=0, atol=1e-5)

    # What the checkpoint gives: the same names, and the reference's loss on documents it never saw.
    listener = Quiet()
    MicroGPT().run(RunSettings(weights=tmp_path), backend, listener)
    assert listener.lines == [
        f"sample {i:2d}: {name}" for i, name in enumerate(RECORDED["samples"], 1)
    ]
    count = 5000 if backend.name == "numpy" else 200
    settings = EvalSettings(weights=tmp_path, docs=(1000, 1000 + count))
    listener = Quiet()
    mean = MicroGPT().evaluate(settings, backend, listener)["loss"]
    assert listener.lines == [f"docs 1000:{1000 + count} | loss {mean:.4f}"]
    if count == 5000:
        tolerance = 1e-10 if dtype == "float64" else 1e-4
        assert mean == pytest.approx(RECORDED["eval_1000_6000"], rel=0, abs=tolerance)
        assert dtype == "float32" or listener.lines == ["docs 1000:6000 | loss 2.3644"]
