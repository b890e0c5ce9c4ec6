"""What `tfx run gpt2` is asked for: prompts as token ids, each with the options it goes on by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tfx.core.backend import Backend
from tfx.core.dtypes import HALVES, DType, as_dtype
from tfx.core.errors import CheckpointError, OptionError, TokenizerError, UsageError
from tfx.core.files import reason, shown
from tfx.core.generation import GenerationOptions, check_prompt, decoder, room_after
from tfx.core.json_file import read_object
from tfx.core.recipe import RunSettings
from tfx.core.threefry import fold_in, key_from_seed
from tfx.core.tokenizer import ByteLevelBPE
from tfx.core.wording import quoted
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config

if TYPE_CHECKING:
    from tfx.core.pipelines.loadable import LoadSettings

TEMPERATURE, TOP_K = 0.8, 50
MAX_NEW_TOKENS = 100
"""Where nobody says and there is room for them."""


@dataclass(frozen=True)
class Request:
    """One prompt.

    Attributes:
        text: None where there is no tokenizer.
        ids: its tokens; for an empty text the one that begins texts.
        options: how to go on, the seed of its draws among them.
    """

    text: str | None
    ids: tuple[int, ...]
    options: GenerationOptions


# ---- the options ---------------------------------------------------------------------------------

_FOR_DRAWING = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0}
"""With the values that change nothing about a search."""

_FOR_SEARCHING = ("length_penalty", "early_stopping")


def options_from(settings: RunSettings) -> GenerationOptions:
    """The options as far as flags and defaults have them; the model's part comes with a prompt.

    Raises:
        UsageError: flags that do not go together.
    """
    given = {name: value for name, value in settings.given().items() if name in _SHARED}
    if given.get("num_beams", 1) > 1:
        for name, without in _FOR_DRAWING.items():
            if given.pop(name, without) != without:
                raise UsageError(
                    f"{settings.flag(name)} is for drawing tokens, and a search with --num-beams "
                    "draws none; leave one out"
                )
    else:
        given = {"temperature": TEMPERATURE, "top_k": TOP_K} | given
        for name in _FOR_SEARCHING:
            if name in given:
                raise UsageError(f"{settings.flag(name)} is for beam search; add --num-beams")
    given.setdefault("max_new_tokens", max(MAX_NEW_TOKENS, given.get("min_new_tokens", 0)))
    with in_flags(settings):
        return GenerationOptions(**given)


_SHARED = {f.name for f in fields(GenerationOptions)} & {f.name for f in fields(RunSettings)}


def kv_dtype_from(
    settings: RunSettings | LoadSettings, dtype: DType, backend: Backend
) -> DType | None:
    """What keys and values are to be cached in, for a model that computes in `dtype`.

    Raises:
        UsageError: that is no half, nor what is computed in, or the backend has no such dtype.
    """
    if settings.kv_dtype is None:
        return None
    kept = as_dtype(settings.kv_dtype)
    known = sorted({dtype, *HALVES} & (backend.dtypes | backend.storage_dtypes))
    if kept not in known:
        raise UsageError(
            f"{settings.flag('kv_dtype')} {kept}: expected one of {', '.join(known)} where "
            f"{backend} computes in {dtype}"
        )
    return kept


@contextmanager
def in_flags(settings: RunSettings) -> Iterator[None]:
    """Errors call options by their flags."""
    try:
        yield
    except OptionError as fault:
        raise fault.spelled(settings.flag) from None


# ---- what ends a text ----------------------------------------------------------------------------

_FOR_GENERATION = "generation_config.json"


def eos_ids(model: LanguageModel, weights: Path) -> tuple[int, ...]:
    """The tokens that end a text: those of the configuration, of its tokenizer, and, as
    transformers has it, of the `generation_config.json` beside the weights.

    Raises:
        CheckpointError: that file is damaged, or names no token.
    """
    file = (weights if weights.is_dir() else weights.parent) / _FOR_GENERATION
    try:
        found = read_object(file).get("eos_token_id") if file.exists() else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {shown(file)}: {reason(error)}") from error
    ends = found if isinstance(found, list) else [found]
    if any(x is not None and (type(x) is not int or x < 0) for x in ends):
        raise CheckpointError(
            f"{shown(file)}: eos_token_id is {quoted(json.dumps(found))}; expected the id of a "
            "token, or a list of them"
        )
    ends = [*ends, *model.config.eos_ids, model.tokenizer.eos_id if model.tokenizer else None]
    return tuple(sorted({x for x in ends if x is not None and x < model.vocab_size}))


# ---- the prompts ---------------------------------------------------------------------------------


def requests_from(
    settings: RunSettings, options: GenerationOptions, model: LanguageModel
) -> list[Request]:
    """The one prompt, or each of many; each line of many draws by a seed of its own.

    Raises:
        TfxError: the model cannot go on from a prompt; says from which.
    """
    if options.stop and model.tokenizer is None:
        raise UsageError(f"--stop is looked for in text, {NO_TOKENIZER}; leave it out")
    if settings.prompts is None:
        prompt = settings.prompt or "" if settings.prompt_ids is None else settings.prompt_ids
        return [_request(prompt, "the prompt: ", settings, options, model)]
    requests = []
    for n, prompt in enumerate(settings.prompts, 1):
        its = replace(options, seed=seed_of_line(options.seed, n))
        requests.append(_request(prompt, f"line {n} of --jsonl: ", settings, its, model))
    return requests


def seed_of_line(seed: int, line: int) -> int:
    """What --seed gives the same text for a prompt alone; that of the first line is the seed.

    >>> [seed_of_line(1, line) for line in (1, 2)]
    [1, 4206892451176469205]
    """
    if line == 1:
        return seed
    high, low = fold_in(key_from_seed(seed), line)
    return (high << 32 | low) >> 1  # --seed takes 63 bits


NO_TOKENIZER = "and the weights came without a tokenizer"


def _request(
    prompt: str | tuple[int, ...],
    where: str,
    settings: RunSettings,
    options: GenerationOptions,
    model: LanguageModel,
) -> Request:
    try:
        with in_flags(settings):
            ids = tuple(encoded(prompt, model)) if isinstance(prompt, str) else prompt
            if settings.max_new_tokens is None and not options.window:
                options = _within(room_after(model, len(ids)), len(ids), options)
            check_prompt(model, ids, options)
    except (UsageError, TokenizerError) as fault:
        raise type(fault)(f"{where}{fault}") from None
    if isinstance(prompt, str):
        return Request(prompt, ids, options)
    text = None if model.tokenizer is None else decoder(model.tokenizer)(ids)
    return Request(text, ids, options)


def _within(room: int, count: int, options: GenerationOptions) -> GenerationOptions:
    """The options with no more new tokens than there is room for after `count`."""
    if room < 1:
        return options  # `check_prompt` has more to say
    if options.min_new_tokens > room:
        raise OptionError(
            "{count} + at least {least} new tokens do not fit the model's {positions} positions; "
            "lower {min_new_tokens} to {room}, or go past them with {window}",
            count=count,
            least=options.min_new_tokens,
            positions=count + room - 1,
            room=room,
        )
    return replace(options, max_new_tokens=min(options.max_new_tokens, room))


def encoded(text: str, model: LanguageModel) -> list[int]:
    """The tokens of a prompt; for an empty text the one that begins texts.

    Raises:
        UsageError, TokenizerError: the model has no tokenizer, or there is no such token.
    """
    if model.tokenizer is None:
        raise UsageError(
            f"it would be text, {NO_TOKENIZER}; give token ids, as in --prompt-ids '1 2 3'"
        )
    if text:
        return model.tokenizer.encode(text)
    first = beginning(model.config, model.tokenizer)
    if first is None:
        raise UsageError("it is empty, and no token of this model begins a text; give some text")
    return [first]


def beginning(config: Config, tokenizer: ByteLevelBPE) -> int | None:
    """The token that stands before a text: GPT-2's <|endoftext|>, which is also after it."""
    first = config.bos_token_id
    return first if first in tokenizer.special_ids else tokenizer.eos_id
