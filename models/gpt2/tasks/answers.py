"""Answers to questions: the stretch of a text that answers one, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.pipelines.places import characters_of
from tfx.core.pipelines.spans import Window, best_answers
from tfx.core.tensor import Tensor
from tfx.core.wording import kind_of, quoted
from tfx.models.gpt2.head_losses import NO_LABEL, span_loss
from tfx.models.gpt2.heads import Head, span_logits
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.tasks import metrics
from tfx.models.gpt2.tasks.metrics import Metrics
from tfx.models.gpt2.tasks.records import Record, json_in
from tfx.models.gpt2.tasks.task import Example, Task, Weighing


@dataclass(frozen=True)
class Reading:
    """Where things stand in the ids of a question and its context.

    Attributes:
        window: question and context.
        spans: the characters of each of the context's tokens.
        span: the first and the last token of the right answer, or `NO_LABEL` twice.
        right: the answers that are right, as texts.
    """

    window: Window
    spans: list[tuple[int, int]]
    span: tuple[int, int]
    right: tuple[str, ...]


class QuestionAnswering(Task):
    """Records have `question`, `context` and `answers`: `{"text": [...], "answer_start": [...]}` as
    in SQuAD, a list of texts, or one as `answer`. None of them means that there is no answer.

    The model reads the question, the context, and the token that ends a text. As each token has
    seen only what is before it, that last one stands for "no answer".
    """

    name = "question-answering"

    @classmethod
    def head_for(cls, records: Sequence[Record], pad: int | None, asked: Mapping[str, Any]) -> Head:
        return Head(cls.name, pad_token_id=pad)

    def example(self, record: Record, labelled: bool) -> Example:
        context = record.text("context")
        asked, told = self.encoded(record.text("question")), self.encoded(context)
        if not labelled:
            self._check(record, len(asked))
        room = self.length - 1 - min(len(asked), self.length // 2)
        question, read = asked[: self.length // 2], told[:room]
        row = (*question, *read, self.end)
        window = Window(row, len(question), len(question) + len(read))
        spans = characters_of(context, [self.tokenizer.decode_bytes([token]) for token in read])
        right = _answers(record, context) if labelled else []
        span = (NO_LABEL, NO_LABEL)
        if right:
            span = _span(right[0], spans, window)
        elif labelled:
            span = (window.ends, window.ends)
        reading = Reading(window, spans, span, tuple(text for text, _ in right))
        cut = len(question) < len(asked) or len(read) < len(told)
        return Example((row,), reading, record, cut)

    def _check(self, record: Record, count: int) -> None:
        """Refuse a question of `count` tokens that cannot be answered; to learn from, there are
        others, and what is too long is cut."""
        for name in ("question", "context"):
            if not record.text(name).strip():
                raise record.fault(f"{name} is empty; expected some text")
        if count > self.length // 2 or count > self.length - 2:
            raise record.fault(
                f"the question has {count} tokens; expected at most {self.length // 2}, half of "
                "the model's positions; shorten it"
            )

    def targets(self, examples: Sequence[Example], width: int) -> tuple[HostArray, ...]:
        spans = np.array([example.label.span for example in examples], np.int64)
        return spans[:, 0], spans[:, 1]

    def loss(self, p: Params, through: Pass, weighing: Weighing, *batch: Tensor) -> Tensor:
        ids, _, starts, ends = batch
        return span_loss(*span_logits(p, self.config, ids, through), starts, ends)

    def scores(self, p: Params, through: Pass, *batch: Tensor) -> tuple[Tensor, ...]:
        ids, _ = batch
        return span_logits(p, self.config, ids, through)

    def answer(self, example: Example, scores: Sequence[HostArray]) -> dict[str, Any]:
        """The likeliest stretch of the context, if none is not likelier."""
        at: Reading = example.label
        [best] = best_answers(example.record.text("context"), at.spans, [at.window], [scores])
        return best

    def lines(self, answer: Mapping[str, Any]) -> list[str]:
        return [f"{answer['answer'] or '(no answer)'}  {answer['score']:.4f}"]

    def metrics(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> Metrics:
        return metrics.of_spans(
            [example.label.right for example in examples], [answer["answer"] for answer in answers]
        )

    def count(self, examples: Sequence[Example]) -> int:
        return sum(example.label.span[0] != NO_LABEL for example in examples)


def _answers(record: Record, context: str) -> list[tuple[str, int]]:
    """The right answers, each with the character of the context where it begins."""
    value = record.values.get("answers", record.values.get("answer"))
    if value is None or value == "":
        if {"answers", "answer"} & record.values.keys():
            return []
        raise record.fault("there is no 'answers'; of a question without one, it is empty")
    if isinstance(value, str):
        found = json_in(value)
        value = [value] if found is None or value in context else found
    texts: Any
    starts: Any
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start") or []
    else:
        texts, starts = value, []
    for name, given in (("text", texts), ("answer_start", starts)):
        if not isinstance(given, list):
            what = f"{name} of answers" if isinstance(value, dict) else "answers"
            raise record.fault(f"{what} is {kind_of(given)}; expected a list, as SQuAD has it")
    if starts and len(starts) != len(texts):
        raise record.fault(f"there are {len(texts)} answers and {len(starts)} of answer_start")
    return [
        (text, _start(record, context, text, start))
        for text, start in zip(texts, starts or [None] * len(texts), strict=True)
    ]


def _start(record: Record, context: str, text: Any, start: Any) -> int:
    if not isinstance(text, str) or not text:
        raise record.fault(f"an answer is {kind_of(text)}; expected a text that is not empty")
    found = context.find(text) if start is None else start
    if type(found) is not int or found < 0 or context[found : found + len(text)] != text:
        at = "" if start is None else f" at character {start!r}"
        raise record.fault(f"the answer {quoted(text)} is not in the context{at}")
    return found


def _span(
    answer: tuple[str, int], spans: Sequence[tuple[int, int]], window: Window
) -> tuple[int, int]:
    """The first and last token of an answer, among all ids; `NO_LABEL` for what was cut off."""
    text, start = answer
    end = start + len(text)
    having = [place for place, (a, b) in enumerate(spans) if a < end and start < b]
    if not having or spans[having[-1]][1] < end:
        return NO_LABEL, NO_LABEL
    return window.begins + having[0], window.begins + having[-1]
