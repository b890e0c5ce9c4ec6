"""A GPT-2 that Python code holds: the parts that `tfx.load` gives are made of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.backend import HostArray
from tfx.core.explanation import Explanation
from tfx.core.generation import decoder
from tfx.core.pipelines.inside import Heads, Inside, Output
from tfx.core.pipelines.loadable import Head, Loaded
from tfx.core.storage import Storage, kept
from tfx.core.tensor import Tensor
from tfx.core.tokenizer import ByteLevelBPE
from tfx.models.gpt2.convert import files_beside
from tfx.models.gpt2.explaining import TOP_K, explained
from tfx.models.gpt2.heads import named_scores
from tfx.models.gpt2.importance import LENGTH, importance, importance_to, pieces
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.layouts import forms, inputs_first
from tfx.models.gpt2.model import trunk
from tfx.models.gpt2.output import checked_ids
from tfx.models.gpt2.pruned import shrunk
from tfx.models.gpt2.request import beginning, eos_ids
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Task
from tfx.models.gpt2.tasks.texts import SINGLE
from tfx.models.gpt2.theta import Steered
from tfx.models.gpt2.weights import read_headed, write_pretrained

Note = Callable[[str], None]

_KINDS: dict[str | None, Any] = {
    "regression": "numbers",
    "multi_label_classification": "many",
    "single_label_classification": "one",
}


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


@dataclass(frozen=True, eq=False)
class Held:
    """A model, and where it comes from.

    Attributes:
        path: what it was read from.
        model: with the parameters of the head, too.
        note: is told what the user should know.
        storage: what its weights were to be kept as.
        task: what its head is for; None for the language model's.
        plain: whether special tokens in texts are plain characters.
    """

    path: Path
    model: LanguageModel
    note: Note
    storage: Storage | None = None
    task: Task | None = None
    plain: bool = False

    def loaded(self) -> Loaded:
        """What is handed over."""
        model, task, tokenizer = self.model, self.task, self.model.tokenizer
        speaks = task is None or task.head.has_next_token
        return Loaded(
            model.backend,
            model.max_positions,
            causal=model if speaks else None,
            codec=Words(tokenizer, self.plain) if tokenizer else None,
            hidden=lambda ids, visible: trunk(
                model.params, model.config, ids, model.through(visible=visible)
            ),
            head=None if task is None else self._head(task),
            eos_ids=eos_ids(model, self.path) if speaks else (),
            begin=beginning(model.config, tokenizer) if speaks and tokenizer else None,
            save=self.save,
            inside=Inside(
                read=self.read,
                under=lambda theta, mask: Steered(model, theta, mask),
                without_heads=self.without_heads,
                head_importance=self.head_importance,
                explain=self.explain,
            ),
        )

    def _head(self, task: Task) -> Head:
        model = self.model

        def scores(ids: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
            through = model.through(visible=visible)
            return tuple(named_scores(model.params, model.config, task.head, ids, through).values())

        kind = _KINDS[task.head.named_problem or SINGLE]
        return Head(task.name, scores, task.head.labels, kind, task.end)

    def read(self, ids: HostArray, visible: HostArray | None, **asked: Any) -> Output:
        return self.model(ids, visible, on=self.task.head if self.task else None, **asked)

    def without_heads(self, heads: Heads) -> Loaded:
        model, task = self.model.prune_heads(heads), self.task
        if model is self.model:
            return self.loaded()
        if task is not None:
            task = type(task)(task.head, model.config, task.tokenizer, task.length)
        return replace(self, model=model, task=task).loaded()

    def head_importance(self, given: Sequence[Any]) -> HostArray:
        model, task = self.model, self.task
        if task is None:
            length = min(LENGTH, model.max_positions)
            texts = [np.array(ids, np.int64) for ids in given]
            parts = [piece for ids in texts for piece in pieces(ids, length)]
            for part in parts:
                checked_ids([part], model.vocab_size, length)
            return importance(model, parts)
        records = [Record(values, f"record {number}") for number, values in enumerate(given)]
        return importance_to(task, model, [task.example(record, True) for record in records])

    def explain(
        self,
        ids: Sequence[int],
        *,
        theta: ArrayLike | None,
        top_k: int | None,
        layers: Collection[int] | None,
        heads: Collection[int] | None,
    ) -> Explanation:
        model = self.model.under(theta)
        return explained(model, ids, TOP_K if top_k is None else top_k, layers, heads)

    def save(self, folder: Path) -> None:
        """Write what was read, without the heads that went, in fewer bits where that was asked."""
        found, config, storage = read_headed(self.path, self.note), self.model.config, self.storage
        tensors: Mapping[str, Any] = found.tensors
        if config.pruned_heads != found.config.pruned_heads:
            tensors = shrunk(found.floats("save"), found.config, config)
        head = found.head
        if storage is not None:
            made = forms(config, storage).items()
            tensors = {
                name: kept(name, tensors[name], form, inputs_first=inputs_first(name))
                for name, form in made
            }
            head = None
        quantized = storage if storage and storage.scheme.startswith("int") else found.storage
        write_pretrained(folder, config, tensors, files_beside(found.path), quantized, head)
