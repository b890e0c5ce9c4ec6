"""The pipeline `text-generation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tfx.core.errors import UsageError
from tfx.core.generation import GenerationOptions, check_prompt
from tfx.core.pipelines.pipeline import Pipeline, one_of


@dataclass(frozen=True)
class _Chosen:
    generation: GenerationOptions
    may_cut: bool
    full: bool
    truncation: bool


class TextGeneration(Pipeline):
    """What follows a text, as a list of `num_samples` objects with `generated_text`.

    Options:
        return_full_text: whether the text itself stands before what is new.
        truncation: whether of a text that is too long for the model, together with the new tokens,
            the end is read; else it is an error. The text is given back whole all the same.
        seed, and all of `tfx.core.generation.GenerationOptions`: as in `LanguageModel.generate`.
    """

    task = "text-generation"
    defaults: ClassVar = {"return_full_text": True, "truncation": False, "seed": None}

    def chosen(self, options: Mapping[str, Any]) -> _Chosen:
        mine = super().chosen({k: v for k, v in options.items() if k in self.defaults})
        rest = {name: value for name, value in options.items() if name not in self.defaults}
        generation, may_cut = self.model.options(rest, mine["seed"])
        full = one_of("return_full_text", mine["return_full_text"], (True, False))
        return _Chosen(
            generation, may_cut, full, one_of("truncation", mine["truncation"], (True, False))
        )

    def _check(self) -> None:
        _ = self.model.causal, self.model.codec  # both have something to say where they lack

    def read(self, given: Any, options: _Chosen) -> tuple[str, list[int], GenerationOptions]:
        if not isinstance(given, str):
            self.model.encode(given)  # which refuses it
        ids, its = self.model.prompt_ids(given), options.generation
        if options.truncation and not its.window:
            room = self.model.max_positions + 1 - its.max_new_tokens
            if room < 1:
                raise UsageError(
                    f"max_new_tokens {its.max_new_tokens} leave no room for a prompt; expected at "
                    f"most the model's {self.model.max_positions} positions"
                )
            ids = ids[-room:]
        elif options.may_cut:
            its = self.model.cut_to_room(its, len(ids))
        check_prompt(self.model.causal, ids, its)
        return given, ids, its

    def answer(
        self, read: Sequence[tuple[str, list[int], GenerationOptions]], options: _Chosen
    ) -> list[Any]:
        found = self.model.texts([(ids, its) for _, ids, its in read])
        return [
            [{"generated_text": (given if options.full else "") + (x.text or "")} for x in texts]
            for (given, _, _), texts in zip(read, found, strict=True)
        ]
