"""What Python code sees of a loaded model and changes in it: what a plugin hands over for that, and
how texts become the arrays that are read whole.

Shapes: B texts of T tokens, L layers of H heads, C channels, V tokens to choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.backend import HostArray
from tfx.core.errors import ShapeError, UsageError
from tfx.core.generation import CausalModel
from tfx.core.padding import padded_right
from tfx.core.pipelines.prompts import NO_TEXTS

if TYPE_CHECKING:
    from tfx.core.explanation import Explanation
    from tfx.core.pipelines.loadable import Loaded

Thetas: TypeAlias = ArrayLike | Callable[[int], ArrayLike]
"""What attention is scaled by: a number, one for each layer (L,), or one for each head (L, H); or
what gives such for each token.

That is called with the number of the token, from 0, where a text is read whole; where one is
written, with how many tokens are new: 0 for the prompt, which is read at once, 1 for the first that
was chosen, when it is read.
"""

Heads: TypeAlias = Mapping[int, Collection[int]]
"""Heads by their numbers, by layer."""


@dataclass(frozen=True, eq=False)
class Output:
    """What a model makes of texts that it read whole: arrays on the host, in float32 or float64,
    under transformers' names. None is what was not asked for, or what the model's head does not
    give. What stands where a text is padded means nothing.

    Attributes:
        logits: scores of what follows each token (B, T, V); of a head for classes of texts
            (B, labels), for classes of tokens (B, T, labels).
        start_logits, end_logits: of each token as the first and as the last of an answer (B, T).
        mc_logits: of choices (B, N).
        hidden_states: the sum of embeddings, what each layer but the last makes of it, and what the
            last does, normed: L + 1 arrays (B, T, C).
        attentions: how each layer's heads weigh what they attend to: L arrays (B, H, T, T), of the
            heads that were not pruned.
        attention_mask: bool (B, T), False where a text is padded.
    """

    logits: HostArray | None = None
    start_logits: HostArray | None = None
    end_logits: HostArray | None = None
    mc_logits: HostArray | None = None
    hidden_states: tuple[HostArray, ...] | None = None
    attentions: tuple[HostArray, ...] | None = None
    attention_mask: HostArray | None = None


class Read(Protocol):
    """Reads texts whole.

    Args:
        ids: tokens (B, T); of choices (B, N, T).
        visible: bool, as many, False where a text is padded; None where none is.
        theta: as `Thetas` has it; None for that which the model was loaded with.
        head_mask: what each head's output is multiplied by, (H,) or (L, H); None for 1.
        output_attentions, output_hidden_states: whether the output is to have them.
    """

    def __call__(
        self,
        ids: HostArray,
        visible: HostArray | None,
        *,
        theta: Thetas | None,
        head_mask: ArrayLike | None,
        output_attentions: bool,
        output_hidden_states: bool,
    ) -> Output: ...


class Explain(Protocol):
    """Explains one text of so many tokens: the `top_k` likeliest at each place, and the attention
    of some layers and heads, or of all."""

    def __call__(
        self,
        ids: Sequence[int],
        *,
        theta: ArrayLike | None,
        top_k: int | None,
        layers: Collection[int] | None,
        heads: Collection[int] | None,
    ) -> Explanation: ...


@dataclass(frozen=True, eq=False)
class Inside:
    """What can be done with a model beyond asking it; None for what its plugin has no way to do.

    Raises of each: `TfxError` for what the user can mend.

    Attributes:
        read: the model as a function of whole texts.
        under: what goes on from one batch of texts, under that theta and by that head mask; None
            for what the model has.
        without_heads: the model without some of its heads.
        head_importance: how much each head matters (L, H): to texts as ids, or where the model has
            a head for something else, to labelled records as they are trained with.
        explain: what the model makes of a text.
    """

    read: Read | None = None
    under: Callable[[Thetas | None, ArrayLike | None], CausalModel] | None = None
    without_heads: Callable[[Heads], Loaded] | None = None
    head_importance: Callable[[Sequence[Any]], HostArray] | None = None
    explain: Explain | None = None


# ---- texts as arrays -----------------------------------------------------------------------------


def masked(ids: Any, attention_mask: Any) -> tuple[HostArray, HostArray | None]:
    """Ids (..., T) that are an array, and what of them is visible; None where all is.

    Raises:
        ShapeError: they do not suit each other.
    """
    try:
        ids = np.asarray(ids)
        mask = np.ones(ids.shape, bool) if attention_mask is None else np.asarray(attention_mask)
        if ids.dtype.kind == "U":
            raise ValueError
    except ValueError:  # texts, or rows of several lengths
        raise ShapeError("an array, or attention_mask, is for ids of one length (B, T)") from None
    if ids.ndim and not len(ids):
        raise UsageError(NO_TEXTS)
    if mask.shape != ids.shape or not np.isin(mask, (0, 1)).all():
        raise ShapeError(
            f"attention_mask is {mask.dtype} {mask.shape}; expected one 1 or 0 for each of the ids "
            f"{ids.shape}"
        )
    seen = mask.astype(bool)
    return ids, None if seen.all() else seen


def joined(rows: Sequence[Sequence[int]], *leading: int) -> tuple[HostArray, HostArray | None]:
    """Rows of ids as one array (*leading, T), padded on the right, and what of it is visible.

    >>> ids, visible = joined([[5, 6], [7]], 2)
    >>> ids.tolist(), visible.tolist()
    ([[5, 6], [7, 0]], [[True, True], [True, False]])
    """
    width = max(map(len, rows))
    ids, seen = (x.reshape(*leading, width) for x in padded_right(rows, width))
    return ids, None if seen.all() else seen


def sizes_of_groups(groups: Sequence[Any]) -> tuple[int, int]:
    """How many groups of texts there are, and how many texts are in each.

    Raises:
        UsageError: not in each as many, or none.
    """
    sizes = {len(group) for group in groups}
    if len(sizes) != 1 or not (size := sizes.pop()):
        raise UsageError("choices are as many for each question, at least one")
    return len(groups), size
