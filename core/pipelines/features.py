"""The pipeline `feature-extraction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tfx.core.arguments import one_of
from tfx.core.backend import HostArray
from tfx.core.errors import UsageError
from tfx.core.pipelines.loadable import FEATURES
from tfx.core.pipelines.pipeline import Pipeline


class FeatureExtraction(Pipeline):
    """The last hidden states of a text: an array (T, C), or (C,) with `pooling`, of float32 or
    float64.

    Options:
        pooling: "mean" of all tokens, the "last" token, which has seen the others, or the "first".
        truncation: whether of a text that is too long the beginning is read; else it is an error.
    """

    task = FEATURES
    needs = FEATURES
    defaults: ClassVar = {"pooling": None, "truncation": False}

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = super().chosen(options)
        one_of("pooling", found["pooling"], (None, "mean", "last", "first"))
        return found

    def _check(self) -> None:
        if self.model.parts.hidden is None:
            raise UsageError(f"{self.model.name} does not show its hidden states")

    def read(self, given: Any, options: Mapping[str, Any]) -> list[int]:
        ids = self.ids_within(given, options["truncation"])
        if not ids:
            raise UsageError("it is empty; expected some text")
        return ids

    def answer(self, read: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        hidden = self.model.parts.hidden
        assert hidden is not None
        states = hidden(*self.padded(read)).widened().numpy()
        return [
            _pooled(row[: len(ids)], options["pooling"])
            for row, ids in zip(states, read, strict=True)
        ]


def _pooled(states: HostArray, pooling: str | None) -> HostArray:
    match pooling:
        case "mean":
            return np.asarray(states.mean(0))
        case "last":
            return np.array(states[-1])
        case "first":
            return np.array(states[0])
    return states.copy()
