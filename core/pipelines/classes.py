"""The pipeline `text-classification`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tfx.core.arguments import one_of, whole
from tfx.core.backend import HostArray
from tfx.core.generation.logits import softmax
from tfx.core.pipelines.pipeline import Pipeline

_BEST = "best"


class TextClassification(Pipeline):
    """The class of a text, as an object with `label` and `score`.

    As in transformers, a call with one text gives a list of one; with `top_k`, each text gets a
    list of so many, the likeliest first.

    Options:
        top_k: how many classes to give; None for all.
        function_to_apply: to scores: "softmax" where one class is right, "sigmoid" where any number
            is, "none" where numbers are predicted; by default what suits the head.
        truncation: whether of a text that is too long the beginning is read; else it is an error.
    """

    task = "text-classification"
    needs = "text-classification"
    defaults: ClassVar = {"top_k": _BEST, "function_to_apply": None, "truncation": False}

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = super().chosen(options)
        if found["top_k"] not in (None, _BEST):
            whole("top_k", found["top_k"])
        known = (None, "softmax", "sigmoid", "none")
        one_of("function_to_apply", found["function_to_apply"], known)
        return found

    def alone(self, result: Any, options: Mapping[str, Any]) -> Any:
        return [result] if options["top_k"] == _BEST else result

    def read(self, given: Any, options: Mapping[str, Any]) -> list[int]:
        return self.ids_within(given, options["truncation"]) or [self.head.end]

    def answer(self, read: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        [scores] = self.scores(read)
        top_k, labels = options["top_k"], self.head.labels
        function = options["function_to_apply"] or _FUNCTIONS[self.head.kind]
        found = []
        for row in _applied(function, scores):
            best = np.argsort(-row, kind="stable")
            ranked = [{"label": labels[i], "score": float(row[i])} for i in best]
            found.append(ranked[0] if top_k == _BEST else ranked[:top_k])
        return found


_FUNCTIONS = {"one": "softmax", "many": "sigmoid", "numbers": "none"}


def _applied(function: str, scores: HostArray) -> HostArray:
    wide = np.asarray(scores, np.float64)
    match function:
        case "softmax":
            return softmax(wide)
        case "sigmoid":
            return np.asarray(0.5 * (1 + np.tanh(wide / 2)))
    return wide
