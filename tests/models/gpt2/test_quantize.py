"""A GPT-2 in fewer bits: the file, what it computes against transformers, and how well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import TOKENS, write_gpt2
from optional import torch

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, TfxError, UsageError, WeightsError
from tfx.core.quantized import Half, Quantized
from tfx.core.recipe import (
    CompareSettings,
    ConvertSettings,
    EvalSettings,
    Quantizable,
    QuantizeSettings,
    RunSettings,
    TrainSettings,
)
from tfx.core.storage import Storage
from tfx.core.weights import write_weights
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import BUNDLED
from tfx.models.gpt2.recipe import GPT2
from tfx.testing.nearness import assert_close

pytestmark = pytest.mark.usefixtures("calm")

RECIPE = GPT2("gpt2-tiny")
IDS = np.random.default_rng(3).integers(0, len(TOKENS), (2, 20))


class Page:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.result, self.note = self.lines.append, self.notes.append

    def piece(self, text: str) -> None: ...

    def progress(self, *_: Any) -> None: ...

    def progress_done(self, **_: Any) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "words", spread=0.1)


def quantize(weights: Path, out: Path, page: Page | None = None, **given: Any) -> dict[str, Any]:
    settings = QuantizeSettings(weights=weights, out=out, **({"group_size": 16} | given))
    return RECIPE.quantize(settings, NumpyBackend(), page or Page())


@pytest.fixture(scope="module", params=["int8", "int4"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def written(folder: Path, scheme: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / scheme
    quantize(folder, out, quantize=scheme)
    return out


def restored(file: Path) -> Iterator[tuple[str, HostArray]]:
    """What the tensors of a quantized file stand for, read by others and unpacked byte by byte."""
    safetensors = pytest.importorskip("safetensors.numpy")
    stored = safetensors.load_file(file)
    for name, x in stored.items():
        if name.endswith(".q"):
            matrix = name.removesuffix(".q")
            scales = stored[f"{matrix}.scales"].astype(np.float64)
            rows = np.array([_numbers(row, scales.shape[1]) for row in x])
            rows *= np.repeat(scales, rows.shape[1] // scales.shape[1], axis=1)
            yield matrix, rows.T if ".h." in matrix else rows
        elif not name.endswith(".scales"):
            yield name, x.astype(np.float64)


def _numbers(row: HostArray, groups: int) -> list[float]:
    if row.dtype == np.int8:
        return [float(x) for x in row]
    found = []
    for group in np.split(row, groups):
        found += [float(byte % 16) - 8 for byte in group] + [
            float(byte // 16) - 8 for byte in group
        ]
    return found


@pytest.fixture(scope="module")
def expected(folder: Path, written: Path) -> HostArray:
    """The logits of transformers in float64 for the weights that the file stands for."""
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).double().eval()
    state = {name: torch.tensor(np.ascontiguousarray(x)) for name, x in restored(written / FILE)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    with torch.no_grad():
        return np.asarray(model(torch.tensor(IDS)).logits.numpy())


FILE = "model.safetensors"


def logits(model: LanguageModel) -> HostArray:
    ids = tensor(IDS, model.backend, model.backend.index_dtype)
    return model.all_logits(ids).numpy()


# ---- what it computes ----------------------------------------------------------------------------


def test_the_folder_computes_what_it_stands_for(
    written: Path, expected: HostArray, backend: Backend
) -> None:
    model = LanguageModel.load(written, backend, fail)
    assert_close(logits(model), expected, DType.float32)
    assert isinstance(model.params["h.0.mlp.c_fc.weight"], Quantized)
    assert isinstance(model.params["wte.weight"], Quantized)  # the head too
    floats = {n for n, x in model.params.items() if not isinstance(x, Quantized)}
    assert floats == {n for n, x in model.params.items() if x.ndim == 1} | {"wpe.weight"}


def test_at_load_is_as_from_the_folder(
    folder: Path, written: Path, scheme: str, backend: Backend
) -> None:
    notes: list[str] = []
    storage = Storage(scheme, "int8", 16)
    there = LanguageModel.load(folder, backend, notes.append, storage=storage)
    np.testing.assert_array_equal(logits(there), logits(LanguageModel.load(written, backend, fail)))
    assert notes == [
        f"weights: {storage}, {there.weight_bytes / 1e6:.2f} MB where float32 takes 0.14 MB"
    ]


def test_tokens_through_the_cache(written: Path, backend: Backend) -> None:
    model = LanguageModel.load(written, backend, fail)
    whole, cache, parts = logits(model), model.start(2, 20), []
    for start, stop in ((0, 13), (13, 14), (14, 20)):
        ids = tensor(IDS[:, start:stop], backend, backend.index_dtype)
        parts.append(model.logits(ids, cache).numpy())
    for part, at in zip(parts, (12, 13, 19), strict=True):
        assert_close(part, whole[:, at].astype(np.float64), DType.float32)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_another_dtype_to_compute_in(
    written: Path, expected: HostArray, backend: Backend, dtype: str
) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{dtype} is not among its dtypes")
    model = LanguageModel.load(written, backend, fail, DType(dtype))
    found = logits(model)
    assert model.dtype == dtype
    if dtype == "float64":
        assert_close(found, expected, DType.float64)
    else:
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("kept", ["float16", "bfloat16"])
def test_halves(folder: Path, backend: Backend, kept: str) -> None:
    """float32 arithmetic on weights that torch rounded."""
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    for name, x in model.named_parameters():
        if x.ndim == 2 and "wpe" not in name:
            x.data = x.data.to(getattr(torch, kept)).double()
    with torch.no_grad():
        theirs = model.double()(torch.tensor(IDS)).logits.numpy()
    storage = Storage(kept, kept)
    ours = LanguageModel.load(folder, backend, ignore, storage=storage)
    assert isinstance(ours.params["wte.weight"], Half)
    assert_close(logits(ours), theirs, DType.float32)


@pytest.mark.parametrize("kept", ["float16", "bfloat16"])
def test_keys_and_values_in_halves(folder: Path, backend: Backend, kept: str) -> None:
    model = LanguageModel.load(folder, backend, fail)
    ids = tensor(IDS, backend, backend.index_dtype)
    plain = model.logits(ids, model.start(2, 20)).numpy()
    narrow = replace(model, kv_dtype=DType(kept))
    found = narrow.logits(ids, narrow.start(2, 20)).numpy()
    off = np.abs(found - plain).max() / np.abs(plain).max()
    assert 0 < off < {"float16": 2e-3, "bfloat16": 2e-2}[kept]


def test_a_head_of_its_own(tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "in", tie_word_embeddings=False)
    quantize(folder, tmp_path / "out", quantize="int4", quantize_embeddings="none")
    model = LanguageModel.load(tmp_path / "out", NumpyBackend(), fail)
    quantized = {name for name, x in model.params.items() if isinstance(x, Quantized)}
    assert len(quantized) == 8 and not quantized & {"wte.weight", "lm_head.weight"}
    quantize(folder, tmp_path / "all", quantize="int8")
    model = LanguageModel.load(tmp_path / "all", NumpyBackend(), fail)
    assert isinstance(model.params["lm_head.weight"], Quantized)


# ---- the command ---------------------------------------------------------------------------------


def test_what_is_written_and_told(folder: Path, tmp_path: Path) -> None:
    page, text = Page(), tmp_path / "text.txt"
    text.write_text("Near the inn, the winter. " * 9)
    out = tmp_path / "out"
    found = quantize(folder, out, page, quantize="int4", scale_dtype="float32", data=text)
    assert isinstance(RECIPE, Quantizable)
    files = {"config.json", FILE, "vocab.json", "merges.txt"}
    assert {x.name for x in out.iterdir()} == files
    about = json.loads((out / "config.json").read_text())["quantization_config"]
    assert about == {
        "quant_method": "tfx",
        "scheme": "int4",
        "embeddings": "int8",
        "group_size": 16,
        "scale_dtype": "float32",
    }
    before, after = (found[f"bytes_{when}"] for when in ("before", "after"))
    assert page.lines[-2:] == [
        f"{out}: int4 in groups of 16, embeddings int8",
        f"weights: {before / 1e6:.2f} MB before, {after / 1e6:.2f} MB after",
    ]
    size = (out / FILE).stat().st_size
    assert after < size < after + 8000
    for when, weights in (("before", folder), ("after", out)):
        measured = RECIPE.evaluate(EvalSettings(weights=weights, data=text), NumpyBackend(), Page())
        assert found[f"perplexity_{when}"] == measured["perplexity"]
    ratio = found["perplexity_after"] / found["perplexity_before"]
    assert page.lines[-3] == f"perplexity {ratio - 1:+.2%}"
    json.dumps(found, allow_nan=False)


def test_bundled_weights_keep_their_quality(shared_data: Path, tmp_path: Path) -> None:
    """The promise: at most half a percent more perplexity in int8, five in int4."""
    text = (shared_data / "tinyshakespeare.txt").read_text()
    (tmp_path / "end.txt").write_text(text[-4000:])

    def perplexity(**how: Any) -> float:
        settings = EvalSettings(weights=BUNDLED, data=tmp_path / "end.txt", **how)
        return float(RECIPE.evaluate(settings, NumpyBackend(), Page())["perplexity"])

    plain = perplexity()
    assert perplexity(quantize="int8") < 1.005 * plain
    assert perplexity(quantize="int4") < 1.05 * plain


def test_generation_is_told_apart_by_nothing_but_the_numbers(written: Path, folder: Path) -> None:
    def text(weights: Path, **how: Any) -> Any:
        common = {"prompt": "the", "temperature": 0.0, "max_new_tokens": 6}
        settings = RunSettings(weights=weights, **(common | how))
        return RECIPE.run(settings, NumpyBackend(), Page())

    scheme = written.name
    found = text(written)
    there = text(folder, quantize=scheme, quantize_embeddings="int8", group_size=16)
    assert found["samples"] == there["samples"]
    assert found["weight_bytes"] == there["weight_bytes"] < text(folder)["weight_bytes"] / 2.5
    assert text(folder, kv_dtype="float16")["samples"]


# ---- refusals ------------------------------------------------------------------------------------


def refused(kind: type[TfxError], action: Callable[[], object], *words: str) -> None:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_what_needs_floats_says_so(written: Path, tmp_path: Path) -> None:
    numpy, page, out = NumpyBackend(), Page(), tmp_path / "out"
    (tmp_path / "data.txt").write_text("the inn " * 50)
    actions: dict[str, Callable[[], object]] = {
        "training": lambda: RECIPE.train(
            TrainSettings(weights=written, data=tmp_path / "data.txt", out=out), numpy, page
        ),
        "tfx convert": lambda: RECIPE.convert(ConvertSettings(written, out), page),
        "tfx quantize": lambda: quantize(written, out, quantize="int8"),
        "quantizing": lambda: RECIPE.run(
            RunSettings(weights=written, prompt="a", quantize="int8"), numpy, page
        ),
        "tfx compare": lambda: RECIPE.example(CompareSettings(weights=written), numpy),
    }
    for who, action in actions.items():
        refused(UsageError, action, "is quantized", who, "give the weights it was made from")
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"quantize": "int3"}, ("--quantize int3: expected one of",)),
        ({"quantize": "float16"}, ("--quantize float16", "tfx convert --dtype float16")),
        ({}, ("--group-size says how to quantize",)),
        ({"group_size": None}, ("say how with --quantize int8 or int4",)),
        ({"quantize": "int8", "group_size": 24}, ("24", "rows of 32", "'wte.weight'", "choose 32")),
        ({"quantize": "int8", "scale_dtype": "int8"}, ("--scale-dtype int8: expected float16",)),
    ],
)
def test_flags(folder: Path, tmp_path: Path, given: Any, words: tuple[str, ...]) -> None:
    refused(UsageError, lambda: quantize(folder, tmp_path / "out", **given), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [{"kv_dtype": "float64"}, {"kv_dtype": "int8"}])
def test_keys_and_values_of_another_kind(folder: Path, given: Any) -> None:
    settings = RunSettings(weights=folder, prompt="a", **given)
    words = f"--kv-dtype {given['kv_dtype']}: expected one of bfloat16, float16, float32"
    refused(UsageError, lambda: RECIPE.run(settings, NumpyBackend(), Page()), words)


def test_a_text_that_will_not_do_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "none.txt"
    refused(TfxError, lambda: quantize(folder, out, quantize="int8", data=data), "none.txt")
    assert not out.exists()


def test_an_occupied_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    refused(WeightsError, lambda: quantize(folder, tmp_path, quantize="int8"), "is not empty")
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_a_damaged_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quantize(folder, out, quantize="int8")
    safetensors = pytest.importorskip("safetensors.numpy")
    whole = safetensors.load_file(out / FILE)
    name = "transformer.h.0.mlp.c_fc.weight"

    def load() -> object:
        return LanguageModel.load(out, NumpyBackend(), fail)

    def exchanged(**changes: Any) -> None:
        given = whole | {f"{name}.{key}": x for key, x in changes.items()}
        write_weights(out / FILE, {k: x for k, x in given.items() if x is not None})

    exchanged(scales=None)
    refused(WeightsError, load, str(out), "is damaged", f"'{name}.q'", "without its scales")
    exchanged(scales=np.full((128, 2), np.nan, np.float16))
    refused(WeightsError, load, "is damaged", "scales that are not finite")
    exchanged(q=np.ones((64, 32), np.int8), scales=np.ones((64, 2), np.float16))
    refused(WeightsError, load, "does not fit", "is [32, 64], expected [32, 128]")
    exchanged(q=None, scales=None)
    refused(WeightsError, load, "missing: h.0.mlp.c_fc.weight")
    exchanged()
    load()
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (out / "config.json").write_text(json.dumps(config))
    refused(CheckpointError, load, "quantized by", "gptq", "quantize them")
    del config["quantization_config"]
    (out / "config.json").write_text(json.dumps(config))
    refused(WeightsError, load, "missing", "unexpected")


def fail(line: str) -> None:
    raise AssertionError(line)


def ignore(line: str) -> None:
    """Not in question here."""
