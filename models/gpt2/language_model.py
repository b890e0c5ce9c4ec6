"""A GPT-2 that is ready to use: configuration, parameters on a backend, and its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.backend import Backend
from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.dtypes import FLOATS, DType
from tfx.core.errors import ShapeError, TokenizerError, UsageError
from tfx.core.files import shown
from tfx.core.generation.reading import Reading, room_for
from tfx.core.pipelines.inside import Output, Thetas
from tfx.core.storage import Storage, bytes_of, placed
from tfx.core.stored import Stored
from tfx.core.tensor import Tensor
from tfx.core.tokenizer import ByteLevelBPE, load_tokenizer
from tfx.core.wording import in_words
from tfx.models.gpt2.heads import Head, named_scores
from tfx.models.gpt2.layouts import forms, inputs_first
from tfx.models.gpt2.model import Config, Params, head, logits, trunk
from tfx.models.gpt2.numbers import by_token, numbers, thetas
from tfx.models.gpt2.output import checked_ids, output_of
from tfx.models.gpt2.passing import PLAIN, Pass, Shown
from tfx.models.gpt2.pruned import cuts, without_heads
from tfx.models.gpt2.weights import Pretrained, read_pretrained

SPARE = 1000
"""As many ids more than its tokenizer a model may have for padding, with nobody told of it."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """What `tfx.core.generation` generates with.

    Attributes:
        config: sizes and options.
        params: by their names in a checkpoint.
        tokenizer: None where the checkpoint has none.
        kv_dtype: what keys and values are cached in; None for what is computed in.
        theta, head_mask: what every pass goes by, as in `Pass`, unless it is given others.
    """

    config: Config
    params: Params
    tokenizer: ByteLevelBPE | None = None
    kv_dtype: DType | None = None
    theta: Tensor | None = None
    head_mask: Tensor | None = None

    @classmethod
    def load(
        cls,
        path: Path,
        backend: Backend,
        note: Callable[[str], None],
        dtype: DType = DType.float32,
        storage: Storage | None = None,
    ) -> LanguageModel:
        """The model in a folder or file; see `read_pretrained`.

        Where the backend can compute on the host's memory, the file is mapped and not copied. What
        is to be kept otherwise, by `storage`, is made over tensor by tensor.

        Raises:
            TfxError: the checkpoint, its tokenizer or `dtype` will not do; says what and why.
        """
        if dtype not in FLOATS & backend.dtypes:
            known = ", ".join(sorted(FLOATS & backend.dtypes))
            raise UsageError(f"--dtype {dtype}: {backend} computes in {known}")
        return cls.of(read_pretrained(path, note), backend, note, dtype, storage)

    @classmethod
    def of(
        cls,
        found: Pretrained,
        backend: Backend,
        note: Callable[[str], None],
        dtype: DType,
        storage: Storage | None = None,
    ) -> LanguageModel:
        """The same of weights that were read, for a dtype that the backend computes in."""
        if storage is not None:
            found.floats("quantizing")
        params = {
            name: placed(
                name, found.tensors[name], form, backend, dtype, inputs_first=inputs_first(name)
            )
            for name, form in forms(found.config, storage).items()
        }
        if storage is not None:
            wide = dtype.itemsize * sum(map(math.prod, found.config.shapes().values()))
            note(
                f"weights: {storage}, {bytes_of(params.values()) / 1e6:.2f} MB where {dtype} "
                f"takes {wide / 1e6:.2f} MB"
            )
        tokenizer = tokenizer_of(found)
        if tokenizer is not None and tokenizer.vocab_size + SPARE < found.config.vocab_size:
            note(
                f"the tokenizer of {shown(found.path)} has {tokenizer.vocab_size} tokens, the "
                f"model {found.config.vocab_size}: do they belong together?"
            )
        return cls(found.config, params, tokenizer)

    @property
    def backend(self) -> Backend:
        return self._embedding.backend

    @property
    def dtype(self) -> DType:
        return self._embedding.dtype

    @property
    def _embedding(self) -> Tensor:
        return self.params["wte.weight"]

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def max_positions(self) -> int:
        return self.config.n_positions

    @property
    def weight_bytes(self) -> int:
        """The memory that the parameters take."""
        return bytes_of(self.params.values())

    def start(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` texts of `capacity` tokens, or of some more."""
        config, kept = self.config, self.kv_dtype or self.dtype
        shape = (batch, room_for(capacity, self.max_positions), config.n_embd)
        widths = [config.width(layer) for layer in range(config.n_layer)]
        return KVCache(config.n_layer, shape, self.backend, kept, widths)

    def prune_heads(self, heads: Mapping[int, Collection[int]]) -> LanguageModel:
        """The model without some heads, by layer: its matrices shrink, all else is shared.

        Heads keep their numbers, so that those of a second call, of theta and of a head mask mean
        the same heads as before. What was pruned already may be named again, and changes nothing.

        Raises:
            UsageError: there is no such layer or head, a layer would lose all of its heads, or the
                weights are quantized.
        """
        if any(isinstance(x, Stored) for x in self.params.values()):
            raise UsageError("quantized weights cannot be pruned; quantize what is pruned already")
        config = without_heads(self.config, heads)
        if config == self.config:
            return self
        backend, params = self.backend, dict(self.params)
        for name, cut in cuts(self.config, config).items():
            places = tensor(cut.kept, backend, backend.index_dtype)
            params[name] = params[name].take(places, cut.axis)
        return replace(self, config=config, params=params)

    def logits(
        self,
        ids: Tensor,
        cache: KVCache,
        theta: Tensor | None = None,
        head_mask: Tensor | None = None,
    ) -> Tensor:
        """Read ids (B, T) after what the cache holds; scores (B, V) of what follows the last."""
        through = self.through(theta=theta, head_mask=head_mask)
        return self._reading(ids, cache, through.theta, through.head_mask)

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self._read)

    @cached_property
    def _verifying(self) -> Reading:
        return Reading(
            lambda ids, cache, theta, head_mask: logits(
                self.params,
                self.config,
                ids,
                self.through(cache, theta=theta, head_mask=head_mask),
            )
        )

    def _read(
        self, ids: Tensor, cache: KVCache, theta: Tensor | None, head_mask: Tensor | None
    ) -> Tensor:
        through = self.through(cache, theta=theta, head_mask=head_mask)
        return head(self.params, trunk(self.params, self.config, ids, through)[:, -1])

    def each_logits(self, ids: Tensor, cache: KVCache) -> Tensor:
        """The same for every one of the ids: scores (B, T, V) of what follows each."""
        return self._verifying(ids, cache, self.theta, self.head_mask)

    def all_logits(self, ids: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scores (B, T, V) of what follows each of the ids (B, T).

        `visible`, bool (B, T), is False where a text holds padding, on whichever side: the others
        get what they would get without it.
        """
        return logits(self.params, self.config, ids, self.through(visible=visible))

    def under(self, theta: ArrayLike | None) -> LanguageModel:
        """The model with that theta for every pass; None leaves it as it is.

        Raises:
            UsageError, ShapeError: it is no number, nor one for each layer or each head.
        """
        return self if theta is None else replace(self, theta=self.theta_of(theta))

    def theta_of(self, given: ArrayLike) -> Tensor:
        """A theta for whichever tokens.

        Raises:
            UsageError, ShapeError: it is no number, nor one for each layer or each head.
        """
        theta = tensor(thetas(given, self.dtype), self.backend, self.factor_dtype)
        Pass(theta=theta).check(self.config.n_layer, self.config.n_head)
        return theta

    def head_mask_of(self, given: ArrayLike) -> Tensor:
        """A head mask.

        Raises:
            UsageError, ShapeError: they are no numbers, or not one for each head.
        """
        mask = tensor(numbers("head_mask", given, self.dtype), self.backend, self.factor_dtype)
        Pass(head_mask=mask).check(self.config.n_layer, self.config.n_head)
        return mask

    @property
    def factor_dtype(self) -> DType:
        """What theta and head masks are kept in: no fewer bits than are computed in."""
        return DType.float32 if self.dtype.itemsize < 4 else self.dtype

    def through(
        self,
        cache: KVCache | None = None,
        visible: Tensor | None = None,
        theta: Tensor | None = None,
        head_mask: Tensor | None = None,
        shown: Shown = PLAIN.shown,
    ) -> Pass:
        """A pass by the model's theta and head mask, where no others are given."""
        theta = self.theta if theta is None else theta
        head_mask = self.head_mask if head_mask is None else head_mask
        return Pass(cache, visible, theta=theta, head_mask=head_mask, shown=shown)

    def __call__(
        self,
        ids: ArrayLike,
        visible: ArrayLike | None = None,
        *,
        theta: Thetas | None = None,
        head_mask: ArrayLike | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        on: Head | None = None,
    ) -> Output:
        """Read texts whole, and show what is in the model meanwhile.

        Args:
            ids: tokens (B, T); of choices (B, N, T).
            visible: bool, as many, False where a text holds padding.
            theta: as in `Pass`, or a function that gives such for the number of a token; the
                model's own by default.
            head_mask: as in `Pass`; the model's own by default.
            output_attentions, output_hidden_states: whether the output is to have them.
            on: the head that judges, where it is not the language model's own.

        Raises:
            ShapeError: arrays that do not suit the model or each other.
            UsageError: a token that the model does not know, or factors that are none.
            NonFiniteError: scores are not finite.
        """
        config, choices = self.config, on is not None and on.task == "multiple-choice"
        texts = checked_ids(ids, self.vocab_size, self.max_positions, choices)
        seen = None if visible is None else np.asarray(visible)
        if seen is not None and (seen.shape != texts.shape or seen.dtype != bool):
            raise ShapeError(f"visible is {seen.dtype} {seen.shape}; expected bool {texts.shape}")
        if callable(theta):
            theta = by_token(theta, self.dtype, texts.shape[-1], config.n_layer, config.n_head)
        shown = Shown([] if output_hidden_states else None, [] if output_attentions else None)
        given, padding, factors, mask = (
            None if x is None else tensor(x, self.backend, dtype)
            for x, dtype in (
                (texts, self.backend.index_dtype),
                (seen, DType.bool),
                (None if theta is None else thetas(theta, self.dtype), self.factor_dtype),
                (
                    None if head_mask is None else numbers("head_mask", head_mask, self.dtype),
                    self.factor_dtype,
                ),
            )
        )
        assert given is not None
        through = self.through(None, padding, factors, mask, shown)
        return output_of(named_scores(self.params, config, on, given, through), shown)


def tokenizer_of(found: Pretrained) -> ByteLevelBPE | None:
    """The tokenizer beside the weights, if there is one.

    Raises:
        TokenizerError: it is another model's: it has ids that the model knows nothing of, or what
            ends a text for the model is an ordinary token or none.
    """
    folder = found.path if found.path.is_dir() else found.path.parent
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        return None
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > found.config.vocab_size:
        raise TokenizerError(
            f"the tokenizer in {shown(folder)} has {tokenizer.vocab_size} tokens, the model "
            f"{found.config.vocab_size}: they do not belong together"
        )
    if not end_alike(tokenizer, found.config):
        raise TokenizerError(
            f"with the tokenizer in {shown(folder)} a text ends with token {tokenizer.eos_id}, "
            f"with the model {in_words(map(str, found.config.eos_ids))}: they do not belong "
            "together; if they do, change eos_token_id in its config.json"
        )
    return tokenizer


def end_alike(tokenizer: ByteLevelBPE, config: Config) -> bool:
    """Whether what ends a text for the model ends one for the tokenizer, or is at least a special
    token there; so too where one of them knows no end."""
    ends, end = config.eos_ids, tokenizer.eos_id
    return not ends or end is None or not {end, *tokenizer.special_ids}.isdisjoint(ends)
