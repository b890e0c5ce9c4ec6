"""`tfx eval gpt2`: how well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import as_dtype
from tfx.core.errors import DataError, NonFiniteError, UsageError
from tfx.core.files import shown
from tfx.core.nn import cross_entropy
from tfx.core.recipe import EvalSettings, Reporter
from tfx.core.storage import Storage
from tfx.core.tokenizer.corpus import read_texts
from tfx.core.windows import LOGITS_AT_ONCE, Window, windows_over
from tfx.models.gpt2.data import characters_in
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import head, trunk
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.theta import under_flag

Ids = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]

TOKENS_AT_ONCE = 2048
"""Windows of so many tokens are read together where nobody says how many."""

_SETTINGS = {
    "weights",
    "data",
    "dtype",
    "stride",
    "batch_size",
    "quantize",
    "quantize_embeddings",
    "group_size",
    "theta",
}


def evaluate(
    preset: Preset, settings: EvalSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Show how well a text is predicted: `losses_of` tells how, and `Measures` what comes of it.

    Raises:
        TfxError: the weights, the text or the flags will not do.
    """
    settings.refuse_unsupported(preset.name, _SETTINGS)
    text, storage = text_in(settings.data), Storage.asked(settings)
    began = perf_counter()
    path = find_weights(preset, settings.weights, report.note)
    dtype = as_dtype(settings.dtype or "float32")
    model = LanguageModel.load(path, backend, report.note, dtype, storage)
    model = under_flag(model, settings.theta)
    loaded = perf_counter()
    stride = settings.stride or model.max_positions
    if stride > model.max_positions:
        raise UsageError(
            f"--stride {stride} would leave tokens out; expected at most the model's "
            f"{model.max_positions} positions"
        )
    ids, behind_first = encoded(text, model, path)
    losses = losses_of(model, ids, stride, settings.batch_size, report)
    measures = Measures.of(losses, behind_first, model.max_positions)
    seconds = perf_counter() - loaded
    report.result(measures.line())
    return {
        "model": preset.name,
        "backend": backend.name,
        "device": backend.device,
        "dtype": str(model.dtype),
        "weights": str(path),
        "weight_bytes": model.weight_bytes,
        "data": str(settings.data),
        "stride": stride,
        **asdict(measures),
        "timing": {
            "load_s": loaded - began,
            "eval_s": seconds,
            "eval_tokens_per_s": len(losses) / seconds,
        },
    }


# ---- the numbers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measures:
    """What the losses of a text come to.

    Attributes:
        num_tokens, num_characters, num_bytes: what was predicted: all behind the first token.
        loss: nats per token, the mean.
        standard_error: of the loss; see `standard_error`.
        perplexity: exp(loss); None where that is beyond floats.
        nats_per_character, bits_per_byte: which do not depend on the tokenizer.
    """

    num_tokens: int
    num_characters: int
    num_bytes: int
    loss: float
    standard_error: float | None
    perplexity: float | None
    nats_per_character: float | None
    bits_per_byte: float | None

    @classmethod
    def of(cls, losses: Losses, text: bytes, block: int) -> Measures:
        """The measures of a loss for each token of a text in UTF-8.

        Raises:
            NonFiniteError: a loss is not finite.
        """
        total = float(losses.sum())
        if not math.isfinite(total):
            raise NonFiniteError("the loss is not finite: the model's parameters are too large")
        loss = total / len(losses)
        characters = characters_in(text)
        return cls(
            num_tokens=len(losses),
            num_characters=characters,
            num_bytes=len(text),
            loss=loss,
            standard_error=standard_error(losses, block),
            perplexity=math.exp(loss) if loss < 700 else None,
            nats_per_character=total / characters if characters else None,
            bits_per_byte=total / math.log(2) / len(text) if text else None,
        )

    def line(self) -> str:
        """For a reader."""
        parts = {
            "loss": self.loss,
            "standard error": self.standard_error,
            "perplexity": self.perplexity,
            "nats/character": self.nats_per_character,
            "bits/byte": self.bits_per_byte,
        }
        numbers = [f"{name} {x:.4f}" for name, x in parts.items() if x is not None]
        return " | ".join([f"tokens {self.num_tokens}", *numbers])


