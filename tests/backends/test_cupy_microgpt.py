"""A microGPT on cupy goes the way it goes on numpy: its losses, and the names it makes up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.recipe import RunSettings, TrainSettings
from tfx.models.microgpt.data import BUNDLED
from tfx.models.microgpt.recipe import MicroGPT

pytestmark = [
    pytest.mark.parametrize("backend", ["cupy"], indirect=True),
    pytest.mark.slow,
]

STEPS = 200


class Lines:
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


def trained(backend: Backend, out: Path, dtype: str) -> tuple[Any, list[float]]:
    """What a run says in the end, and the loss of each step."""
    settings = TrainSettings(data=BUNDLED, out=out, steps=STEPS, dtype=dtype, autograd="core")
    result = MicroGPT().train(settings, backend, Lines())
    text = (out / "metrics.jsonl").read_text()
    return result, [json.loads(line)["loss"] for line in text.splitlines()]


def names(backend: Backend, run: Path) -> list[str]:
    listener = Lines()
    MicroGPT().run(RunSettings(weights=run), backend, listener)
    return listener.lines


@pytest.mark.parametrize(("dtype", "apart"), [("float64", 1e-10), ("float32", 1e-4)])
def test_losses_and_names_are_those_of_numpy(
    backend: Backend, dtype: str, apart: float, tmp_path: Path
) -> None:
    numpy = NumpyBackend()
    expected, losses = trained(numpy, tmp_path / "numpy", dtype)
    found, here = trained(backend, tmp_path / "cupy", dtype)
    assert (found["backend"], len(here)) == (str(backend), STEPS)
    np.testing.assert_allclose(here, losses, rtol=0, atol=apart)
    assert losses[-1] < losses[0]
    assert found["samples"] == expected["samples"]
    for run in ("numpy", "cupy"):
        lines = names(backend, tmp_path / run)
        assert lines == names(numpy, tmp_path / run)
        assert len(lines) == len(expected["samples"])
