"""What a model gives to those who read texts whole from Python: arrays on the host."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.backend import HostArray
from tfx.core.checks import check_finite
from tfx.core.errors import ShapeError, UsageError
from tfx.core.pipelines.inside import Output
from tfx.core.tensor import Tensor
from tfx.models.gpt2.passing import Shown


def output_of(scores: Mapping[str, Tensor], shown: Shown) -> Output:
    """What a pass gave, by its name, and showed: of the last layer what was normed, as transformers
    has it."""
    hidden, weights = shown.hidden_states, shown.attentions
    found = {name: _host(x) for name, x in scores.items()}
    check_finite("the logits are", *found.values())
    return Output(
        **found,
        hidden_states=None if hidden is None else tuple(map(_host, hidden[:-2] + hidden[-1:])),
        attentions=None if weights is None else tuple(map(_host, weights)),
    )


def _host(x: Tensor) -> HostArray:
    found: HostArray = x.widened().numpy()
    return found


def checked_ids(
    ids: ArrayLike, vocab_size: int, positions: int, choices: bool = False
) -> HostArray:
    """Tokens (B, T), or (B, N, T) of choices, as an array; none that a model would not know or have
    no place for.

    Raises:
        ShapeError, UsageError: they are not such; says why.
    """
    found = np.asarray(ids)
    fits = found.ndim == 2 + choices and 1 <= found.shape[-1] <= positions
    if not fits or found.dtype.kind not in "iu":
        axes = "(questions, choices, tokens)" if choices else "(texts, tokens)"
        raise ShapeError(
            f"ids are {found.dtype} {found.shape}; expected whole numbers {axes}, from 1 "
            f"to {positions} tokens a text"
        )
    if found.size and not 0 <= found.min() <= found.max() < vocab_size:
        wrong = found[(found < 0) | (found >= vocab_size)][0]
        raise UsageError(f"token {wrong} is none of the model's: expected 0 to {vocab_size - 1}")
    return found
