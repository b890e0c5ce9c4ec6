"""`tfx explain gpt2`: what a model makes of a text, from its embeddings to its last word."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import as_dtype
from tfx.core.errors import TokenizerError, UsageError
from tfx.core.explanation import (
    AttentionMap,
    Explanation,
    Stage,
    TextOf,
    predictions_in,
    statistics_of,
)
from tfx.core.generation import decoder
from tfx.core.recipe import ExplainSettings, Reporter
from tfx.core.tensor import Tensor
from tfx.core.wording import in_words
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config, head, norm, trunk
from tfx.models.gpt2.output import checked_ids
from tfx.models.gpt2.parts import parts_of, sizes_of
from tfx.models.gpt2.passing import Shown
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import encoded
from tfx.models.gpt2.theta import under_flag

TOP_K = 4


def explain(
    preset: Preset, settings: ExplainSettings, backend: Backend, report: Reporter
) -> Explanation:
    """What the model at `settings.weights`, else the preset's, makes of the prompt.

    Raises:
        TfxError: the weights, the prompt or the flags will not do.
    """
    dtype = as_dtype(settings.dtype or "float32")
    path = find_weights(preset, settings.weights, report.note)
    model = LanguageModel.load(path, backend, report.note, dtype)
    model = under_flag(model, settings.theta)
    prompt = (settings.prompt or "") if settings.prompt_ids is None else settings.prompt_ids
    try:
        ids = encoded(prompt, model) if isinstance(prompt, str) else prompt
    except (UsageError, TokenizerError) as fault:
        raise type(fault)(f"the prompt: {fault}") from None
    if len(ids) > model.max_positions:
        raise UsageError(
            f"the prompt: {len(ids)} tokens do not fit the model's {model.max_positions} "
            "positions; shorten it"
        )
    top_k = TOP_K if settings.top_k is None else settings.top_k
    return explained(model, ids, top_k, settings.layers, settings.heads, settings.flag)


def explained(
    model: LanguageModel,
    ids: Sequence[int],
    top_k: int = TOP_K,
    layers: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    spelled: Callable[[str], str] = str,
) -> Explanation:
    """What a model makes of one text.

    Its numbers come of the arrays that `model([ids], output_attentions=True,
    output_hidden_states=True)` gives, and of what the last layer gives before its norm.

    Args:
        ids: the tokens, from one to as many as the model has positions.
        top_k: how many of the likeliest tokens to tell at each place.
        layers, heads: by their numbers, whose attention to show; all by default. Heads that were
            pruned have none; it is an error where all of them were.
        spelled: how a message calls these.

    Raises:
        UsageError, ShapeError: there are no such tokens, layers or heads.
        NonFiniteError: scores are not finite.
    """
    config, params = model.config, model.params
    [text] = checked_ids([list(ids)], config.vocab_size, config.n_positions).tolist()
    if top_k > config.vocab_size:
        raise UsageError(f"{spelled('top_k')} {top_k}: the model knows {config.vocab_size} tokens")
    _check_numbers(spelled("layers"), layers, config.n_layer)
    _check_numbers(spelled("heads"), heads, config.n_head)
    maps_of = {
        layer: [head for head in config.heads(layer) if heads is None or head in heads]
        for layer in (range(config.n_layer) if layers is None else layers)
    }
    if maps_of and heads and not any(maps_of.values()):
        raise UsageError(f"{spelled('heads')} {_listed(heads)}: {_gone(config, maps_of)}")

    given = tensor(np.array([text]), model.backend, model.backend.index_dtype)
    hidden: list[Tensor] = []
    attentions: list[Tensor] = []
    normed = trunk(params, config, given, model.through(shown=Shown(hidden, attentions)))
    states = hidden[:-1]
    ends = [*(norm(params, config, "ln_f", x) for x in states[:-1]), normed]

    text_of = _text_of(model)
    stages = []
    names = ["embeddings", *(f"h.{i}" for i in range(config.n_layer))]
    for name, x, end in zip(names, states, ends, strict=True):
        said = predictions_in(_host(head(params, end)), text, top_k, text_of)
        stages.append(Stage(name, statistics_of(_host(x)), said))
    maps = [
        AttentionMap(layer, number, weights)
        for layer, found in enumerate(attentions)
        for number, weights in zip(config.heads(layer), _host(found), strict=True)
        if number in maps_of.get(layer, ())
    ]
    return Explanation(
        token_ids=tuple(text),
        texts=tuple(map(text_of, text)),
        vocab_size=config.vocab_size,
        stages=tuple(stages),
        attentions=tuple(maps),
        parts=parts_of(config, len(text)),
        parameters=sum(math.prod(x.shape) for x in params.values()),
        sizes=sizes_of(config, len(text)),
        dtype=str(model.dtype),
    )


def _host(x: Tensor) -> HostArray:
    """The only text of a batch, in float32 or float64."""
    found: HostArray = x.widened().numpy()[0]
    return found


def _text_of(model: LanguageModel) -> TextOf:
    if model.tokenizer is None:
        return lambda token: None
    decode = decoder(model.tokenizer)
    return lambda token: decode([token])


def _listed(numbers: Iterable[int]) -> str:
    return in_words(map(str, sorted(numbers)))


def _gone(config: Config, layers: Collection[int]) -> str:
    """Which heads some layers have lost."""
    lost = ((layer, heads) for layer, heads in config.pruned_heads if layer in layers)
    return ", ".join(f"layer {layer} has lost {_listed(heads)}" for layer, heads in lost)


def _check_numbers(name: str, asked: Collection[int] | None, count: int) -> None:
    for number in asked or ():
        if not 0 <= number < count:
            raise UsageError(f"{name} {number}: expected numbers from 0 to {count - 1}")
