"""`tfx run gpt2 --task ...`: what a head says of a text, or of each of many."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

from tfx.core.backend import Backend
from tfx.core.dtypes import as_dtype
from tfx.core.errors import UsageError
from tfx.core.recipe import Reporter, RunSettings
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.tasks.kinds import task_named
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task_model import BATCH_SIZE, TaskModel

_SETTINGS = {
    *("task", "weights", "dtype", "prompt", "records", "batch_size", "context", "choices", "theta"),
}


def run(
    preset: Preset, settings: RunSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Show the answer to a text; of many records, an object each.

    Returns:
        The object for `--json`, the answer in it; of many records, how many there were.

    Raises:
        TfxError: the weights, the text or the flags will not do.
    """
    settings.refuse_unsupported(f"{preset.name} --task {settings.task}", _SETTINGS)
    name = task_named(settings.task or "").name
    records = _records(settings, name)
    began = perf_counter()
    path = find_weights(preset, settings.weights, report.note)
    model = TaskModel.load(
        path,
        name,
        backend,
        report.note,
        as_dtype(settings.dtype or "float32"),
        settings.batch_size or BATCH_SIZE,
        settings.theta,
    )
    loaded = perf_counter()
    answers = model.answers(records, report.note)
    answered = perf_counter()
    result: dict[str, Any] = {
        "model": preset.name,
        "task": name,
        "backend": backend.name,
        "device": backend.device,
        "dtype": str(model.dtype),
        "weight_bytes": model.weight_bytes,
    }
    if settings.records is None:
        for line in model.task.lines(answers[0]):
            report.result(line)
        result |= dict(records[0].values) | answers[0]
    else:
        result["records"] = len(records)
        for answer in answers:
            report.result(json.dumps(answer, allow_nan=False))
    return result | {"timing": {"load_s": loaded - began, "answer_s": answered - loaded}}


def _records(settings: RunSettings, name: str) -> list[Record]:
    """What is asked: the records of `--jsonl`, or one of the text on the command line."""
    for given, task in (("context", "question-answering"), ("choices", "multiple-choice")):
        if getattr(settings, given) and name != task:
            raise UsageError(f"{settings.flag(given)} is for --task {task}; leave it out")
    if settings.records is not None:
        return [
            Record(values, f"line {number} of --jsonl")
            for number, values in enumerate(settings.records, 1)
        ]
    if settings.prompt is None:
        raise UsageError(f"--task {name} needs a text: as an argument, --file, or --jsonl")
    match name:
        case "question-answering":
            if settings.context is None:
                raise UsageError("a question is answered from a text; give it with --context")
            values: dict[str, Any] = {"question": settings.prompt, "context": settings.context}
        case "multiple-choice":
            if len(settings.choices) < 2:
                raise UsageError("there is nothing to choose from; give --choice twice or more")
            values = {"question": settings.prompt, "choices": list(settings.choices)}
        case _:
            values = {"text": settings.prompt}
    return [Record(values, "the text")]
