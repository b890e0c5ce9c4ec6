"""What a model gives to those who read texts whole from Python: arrays on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.backend import HostArray
from tfx.core.errors import ShapeError, UsageError
from tfx.core.tensor import Tensor
from tfx.models.gpt2.passing import Shown


@dataclass(frozen=True, eq=False)
class Output:
    """What a model gives for texts, on the host, in float32 or float64.

    Attributes:
        logits: scores of what follows each token (B, T, V).
        hidden_states: the sum of embeddings, what each layer but the last makes of it, and what the
            last does, normed: L + 1 arrays (B, T, C), as transformers gives them.
        attentions: how each layer's heads weigh what they attend to: L arrays (B, H, T, T), of the
            heads that were not pruned.
    """

    logits: HostArray
    hidden_states: tuple[HostArray, ...] | None = None
    attentions: tuple[HostArray, ...] | None = None

    @classmethod
    def of(cls, scores: Tensor, shown: Shown) -> Output:
        """What a pass gave and showed."""
        hidden, weights = (
            None if found is None else tuple(x.widened().numpy() for x in found)
            for found in (shown.hidden_states, shown.attentions)
        )
        return cls(scores.widened().numpy(), hidden, weights)


def checked_ids(ids: ArrayLike, vocab_size: int, positions: int) -> HostArray:
    """Tokens (B, T) as an array, none of which a model would not know or have no place for.

    Raises:
        ShapeError, UsageError: they are not such; says why.
    """
    found = np.asarray(ids)
    if found.ndim != 2 or not 1 <= found.shape[1] <= positions or found.dtype.kind not in "iu":
        raise ShapeError(
            f"ids are {found.dtype} {found.shape}; expected whole numbers (texts, tokens), from 1 "
            f"to {positions} tokens a text"
        )
    if found.size and not 0 <= found.min() <= found.max() < vocab_size:
        wrong = found[(found < 0) | (found >= vocab_size)][0]
        raise UsageError(f"token {wrong} is none of the model's: expected 0 to {vocab_size - 1}")
    return found
