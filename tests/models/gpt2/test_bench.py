"""What `tfx bench` times of a GPT-2 is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tfx
from tfx.core.errors import UsageError
from tfx.core.recipe import BenchSettings
from tfx.core.tensor import Tensor
from tfx.models.gpt2 import bench
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.presets import PRESETS, Preset
from tfx.models.gpt2.weights import read_pretrained
from tfx.testing import StrictBackend

SMALL = Preset(
    "small", Config(vocab_size=48, n_positions=16, n_embd=8, n_layer=2, n_head=2), "acme/small"
)
"""As small as can be, with weights on the Hub."""

BUNDLED = PRESETS["gpt2-tiny"]


def silent(line: str) -> None:
    pass


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random ones, since the cache is empty."""
    monkeypatch.setattr("tfx.core.hub._cache", lambda: tmp_path / "hub")
    notes: list[str] = []
    found = bench.weights_to_bench(SMALL, BenchSettings(), tmp_path / "weights", notes.append)
    assert notes == ["weights: random ones, as those of small are not here; --weights names others"]
    return found


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of all that a model is given to read."""
    seen: list[tuple[int, ...]] = []
    read = LanguageModel.logits

    def logits(self: LanguageModel, ids: Tensor, cache: Any) -> Tensor:
        seen.append(ids.shape)
        return read(self, ids, cache)

    monkeypatch.setattr(LanguageModel, "logits", logits)
    return seen


def test_random_weights_are_of_the_model(weights: Path) -> None:
    found = read_pretrained(weights, silent)
    assert found.config == SMALL.config
    assert {name: x.array.shape for name, x in found.tensors.items()} == SMALL.config.shapes()


def test_weights_that_are_here_are_taken(tmp_path: Path) -> None:
    asked = BenchSettings(weights=tmp_path)
    assert bench.weights_to_bench(SMALL, asked, tmp_path / "new", silent) == tmp_path
    own = bench.weights_to_bench(BUNDLED, BenchSettings(), tmp_path / "new", silent)
    assert own == BUNDLED.source
    assert not (tmp_path / "new").exists()


def test_a_prompt_is_read_in_one_pass(weights: Path, shapes: list[tuple[int, ...]]) -> None:
    settings = BenchSettings(weights=weights, prompt_tokens=5, batch_size=3)
    work = bench.work("prefill", SMALL, settings, tfx.backend("numpy"), silent)
    work.run(work.prepare())
    assert (shapes, work.steps, work.tokens) == ([(3, 5)], 1, 15)


def test_decoding_is_timed_from_the_first_token_on(
    weights: Path, shapes: list[tuple[int, ...]]
) -> None:
    settings = BenchSettings(weights=weights, prompt_tokens=5, max_new_tokens=4, batch_size=3)
    work = bench.work("decode", SMALL, settings, tfx.backend("numpy"), silent)
    begun = work.prepare()
    assert shapes == [(3, 5)]
    work.run(begun)
    assert (shapes[1:], work.steps, work.tokens) == ([(3, 1)] * 4, 4, 12)


def test_the_whole_of_the_positions_can_be_used(
    weights: Path, shapes: list[tuple[int, ...]]
) -> None:
    fits = BenchSettings(weights=weights, prompt_tokens=12, max_new_tokens=4)
    work = bench.work("decode", SMALL, fits, tfx.backend("numpy"), silent)
    work.run(work.prepare())
    assert sum(length for _, length in shapes) == 16
    beyond = BenchSettings(weights=weights, prompt_tokens=13, max_new_tokens=4)
    with pytest.raises(UsageError, match="--prompt-tokens 13 and --max-new-tokens 4: the model"):
        bench.work("decode", SMALL, beyond, tfx.backend("numpy"), silent)


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_training_steps_are_taken(name: str) -> None:
    backend = StrictBackend() if name == "strict" else tfx.backend(name)
    settings = BenchSettings(batch_size=2, block_size=7)
    work = bench.work("train", SMALL, settings, backend, silent)
    assert (work.what, work.tokens, work.dtype) == ("2 x 7 tokens", 14, "float32")
    work.run(work.prepare())
    work.run(work.prepare())
    with pytest.raises(UsageError, match="block_size=17: expected 1 to 16"):
        bench.work("train", SMALL, BenchSettings(block_size=17), backend, silent)
