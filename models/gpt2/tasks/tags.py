"""Classification of tokens: a tag for each word, as for parts of speech and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.generation.logits import softmax
from tfx.core.pipelines.places import WORD
from tfx.core.tensor import Tensor
from tfx.core.wording import kind_of
from tfx.models.gpt2.head_losses import NO_LABEL, class_loss
from tfx.models.gpt2.heads import Head, token_logits
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.tasks import metrics
from tfx.models.gpt2.tasks.labels import class_names, number_of
from tfx.models.gpt2.tasks.metrics import Metrics
from tfx.models.gpt2.tasks.records import Record
from tfx.models.gpt2.tasks.task import Example, Task, Weighing, balanced

_TAGS = ("tags", "labels", "ner_tags", "pos_tags")


class TokenClassification(Task):
    """Records have `tokens`, which are words, and `tags`; to be tagged, a `text` will do.

    Each word is read with a space before it. One of its tokens has its tag: the last, which has
    seen all of it, in a head that is new here; the first in those of other programs.
    """

    name = "token-classification"

    @classmethod
    def head_for(cls, records: Sequence[Record], pad: int | None, asked: Mapping[str, Any]) -> Head:
        names = class_names((x, tag) for x in records for tag in x.listed(*_TAGS))
        return Head(cls.name, names, pad_token_id=pad, tagged="last")

    def example(self, record: Record, labelled: bool) -> Example:
        words = self._words(record)
        ids: list[int] = []
        places = []
        for word in words:
            first = len(ids)
            ids += self.encoded(f" {word}")
            places.append(first if self.head.tagged == "first" else len(ids) - 1)
        read = tuple(place for place in places if place < self.length)
        tags = self._tags(record, len(words)) if labelled else ()
        label = (words, read, tags)
        return Example(
            (tuple(ids[: self.length] or [self.end]),), label, record, len(read) < len(words)
        )

    def _words(self, record: Record) -> list[str]:
        if not record.has("tokens") and record.has("text"):
            return WORD.findall(record.text("text"))
        words = record.listed("tokens")
        for word in words:
            if not isinstance(word, str) or not word:
                shown = "empty" if word == "" else kind_of(word)
                raise record.fault(f"one of tokens is {shown}; expected a word")
        return words

    def _tags(self, record: Record, count: int) -> tuple[int, ...]:
        tags = record.listed(*_TAGS)
        if len(tags) != count:
            raise record.fault(f"there are {count} tokens and {len(tags)} tags")
        return tuple(number_of(tag, self.head.labels, record) for tag in tags)

    def targets(self, examples: Sequence[Example], width: int) -> tuple[HostArray, ...]:
        labels = np.full((len(examples), width), NO_LABEL, np.int64)
        for row, example in zip(labels, examples, strict=True):
            _, places, tags = example.label
            row[list(places)] = tags[: len(places)]
        return (labels,)

    def loss(self, p: Params, through: Pass, weighing: Weighing, *batch: Tensor) -> Tensor:
        ids, _, labels = batch
        logits = token_logits(p, self.config, self.head, ids, through)
        return class_loss(logits, labels, weighing.classes)

    def scores(self, p: Params, through: Pass, *batch: Tensor) -> tuple[Tensor, ...]:
        ids, _ = batch
        return (token_logits(p, self.config, self.head, ids, through),)

    def answer(self, example: Example, scores: Sequence[HostArray]) -> dict[str, Any]:
        (logits,), (words, places, _) = scores, example.label
        chances = softmax(logits[list(places)])
        best = chances.argmax(-1)
        return {
            "tokens": words[: len(places)],
            "tags": [self.head.labels[i] for i in best],
            "scores": [float(row[i]) for row, i in zip(chances, best, strict=True)],
        }

    def lines(self, answer: Mapping[str, Any]) -> list[str]:
        rows = list(zip(answer["tokens"], answer["tags"], answer["scores"], strict=True))
        wide = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        return [f"{word:{wide[0]}}  {tag:{wide[1]}}  {chance:.4f}" for word, tag, chance in rows]

    def metrics(self, examples: Sequence[Example], answers: Sequence[Mapping[str, Any]]) -> Metrics:
        """Over the words that the model could read."""
        found = [self.head.labels.index(tag) for answer in answers for tag in answer["tags"]]
        return metrics.of_classes(_tags_read(examples), found)

    def count(self, examples: Sequence[Example]) -> int:
        return len(_tags_read(examples))

    def class_weights(self, examples: Sequence[Example]) -> HostArray:
        return balanced(np.bincount(_tags_read(examples), minlength=len(self.head.labels)))

    def most_frequent(
        self, examples: Sequence[Example], others: Sequence[Example]
    ) -> Metrics | None:
        """Of each word the tag it has most often; of one never seen, that of most words."""
        counts: dict[str, HostArray] = {}
        for example in examples:
            words, places, tags = example.label
            for word, tag in zip(words[: len(places)], tags, strict=False):
                counts.setdefault(word, np.zeros(len(self.head.labels), np.int64))[tag] += 1
        if not counts:
            return None
        usual = int(sum(counts.values(), np.zeros(len(self.head.labels), np.int64)).argmax())
        best = {word: int(row.argmax()) for word, row in counts.items()}
        found = [
            best.get(word, usual)
            for example in others
            for word in example.label[0][: len(example.label[1])]
        ]
        return metrics.of_classes(_tags_read(others), found)


def _tags_read(examples: Sequence[Example]) -> list[int]:
    """The tags of all words that were read, in order."""
    return [tag for example in examples for tag in example.label[2][: len(example.label[1])]]
