"""What `tfx train`, `run`, `eval` and the other commands do with a GPT-2 of any size.

What a command needs is imported when it is called: nobody waits for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.explanation import Explanation
from tfx.core.pipelines.loadable import Loaded, LoadSettings
from tfx.core.recipe import (
    BenchSettings,
    CompareSettings,
    ConvertSettings,
    EvalSettings,
    Example,
    ExplainSettings,
    Part,
    PruneSettings,
    QuantizeSettings,
    Reporter,
    ResonateSettings,
    RunSettings,
    TrainSettings,
    Work,
)
from tfx.core.resonance import Resonance
from tfx.models.gpt2.presets import PRESETS

# NumPy would warn of overflows on stderr; what comes of them is found out and is an error.
_quiet = np.errstate(all="ignore")


class GPT2:
    """The recipe behind the names of the presets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._preset = PRESETS[name]

    @_quiet
    def train(self, settings: TrainSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Train a new model, or go on from weights, and leave checkpoints."""
        from tfx.models.gpt2 import training

        if settings.task is not None:
            from tfx.models.gpt2.tasks import training as task_training

            return task_training.train(self._preset, settings, backend, report)
        return training.train(self._preset, settings, backend, report)

    @_quiet
    def run(self, settings: RunSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Print what follows a prompt, or what a head says of it."""
        from tfx.models.gpt2 import running

        if settings.task is not None:
            from tfx.models.gpt2.tasks import running as task_running

            return task_running.run(self._preset, settings, backend, report)
        return running.run(self._preset, settings, backend, report)

    @_quiet
    def evaluate(
        self, settings: EvalSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]:
        """Print the perplexity of a text, or how good a head is."""
        from tfx.models.gpt2 import evaluation

        if settings.task is not None:
            from tfx.models.gpt2.tasks import evaluation as task_evaluation

            return task_evaluation.evaluate(self._preset, settings, backend, report)
        return evaluation.evaluate(self._preset, settings, backend, report)

    def convert(self, settings: ConvertSettings, report: Reporter) -> dict[str, Any]:
        """Write a checkpoint as a Hugging Face folder."""
        from tfx.models.gpt2 import convert

        return convert.convert(self._preset, settings, report)

    @_quiet
    def quantize(
        self, settings: QuantizeSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]:
        """Write the weights in fewer bits, for `run` and `evaluate`."""
        from tfx.models.gpt2 import quantize

        return quantize.quantize(self._preset, settings, backend, report)

    @_quiet
    def prune(self, settings: PruneSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Write the model without the heads that matter least."""
        from tfx.models.gpt2 import pruning

        return pruning.prune(self._preset, settings, backend, report)

    @_quiet
    def resonance(
        self, settings: ResonateSettings, backend: Backend, report: Reporter
    ) -> Resonance:
        """A text to be judged token by token."""
        from tfx.models.gpt2 import resonating

        return resonating.resonance(self._preset, settings, backend, report)

    @_quiet
    def explain(self, settings: ExplainSettings, backend: Backend, report: Reporter) -> Explanation:
        """What the model makes of a text, place by place."""
        from tfx.models.gpt2 import explaining

        return explaining.explain(self._preset, settings, backend, report)

    @_quiet
    def load(self, settings: LoadSettings, backend: Backend, note: Callable[[str], None]) -> Loaded:
        """The model for Python code, or one of its heads."""
        from tfx.models.gpt2 import loading

        return loading.load(self._preset, settings, backend, note)

    def example(
        self,
        settings: CompareSettings,
        backend: Backend,
        note: Callable[[str], None] = lambda line: None,
    ) -> Example:
        """The loss of a sentence."""
        from tfx.models.gpt2 import example

        return example.example(self._preset, settings, backend, note)

    def weights_to_bench(
        self, settings: BenchSettings, folder: Path, note: Callable[[str], None]
    ) -> Path:
        """The weights to time; random ones where the preset's were never fetched."""
        from tfx.models.gpt2 import bench

        return bench.weights_to_bench(self._preset, settings, folder, note)

    @_quiet
    def work(
        self,
        part: Part,
        settings: BenchSettings,
        backend: Backend,
        note: Callable[[str], None] = lambda line: None,
    ) -> Work:
        """Opening the weights, reading a prompt, writing tokens, or training."""
        from tfx.models.gpt2 import bench

        return bench.work(part, self._preset, settings, backend, note)


gpt2_tiny = partial(GPT2, "gpt2-tiny")
distilgpt2 = partial(GPT2, "distilgpt2")
gpt2 = partial(GPT2, "gpt2")
gpt2_medium = partial(GPT2, "gpt2-medium")
gpt2_large = partial(GPT2, "gpt2-large")
gpt2_xl = partial(GPT2, "gpt2-xl")
