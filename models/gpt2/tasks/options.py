"""What can be chosen about the training of a head, beside what holds for every GPT-2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from tfx.core.errors import UsageError
from tfx.core.overrides import number_set
from tfx.core.recipe import TrainSettings
from tfx.core.wording import quoted
from tfx.models.gpt2.heads import Problem

EPOCHS = 3
"""As often all examples are learnt from, where nobody says how many steps."""

_SETTABLE = ("lm_weight", "problem_type")


@dataclass(frozen=True)
class TaskOptions:
    """How a head is trained.

    Attributes:
        class_weights: "balanced", for rare classes to count as much as others; None for all alike.
        lm_weight: of the language model's loss beside that of choices, by `--set`.
        problem_type: what labels of texts are, by `--set`; None: what they look like.
    """

    class_weights: str | None = None
    lm_weight: float = 0.5
    problem_type: Problem | None = None

    @classmethod
    def chosen(cls, settings: TrainSettings) -> TaskOptions:
        """The options of a new run.

        Raises:
            UsageError: a value that cannot be.
        """
        given: dict[str, Any] = {}
        if settings.class_weights is not None:
            if settings.class_weights != "balanced":
                raise UsageError(
                    f"--class-weights {quoted(settings.class_weights)}: expected balanced"
                )
            given["class_weights"] = settings.class_weights
        asked = settings.overrides
        if "lm_weight" in asked:
            given["lm_weight"] = number_set("lm_weight", asked["lm_weight"], float)
            if given["lm_weight"] < 0:
                raise UsageError(
                    f"--set lm_weight={asked['lm_weight']}: expected a number of at least 0"
                )
        if "problem_type" in asked:
            given["problem_type"] = asked["problem_type"]
            if given["problem_type"] not in get_args(Problem):
                raise UsageError(
                    f"--set problem_type={asked['problem_type']}: expected one of "
                    f"{', '.join(get_args(Problem))}"
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
