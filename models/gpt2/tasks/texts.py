"""Classification of texts: one class, any number of labels, or a number to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.errors import UsageError
from tfx.core.generation.logits import softmax
from tfx.core.tensor import Tensor
from tfx.core.wording import in_brief, quoted
from tfx.models.gpt2.head_losses import text_loss
from tfx.models.gpt2.heads import Head, Problem, text_logits
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.tasks import metrics
from tfx.models.gpt2.tasks.labels import class_names, number_of
from tfx.models.gpt2.tasks.metrics import Metrics
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Example, Task, Weighing, balanced, ranked, table

SINGLE: Problem = "single_label_classification"
MANY: Problem = "multi_label_classification"


class TextClassification(Task):
    """Records have `text`, and `label` or, for any number of them, `labels`."""

    name = "text-classification"

    @classmethod
    def head_for(cls, records: Sequence[Record], pad: int | None, asked: Mapping[str, Any]) -> Head:
        problem = asked.get("problem_type") or _problem_in(records)
        if problem == "regression":
            return Head(cls.name, ("value",), problem, pad)
        labels: list[tuple[Record, Any]] = []
        for record in records:
            its = record.listed("labels") if problem == MANY else [record.field("label")]
            labels += ((record, label) for label in its)
        names = class_names(labels)
        if problem == SINGLE and len(names) < 2:
            raise records[0].fault(
                f"all labels are {quoted(names[0])}; expected two classes or more"
            )
        return Head(cls.name, names, problem, pad)

    @property
    def problem(self) -> Problem:
        return self.head.named_problem or SINGLE

    def example(self, record: Record, labelled: bool) -> Example:
        ids = self.encoded(record.text("text")) or [self.end]
        label = self._label(record) if labelled else None
        return Example((tuple(ids[: self.length]),), label, record, len(ids) > self.length)

    def _label(self, record: Record) -> Any:
        match self.problem:
            case "regression":
                return _number(record)
            case "single_label_classification":
                return number_of(record.field("label"), self.head.labels, record)
        present = np.zeros(len(self.head.labels), np.float32)
        for label in record.listed("labels"):
            present[number_of(label, self.head.labels, record)] = 1
        return present

    def targets(self, examples: Sequence[Example], width: int) -> tuple[HostArray, ...]:
        dtype = np.int64 if self.problem == SINGLE else np.float32
        return (np.array([example.label for example in examples], dtype),)

    def loss(self, p: Params, through: Pass, weighing: Weighing, *batch: Tensor) -> Tensor:
        ids, _, labels = batch
        logits = text_logits(p, self.config, self.head, ids, through)
        return text_loss(logits, labels, self.problem, weighing.classes)

    def scores(self, p: Params, through: Pass, *batch: Tensor) -> tuple[Tensor, ...]:
        ids, _ = batch
        return (text_logits(p, self.config, self.head, ids, through),)

    def answer(self, example: Example, scores: Sequence[HostArray]) -> dict[str, Any]:
        (logits,), labels = scores, self.head.labels
        match self.problem:
            case "regression":
                return {"values": dict(zip(labels, map(float, logits), strict=True))}
            case "single_label_classification":
                chances = ranked(labels, softmax(logits))
                return {"label": next(iter(chances)), "scores": chances}
        wide = np.asarray(logits, np.float64)
        chances = ranked(labels, 0.5 * (1 + np.tanh(wide / 2)))
        return {"labels": [x for x, chance in chances.items() if chance > 0.5], "scores": chances}

    def lines(self, answer: Mapping[str, Any]) -> list[str]:
        found: list[str] = table(answer.get("scores") or answer["values"])
        return found

    def metrics(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> Metrics:
        gold = np.array([example.label for example in examples])
        names = self.head.labels
        match self.problem:
            case "regression":
                return metrics.of_numbers(gold, [answer["values"][names[0]] for answer in answers])
            case "single_label_classification":
                found = [names.index(answer["label"]) for answer in answers]
                return metrics.of_classes(gold, found)
        present = np.array([[x in answer["labels"] for x in names] for answer in answers])
        return metrics.of_many(gold > 0, present)

    def class_weights(self, examples: Sequence[Example]) -> HostArray:
        labels = np.array([example.label for example in examples])
        match self.problem:
            case "regression":
                raise UsageError(
                    "--class-weights: a number to predict has no classes; leave it out"
                )
            case "single_label_classification":
                return balanced(np.bincount(labels, minlength=len(self.head.labels)))
        present = labels.sum(0)  # the one side of a label counts as much as the other
        return np.asarray((len(labels) - present) / np.maximum(present, 1))

    def most_frequent(
        self, examples: Sequence[Example], others: Sequence[Example]
    ) -> Metrics | None:
        if self.problem != SINGLE:
            return None
        most = int(np.bincount([example.label for example in examples]).argmax())
        gold = [example.label for example in others]
        return metrics.of_classes(gold, np.full(len(gold), most))


def _problem_in(records: Sequence[Record]) -> Problem:
    """What labels are, by what they look like."""
    first = records[0]
    if not first.has("label") and first.has("labels"):
        return MANY
    floats = [_is_fraction(record.field("label")) for record in records]
    return "regression" if any(floats) else SINGLE


def _is_fraction(label: Any) -> bool:
    if isinstance(label, str) and ("." in label or "e" in label.lower()):
        try:
            float(label)
        except ValueError:
            return False
        return True
    return isinstance(label, float)


def _number(record: Record) -> float:
    label = record.field("label")
    try:
        value = float("x" if isinstance(label, bool) else label)
    except (TypeError, ValueError, OverflowError):
        value = np.nan
    if not np.isfinite(value):
        raise record.fault(f"label is {in_brief(label)}; expected a finite number")
    return value
