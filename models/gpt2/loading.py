"""`tfx.load` and `tfx.pipeline` of a GPT-2: the model, or a head of it, for Python code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfx.core.backend import Backend
from tfx.core.dtypes import as_dtype
from tfx.core.errors import UsageError
from tfx.core.generation import decoder
from tfx.core.pipelines.loadable import FEATURES, Head, Loaded, LoadSettings
from tfx.core.recipe import RunSettings, computable
from tfx.core.storage import Storage, kept
from tfx.core.tensor import Tensor
from tfx.core.tokenizer import ByteLevelBPE
from tfx.models.gpt2.convert import files_beside
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.layouts import forms, inputs_first
from tfx.models.gpt2.model import Config, Params, trunk
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import beginning, eos_ids, kv_dtype_from
from tfx.models.gpt2.tasks.kinds import TASKS
from tfx.models.gpt2.tasks.task_model import TaskModel
from tfx.models.gpt2.tasks.texts import SINGLE
from tfx.models.gpt2.weights import NAME, read_headed, write_pretrained

Note = Callable[[str], None]

_KINDS: dict[str | None, Any] = {
    "regression": "numbers",
    "multi_label_classification": "many",
    "single_label_classification": "one",
}

_FOR_LANGUAGE = ("quantize", "quantize_embeddings", "group_size", "kv_dtype", "theta")


@dataclass(frozen=True)
class Words:
    """Texts as the model reads them. What a stranger wrote has no special tokens."""

    tokenizer: ByteLevelBPE
    plain: bool = False

    def encode(self, text: str) -> list[int]:
        if not self.plain:
            return self.tokenizer.encode(text)
        return self.tokenizer.encode(text, add_prefix_space=False, allowed_special="none")

    def decode(self, ids: Sequence[int]) -> str:
        return decoder(self.tokenizer)(ids)

    def piece(self, token: int) -> bytes:
        known = token < self.tokenizer.vocab_size
        return self.tokenizer.decode_bytes([token]) if known else b""


def load(preset: Preset, settings: LoadSettings, backend: Backend, note: Note) -> Loaded:
    """The language model, the trunk for its hidden states, or the model with a head.

    Raises:
        TfxError: the weights or the settings will not do.
    """
    path = find_weights(preset, settings.weights, note, "name_or_path")
    if settings.task in (None, FEATURES):
        if settings.task is None or read_headed(path, lambda line: None).head is None:
            return _language_model(path, settings, backend, note)
        return _trunk(path, settings, backend, note)
    if settings.task not in TASKS:
        known = ", ".join([*TASKS, FEATURES])
        raise UsageError(f"task {settings.task!r}: {preset.name} has {known}")
    return _headed(path, settings, backend, note)


def _language_model(path: Path, settings: LoadSettings, backend: Backend, note: Note) -> Loaded:
    asked, storage = settings.dtype or "float32", Storage.asked(settings)
    dtype = computable(NAME, asked, backend)
    kv_dtype = kv_dtype_from(RunSettings(kv_dtype=settings.kv_dtype), dtype, backend)
    model = LanguageModel.load(path, backend, note, dtype, storage)
    model = replace(model, kv_dtype=kv_dtype).under(settings.theta)
    tokenizer = model.tokenizer
    return Loaded(
        backend,
        model.max_positions,
        causal=model,
        codec=Words(tokenizer) if tokenizer else None,
        hidden=lambda ids, visible: trunk(
            model.params, model.config, ids, model.through(visible=visible)
        ),
        eos_ids=eos_ids(model, path),
        begin=beginning(model.config, tokenizer) if tokenizer else None,
        save=lambda folder: _save(path, folder, storage, note),
    )


def _trunk(path: Path, settings: LoadSettings, backend: Backend, note: Note) -> Loaded:
    """What is below a head."""
    _refuse(settings, FEATURES)
    found = read_headed(path, note)
    assert found.head is not None
    model = TaskModel.load(
        path, found.head.task, backend, note, as_dtype(settings.dtype or "float32")
    )
    task = model.task
    return Loaded(
        backend,
        task.length,
        codec=Words(task.tokenizer),
        hidden=_states(model.params, task.config),
        save=lambda folder: _save(path, folder, None, note),
    )


def _headed(path: Path, settings: LoadSettings, backend: Backend, note: Note) -> Loaded:
    assert settings.task is not None
    _refuse(settings, settings.task)
    dtype = computable(NAME, settings.dtype or "float32", backend)
    model = TaskModel.load(path, settings.task, backend, note, dtype)
    task, params = model.task, model.params

    def scores(ids: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        return task.scores(params, ids, visible)

    problem = task.head.named_problem or SINGLE
    return Loaded(
        backend,
        task.length,
        codec=Words(task.tokenizer, plain=True),
        hidden=_states(params, task.config),
        head=Head(settings.task, scores, task.head.labels, _KINDS[problem], task.end),
        save=lambda folder: _save(path, folder, None, note),
    )


def _states(params: Params, config: Config) -> Callable[[Tensor, Tensor | None], Tensor]:
    return lambda ids, visible: trunk(params, config, ids, Pass(visible=visible))


def _refuse(settings: LoadSettings, task: str) -> None:
    """Refuse what only the language model can do."""
    for name in _FOR_LANGUAGE:
        if getattr(settings, name) is not None:
            raise UsageError(f"{name} is for language models, and not for {task}; leave it out")


def _save(path: Path, folder: Path, storage: Storage | None, note: Note) -> None:
    """Write what was read from `path`, in fewer bits where that was asked for."""
    found = read_headed(path, note)
    tensors: Mapping[str, Any] = found.tensors
    if storage is not None:
        made = forms(found.config, storage).items()
        tensors = {
            name: kept(name, found.tensors[name], form, inputs_first=inputs_first(name))
            for name, form in made
        }
        found = replace(found, head=None)
    quantized = storage if storage and storage.scheme.startswith("int") else found.storage
    write_pretrained(folder, found.config, tensors, files_beside(found.path), quantized, found.head)