def standard_error(losses: Losses, block: int) -> float | None:
    """The standard error of the mean loss, from how much the means of blocks differ.

    Neighbouring tokens are hard or easy together, so that their spread would promise too much.
    The losses are cut into B blocks of `block` tokens each, the last perhaps of fewer, as if each
    had been drawn for itself (Cochran, Sampling Techniques, 1977, section 6.4, for a ratio):

        sqrt(B / (B - 1) * sum_b (n_b * (mean_b - mean))**2) / N

    with n_b tokens in block b and N in all. None for a single block, which shows no spread. What
    is correlated over more than a block is still underestimated.
    """
    starts = np.arange(0, len(losses), block)
    if len(starts) < 2:
        return None
    excess = np.add.reduceat(losses - losses.mean(), starts)  # n_b * (mean_b - mean)
    return float(np.sqrt(len(starts) / (len(starts) - 1) * (excess**2).sum())) / len(losses)


# ---- the losses ----------------------------------------------------------------------------------


def losses_of(
    model: LanguageModel, ids: Ids, stride: int, batch_size: int | None, report: Reporter
) -> Losses:
    """The negative log-likelihood of each token but the first, in nats: (len(ids) - 1,).

    A window of all the model's positions slides over the text in steps of `stride`. Each token in
    it predicts the next, and counts where no earlier window had it. So every token but the first is
    predicted once, past the first window always with positions - stride others in view, or more. It
    is the way of transformers' documentation ("Perplexity of fixed-length models"), save that there
    a window's last token predicts nothing.
    """
    positions, began = model.max_positions, perf_counter()
    at_once = batch_size or max(1, TOKENS_AT_ONCE // positions)
    losses = np.empty(len(ids) - 1)
    windows = windows_over(len(losses), positions, stride)
    for first in range(0, len(windows), at_once):
        batch = windows[first : first + at_once]
        for window, found in zip(batch, _losses_in(model, ids, batch), strict=True):
            losses[window.counted : window.stop] = found
        so_far = float(losses[: batch[-1].stop].mean())
        report.progress(first + len(batch), len(windows), so_far, perf_counter() - began)
    report.progress_done(is_result=False)
    return losses


def _losses_in(model: LanguageModel, ids: Ids, windows: Sequence[Window]) -> Iterator[Losses]:
    """The losses that count in each of some windows, which are read together."""
    read = np.zeros((len(windows), max(w.stop - w.start for w in windows)), np.int64)
    for row, w in zip(read, windows, strict=True):  # what is shorter ends with zeros, unseen by it
        row[: w.stop - w.start] = ids[w.start : w.stop]
    backend, params, config = model.backend, model.params, model.config
    hidden = trunk(params, config, tensor(read, backend, backend.index_dtype), model.through())
    rows = max(1, LOGITS_AT_ONCE // model.vocab_size)
    for i, w in enumerate(windows):
        parts = []
        for start in range(w.counted, w.stop, rows):
            stop = min(start + rows, w.stop)
            logits = head(params, hidden[i, start - w.start : stop - w.start]).widened()
            targets = tensor(ids[start + 1 : stop + 1], backend, backend.index_dtype)
            parts.append(cross_entropy(logits, targets).numpy())
        yield np.concatenate(parts).astype(np.float64)


# ---- the text ------------------------------------------------------------------------------------


def text_in(data: Path | None) -> str:
    """The one text in a file.

    Raises:
        UsageError, DataError: no file is named, or it is not one.
    """
    if data is None:
        raise UsageError("there is nothing to predict; give a text with --data FILE")
    if data.is_dir():
        raise DataError(f"{shown(data)} is a folder; name one text file in it")
    (text,) = read_texts(data)
    return text


def encoded(text: str, model: LanguageModel, weights: Path) -> tuple[Ids, bytes]:
    """The tokens of a text, and the bytes of all of them but the first.

    Raises:
        UsageError, DataError: the model has no tokenizer, or there is nothing to predict.
    """
    if model.tokenizer is None:
        raise UsageError(f"--data is text, and {shown(weights)} came without a tokenizer for it")
    ids = model.tokenizer.encode(text)
    if len(ids) < 2:
        raise DataError(f"the text is {len(ids)} token long; expected a second one to predict")
    return np.array(ids), model.tokenizer.decode_bytes(ids[1:])
