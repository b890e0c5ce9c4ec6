"""The tasks by their names."""

from __future__ import annotations

from typing import get_args

from tfx.core.errors import UsageError
from tfx.core.wording import did_you_mean, quoted
from tfx.models.gpt2.heads import TaskName
from tfx.models.gpt2.tasks.answers import QuestionAnswering
from tfx.models.gpt2.tasks.choices import MultipleChoice
from tfx.models.gpt2.tasks.tags import TokenClassification
from tfx.models.gpt2.tasks.task import Task
from tfx.models.gpt2.tasks.texts import TextClassification

TASKS: dict[str, type[Task]] = {
    kind.name: kind
    for kind in (TextClassification, TokenClassification, QuestionAnswering, MultipleChoice)
}
assert tuple(TASKS) == get_args(TaskName)


def task_named(name: str) -> type[Task]:
    """The task of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in TASKS:
        hint = did_you_mean(name, TASKS) or f" There are {', '.join(TASKS)}."
        raise UsageError(f"--task {quoted(name)}: no such task.{hint}")
    return TASKS[name]
