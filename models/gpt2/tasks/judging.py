"""Answers to examples, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfx.core.backend import HostArray
from tfx.core.capture import jit
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.tensor import Tensor
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.stepping import placed
from tfx.models.gpt2.tasks.examples import in_batches
from tfx.models.gpt2.tasks.metrics import Metrics
from tfx.models.gpt2.tasks.task import Example, Task, Weighing

Answer = dict[str, Any]


class Judge:
    """What a task makes of examples, batch by batch, with whichever parameters.

    Args:
        task: whose examples they are.
        batch_size: how many are read at a time.
        theta: as in `Pass`.
    """

    def __init__(self, task: Task, batch_size: int, theta: Tensor | None = None) -> None:
        self.task, self._batch_size = task, batch_size

        def through(batch: Sequence[Tensor]) -> Pass:
            return Pass(visible=batch[1], theta=theta)

        @jit
        def scores(params: Params, *batch: Tensor) -> tuple[Tensor, ...]:
            return tuple(x.widened() for x in task.scores(params, through(batch), *batch))

        @jit
        def loss(params: Params, *batch: Tensor) -> Tensor:
            return task.loss(params, through(batch), Weighing(), *batch)

        self._scores, self._loss = scores, loss

    def answers(
        self,
        params: Params,
        examples: Sequence[Example],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Answer]:
        """An answer to each; `progress` is told how many there are so far."""
        found: dict[int, Answer] = {}
        for places in in_batches(examples, self._batch_size):
            batch = [examples[i] for i in places]
            arrays = self._placed(params, self.task.batch(batch, labelled=False))
            scores = [x.numpy() for x in self._scores(params, *arrays)]
            for row, (place, example) in enumerate(zip(places, batch, strict=True)):
                found[place] = self.task.answer(example, [x[row] for x in scores])
            progress(len(found))
        return [found[place] for place in range(len(examples))]

    def loss(self, params: Params, examples: Sequence[Example]) -> float:
        """The mean loss of labelled examples; all classes count alike, and choices alone."""
        total = count = 0.0
        for places in in_batches(examples, self._batch_size):
            batch = [examples[i] for i in places]
            labels = self.task.count(batch)
            arrays = self._placed(params, self.task.batch(batch))
            total += float(self._loss(params, *arrays).item()) * labels
            count += labels
        return total / max(count, 1)

    def judged(self, params: Params, examples: Sequence[Example]) -> Metrics:
        """Loss and figures of labelled examples."""
        figures = self.task.metrics(examples, self.answers(params, examples))
        return {"loss": self.loss(params, examples), **figures}

    @staticmethod
    def _placed(params: Params, arrays: Sequence[HostArray]) -> list[Tensor]:
        like = params["wte.weight"]
        return placed(arrays, like.backend, like.dtype)


def weights_on(params: Params, weights: HostArray, dtype: DType) -> Tensor:
    """Weights of classes where the model computes."""
    return tensor(weights, params["wte.weight"].backend, dtype)
