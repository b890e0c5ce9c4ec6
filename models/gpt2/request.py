"""What `tfx run gpt2` is asked for: prompts as token ids, each with the options it goes on by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from tfx.core.errors import TfxError, UsageError
from tfx.core.generation import GenerationOptions, check_prompt, decoder, room_after
from tfx.core.recipe import RunSettings
from tfx.core.tokenizer import ByteLevelBPE
from tfx.models.gpt2.config import Config
from tfx.models.gpt2.language_model import LanguageModel

TEMPERATURE, TOP_K = 0.8, 50
MAX_NEW_TOKENS = 100
"""Where nobody says and there is room for them."""


@dataclass(frozen=True)
class Request:
    """One prompt.

    Attributes:
        text: None where there is no tokenizer.
        ids: its tokens; for an empty text the one that begins texts.
        options: how to go on.
    """

    text: str | None
    ids: tuple[int, ...]
    options: GenerationOptions


# ---- the options ---------------------------------------------------------------------------------

_FOR_DRAWING = ("temperature", "top_k", "top_p", "min_p")
_FOR_SEARCHING = ("length_penalty", "early_stopping")


def options_from(settings: RunSettings) -> GenerationOptions:
    """The options as far as flags and defaults have them; the model's part comes with a prompt.

    Raises:
        UsageError: flags that do not go together.
    """
    given = {name: value for name, value in settings.given().items() if name in _SHARED}
    if given.get("num_beams", 1) > 1:
        for name in _FOR_DRAWING:
            if given.pop(name, 0):
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
_ORDINARY_WORDS = {"seed", "stop", "temperature"}
_OPTION = re.compile(
    rf"^(?:{'|'.join(_SHARED)})\b|\b(?:{'|'.join(_SHARED - _ORDINARY_WORDS)})\b",
)


@contextmanager
def in_flags(settings: RunSettings, where: str = "") -> Iterator[None]:
    """Errors say where, and call options by their flags."""
    try:
        yield
    except TfxError as fault:
        words = _OPTION.sub(lambda option: settings.flag(option[0]), str(fault))
        raise type(fault)(f"{where}{words}") from None


# ---- the prompts ---------------------------------------------------------------------------------


def requests_from(
    settings: RunSettings, options: GenerationOptions, model: LanguageModel
) -> list[Request]:
    """The one prompt, or each of many.

    Raises:
        TfxError: the model cannot go on from a prompt; says from which.
    """
    if options.stop and model.tokenizer is None:
        raise UsageError(f"--stop is looked for in text, {NO_TOKENIZER}; leave it out")
    config, tokenizer = model.config, model.tokenizer
    ends = {config.eos_token_id, tokenizer.eos_id if tokenizer else None}
    eos_ids = tuple(sorted(x for x in ends if x is not None and x < config.vocab_size))
    options = replace(options, eos_ids=eos_ids)
    if settings.prompts is None:
        prompt = settings.prompt or "" if settings.prompt_ids is None else settings.prompt_ids
        return [_request(prompt, "the prompt: ", settings, options, model)]
    return [
        _request(prompt, f"line {n} of --jsonl: ", settings, options, model)
        for n, prompt in enumerate(settings.prompts, 1)
    ]


NO_TOKENIZER = "and the weights came without a tokenizer"


def _request(
    prompt: str | tuple[int, ...],
    where: str,
    settings: RunSettings,
    options: GenerationOptions,
    model: LanguageModel,
) -> Request:
    with in_flags(settings, where):
        ids = tuple(_encoded(prompt, model)) if isinstance(prompt, str) else prompt
        if settings.max_new_tokens is None and not options.window:
            room = max(room_after(model, len(ids)), 1)
            options = replace(options, max_new_tokens=min(options.max_new_tokens, room))
        check_prompt(model, ids, options)
        if isinstance(prompt, str):
            return Request(prompt, ids, options)
        text = None if model.tokenizer is None else decoder(model.tokenizer)(ids)
        return Request(text, ids, options)


def _encoded(text: str, model: LanguageModel) -> list[int]:
    if model.tokenizer is None:
        raise UsageError(
            f"it would be text, {NO_TOKENIZER}; give token ids, as in --prompt-ids '1 2 3'"
        )
    if text:
        return model.tokenizer.encode(text)
    first = _beginning(model.config, model.tokenizer)
    if first is None:
        raise UsageError("it is empty, and no token of this model begins a text; give some text")
    return [first]


def _beginning(config: Config, tokenizer: ByteLevelBPE) -> int | None:
    """The token that stands before a text: GPT-2's <|endoftext|>, which is also after it."""
    special = {tokenizer.token_to_id(token) for token in tokenizer.special_tokens}
    return config.bos_token_id if config.bos_token_id in special else tokenizer.eos_id
