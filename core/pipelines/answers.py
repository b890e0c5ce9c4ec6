"""The pipeline `question-answering`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tfx.core.arguments import checked_call, whole
from tfx.core.backend import HostArray
from tfx.core.errors import UsageError
from tfx.core.pipelines.pipeline import Pipeline
from tfx.core.pipelines.places import characters_of
from tfx.core.pipelines.spans import LONGEST, Window, best_answers
from tfx.core.wording import in_brief, kind_of


@dataclass(frozen=True)
class _Read:
    context: str
    spans: list[tuple[int, int]]
    windows: list[Window]


class QuestionAnswering(Pipeline):
    """The stretch of a context that answers a question: `answer`, `score`, `start`, `end`, in
    characters of the context, half open.

    Called with `question=` and `context=`, by their names or in this order, with an object that has
    both, or with several such. A list of questions goes with as many contexts, or one.
    A context that is longer than the model's positions is read in windows that overlap. The model
    reads the question, the context and the token that ends texts, as `tfx train` teaches it. The
    score is the probability of the first token times that of the last, among all that may be one in
    that window.

    Options:
        top_k: how many answers to give, the likeliest first; more than 1 give a list.
        doc_stride: how many tokens of context windows share; by default half of the room for it.
        max_answer_len: an answer takes at most so many tokens.
        handle_impossible_answer: whether "no answer", an empty text at 0, is one. It is as likely
            as in the window that has the least of it.
        truncation: whether of a question that takes more than half of the positions the beginning
            is read; else it is an error.
    """

    task = "question-answering"
    needs = "question-answering"
    defaults: ClassVar = {
        "top_k": 1,
        "doc_stride": None,
        "max_answer_len": LONGEST,
        "handle_impossible_answer": False,
        "truncation": False,
    }

    @checked_call
    def __call__(
        self,
        inputs: Any = None,
        context: str | Sequence[str] | None = None,
        *,
        batch_size: int | None = None,
        question: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        if question is None and (isinstance(inputs, str) or context is not None):
            question, inputs = inputs, None
        if question is not None or context is not None:
            if inputs is not None:
                raise UsageError("give objects, or question= and context=, not both")
            inputs = _paired(question, context)
        return super().__call__(inputs, batch_size=batch_size, **options)

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = super().chosen(options)
        whole("top_k", found["top_k"])
        whole("max_answer_len", found["max_answer_len"])
        if found["doc_stride"] is not None:
            whole("doc_stride", found["doc_stride"], 0)
        return found

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, Mapping)

    def expected(self) -> str:
        return "question= and context=, an object with both, or an iterable of such"

    def read(self, given: Any, options: Mapping[str, Any]) -> _Read:
        if not isinstance(given, Mapping):
            raise UsageError(f"expected an object with question and context, not {kind_of(given)}")
        for name in ("question", "context"):
            if not isinstance(given.get(name), str) or not given[name].strip():
                raise UsageError(f"{name} is {in_brief(given.get(name))}; expected some text")
        context, most = given["context"], self.model.max_positions
        question, ids = self.model.encode(given["question"]), self.model.encode(context)
        if len(question) > most // 2:
            if not options["truncation"]:
                raise UsageError(
                    f"the question has {len(question)} tokens; expected at most {most // 2}, half "
                    "of the model's positions; shorten it, or pass truncation=True"
                )
            question = question[: most // 2]
        room = most - len(question) - 1
        if room < 1:
            raise UsageError(
                f"the question takes {len(question)} of the model's {most} positions: no room for "
                "context; shorten it"
            )
        shared = room // 2 if options["doc_stride"] is None else options["doc_stride"]
        if shared >= room:
            raise UsageError(f"doc_stride {shared}: windows have room for {room} tokens of context")
        windows = []
        for first in range(0, max(1, len(ids) - shared), room - shared):
            part = ids[first : first + room]
            begins, ends = len(question), len(question) + len(part)
            windows.append(Window([*question, *part, self.head.end], begins, ends, first))
        pieces = [self.model.codec.piece(token) for token in ids]
        return _Read(context, characters_of(context, pieces), windows)

    def answer(self, read: Sequence[_Read], options: Mapping[str, Any]) -> list[Any]:
        windows = [window for x in read for window in x.windows]
        scored: list[tuple[HostArray, HostArray]] = []
        for at in range(0, len(windows), self.batch_size):
            first, last = self.scores([w.ids for w in windows[at : at + self.batch_size]])
            scored += zip(first, last, strict=True)
        rest = iter(scored)
        return [_best(x, [next(rest) for _ in x.windows], options) for x in read]


def _paired(question: Any, context: Any) -> Any:
    """A question with its context as an object, or several with theirs."""
    for name, given in (("question", question), ("context", context)):
        if given is None:
            raise UsageError(f"there is no {name}; expected question=TEXT and context=TEXT")
    listed = [x for x in (question, context) if isinstance(x, list | tuple)]
    if not listed:
        return {"question": question, "context": context}
    count = len(listed[0])
    if len(listed[-1]) != count:
        raise UsageError(
            f"there are {count} questions and {len(context)} contexts; expected as many of both, "
            "or one for all"
        )
    pairs = (x if isinstance(x, list | tuple) else [x] * count for x in (question, context))
    return [{"question": q, "context": c} for q, c in zip(*pairs, strict=True)]


def _best(read: _Read, scores: Sequence[Sequence[HostArray]], options: Mapping[str, Any]) -> Any:
    top_k, longest = options["top_k"], options["max_answer_len"]
    impossible = options["handle_impossible_answer"]
    found = best_answers(read.context, read.spans, read.windows, scores, top_k, longest, impossible)
    if not found:
        raise UsageError("no stretch of the context can be an answer: it is white space")
    return found[0] if top_k == 1 else found
