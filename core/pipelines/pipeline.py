"""`tfx.pipeline`: from texts to answers, one, many, or as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from os import PathLike
from typing import Any, ClassVar

from tfx.core.arguments import checked_call, is_text, one_of, whole
from tfx.core.backend import Backend, HostArray
from tfx.core.checks import check_finite
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.padding import padded_right
from tfx.core.pipelines.language_model import LanguageModel
from tfx.core.pipelines.loadable import FEATURES, Head
from tfx.core.pipelines.loaded_model import quiet
from tfx.core.pipelines.loading import load
from tfx.core.pipelines.prompts import about
from tfx.core.tensor import Tensor
from tfx.core.wording import kind_of, meant, quoted

BATCH_SIZE = 8

PIPELINES = {
    "text-generation": "tfx.core.pipelines.continuing:TextGeneration",
    "text-classification": "tfx.core.pipelines.classes:TextClassification",
    "token-classification": "tfx.core.pipelines.tags:TokenClassification",
    "question-answering": "tfx.core.pipelines.answers:QuestionAnswering",
    FEATURES: "tfx.core.pipelines.features:FeatureExtraction",
    "perplexity": "tfx.core.pipelines.perplexity:Perplexity",
}
"""Where each lives, by the names that transformers has for all but the last."""


class Pipeline(ABC):
    """A model with a way to ask it.

    Called with one input it gives one result; with a list or tuple, a list of them; with any other
    iterable, an iterator that takes `batch_size` inputs at a time and gives their results before it
    takes more. Inputs that are read together get what they would get alone, up to rounding.

    Args:
        model: what answers.
        batch_size: how many inputs are read at a time.
        options: what a call may say otherwise; those of `defaults`.
    """

    task: ClassVar[str]
    needs: ClassVar[str | None] = None
    """What `load` is asked for: a head, hidden states, or None for the language model."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """The options, and what holds where none is given."""

    def __init__(
        self, model: LanguageModel, *, batch_size: int = BATCH_SIZE, **options: Any
    ) -> None:
        self.model, self.batch_size = model, _positive(batch_size)
        self._check()
        self._given = options
        self.chosen(options)

    @checked_call
    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        size = self.batch_size if batch_size is None else _positive(batch_size)
        chosen = self.chosen(self._given | options)
        if self.is_one(inputs):
            [result] = self._answered([inputs], 0, 1, chosen)
            return self.alone(result, chosen)
        if isinstance(inputs, list | tuple):
            return list(self._each(inputs, size, chosen, len(inputs)))
        if not isinstance(inputs, Iterable) or is_text(inputs) or isinstance(inputs, Mapping):
            raise UsageError(f"expected {self.expected()}, not {kind_of(inputs)}")
        return self._each(inputs, size, chosen, None)

    def chosen(self, options: Mapping[str, Any]) -> Any:
        """The options by name, those that are not given too.

        Raises:
            UsageError: there is no such option, or its value will not do.
        """
        for name in options:
            if name not in self.defaults:
                hint = meant(name, ["batch_size", *self.defaults])
                raise UsageError(f"{self.task} has no option {quoted(name)}.{hint}")
        found = {**self.defaults, **options}
        for name, usual in self.defaults.items():
            if isinstance(usual, bool):
                one_of(name, found[name], (True, False))
        return found

    def is_one(self, inputs: Any) -> bool:
        """Whether this is one input, not several."""
        return isinstance(inputs, str)

    def expected(self) -> str:
        """What a call takes, for a message."""
        return "a text, a list of texts, or another iterable of texts"

    def alone(self, result: Any, options: Any) -> Any:
        """What is given for a result where there is but one input."""
        return result

    @abstractmethod
    def read(self, given: Any, options: Any) -> Any:
        """An input as the model reads it; `TfxError` where it cannot."""

    @abstractmethod
    def answer(self, read: Sequence[Any], options: Any) -> list[Any]:
        """A result for each of a batch."""

    def _check(self) -> None:
        """Refuse a model that cannot do it."""
        head = self.model.parts.head
        if self.needs in (None, FEATURES) or (head is not None and head.task == self.needs):
            return
        raise UsageError(
            f"{self.task} takes a model with such a head; load it with task={self.needs!r}"
        )

    def _each(
        self, inputs: Iterable[Any], size: int, options: Any, count: int | None
    ) -> Iterator[Any]:
        them, first = iter(inputs), 0
        while batch := list(islice(them, size)):
            yield from self._answered(batch, first, count, options)
            first += len(batch)

    @quiet
    def _answered(
        self, batch: Sequence[Any], first: int, count: int | None, options: Any
    ) -> list[Any]:
        read = []
        for number, given in enumerate(batch, first):
            with about(number, 2 if count is None else count, "input"):
                read.append(self.read(given, options))
        return self.answer(read, options)

    # ---- what the pipelines of heads and states share ----

    @property
    def head(self) -> Head:
        """The head of the model, which is there."""
        head = self.model.parts.head
        assert head is not None
        return head

    def ids_within(self, text: Any, truncation: bool) -> list[int]:
        """The tokens of a text, cut where that is wanted to what the model has positions for.

        Raises:
            UsageError: there are too many, and they are not to be cut.
        """
        ids, most = self.model.encode(text), self.model.max_positions
        if len(ids) <= most:
            return ids
        if not truncation:
            raise UsageError(
                f"{len(ids)} tokens do not fit the model's {most} positions; shorten it, or let "
                f"the first {most} be read with truncation=True"
            )
        return ids[:most]

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids (B, T), padded on the right, and what of them is visible."""
        ids, visible = padded_right(rows, max(map(len, rows)))
        backend = self.model.backend
        return tensor(ids, backend, backend.index_dtype), tensor(visible, backend, DType.bool)

    def scores(self, rows: Sequence[Sequence[int]]) -> list[HostArray]:
        """What the head gives for some texts, on the host."""
        found = [x.widened().numpy() for x in self.head.scores(*self.padded(rows))]
        check_finite("the scores are", *found)
        return found


@checked_call
def pipeline(
    task: str,
    model: str | PathLike[str] | LanguageModel,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> Pipeline:
    """What answers texts, one, many, or as they come; `Pipeline` tells how to call it.

    Args:
        task: of `PIPELINES`.
        model: as for `tfx.load`, or what that gave.
        backend, device, dtype, quantize: as for `tfx.load`.
        batch_size: how many inputs are read at a time.
        options: of the pipeline, for all calls that do not say otherwise.

    Raises:
        TfxError: there is no such task, the model has no head for it, or an option will not do.

    >>> ask = pipeline("text-generation", "gpt2-tiny", backend="numpy", max_new_tokens=4)
    >>> ask("ROMEO:")
    [{'generated_text': 'ROMEO:\\nI will not'}]
    """
    if task not in PIPELINES:
        hint = meant(str(task), PIPELINES)
        raise UsageError(f"there is no pipeline {quoted(str(task))}.{hint}")
    module, _, name = PIPELINES[task].partition(":")
    kind: type[Pipeline] = getattr(import_module(module), name)
    if isinstance(model, LanguageModel):
        given = {"backend": backend, "device": device, "dtype": dtype, "quantize": quantize}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"{wrong[0]}: the model is loaded already; give it to tfx.load")
    else:
        model = load(
            model,
            backend=backend,
            device=device,
            dtype=dtype,
            quantize=quantize,
            task=kind.needs,
        )
    return kind(model, batch_size=batch_size, **options)


def _positive(batch_size: Any) -> int:
    return whole("batch_size", batch_size)
