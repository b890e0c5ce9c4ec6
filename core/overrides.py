"""The settings of a model that `--set KEY=VALUE` gives, which come as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from tfx.core.errors import UsageError
from tfx.core.wording import did_you_mean


def number_set(key: str, text: str, kind: type) -> Any:
    """The finite number that `text` gives for `key`, as `kind`: int or float.

    Raises:
        UsageError: it is none.

    >>> number_set("beta1", "1e-1", float)
    0.1
    """
    with suppress(ValueError, OverflowError):
        value = kind(text)
        if math.isfinite(value):
            return value
    expected = "a whole number" if kind is int else "a number"
    raise UsageError(f"--set {key}={text}: expected {expected}")


def no_such_setting(
    model: str, key: str, known: Sequence[str], flags: Collection[str]
) -> UsageError:
    """What to raise for a key that is not among the `known` ones of a model.

    Args:
        flags: settings that have a flag of their own, by name.

    >>> no_such_setting("acme", "batch_size", ["n_layer"], {"batch_size"})
    UsageError('--set batch_size: acme has no such setting. It is a flag: --batch-size.')
    """
    hint = did_you_mean(key, known) or f" There are {', '.join(known)}."
    if key in flags:
        hint = f" It is a flag: --{key.replace('_', '-')}."
    return UsageError(f"--set {key}: {model} has no such setting.{hint}")
