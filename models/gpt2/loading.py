"""`tfx.load` and `tfx.pipeline` of a GPT-2: which part of the weights is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.files import shown
from tfx.core.pipelines.loadable import FEATURES, Loaded, LoadSettings
from tfx.core.recipe import computable
from tfx.core.storage import Storage
from tfx.models.gpt2.held import Held, Note
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import kv_dtype_from
from tfx.models.gpt2.tasks.kinds import TASKS
from tfx.models.gpt2.tasks.task_model import TaskModel
from tfx.models.gpt2.weights import NAME, Pretrained, language_model_in, read_headed

_FOR_LANGUAGE = ("quantize", "quantize_embeddings", "group_size", "kv_dtype")


def load(preset: Preset, settings: LoadSettings, backend: Backend, note: Note) -> Loaded:
    """The language model, or the model with a head; either has hidden states.

    Raises:
        TfxError: the weights or the settings will not do.
    """
    path = find_weights(preset, settings.weights, note, "load a folder: tfx.load('DIR')")
    if settings.task not in (None, FEATURES, *TASKS):
        known = ", ".join([*TASKS, FEATURES])
        raise UsageError(f"task {settings.task!r}: {preset.name} has {known}")
    found = read_headed(path, note)
    head = found.head
    has = f"{shown(path)} has {f'a head for {head.task}' if head else 'no head'}"
    if settings.task is None and head is not None and not head.has_next_token:
        raise UsageError(f"{has} and is no language model; load it with task={head.task!r}")
    if settings.task is None or (settings.task == FEATURES and head is None):
        return _language_model(path, found, settings, backend, note).loaded()
    if head is None or settings.task not in (head.task, FEATURES):
        raise UsageError(
            f"task {settings.task!r}: {has}; load weights that have one, or train them with "
            f"tfx train --task {settings.task}"
        )
    for name in _FOR_LANGUAGE:
        if getattr(settings, name) is not None:
            raise UsageError(
                f"{name} is for language models, and not for {settings.task}; leave it out"
            )
    headed = TaskModel.of(found, head, backend, _dtype(settings, backend))
    task = headed.task
    model = LanguageModel(task.config, headed.params, task.tokenizer).under(settings.theta)
    return Held(path, model, note, task=task, plain=settings.task != FEATURES).loaded()


def _language_model(
    path: Path, found: Pretrained, settings: LoadSettings, backend: Backend, note: Note
) -> Held:
    storage, dtype = Storage.asked(settings), _dtype(settings, backend)
    kv_dtype = kv_dtype_from(settings, dtype, backend)
    model = LanguageModel.of(
        language_model_in(found, note, "task={!r}"), backend, note, dtype, storage
    )
    model = replace(model, kv_dtype=kv_dtype).under(settings.theta)
    return Held(path, model, note, storage)


def _dtype(settings: LoadSettings, backend: Backend) -> DType:
    return computable(NAME, settings.dtype or "float32", backend, flag=settings.flag("dtype"))
