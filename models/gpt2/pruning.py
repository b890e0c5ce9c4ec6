"""`tfx prune gpt2`: a model without the heads that matter least, or without some by number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.errors import UsageError
from tfx.core.recipe import EvalSettings, PruneSettings, Reporter
from tfx.core.weights import StoredTensor
from tfx.core.wording import in_words
from tfx.models.gpt2 import evaluation
from tfx.models.gpt2.convert import files_beside
from tfx.models.gpt2.evaluation import encoded, text_in
from tfx.models.gpt2.importance import (
    LENGTH,
    Scores,
    importance,
    importance_to,
    least_important,
    pieces,
)
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.pruned import shrunk, without_heads
from tfx.models.gpt2.tasks import evaluation as task_evaluation
from tfx.models.gpt2.tasks.kinds import task_named
from tfx.models.gpt2.tasks.records import read_records
from tfx.models.gpt2.tasks.task_model import TaskModel
from tfx.models.gpt2.weights import (
    read_headed,
    read_pretrained,
    refuse_occupied,
    write_pretrained,
)


def prune(
    preset: Preset, settings: PruneSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Write the model at `settings.weights`, else the preset's, without some of its heads to the
    new folder `settings.out`, and tell how well both do on the data, if there are any.

    Raises:
        TfxError: the flags, the weights or the data will not do.
    """
    text = _checked(settings)
    path = find_weights(preset, settings.weights, report.note)
    found = (read_headed if settings.task else read_pretrained)(path, report.note)
    floats = found.floats("tfx prune")
    scores, config = None, found.config
    if settings.heads is not None:
        config = without_heads(config, settings.heads)
        _tell_gone(found.config, config, settings, report)
    elif settings.keep is not None:
        scores = _scores(settings, text, path, backend, report)
        config = without_heads(config, least_important(scores, config.pruned_heads, settings.keep))
    tensors = shrunk(floats, found.config, config)
    layers = range(config.n_layer)
    result: dict[str, Any] = {
        "model": preset.name,
        "weights": str(found.path),
        "out": str(settings.out),
        "data": None if settings.data is None else str(settings.data),
        "heads_before": sum(len(found.config.heads(i)) for i in layers),
        "heads_after": sum(len(config.heads(i)) for i in layers),
        "pruned_heads": {str(layer): list(heads) for layer, heads in config.pruned_heads},
        "importance": None if scores is None else scores.tolist(),
        "parameters_before": _count(floats),
        "parameters_after": _count(tensors),
    }

    def judge(when: str, weights: Path) -> None:
        if settings.data is None:
            return
        report.result(f"{when}:")
        figures = _figures(preset, settings, weights, backend, report)
        result.update({f"{name}_{when}": x for name, x in figures.items()})

    judge("before", path)
    write_pretrained(settings.out, config, tensors, files_beside(found.path), head=found.head)
    judge("after", settings.out)
    if "perplexity_after" in result:
        change = np.expm1(result["loss_after"] - result["loss_before"])
        report.result(f"perplexity {change:+.2%}")
    for layer, heads in config.pruned_heads:
        report.result(f"layer {layer}: without heads {', '.join(map(str, heads))}")
    report.result(
        f"{settings.out}: {result['heads_after']} of {result['heads_before']} heads, "
        f"{result['parameters_after']} of {result['parameters_before']} parameters"
    )
    return result


def _checked(settings: PruneSettings) -> str:
    """The text that says which heads matter, if one does; before the weights are read, what cannot
    be is refused."""
    if settings.heads is None and (settings.keep is None or not 0 < settings.keep < 1):
        raise UsageError(f"--keep {settings.keep}: expected a share between 0 and 1, as in 0.75")
    if settings.task is not None:
        task_named(settings.task)
    by_text = settings.heads is None and settings.task is None
    text = text_in(settings.data) if by_text else ""
    refuse_occupied(settings.out)
    return text


def _tell_gone(before: Config, after: Config, settings: PruneSettings, report: Reporter) -> None:
    """Which of the heads that were named had been pruned before.

    Raises:
        UsageError: all of them.
    """
    lost = dict(before.pruned_heads)
    gone = [
        f"layer {layer} has lost {in_words(map(str, again))}"
        for layer, heads in (settings.heads or {}).items()
        if (again := sorted({*heads} & {*lost.get(layer, ())}))
    ]
    if gone and before == after:
        raise UsageError(
            f"{settings.flag('heads')}: {', '.join(gone)} already; name heads that are there"
        )
    for line in gone:
        report.note(f"{line} already")


def _count(tensors: Mapping[str, StoredTensor]) -> int:
    return sum(math.prod(x.shape) for x in tensors.values())


def _scores(
    settings: PruneSettings, text: str, path: Path, backend: Backend, report: Reporter
) -> Scores:
    """How much each head matters to the data."""
    if settings.task is None:
        model = LanguageModel.load(path, backend, _quiet)
        ids, _ = encoded(text, model, path)
        return importance(model, pieces(ids, min(LENGTH, model.max_positions)), report)
    if settings.data is None:
        raise UsageError("nothing says what matters; give labelled records with --data FILE")
    judging = TaskModel.load(path, settings.task, backend, _quiet)
    task = judging.task
    examples = judging.examples(read_records(settings.data), True, report.note)
    model = LanguageModel(task.config, judging.params, task.tokenizer)
    return importance_to(task, model, examples, report)


def _quiet(line: str) -> None:
    """What was told before is not told again."""


def _figures(
    preset: Preset, settings: PruneSettings, weights: Path, backend: Backend, report: Reporter
) -> dict[str, float]:
    """How well a model does on the data; shown, too."""
    asked = EvalSettings(task=settings.task, weights=weights, data=settings.data)
    if settings.task is None:
        found = evaluation.evaluate(preset, asked, backend, report)
        return {name: found[name] for name in ("loss", "perplexity")}
    found = task_evaluation.evaluate(preset, asked, backend, report)
    return {name: x for name, x in found.items() if isinstance(x, float)}
