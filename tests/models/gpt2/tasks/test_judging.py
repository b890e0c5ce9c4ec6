"""What a head says of an example does not depend on which others are read with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import random_weights
from gpt2_tasks import CONFIG, listed, made, records

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.parameters import borrowed
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.tasks.judging import Judge
from tfx.models.gpt2.tasks.kinds import TASKS
from tfx.models.gpt2.tasks.task import Example, Task


def material(name: str, backend: Backend) -> tuple[Task, list[Example], Params]:
    """A task, eleven examples of several lengths, and a random model."""
    rows = records(name, 11, seed=4)
    task = made(name, rows)
    weights = random_weights(CONFIG)
    rng = np.random.default_rng(0)
    for key, shape in task.head.shapes(CONFIG).items():
        weights[key] = rng.normal(0, 0.5, shape).astype(np.float32)
    examples = [task.example(record, True) for record in listed(rows)]
    return task, examples, borrowed(weights, backend, DType.float32)


def flat(answer: Any) -> list[Any]:
    """The values of an answer, in order of their names."""
    if isinstance(answer, dict):
        return [x for key in sorted(answer) for x in flat(answer[key])]
    if isinstance(answer, list):
        return [x for part in answer for x in flat(part)]
    return [answer]


@pytest.mark.parametrize("name", TASKS)
def test_the_size_of_batches_changes_nothing(name: str, backend: Backend) -> None:
    task, examples, params = material(name, backend)
    one, four = Judge(task, 1), Judge(task, 4)
    assert four.loss(params, examples) == pytest.approx(one.loss(params, examples), rel=1e-4)
    answers = four.answers(params, examples)
    for mine, alone in zip(answers, one.answers(params, examples), strict=True):
        pairs = zip(flat(mine), flat(alone), strict=True)
        assert all(x == (pytest.approx(y, rel=1e-3) if type(y) is float else y) for x, y in pairs)
    assert four.judged(params, examples) == pytest.approx(one.judged(params, examples), rel=1e-4)


def test_all_labels_count_alike_in_a_loss(backend: Backend) -> None:
    """Of a long text and a short one, each word counts as much as another."""
    task, examples, params = material("token-classification", backend)
    judge = Judge(task, 1)
    counts = [task.count([example]) for example in examples]
    losses = [judge.loss(params, [example]) for example in examples]
    assert len(set(counts)) > 1
    expected = np.average(losses, weights=counts)
    assert judge.loss(params, examples) == pytest.approx(expected, rel=1e-5)


def test_progress(backend: Backend) -> None:
    task, examples, params = material("text-classification", backend)
    told: list[int] = []
    Judge(task, 4).answers(params, examples, told.append)
    assert told == [4, 8, 11]
