"""What a task is: from records to batches, from scores to answers, from answers to figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.errors import UsageError
from tfx.core.padding import padded_right
from tfx.core.tensor import Tensor
from tfx.core.tokenizer import ByteLevelBPE
from tfx.models.gpt2.heads import Head, TaskName
from tfx.models.gpt2.model import Config, Params
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.tasks.class_weights import ClassWeights, of_classes
from tfx.models.gpt2.tasks.metrics import Metrics
from tfx.models.gpt2.tasks.records import Record

_WIDTHS = 16
"""The shortest width of a batch; the others are its doubles. Each is a shape of its own, which a
backend may have to prepare for."""


@dataclass(frozen=True, eq=False)
class Example:
    """A record as the model reads it.

    Attributes:
        rows: the ids of its text; of each choice, where there are several.
        label: what is to be learnt; None where nobody said.
        record: what it was made of.
        cut: whether something did not fit.
    """

    rows: tuple[tuple[int, ...], ...]
    label: Any
    record: Record
    cut: bool = False

    @property
    def length(self) -> int:
        return max(map(len, self.rows))


@dataclass(frozen=True)
class Weighing:
    """What counts how much in a loss.

    Attributes:
        classes: by number, on the backend of the model; None for all alike.
        next_token: of the language model's loss beside that of choices.
    """

    classes: Tensor | None = None
    next_token: float = 0.0


class Task(ABC):
    """A task with a head, for texts of at most `length` tokens.

    A batch is a tuple of arrays: ids and what of them is visible, (B, T) or (B, N, T) each, and
    what `given` adds. With labels, those of `targets` follow.
    """

    name: ClassVar[TaskName]

    def __init__(self, head: Head, config: Config, tokenizer: ByteLevelBPE, length: int) -> None:
        self.head, self.config, self.tokenizer, self.length = head, config, tokenizer, length

    @classmethod
    @abstractmethod
    def head_for(cls, records: Sequence[Record], pad: int | None, asked: Mapping[str, Any]) -> Head:
        """A new head for the labels in some records; `asked` for what they leave open."""

    @abstractmethod
    def example(self, record: Record, labelled: bool) -> Example:
        """What the model reads of a record."""

    def given(self, examples: Sequence[Example]) -> tuple[HostArray, ...]:
        """What a batch has besides ids that is not to be learnt."""
        return ()

    @abstractmethod
    def targets(self, examples: Sequence[Example], width: int) -> tuple[HostArray, ...]:
        """The labels in a batch whose texts take `width` tokens."""

    @abstractmethod
    def loss(self, p: Params, through: Pass, weighing: Weighing, *batch: Tensor) -> Tensor:
        """The mean loss of a labelled batch, of whose padding `through` knows."""

    @abstractmethod
    def scores(self, p: Params, through: Pass, *batch: Tensor) -> tuple[Tensor, ...]:
        """What answers are made of: tensors whose rows are the examples of a batch, of whose
        padding `through` knows."""

    @abstractmethod
    def answer(self, example: Example, scores: Sequence[HostArray]) -> dict[str, Any]:
        """An answer as JSON, from an example's scores."""

    @abstractmethod
    def lines(self, answer: Mapping[str, Any]) -> list[str]:
        """An answer for a reader."""

    @abstractmethod
    def metrics(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> Metrics:
        """How good answers are to labelled examples."""

    def count(self, examples: Sequence[Example]) -> int:
        """Over how many labels the loss of some examples is a mean."""
        return len(examples)

    def weights_of(
        self, asked: ClassWeights | None, examples: Sequence[Example]
    ) -> HostArray | None:
        """The weight of each class, by number, as asked for; None for all alike.

        Raises:
            UsageError: there are no such classes.
        """
        if asked is None:
            return None
        found = self.class_weights(examples)
        return found if isinstance(asked, str) else of_classes(asked, self.head.labels)

    def class_weights(self, examples: Sequence[Example]) -> HostArray:
        """Weights by which rare classes count as much as others.

        Raises:
            UsageError: there are no classes.
        """
        raise UsageError(f"--class-weights: {self.name} has no classes; leave it out")

    def most_frequent(
        self, examples: Sequence[Example], others: Sequence[Example]
    ) -> Metrics | None:
        """The figures for `others` of who always answers what is most frequent in `examples`; None
        where that means nothing."""
        return None

    # ---- batches ----

    def batch(self, examples: Sequence[Example], labelled: bool = True) -> tuple[HostArray, ...]:
        """Some examples as arrays, texts padded on the right."""
        width = self.width(examples)
        rows = [row for example in examples for row in example.rows]
        ids, visible = padded_right(rows, width, self.head.pad_token_id or 0)
        if len(rows) > len(examples):
            ids, visible = (x.reshape(len(examples), -1, width) for x in (ids, visible))
        labels = self.targets(examples, width) if labelled else ()
        return (ids, visible, *self.given(examples), *labels)

    def width(self, examples: Sequence[Example]) -> int:
        """How many tokens each text of a batch takes, of a few numbers."""
        longest, width = max(example.length for example in examples), _WIDTHS
        while width < longest:
            width *= 2
        return min(width, self.length)

    # ---- texts ----

    def encoded(self, text: str) -> list[int]:
        """The ids of a text that somebody sent: special tokens in it are plain characters."""
        return self.tokenizer.encode(text, add_prefix_space=False, allowed_special="none")

    @property
    def end(self) -> int:
        """The token behind a text: the one that ends texts, else the end of a line."""
        end = self.tokenizer.eos_id
        return self.encoded("\n")[-1] if end is None else end


def balanced(counts: HostArray) -> HostArray:
    """A weight for each class by how often it occurs, such that all count alike and the mean weight
    of an example is 1: n / (classes * count). A class that does not occur counts 0.

    >>> balanced(np.array([1, 3])).round(3).tolist()
    [2.0, 0.667]
    """
    occurring = counts > 0
    weights = counts.sum() / (occurring.sum() * np.maximum(counts, 1))
    return np.asarray(np.where(occurring, weights, 0.0))


def ranked(labels: Sequence[str], chances: HostArray) -> dict[str, float]:
    """Probabilities by label, the likeliest first."""
    order = np.argsort(-chances, kind="stable")
    return {labels[i]: float(chances[i]) for i in order}


def table(scores: Mapping[str, float]) -> list[str]:
    """Labels with their probabilities, a line each."""
    wide = max(map(len, scores))
    return [f"{label:{wide}}  {chance:.4f}" for label, chance in scores.items()]
