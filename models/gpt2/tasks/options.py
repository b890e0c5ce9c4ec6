"""What can be chosen about the training of a head, beside what holds for every GPT-2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tfx.core.errors import UsageError
from tfx.core.overrides import number_set
from tfx.core.recipe import TrainSettings
from tfx.models.gpt2.heads import Problem
from tfx.models.gpt2.tasks.class_weights import ClassWeights, asked_weights

EPOCHS = 3
"""As often all examples are learnt from, where nobody says how many steps."""

_SETTABLE = {"lm_weight": "multiple-choice", "problem_type": "text-classification", "head": None}
"""What can be set, and the task that it is for, where it is for one alone."""


@dataclass(frozen=True)
class TaskOptions:
    """How a head is trained.

    Attributes:
        class_weights: how much each class counts; None for all alike.
        lm_weight: of the language model's loss beside that of choices, by `--set`.
        problem_type: what labels of texts are, by `--set`; None: what they look like.
        head: by `--set`, whether one for the task that the weights have is trained on (`found`).
    """

    class_weights: ClassWeights | None = None
    lm_weight: float = 0.5
    problem_type: Problem | None = None
    head: Literal["found", "new"] = "found"

    @classmethod
    def chosen(cls, settings: TrainSettings) -> TaskOptions:
        """The options of a new run.

        Raises:
            UsageError: a value that cannot be.
        """
        given: dict[str, Any] = {}
        if settings.class_weights is not None:
            given["class_weights"] = asked_weights(settings.class_weights)
        asked = settings.overrides
        for name, task in _SETTABLE.items():
            if name in asked and task not in (None, settings.task):
                raise UsageError(f"--set {name} is for --task {task}; leave it out")
        if "lm_weight" in asked:
            given["lm_weight"] = number_set("lm_weight", asked["lm_weight"], float)
            if given["lm_weight"] < 0:
                raise UsageError(
                    f"--set lm_weight={asked['lm_weight']}: expected a number of at least 0"
                )
        for name, known in (("problem_type", get_args(Problem)), ("head", ("found", "new"))):
            if name in asked:
                given[name] = asked[name]
                if given[name] not in known:
                    raise UsageError(
                        f"--set {name}={asked[name]}: expected one of {', '.join(known)}"
                    )
        return cls(**given)

    @property
    def for_head(self) -> Mapping[str, Any]:
        """What a new head is told."""
        return {"problem_type": self.problem_type}


def without_own(settings: TrainSettings) -> TrainSettings:
    """The settings without those that are a head's alone."""
    rest = {key: value for key, value in settings.overrides.items() if key not in _SETTABLE}
    return replace(settings, overrides=rest)
