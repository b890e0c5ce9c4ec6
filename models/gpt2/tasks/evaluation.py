"""`tfx eval gpt2 --task ...`: how good a head is on labelled examples."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from tfx.core.backend import Backend
from tfx.core.dtypes import as_dtype
from tfx.core.errors import UsageError
from tfx.core.recipe import EvalSettings, Reporter
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.tasks.kinds import task_named
from tfx.models.gpt2.tasks.records import read_records
from tfx.models.gpt2.tasks.task_model import BATCH_SIZE, TaskModel

_SETTINGS = {"task", "weights", "data", "dtype", "batch_size", "theta"}


def evaluate(
    preset: Preset, settings: EvalSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Show loss and figures of a head on the records of `--data`.

    Raises:
        TfxError: the weights, the records or the flags will not do.
    """
    settings.refuse_unsupported(f"{preset.name} --task {settings.task}", _SETTINGS)
    name = task_named(settings.task or "").name
    if settings.data is None:
        raise UsageError("there is nothing to judge by; give labelled records with --data FILE")
    records = read_records(settings.data)
    began = perf_counter()
    model = TaskModel.load(
        find_weights(preset, settings.weights, report.note),
        name,
        backend,
        report.note,
        as_dtype(settings.dtype or "float32"),
        settings.batch_size or BATCH_SIZE,
        settings.theta,
    )
    loaded = perf_counter()
    figures = model.judge.judged(model.params, model.examples(records, True, report.note))
    named = " | ".join(f"{key.replace('_', ' ')} {x:.4f}" for key, x in figures.items())
    report.result(f"examples {len(records)} | {named}")
    return {
        "model": preset.name,
        "task": name,
        "backend": backend.name,
        "device": backend.device,
        "dtype": str(model.dtype),
        "data": str(settings.data),
        "num_examples": len(records),
        **figures,
        "timing": {"load_s": loaded - began, "eval_s": perf_counter() - loaded},
    }
