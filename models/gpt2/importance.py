"""How much each head of a GPT-2 matters.

That is |d loss / d xi|, where xi = 1 multiplies what the head gathers: by how much the loss would
change, to first order, if it fell silent (Michel, Levy and Neubig 2019, "Are Sixteen Heads Really
Better than One?", arXiv:1905.10650, section 4.1). It is averaged over texts. The paper goes on to
divide each layer's scores by their norm, which takes as many heads from a layer that matters as
from one that does not; gpt2-tiny predicts better without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import numpy.typing as npt

from tfx.core.autograd import value_and_grad
from tfx.core.backend import HostArray
from tfx.core.checks import check_finite
from tfx.core.creation import full
from tfx.core.recipe import Reporter
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import loss
from tfx.models.gpt2.stepping import placed
from tfx.models.gpt2.tasks.task import Example, Task, Weighing

TEXTS, LENGTH = 64, 256
"""So many pieces of a text say which heads matter, each of at most so many tokens."""

Scores = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def pieces(ids: Ids, length: int) -> list[Ids]:
    """At most `TEXTS` pieces of `length` tokens, evenly spread over a text; its end may be shorter,
    but has two tokens."""
    starts = range(0, max(1, len(ids) - 1), length)
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), TEXTS)).round().astype(int))
    return [ids[starts[i] : starts[i] + length] for i in chosen]


def importance(
    model: LanguageModel, texts: Sequence[Ids], report: Reporter | None = None
) -> Scores:
    """How much each head matters to what follows in texts (layers, heads); 0 for those pruned
    already.

    Args:
        texts: tokens, each text at least two; their mean is taken.
        report: told of the progress.

    Raises:
        NonFiniteError: a gradient is not finite.
    """

    def loss_of(mask: Tensor, ids: Tensor) -> Tensor:
        through = model.through(head_mask=mask)
        return loss(model.params, model.config, ids[:, :-1], ids[:, 1:], through)

    return _slopes(model, loss_of, [(text[None],) for text in texts], report)


def importance_to(
    task: Task, model: LanguageModel, examples: Sequence[Example], report: Reporter | None = None
) -> Scores:
    """The like, to the labels of examples; `model` has the parameters of the task's head too."""

    def loss_of(mask: Tensor, *batch: Tensor) -> Tensor:
        through = replace(model.through(head_mask=mask), visible=batch[1])
        return task.loss(model.params, through, Weighing(), *batch)

    return _slopes(model, loss_of, [task.batch([example]) for example in examples], report)


def _slopes(
    model: LanguageModel,
    loss_of: Callable[..., Tensor],
    batches: Sequence[tuple[HostArray, ...]],
    report: Reporter | None,
) -> Scores:
    config, backend = model.config, model.backend
    ones = full((config.n_layer, config.n_head), 1.0, backend, model.factor_dtype)
    slope = value_and_grad(loss_of)
    total, began = np.zeros(ones.shape), perf_counter()
    for done, batch in enumerate(batches, 1):
        value, grad = slope(ones, *placed(batch, backend, model.dtype))
        total += np.abs(grad.numpy())
        if report is not None:
            report.progress(done, len(batches), value.item(), perf_counter() - began)
    if report is not None:
        report.progress_done(is_result=False)
    check_finite("a gradient is", total)
    return np.asarray(total / len(batches))


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
