"""The pipeline `token-classification`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfx.core.arguments import is_text, one_of
from tfx.core.backend import HostArray
from tfx.core.errors import UsageError
from tfx.core.generation.logits import softmax
from tfx.core.pipelines.pipeline import Pipeline
from tfx.core.pipelines.places import WORD, characters_of
from tfx.core.wording import in_brief, kind_of


@dataclass(frozen=True)
class _Read:
    """A text as it is read: its tokens, and of each that gets a tag the place among them and the
    characters, half open, that it stands for."""

    text: str
    ids: list[int]
    tagged: list[tuple[int, int, int]]


class TokenClassification(Pipeline):
    """The entities in a text, each an object with `entity`, `score`, `index`, `word`, `start` and
    `end`: the token's place, what it stands for, and its characters in the text, half open.

    Options:
        aggregation_strategy: "none": each token by itself. "simple": neighbours of the same tag are
            one, with `entity_group` in place of `entity` and `index`, and the mean of their scores;
            a tag that begins with `B-` begins anew, `I-` goes on. "first" and "last": the same of
            whole words, each of which has the tag of its first or last token and is read with a
            space before it, as heads are trained here. Those that tfx trains tag the last.
        ignore_labels: tags that are left out.
        truncation: whether of a text that is too long the beginning is read; else it is an error.
    """

    task = "token-classification"
    needs = "token-classification"
    defaults: ClassVar = {
        "aggregation_strategy": "none",
        "ignore_labels": ("O",),
        "truncation": False,
    }

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = super().chosen(options)
        known = ("none", "simple", "first", "last")
        one_of("aggregation_strategy", found["aggregation_strategy"], known)
        ignored = found["ignore_labels"]
        if not isinstance(ignored, Collection) or is_text(ignored):
            raise UsageError(f"ignore_labels {in_brief(ignored)}: expected a list of tags")
        return found

    def read(self, given: Any, options: Mapping[str, Any]) -> _Read:
        if options["aggregation_strategy"] in ("first", "last"):
            return self._read_words(given, options)
        ids = self.ids_within(given, options["truncation"])
        spans = characters_of(given, [self.model.codec.piece(token) for token in ids])
        return _Read(given, ids, [(i, *span) for i, span in enumerate(spans)])

    def _read_words(self, given: Any, options: Mapping[str, Any]) -> _Read:
        if not isinstance(given, str):
            raise UsageError(f"expected a text, not {kind_of(given)}")
        first, most = options["aggregation_strategy"] == "first", self.model.max_positions
        ids: list[int] = []
        tagged = []
        for word in WORD.finditer(given):
            new = self.model.encode(f" {word[0]}")
            place = len(ids) if first else len(ids) + len(new) - 1
            ids += new
            tagged.append((place, *word.span()))
        if len(ids) > most and not options["truncation"]:
            raise UsageError(
                f"{len(ids)} tokens do not fit the model's {most} positions; shorten it, or let "
                f"the first {most} be read with truncation=True"
            )
        return _Read(given, ids[:most], [x for x in tagged if x[0] < most])

    def answer(self, read: Sequence[_Read], options: Mapping[str, Any]) -> list[Any]:
        [scores] = self.scores([x.ids or [self.head.end] for x in read])
        return [
            self._entities(x, softmax(row), options) for x, row in zip(read, scores, strict=True)
        ]

    def _entities(
        self, read: _Read, chances: HostArray, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        ignored = options["ignore_labels"]
        found = []
        for place, start, end in read.tagged:
            best = int(chances[place].argmax())
            found.append(
                {
                    "entity": self.head.labels[best],
                    "score": float(chances[place, best]),
                    "index": place,
                    "word": read.text[start:end],
                    "start": start,
                    "end": end,
                }
            )
        if options["aggregation_strategy"] == "none":
            return [entity for entity in found if entity["entity"] not in ignored]
        return [
            group
            for entities in _grouped(found)
            if (group := _joined(entities, read.text))["entity_group"] not in ignored
            and entities[0]["entity"] not in ignored
        ]


def _grouped(entities: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbours of the same tag together."""
    groups: list[list[dict[str, Any]]] = []
    for entity in entities:
        begins, tag = _parts(entity["entity"])
        if groups and not begins and _parts(groups[-1][-1]["entity"])[1] == tag:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return groups


def _joined(entities: Sequence[dict[str, Any]], text: str) -> dict[str, Any]:
    start, end = entities[0]["start"], entities[-1]["end"]
    return {
        "entity_group": _parts(entities[0]["entity"])[1],
        "score": float(np.mean([entity["score"] for entity in entities])),
        "word": text[start:end],
        "start": start,
        "end": end,
    }


def _parts(label: str) -> tuple[bool, str]:
    """Whether a tag begins an entity, and of which kind that is.

    >>> _parts("B-PER"), _parts("I-PER"), _parts("VERB")
    ((True, 'PER'), (False, 'PER'), (False, 'VERB'))
    """
    if label.startswith(("B-", "I-")):
        return label.startswith("B-"), label[2:]
    return False, label
