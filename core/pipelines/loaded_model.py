"""A model that a plugin handed over, and what Python code sees of it and changes in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.arguments import checked_call, is_whole, path_of, whole, wholes
from tfx.core.backend import Backend, HostArray
from tfx.core.errors import UsageError
from tfx.core.generation import CausalModel
from tfx.core.pipelines.inside import (
    Heads,
    Output,
    Thetas,
    joined,
    masked,
    sizes_of_groups,
)
from tfx.core.pipelines.loadable import Codec, Loaded
from tfx.core.pipelines.prompts import Prompt, about, is_empty, is_prompt, records, several
from tfx.core.wording import in_brief, kind_of

if TYPE_CHECKING:
    from tfx.core.explanation import Explanation

quiet = np.errstate(all="ignore")
"""NumPy would warn of overflows on stderr; what comes of them is found out and is an error."""

_Way = TypeVar("_Way", bound=Callable[..., Any])


class LoadedModel:
    """A model on a backend.

    Args:
        name: of the model's plugin.
        parts: what that handed over.
    """

    def __init__(self, name: str, parts: Loaded) -> None:
        self.name, self.parts = name, parts

    def __repr__(self) -> str:
        return f"<tfx model {self.name} on {self.backend}>"

    @property
    def backend(self) -> Backend:
        """What it computes on."""
        return self.parts.backend

    @property
    def max_positions(self) -> int:
        """How many tokens of a text it can read."""
        return self.parts.max_positions

    @property
    def causal(self) -> CausalModel:
        """What `tfx.core.generation` generates with.

        Raises:
            UsageError: the weights have a head for something else.
        """
        if self.parts.causal is None:
            head = self.parts.head
            has = f"have a head for {head.task} and " if head else ""
            raise UsageError(f"the weights of this {self.name} {has}are no language model")
        return self.parts.causal

    @property
    def codec(self) -> Codec:
        """From text to token ids and back.

        Raises:
            UsageError: the weights came without a tokenizer.
        """
        if self.parts.codec is None:
            raise UsageError(
                f"the weights of this {self.name} came without a tokenizer; give token ids, which "
                "`generate` and `logits` take too"
            )
        return self.parts.codec

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        if not isinstance(text, str):
            raise UsageError(f"expected a text, not {kind_of(text)}")
        return [int(token) for token in self.codec.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids.

        Raises:
            UsageError: they are none, or the weights came without a tokenizer.
        """
        most = None if self.parts.causal is None else self.parts.causal.vocab_size - 1
        plain = ids.tolist() if hasattr(ids, "tolist") else ids
        return self.codec.decode(wholes("ids", plain, most))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt; for an empty text, the token that begins texts."""
        if not isinstance(prompt, str):
            if not (is_empty(prompt) or is_prompt(prompt)):
                raise UsageError(f"expected a text or its token ids, not {in_brief(prompt)}")
            return [int(token) for token in prompt]
        if prompt:
            return self.encode(prompt)
        if self.parts.begin is None:
            raise UsageError(
                "it is empty, and no token of this model begins a text; give some text"
            )
        return [self.parts.begin]

    # ---- what is in it ----

    @checked_call
    @quiet
    def __call__(
        self,
        texts: Any,
        *,
        attention_mask: ArrayLike | None = None,
        theta: Thetas | None = None,
        head_mask: ArrayLike | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Output:
        """Read texts whole, and show what is in the model meanwhile.

        Args:
            texts: a text or its token ids; several, which are padded on the right; or an array of
                ids (B, T). Of a model for multiple choice, a list of choices for each question.
            attention_mask: of an array of ids: 0 where it is padding, on whichever side, else 1.
            theta: what attention is scaled by: a number, one for each layer (L,), for each head
                (L, H), for each head at each token (T, L, H); or a function that gives one of
                these but the last for the number of a token.
            head_mask: what the output of each head is multiplied by: (H,) or (L, H).
            output_attentions, output_hidden_states: whether the output is to have them.

        Returns:
            Arrays on the host, of one text too with an axis of texts before the others.

        Raises:
            UsageError, ShapeError: the model's plugin has no such thing, a text cannot be read, or
                arrays do not suit the model or each other.
        """
        read = self._able("be called", self.parts.inside.read)
        ids, seen = self._arrays(texts, attention_mask)
        found = read(
            ids,
            seen,
            theta=theta,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return replace(found, attention_mask=np.ones(ids.shape, bool) if seen is None else seen)

    @checked_call
    @quiet
    def prune_heads(self, heads: Heads) -> None:
        """Take some heads out of the model, by layer, as in `{0: [2], 3: [0, 1]}`: its matrices
        shrink, and `save` writes what is left. Heads keep their numbers; what was pruned already
        may be named again.

        Raises:
            UsageError: there is no such layer or head, a layer would lose all of its heads, the
                weights are in fewer bits, or the model's plugin has no such thing.
        """
        without_heads = self._able("lose heads", self.parts.inside.without_heads)
        if not _are_heads(heads):
            raise UsageError(
                f"heads {in_brief(heads)}: expected numbers by layer, as in {{0: [2], 3: [0, 1]}}"
            )
        self.parts = without_heads(heads)

    @checked_call
    @quiet
    def head_importance(self, texts: Any) -> HostArray:
        """How much each head matters, (L, H): |d loss / d mask|, where the mask multiplies what the
        head gathers, the mean over pieces of texts (Michel et al. 2019, arXiv:1905.10650).

        Args:
            texts: a text or its token ids, or several, each of two tokens or more. Of a model with
                a head: labelled records, as objects by the names that it is trained with.

        Raises:
            TfxError: the texts or the model will not do.
        """
        importance = self._able("weigh its heads", self.parts.inside.head_importance)
        if self.parts.head is not None:
            return importance(records(texts))
        _, given = several(texts)
        rows = []
        for number, text in enumerate(given):
            with about(number, len(given), "text"):
                rows.append(self.prompt_ids(text))
                if len(rows[-1]) < 2:
                    raise UsageError("it has one token; expected a second one to predict")
        return importance(rows)

    @checked_call
    @quiet
    def explain(
        self,
        prompt: Prompt,
        *,
        top_k: int | None = None,
        layers: Collection[int] | None = None,
        heads: Collection[int] | None = None,
        theta: ArrayLike | None = None,
    ) -> Explanation:
        """What the model makes of one text, place by place: what `tfx explain --json` prints.

        Args:
            prompt: a text or its token ids.
            top_k: how many of the likeliest tokens to tell at each place; by default 4.
            layers, heads: by their numbers, whose attention to show; all by default.
            theta: what attention is scaled by: a number, for each layer, or for each head.

        Raises:
            UsageError: the prompt or a number will not do, or the model's plugin has no such thing.
        """
        _ = self.causal  # which has something to say where it is lacking
        explain = self._able("be explained", self.parts.inside.explain)
        if not is_prompt(prompt):
            raise UsageError(f"expected one prompt to explain, not {kind_of(prompt)}")
        if top_k is not None:
            top_k = whole("top_k", top_k, 0)
        layers = None if layers is None else wholes("layers", layers)
        heads = None if heads is None else wholes("heads", heads)
        [ids] = self._rows([prompt])
        return explain(ids, theta=theta, top_k=top_k, layers=layers, heads=heads)

    def _arrays(self, texts: Any, attention_mask: Any) -> tuple[HostArray, HostArray | None]:
        """Texts as ids (B, T), or (B, N, T) of choices, and what of them is visible."""
        if hasattr(texts, "__array__"):
            texts = np.asarray(texts)
        if attention_mask is not None or (isinstance(texts, np.ndarray) and texts.ndim != 1):
            return masked(texts, attention_mask)
        one, texts = several(texts)
        if one:
            return joined(self._rows(texts), 1)
        for number, text in enumerate(texts):
            if is_empty(text) and text != "":
                raise UsageError(f"text {number} is empty; expected at least one token")
        alone = {is_prompt(text) for text in texts}
        if alone == {True}:
            return joined(self._rows(texts), len(texts))
        flat = [] if True in alone else [text for group in texts for text in group]
        if not flat or not all(map(is_prompt, flat)):
            raise UsageError("expected texts, token ids, or lists of choices, not a mixture")
        return joined(self._rows(flat), *sizes_of_groups(texts))

    def _rows(self, texts: Sequence[Prompt]) -> list[list[int]]:
        rows = []
        for number, text in enumerate(texts):
            with about(number, len(texts), "text"):
                rows.append(self.prompt_ids(text))
                if len(rows[-1]) > self.max_positions:
                    raise UsageError(
                        f"{len(rows[-1])} tokens do not fit the model's {self.max_positions} "
                        "positions; shorten it"
                    )
        return rows

    @checked_call
    @quiet
    def save(self, folder: str | PathLike[str]) -> None:
        """Write the model to a new folder, which `load` takes, and others' programs if they know
        the model.

        Raises:
            UsageError: the model's plugin cannot write it.
            WeightsError: the folder is taken, or cannot be written.
        """
        self._able("be saved", self.parts.save)(path_of("folder", folder))

    def _able(self, to: str, way: _Way | None) -> _Way:
        if way is None:
            raise UsageError(f"{self.name} cannot {to} from Python: its plugin does not say how")
        return way


def _are_heads(given: object) -> bool:
    return isinstance(given, Mapping) and all(
        is_whole(layer) and isinstance(heads, Collection) and all(map(is_whole, heads))
        for layer, heads in given.items()
    )
