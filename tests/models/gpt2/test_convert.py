"""Whatever tfx reads comes out as a folder that transformers loads, with the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core import hub
from tfx.core.checkpoint import Checkpoint, save_checkpoint
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError, WeightsError
from tfx.core.recipe import Convertible, ConvertSettings
from tfx.core.weights import StoredTensor, as_stored, open_weights, write_weights
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.convert import convert
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.presets import BUNDLED, PRESETS
from tfx.models.gpt2.weights import write_pretrained

CONFIG = Config(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)


class Report:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.notes: list[str] = []
        self.result, self.note = self.results.append, self.notes.append

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        raise AssertionError("nothing is trained here")

    def progress_done(self) -> None:
        raise AssertionError("nothing is trained here")


def drawn(config: Config = CONFIG) -> dict[str, Any]:
    numbers = np.random.default_rng(2)
    return {k: numbers.normal(size=s).astype("f4") for k, s in config.shapes().items()}


def loaded(folder: Path) -> dict[str, Any]:
    """What transformers finds in a folder, under our names, nothing missing or left over."""
    transformers = pytest.importorskip("transformers")
    model, loading = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    return {name.removeprefix("transformer."): x for name, x in model.state_dict().items()}


def test_a_run_with_its_tokenizer(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    tensors = drawn()
    for folder, mark in [(run, 0), (run / "best", 1)]:
        weights = {name: x * mark for name, x in tensors.items()}
        files = {"tokenizer.json": b"{ }"}
        save_checkpoint(folder, Checkpoint("gpt2", 5, config_json(CONFIG), weights, {}, {}, files))
    report = Report()

    result = convert(PRESETS["gpt2-tiny"], ConvertSettings(run, out), report)

    state = loaded(out)
    for name, array in tensors.items():
        np.testing.assert_array_equal(state[name].numpy(), array)
    count = sum(x.size for x in tensors.values())
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    assert (out / "tokenizer.json").read_bytes() == b"{ }"
    assert json.loads(json.dumps(result)) == {
        "model": "gpt2-tiny",
        "weights": str(run / "best" / "checkpoint-5"),
        "out": str(out),
        "num_params": count,
        "dtypes": ["float32"],
        "files": files,
    }
    assert report.results == [
        f"{out}: {count} parameters as float32",
        "files: config.json, model.safetensors, tokenizer.json",
    ]


def test_a_folder_of_transformers_comes_back_as_it_was(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = replace(CONFIG, tie_word_embeddings=False, n_inner=20, activation_function="silu")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config_json(config)))
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "vocab.json").write_text('{"a": 0}')

    result = convert(
        PRESETS["gpt2"], ConvertSettings(tmp_path / "theirs", tmp_path / "ours"), Report()
    )

    ours, theirs = (open_weights(tmp_path / x / "model.safetensors") for x in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name].array == theirs[name].array).all() for name in theirs)
    assert ours.metadata == theirs.metadata == {"format": "pt"}
    assert "generation_config.json" in result["files"]
    assert "vocab.json" in result["files"]
    assert loaded(tmp_path / "ours").keys() == loaded(tmp_path / "theirs").keys()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
def test_every_dtype_from_every_other(tmp_path: Path, source: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    tensors = {name: torch.from_numpy(x).to(getattr(torch, source)) for name, x in drawn().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config_json(CONFIG)))
    settings = ConvertSettings(tmp_path, tmp_path / "out", DType(dtype))

    assert convert(PRESETS["gpt2"], settings, Report())["dtypes"] == [dtype]

    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, x in tensors.items():
        expected = x.to(getattr(torch, dtype))
        assert written[f"transformer.{name}"].dtype == expected.dtype
        assert torch.equal(written[f"transformer.{name}"], expected)


def test_rounding_is_that_of_torch_for_every_word_that_matters() -> None:
    torch = pytest.importorskip("torch")
    upper = np.arange(2**16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    numbers = (upper[:, None] | lower).view(np.float32)
    theirs = torch.from_numpy(numbers.copy()).to(torch.bfloat16)
    largest = theirs.float().numpy()
    kept = ~(np.isfinite(numbers) & ~np.isfinite(largest))  # those that overflow are refused
    ours = as_stored("x", StoredTensor(DType.float32, numbers[kept]), DType.bfloat16).to_float32()
    np.testing.assert_array_equal(ours, largest[kept])
    for number in numbers[~kept]:
        tensor = StoredTensor(DType.float32, np.array([number]))
        with pytest.raises(WeightsError, match="too large for bfloat16"):
            as_stored("x", tensor, DType.bfloat16)


def test_what_would_overflow_is_refused_and_nothing_written(tmp_path: Path) -> None:
    tensors = drawn()
    tensors["h.1.ln_1.weight"][3] = -7e4
    write_pretrained(tmp_path / "in", CONFIG, tensors)
    settings = ConvertSettings(tmp_path / "in", tmp_path / "out", "float16")
    with pytest.raises(WeightsError) as caught:
        convert(PRESETS["gpt2"], settings, Report())
    assert str(caught.value) == (
        "'h.1.ln_1.weight' has numbers up to 7e+04, too large for float16; choose a wider dtype"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_infinities_and_nans_stay_what_they_are(tmp_path: Path) -> None:
    odd = np.array([np.inf, -np.inf, np.nan], np.float64)
    for dtype in (DType.float16, DType.bfloat16, DType.float32):
        stored = as_stored("x", StoredTensor(DType.float64, odd), dtype)
        np.testing.assert_array_equal(stored.to_float32(), odd)


def test_refusals(tmp_path: Path) -> None:
    write_pretrained(tmp_path / "in", CONFIG, drawn())
    with pytest.raises(UsageError, match="--dtype int8: expected one of float16, bfloat16, float3"):
        convert(
            PRESETS["gpt2"], ConvertSettings(tmp_path / "in", tmp_path / "out", "int8"), Report()
        )
    with pytest.raises(WeightsError, match="in is not empty; choose another folder"):
        convert(PRESETS["gpt2"], ConvertSettings(tmp_path / "in", tmp_path / "in"), Report())
    with pytest.raises(WeightsError, match="missing does not exist"):
        convert(PRESETS["gpt2"], ConvertSettings(tmp_path / "missing", tmp_path / "out"), Report())
    (tmp_path / "in" / "merges.txt").mkdir()
    with pytest.raises(WeightsError, match=r"merges\.txt: it is a folder"):
        convert(PRESETS["gpt2"], ConvertSettings(tmp_path / "in", tmp_path / "out"), Report())
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_files_of_the_folder_above_are_left_alone(tmp_path: Path) -> None:
    write_pretrained(tmp_path / "in", CONFIG, drawn())
    (tmp_path / "tokenizer.json").touch()
    result = convert(PRESETS["gpt2"], ConvertSettings(tmp_path / "in", tmp_path / "out"), Report())
    assert result["files"] == ["config.json", "model.safetensors"]


def test_a_single_file_of_mixed_dtypes(tmp_path: Path) -> None:
    tensors = drawn()
    tensors["wte.weight"] = tensors["wte.weight"].astype("float16")
    write_weights(tmp_path / "mine.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(config_json(CONFIG)))
    (tmp_path / "tokenizer.json").touch()
    settings = ConvertSettings(tmp_path / "mine.safetensors", tmp_path / "out")
    result = convert(PRESETS["gpt2"], settings, Report())
    assert result["dtypes"] == ["float16", "float32"]
    assert "tokenizer.json" in result["files"]


def test_without_weights_those_of_the_preset(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = convert(PRESETS["gpt2-tiny"], ConvertSettings(None, out, "float16"), Report())
    assert (result["weights"], result["num_params"]) == (str(BUNDLED), 924416)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.json", "merges.txt"):
        assert (out / name).read_bytes() == (BUNDLED / name).read_bytes(), name


def test_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "cached"
    write_pretrained(cached, CONFIG, drawn())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "snapshot", lambda repo, _: {"acme/gpt": cached}[repo])
    result = convert(PRESETS["gpt2"], ConvertSettings(Path("acme/gpt"), tmp_path / "out"), Report())
    assert result["weights"] == str(cached)


def test_the_recipe_can_be_converted() -> None:
    from tfx.models.gpt2.recipe import gpt2

    assert isinstance(gpt2(), Convertible)
