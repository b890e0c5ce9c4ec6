"""`tfx prune gpt2`: a model without the heads that matter least.

How much a head matters is |d loss / d xi|, where xi = 1 multiplies what the head gathers: by how
much the loss would change, to first order, if it fell silent (Michel, Levy and Neubig 2019, "Are
Sixteen Heads Really Better than One?", arXiv:1905.10650, section 4.1). It is averaged over texts.
The paper goes on to divide each layer's scores by their norm, which takes as many heads from a
layer that matters as from one that does not; gpt2-tiny predicts better without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import NonFiniteError, UsageError
from tfx.core.recipe import EvalSettings, PruneSettings, Reporter
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor
from tfx.models.gpt2.convert import files_beside
from tfx.models.gpt2.evaluation import encoded, evaluate, text_in
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import loss
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.pruned import cuts, without_heads
from tfx.models.gpt2.weights import read_pretrained, refuse_occupied, write_pretrained

TEXTS, LENGTH = 64, 256
"""So many pieces of a text say which heads matter, each of at most so many tokens."""

Scores = npt.NDArray[np.float64]


def prune(
    preset: Preset, settings: PruneSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Write the model at `settings.weights`, else the preset's, without its least important heads
    to the new folder `settings.out`, and tell how well both predict the text.

    Raises:
        TfxError: the flags, the weights or the text will not do.
    """
    if not 0 < settings.keep < 1:
        raise UsageError(f"--keep {settings.keep}: expected a share between 0 and 1, as in 0.75")
    refuse_occupied(settings.out)
    text = text_in(settings.data)
    path = find_weights(preset, settings.weights, report.note)
    found = read_pretrained(path, report.note)
    floats = found.floats("tfx prune")
    model = LanguageModel.load(path, backend, lambda line: None)
    ids, _ = encoded(text, model, path)
    scores = importance(model, pieces(ids, min(LENGTH, model.max_positions)), report)
    chosen = least_important(scores, model.config.pruned_heads, settings.keep)
    config = without_heads(model.config, chosen)
    tensors: dict[str, StoredTensor] = dict(floats)
    for name, cut in cuts(model.config, config).items():
        kept = np.take(tensors[name].array, cut.kept, cut.axis)
        tensors[name] = StoredTensor(tensors[name].dtype, kept)
    result: dict[str, Any] = {
        "model": preset.name,
        "weights": str(found.path),
        "out": str(settings.out),
        "data": str(settings.data),
        "heads_before": sum(len(model.config.heads(i)) for i in range(config.n_layer)),
        "heads_after": sum(len(config.heads(i)) for i in range(config.n_layer)),
        "pruned_heads": {str(layer): list(heads) for layer, heads in config.pruned_heads},
        "importance": scores.tolist(),
        "parameters_before": _count(floats),
        "parameters_after": _count(tensors),
    }
    del model

    def judge(when: str, weights: Any) -> None:
        report.result(f"{when}:")
        measures = evaluate(
            preset, EvalSettings(weights=weights, data=settings.data), backend, report
        )
        result.update({f"{name}_{when}": measures[name] for name in ("loss", "perplexity")})

    judge("before", path)
    write_pretrained(settings.out, config, tensors, files_beside(found.path))
    judge("after", settings.out)
    change = np.expm1(result["loss_after"] - result["loss_before"])
    report.result(f"perplexity {change:+.2%}")
    for layer, heads in config.pruned_heads:
        report.result(f"layer {layer}: without heads {', '.join(map(str, heads))}")
    report.result(
        f"{settings.out}: {result['heads_after']} of {result['heads_before']} heads, "
        f"{result['parameters_after']} of {result['parameters_before']} parameters"
    )
    return result


def _count(tensors: Mapping[str, StoredTensor]) -> int:
    return sum(math.prod(x.shape) for x in tensors.values())


def pieces(ids: npt.NDArray[np.int64], length: int) -> list[npt.NDArray[np.int64]]:
    """At most `TEXTS` pieces of `length` tokens, evenly spread over a text; its end may be shorter,
    but has two tokens."""
    starts = range(0, max(1, len(ids) - 1), length)
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), TEXTS)).round().astype(int))
    return [ids[starts[i] : starts[i] + length] for i in chosen]


def importance(
    model: LanguageModel,
    texts: list[npt.NDArray[np.int64]],
    report: Reporter | None = None,
) -> Scores:
    """How much each head matters (layers, heads); 0 for those pruned already.

    Args:
        texts: tokens, each text at least two; their mean is taken.
        report: told of the progress.

    Raises:
        NonFiniteError: a gradient is not finite.
    """
    config, backend = model.config, model.backend
    ones = full((config.n_layer, config.n_head), 1.0, backend, DType.float32)

    def loss_of(mask: Tensor, ids: Tensor) -> Tensor:
        through = model.through(head_mask=mask)
        return loss(model.params, config, ids[:, :-1], ids[:, 1:], through)

    slope = value_and_grad(loss_of)
    total, began = np.zeros(ones.shape), perf_counter()
    for done, text in enumerate(texts, 1):
        value, grad = slope(ones, tensor(text[None], backend, backend.index_dtype))
        total += np.abs(grad.numpy())
        if report is not None:
            report.progress(done, len(texts), value.item(), perf_counter() - began)
    if report is not None:
        report.progress_done(is_result=False)
    if not np.isfinite(total).all():
        raise NonFiniteError("a gradient is not finite: the model's parameters are too large")
    return np.asarray(total / len(texts))


def least_important(
    scores: Scores, pruned: tuple[tuple[int, tuple[int, ...]], ...], keep: float
) -> dict[int, list[int]]:
    """The heads to go, by layer, so that the share `keep` of those that are there stays; of every
    layer at least its most important one does.

    >>> least_important(np.array([[0.1, 0.3, 0.2], [5.0, 4.0, 3.0]]), (), 0.5)
    {0: [0, 2], 1: [2]}
    """
    layers, heads = scores.shape
    gone = {(layer, head) for layer, lost in pruned for head in lost}
    there = [p for p in np.ndindex(layers, heads) if p not in gone]
    kept = {max((p for p in there if p[0] == i), key=lambda p: scores[p]) for i in range(layers)}
    free = sorted((p for p in there if p not in kept), key=lambda p: (scores[p], p))
    chosen: dict[int, list[int]] = {}
    for layer, head in sorted(free[: len(there) - max(round(keep * len(there)), layers)]):
        chosen.setdefault(layer, []).append(head)
    return chosen
