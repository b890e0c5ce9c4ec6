"""Perplexity against transformers, and each number against its definition."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import SIZES, write_gpt2
from optional import torch

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.errors import DataError, NonFiniteError, TfxError, UsageError
from tfx.core.recipe import EvalSettings
from tfx.core.tokenizer import load_tokenizer
from tfx.core.weights import open_weights, write_weights
from tfx.core.windows import windows_over
from tfx.models.gpt2 import evaluation
from tfx.models.gpt2.evaluation import Measures, standard_error
from tfx.models.gpt2.recipe import GPT2

TEXT = "Near the inn, the winter: thé à l'été. 🎈 " * 7 + "The end"
POSITIONS = SIZES["n_positions"]


class Page:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.losses: list[float] = []
        self.closed: list[bool] = []

    def result(self, line: str) -> None:
        self.lines.append(line)

    def piece(self, text: str) -> None:
        raise AssertionError("results are lines")

    def note(self, line: str) -> None:
        raise AssertionError(line)

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        self.steps.append((step, total))
        self.losses.append(loss)

    def progress_done(self, *, is_result: bool = True) -> None:
        self.closed.append(is_result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "words")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def evaluate(
    folder: Path, data: Path | None, page: Page | None = None, backend: Backend | None = None,
    **given: Any,
) -> dict[str, Any]:  # fmt: skip
    settings = EvalSettings(weights=folder, data=data, **given)
    return GPT2("gpt2").evaluate(settings, backend or NumpyBackend(), page or Page())


def documented(folder: Path, ids: list[int], stride: int, tmp_path: Path) -> tuple[float, int]:
    """The loop of transformers' documentation; the sum of losses, and of how many tokens.

    It reads windows of ids, of which the last is a target alone: with the one position more that
    the model has here, it predicts as much from a window as we do. Unlike there, the mean loss of a
    window is multiplied by the number of its targets.
    """
    transformers = pytest.importorskip("transformers")
    wider = tmp_path / "wider"
    wider.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text()) | {"n_positions": POSITIONS + 1}
    (wider / "config.json").write_text(json.dumps(config))
    stored = {
        name: tensor.array for name, tensor in open_weights(folder / "model.safetensors").items()
    }
    stored["wpe.weight"] = np.pad(stored["wpe.weight"], [(0, 1), (0, 0)])
    write_weights(wider / "model.safetensors", stored, {"format": "pt"})
    model = transformers.GPT2LMHeadModel.from_pretrained(wider).eval()

    encodings = torch.tensor([ids])
    seq_len, max_length = encodings.size(1), POSITIONS + 1
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, seq_len, stride):
        end_loc = min(begin_loc + max_length, seq_len)
        trg_len = end_loc - prev_end_loc
        input_ids = encodings[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            loss = model(input_ids, labels=target_ids).loss
        count = int((target_ids[:, 1:] != -100).sum())
        nll_sum, n_tokens = nll_sum + float(loss) * count, n_tokens + count
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return nll_sum, n_tokens


@pytest.mark.parametrize("stride", [None, POSITIONS, 11, 1])
def test_the_perplexity_is_that_of_transformers(
    folder: Path, data: Path, tmp_path: Path, stride: int | None, backend: Backend
) -> None:
    ids = load_tokenizer(folder).encode(TEXT)
    total, count = documented(folder, ids, stride or POSITIONS, tmp_path)
    found = evaluate(folder, data, backend=backend, stride=stride)
    assert found["num_tokens"] == count == len(ids) - 1
    assert found["loss"] == pytest.approx(total / count, rel=2e-6)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert found["stride"] == (stride or POSITIONS)


def test_a_shorter_stride_is_another_question(folder: Path, data: Path) -> None:
    losses = {evaluate(folder, data, stride=stride)["loss"] for stride in (32, 31, 16, 3)}
    assert len(losses) == 4


def test_neither_batches_nor_slices_change_anything(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(folder, data, stride=9)["loss"]
    for size in (1, 4, 1000):
        assert evaluate(folder, data, stride=9, batch_size=size)["loss"] == pytest.approx(
            expected, rel=1e-6
        )
    rows: list[int] = []
    head = evaluation.head
    monkeypatch.setattr(evaluation, "head", lambda p, x: rows.append(len(x)) or head(p, x))
    monkeypatch.setattr(evaluation, "LOGITS_AT_ONCE", 4 * SIZES["vocab_size"])
    assert evaluate(folder, data, stride=9)["loss"] == pytest.approx(expected, rel=1e-6)
    assert max(rows) == 4


def test_the_measures_follow_from_the_losses() -> None:
    losses = np.array([1.0, 2.0, 6.0, 3.0, 3.0])
    found = Measures.of(losses, "né€".encode()[1:], 2)  # the text's first byte was a token
    assert (found.num_tokens, found.num_characters, found.num_bytes) == (5, 2, 5)
    assert found.loss == 3.0
    assert found.perplexity == pytest.approx(math.e**3)
    assert found.nats_per_character == 7.5
    assert found.bits_per_byte == pytest.approx(3 / math.log(2))
    sums = (1 + 2 - 6) ** 2 + (6 + 3 - 6) ** 2 + (3 - 3) ** 2
    assert found.standard_error == pytest.approx(math.sqrt(3 / 2 * sums) / 5)
    assert found.line() == (
        "tokens 5 | loss 3.0000 | standard error 1.0392 | perplexity 20.0855 | "
        "nats/character 7.5000 | bits/byte 4.3281"
    )


def test_what_cannot_be_known_is_none() -> None:
    found = Measures.of(np.array([800.0]), b"", 2)
    assert found.perplexity is found.standard_error is found.bits_per_byte is None
    assert found.line() == "tokens 1 | loss 800.0000"
    with pytest.raises(NonFiniteError):
        Measures.of(np.array([1.0, np.inf]), b"ab", 2)


def test_the_standard_error_is_as_large_as_the_spread_of_means() -> None:
    """Losses that are alike within a block, many times; their spread alone would say a third."""
    rng = np.random.default_rng(0)
    texts = np.repeat(rng.normal(3, 1, (2000, 40)), 10, axis=1) + rng.normal(0, 0.3, (2000, 400))
    told = np.mean([standard_error(text, 10) for text in texts])
    assert told == pytest.approx(texts.mean(1).std(), rel=0.05)
    assert standard_error(texts[0], 1) < told / 2


@pytest.mark.parametrize("count", [1, 4, 5, 9, 40])
@pytest.mark.parametrize(("size", "stride"), [(4, 4), (4, 3), (4, 1), (1, 1)])
def test_every_token_counts_once_and_has_enough_in_view(count: int, size: int, stride: int) -> None:
    windows = windows_over(count, size, stride)
    counted = [i for w in windows for i in range(w.counted, w.stop)]
    assert counted == list(range(count))
    assert all(w.stop - w.start <= size for w in windows)
    assert all(w.counted - w.start >= size - stride for w in windows[1:])


def test_progress_is_told_and_is_no_result(folder: Path, data: Path) -> None:
    page = Page()
    found = evaluate(folder, data, page, stride=16, batch_size=3)
    total = page.steps[0][1]
    assert page.steps == [(min(n, total), total) for n in range(3, total + 3, 3)]
    assert page.losses[-1] == pytest.approx(found["loss"])
    assert page.closed == [False]
    assert len(page.lines) == 1
    assert page.lines[0].startswith(f"tokens {found['num_tokens']} | loss {found['loss']:.4f}")


def test_the_object(folder: Path, data: Path) -> None:
    found = evaluate(folder, data)
    assert list(found) == [
        *("model", "backend", "device", "dtype", "weights", "weight_bytes", "data", "stride"),
        *("num_tokens", "num_characters", "num_bytes", "loss", "standard_error", "perplexity"),
        *("nats_per_character", "bits_per_byte", "timing"),
    ]
    assert found["num_bytes"] == len(TEXT.encode()) - 1
    assert found["num_characters"] == len(TEXT) - 1
    assert found["loss"] * found["num_tokens"] == pytest.approx(
        found["bits_per_byte"] * math.log(2) * found["num_bytes"]
    )


@pytest.mark.parametrize(
    ("text", "given", "kind", "message"),
    [
        (TEXT, {"stride": 33}, UsageError, "--stride 33 would leave tokens out; expected at most"),
        (TEXT, {"docs": (0, 3)}, UsageError, "gpt2 has no use for --docs"),
        (TEXT, {"dtype": "int8"}, UsageError, "--dtype int8"),
        ("a", {}, DataError, "the text is 1 token long; expected a second one to predict"),
        ("", {}, DataError, "is empty"),
        (None, {}, DataError, "t.txt: No such file"),
    ],
)
def test_what_is_refused(
    folder: Path, tmp_path: Path, text: str | None, given: Any, kind: type[TfxError], message: str
) -> None:
    path = tmp_path / "t.txt"
    if text is not None:
        path.write_text(text)
    page = Page()
    with pytest.raises(kind) as caught:
        evaluate(folder, path, page, **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert page.lines == []


def test_data_are_one_text_and_a_tokenizer_reads_it(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="give a text with --data FILE"):
        evaluate(folder, None)
    with pytest.raises(DataError, match="is a folder; name one text file in it"):
        evaluate(folder, tmp_path)
    bare = write_gpt2(tmp_path / "bare", tokenizer=False)
    with pytest.raises(UsageError, match="bare came without a tokenizer"):
        evaluate(bare, data)


def test_parameters_that_are_too_large(tmp_path: Path, data: Path) -> None:
    huge = write_gpt2(tmp_path / "huge", spread=1e30)
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        evaluate(huge, data)
