"""A GPT-2 with a head that is ready to use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tfx.core.backend import Backend
from tfx.core.dtypes import FLOATS, DType
from tfx.core.errors import TokenizerError, UsageError
from tfx.core.files import shown
from tfx.core.parameters import borrowed
from tfx.core.recipe import Theta
from tfx.core.storage import bytes_of
from tfx.models.gpt2.heads import Head
from tfx.models.gpt2.language_model import LanguageModel, tokenizer_of
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.tasks.judging import Answer, Judge
from tfx.models.gpt2.tasks.kinds import task_named
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Example, Task
from tfx.models.gpt2.theta import under_flag
from tfx.models.gpt2.weights import Pretrained, read_headed

BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class TaskModel:
    """What answers the records of a task.

    Attributes:
        task: with the head, the configuration and the tokenizer.
        params: by their names in a checkpoint.
        judge: what answers in batches.
    """

    task: Task
    params: Params
    judge: Judge

    @classmethod
    def load(
        cls,
        path: Path,
        name: str,
        backend: Backend,
        note: Callable[[str], None],
        dtype: DType = DType.float32,
        batch_size: int = BATCH_SIZE,
        theta: Theta | None = None,
    ) -> TaskModel:
        """The model in a folder or file, for the task of that name, under that theta.

        Raises:
            TfxError: the checkpoint, its head, its tokenizer, `dtype` or `theta` will not do.
        """
        task_named(name)
        if dtype not in FLOATS & backend.dtypes:
            known = ", ".join(sorted(FLOATS & backend.dtypes))
            raise UsageError(f"--dtype {dtype}: {backend} computes in {known}")
        found = read_headed(path, note)
        if found.head is None or found.head.task != name:
            has = f"a head for {found.head.task}" if found.head else "no head"
            raise UsageError(
                f"--task {name}: {shown(path)} has {has}; give weights that have one with "
                f"--weights, or train them with tfx train --task {name}"
            )
        model = cls.of(found, found.head, backend, dtype, batch_size)
        if theta is None:
            return model
        task = model.task
        steered = under_flag(LanguageModel(task.config, model.params, task.tokenizer), theta)
        return replace(model, judge=Judge(task, batch_size, steered.theta))

    @classmethod
    def of(
        cls,
        found: Pretrained,
        head: Head,
        backend: Backend,
        dtype: DType,
        batch_size: int = BATCH_SIZE,
    ) -> TaskModel:
        """The same of weights that were read, with their head, for a dtype that the backend
        computes in."""
        kind = task_named(head.task)
        tokenizer = tokenizer_of(found)
        if tokenizer is None:
            raise TokenizerError(f"{shown(found.path)} has no tokenizer, and texts need one")
        task = kind(head, found.config, tokenizer, found.config.n_positions)
        params = borrowed(found.floats("a task"), backend, dtype)
        return cls(task, params, Judge(task, batch_size))

    @property
    def dtype(self) -> DType:
        return self.params["wte.weight"].dtype

    @property
    def weight_bytes(self) -> int:
        """The memory that the parameters take."""
        return bytes_of(self.params.values())

    def examples(
        self, records: Sequence[Record], labelled: bool, note: Callable[[str], None]
    ) -> list[Example]:
        """What the model reads of records; tells how many of them were too long."""
        found = [self.task.example(record, labelled) for record in records]
        if cut := sum(example.cut for example in found):
            note(f"{cut} of {len(found)} texts are cut to {self.task.length} tokens")
        return found

    def answers(self, records: Sequence[Record], note: Callable[[str], None]) -> list[Answer]:
        """An answer to each record; labels that they may have are not looked at."""
        return self.judge.answers(self.params, self.examples(records, False, note))
