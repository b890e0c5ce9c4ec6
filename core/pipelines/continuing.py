"""The pipeline `text-generation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tfx.core.errors import UsageError
from tfx.core.generation import room_after
from tfx.core.pipelines.language_model import Choice, Request
from tfx.core.pipelines.pipeline import Pipeline
from tfx.core.wording import kind_of


@dataclass(frozen=True)
class _Chosen:
    choice: Choice
    full: bool
    truncation: bool


class TextGeneration(Pipeline):
    """What follows a text, as a list of `num_samples` objects with `generated_text`.

    Options:
        return_full_text: whether the text itself stands before what is new.
        truncation: whether of a text that is too long for the model, together with the new tokens,
            the end is read; else it is an error. The text is given back whole all the same.
        seed, theta, head_mask, and all of `tfx.core.generation.GenerationOptions`: as in
            `LanguageModel.generate`.
    """

    task = "text-generation"
    defaults: ClassVar = {
        "return_full_text": True,
        "truncation": False,
        "seed": None,
        "theta": None,
        "head_mask": None,
    }

    def chosen(self, options: Mapping[str, Any]) -> _Chosen:
        mine = super().chosen({k: v for k, v in options.items() if k in self.defaults})
        rest = {name: value for name, value in options.items() if name not in self.defaults}
        choice = self.model.choice(rest, mine["seed"], mine["theta"], mine["head_mask"])
        self.model.writing(choice)  # which refuses a theta or a head mask that will not do
        return _Chosen(choice, mine["return_full_text"], mine["truncation"])

    def _check(self) -> None:
        _ = self.model.causal, self.model.codec  # both have something to say where they lack

    def read(self, given: Any, options: _Chosen) -> tuple[str, Request]:
        if not isinstance(given, str):
            raise UsageError(f"expected a text, not {kind_of(given)}")
        ids, its = self.model.prompt_ids(given), options.choice.options
        if options.truncation and not its.window:
            most = self.model.max_positions
            room = room_after(self.model.causal, its.max_new_tokens)
            if room < 1:
                raise UsageError(
                    f"max_new_tokens {its.max_new_tokens} leave no room for a prompt; expected at "
                    f"most the model's {most} positions"
                )
            ids = ids[-room:]
        return given, self.model.request(ids, options.choice)

    def answer(self, read: Sequence[tuple[str, Request]], options: _Chosen) -> list[Any]:
        found = self.model.texts([request for _, request in read], options.choice)
        return [
            [{"generated_text": (given if options.full else "") + (x.text or "")} for x in texts]
            for (given, _), texts in zip(read, found, strict=True)
        ]
