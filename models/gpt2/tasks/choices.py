"""Multiple choice: which of several texts goes on best from a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.generation.logits import softmax
from tfx.core.ops import lowest, where
from tfx.core.tensor import Tensor
from tfx.core.wording import kind_of, quoted
from tfx.models.gpt2.head_losses import NO_LABEL, class_loss, next_token_loss
from tfx.models.gpt2.heads import Head, choice_logits, double_logits
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.tasks.metrics import Metrics
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Example, Task, Weighing, table


class MultipleChoice(Task):
    """Records have `question` (or `context`), `choices`, and of the right one the number from 0 on
    as `label`, or the text as `answer`. As in ARC, choices may be `{"text": [...], "label": [...]}`
    and the right one's label `answerKey`.

    Each choice is read as question, space, choice and the token that ends a text, by which it is
    judged. While the head learns that, the language model's learns the right text (Radford et al.
    2018, "Improving Language Understanding by Generative Pre-Training", section 3.2).
    """

    name = "multiple-choice"

    @classmethod
    def head_for(cls, records: Sequence[Record], pad: int | None, asked: Mapping[str, Any]) -> Head:
        return Head(cls.name, pad_token_id=pad)

    def example(self, record: Record, labelled: bool) -> Example:
        question = self.encoded(record.text("question", "context"))
        names, texts = _choices(record)
        rows, cut = [], False
        for text in texts:
            row = [*question, *self.encoded(f" {text}"), self.end]
            cut = cut or len(row) > self.length
            rows.append(tuple(row[-self.length :]))
        label = _right(record, names, texts) if labelled else None
        return Example(tuple(rows), (texts, label), record, cut)

    def batch(self, examples: Sequence[Example], labelled: bool = True) -> tuple[HostArray, ...]:
        """Where some have fewer choices than others, with empty ones that are never right."""
        most = max(len(example.rows) for example in examples)
        full = [
            Example(
                (*example.rows, *[(self.end,)] * (most - len(example.rows))),
                example.label,
                example.record,
            )
            for example in examples
        ]
        return super().batch(full, labelled)

    def given(self, examples: Sequence[Example]) -> tuple[HostArray, ...]:
        most = len(examples[0].rows)
        return (np.array([np.arange(most) < len(example.label[0]) for example in examples]),)

    def targets(self, examples: Sequence[Example], width: int) -> tuple[HostArray, ...]:
        right = np.array([example.label[1] for example in examples], np.int64)
        written = np.full((len(examples), len(examples[0].rows), width), NO_LABEL, np.int64)
        for texts, example in zip(written, examples, strict=True):
            row = example.rows[example.label[1]]
            texts[example.label[1], : len(row)] = row
        return right, written

    def loss(self, p: Params, through: Pass, weighing: Weighing, *batch: Tensor) -> Tensor:
        ids, _, there, right, written = batch
        if not weighing.next_token:
            scores = choice_logits(p, self.config, self.head, ids, through)
            return class_loss(_among(scores, there), right)
        following, scores = double_logits(p, self.config, self.head, ids, through)
        of_choice = class_loss(_among(scores, there), right)
        return of_choice + next_token_loss(following, written) * weighing.next_token

    def scores(self, p: Params, through: Pass, *batch: Tensor) -> tuple[Tensor, ...]:
        ids, _, there = batch
        scores = choice_logits(p, self.config, self.head, ids, through)
        return (_among(scores, there),)

    def answer(self, example: Example, scores: Sequence[HostArray]) -> dict[str, Any]:
        (logits,), (texts, _) = scores, example.label
        chances = softmax(logits[: len(texts)])
        best = int(chances.argmax())
        return {
            "label": best,
            "answer": texts[best],
            "choices": texts,
            "scores": [float(chance) for chance in chances],
        }

    def lines(self, answer: Mapping[str, Any]) -> list[str]:
        pairs = zip(answer["choices"], answer["scores"], strict=True)
        return table(dict(sorted(pairs, key=lambda pair: -pair[1])))

    def metrics(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> Metrics:
        right = [
            example.label[1] == a["label"] for example, a in zip(examples, answers, strict=True)
        ]
        return {"accuracy": float(np.mean(right))}

    def most_frequent(
        self, examples: Sequence[Example], others: Sequence[Example]
    ) -> Metrics | None:
        most = int(np.bincount([example.label[1] for example in examples]).argmax())
        return {"accuracy": float(np.mean([example.label[1] == most for example in others]))}


def _among(scores: Tensor, there: Tensor) -> Tensor:
    """Scores (B, N) of choices, the lowest for those that are not there."""
    return where(there, scores, lowest(scores.dtype))


def _choices(record: Record) -> tuple[list[str], list[str]]:
    """The names of the choices, which may be their numbers, and the choices."""
    value, names = record.field("choices"), None
    if isinstance(value, dict):
        texts, names = value.get("text"), value.get("label")
        if not isinstance(texts, list):
            raise record.fault(f"the text of choices is {kind_of(texts)}; expected a list")
    else:
        texts = record.listed("choices")
    if wrong := [x for x in texts if not isinstance(x, str)]:
        raise record.fault(f"one of choices is {kind_of(wrong[0])}; expected a text")
    if len(texts) < 2:
        count = "there is one choice" if texts else "there are no choices"
        raise record.fault(f"{count}; expected two or more")
    if not isinstance(names, list) or len(names) != len(texts):
        names = [str(number) for number in range(len(texts))]
    return [str(name) for name in names], texts


def _right(record: Record, names: Sequence[str], texts: Sequence[str]) -> int:
    """The number of the right choice: said by its name, its number, or itself. A text that may be
    either is the choice itself in `answer`, and elsewhere a name."""
    value = record.field("label", "answer", "answerKey")
    if value in texts and record.has("answer") and not record.has("label"):
        return texts.index(value)
    if str(value) in names:
        return names.index(str(value))
    if type(value) is int and 0 <= value < len(texts):
        return value
    if value in texts:
        return texts.index(value)
    raise record.fault(
        f"the answer {quoted(str(value))} is none of the {len(texts)} choices, nor their number"
    )
