"""`--class-weights`: how much each class counts while a head learns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.errors import UsageError
from tfx.core.wording import did_you_mean, quoted

BALANCED = "balanced"

ClassWeights = str | dict[str, float] | list[float]
"""`BALANCED`, for rare classes to count as much as others; numbers by the names of classes, of
which those that are not named count 1; or numbers of all classes in order."""


def asked_weights(text: str) -> ClassWeights:
    """What the flag says: `balanced`, `good=2,bad=1`, or as JSON `{"good": 2}` or `[1, 2]`.

    >>> asked_weights("good=2,bad=0.5"), asked_weights("[1, 2]")
    ({'good': 2.0, 'bad': 0.5}, [1.0, 2.0])

    Raises:
        UsageError: it says nothing of the kind.
    """
    if text == BALANCED:
        return BALANCED
    given = f"--class-weights {quoted(text)}"
    fault = UsageError(
        f"{given}: expected balanced, or a number of at least 0 for each class, as in "
        'good=2,bad=1 or {"good": 2, "bad": 1}'
    )
    try:
        found = _read(text)
    except (ValueError, RecursionError):
        raise fault from None
    names = [name for name, _ in found] if isinstance(found, tuple) else []
    numbers = [_number(x) for x in ([x for _, x in found] if names else found)]
    weights = [x for x in numbers if x is not None]
    if not weights or None in numbers or "" in names:
        raise fault
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{given}: the class {quoted(name)} is there twice; leave one out")
    return dict(zip(names, weights, strict=True)) if names else weights


def _read(text: str) -> tuple[tuple[str, Any], ...] | list[Any]:
    """Names and numbers, or numbers alone; `ValueError` for what is spelled like neither."""
    if text.lstrip().startswith(("{", "[")):
        found: tuple[tuple[str, Any], ...] | list[Any] = json.loads(text, object_pairs_hook=tuple)
        return found
    parts = [part.rpartition("=") for part in text.split(",")]
    return tuple((name.strip(), number) for name, _, number in parts)


def _number(value: Any) -> float | None:
    """A weight; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number >= 0 and math.isfinite(number) else None


def of_classes(asked: dict[str, float] | list[float], labels: Sequence[str]) -> HostArray:
    """The weights of the classes with these names, by number.

    Raises:
        UsageError: they do not go together, or no class counts.
    """
    known = f"the classes are {', '.join(map(quoted, labels))}"
    if isinstance(asked, list):
        if len(asked) != len(labels):
            raise UsageError(f"--class-weights has {len(asked)} numbers; {known}")
        found = np.array(asked)
    else:
        for name in asked:
            if name not in labels:
                hint = did_you_mean(name, labels) or f" {known[0].upper()}{known[1:]}."
                raise UsageError(f"--class-weights: there is no class {quoted(name)}.{hint}")
        found = np.array([asked.get(label, 1.0) for label in labels])
    if not found.any():
        raise UsageError(f"--class-weights: all are 0, and nothing would be learnt; {known}")
    return found
