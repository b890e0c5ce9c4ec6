"""What `tfx bench` times of a microGPT is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tfx
from tfx.core.capture import eager
from tfx.core.checkpoint import load_checkpoint
from tfx.core.recipe import BenchSettings
from tfx.core.tensor import Tensor
from tfx.models.microgpt import bench, sampling
from tfx.models.microgpt.model import forward


def silent(line: str) -> None:
    pass


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    notes: list[str] = []
    found = bench.weights_to_bench(BenchSettings(), tmp_path / "weights", notes.append)
    assert notes == ["weights: random ones; --weights names others"]
    return found


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the model was given at a time."""
    seen: list[int] = []

    def counted(p: Any, config: Any, ids: Tensor, cache: Any = None) -> Tensor:
        seen.append(len(ids))
        return forward(p, config, ids, cache)

    monkeypatch.setattr(sampling, "forward", counted)
    return seen


def test_random_weights_are_those_that_a_run_begins_with(weights: Path, tmp_path: Path) -> None:
    begun = load_checkpoint(weights, "microgpt")
    settings = BenchSettings(weights=weights)
    work = bench.work("load", settings, tfx.backend("numpy"), silent)
    model = work.run(work.prepare())
    assert (work.dtype, work.tokens) == ("float64", 0)
    assert set(model.params) == set(begun.weights)  # type: ignore[attr-defined]
    assert bench.weights_to_bench(settings, tmp_path / "new", silent) == weights


def test_a_prompt_is_read_in_one_pass(weights: Path, lengths: list[int]) -> None:
    settings = BenchSettings(weights=weights)
    work = bench.work("prefill", settings, tfx.backend("numpy"), silent)
    work.run(work.prepare())
    assert (lengths, work.tokens) == ([16], 16)


def test_every_token_written_is_a_step(weights: Path, lengths: list[int]) -> None:
    settings = BenchSettings(weights=weights)
    work = bench.work("decode", settings, tfx.backend("numpy"), silent)
    lengths.clear()
    with eager():
        work.run(work.prepare())
    assert lengths == [1] * work.steps
    assert work.tokens == work.steps


def test_every_run_of_training_begins_anew() -> None:
    work = bench.work("train", BenchSettings(dtype="float32"), tfx.backend("numpy"), silent)
    first, second = work.prepare(), work.prepare()
    assert first.params.flat.tolist() == second.params.flat.tolist()
    work.run(first)
    assert (work.dtype, work.steps) == ("float32", 100)
    assert work.tokens > 100
