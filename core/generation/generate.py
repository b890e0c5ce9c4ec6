"""Text from a causal model: greedy, by chance, or by beam search, for many prompts at once.

A prompt's texts depend on the prompt, the options and the model, and on nothing that is generated
beside them: they are what the prompt would get alone. Tokens are chosen on the host, from one copy
of the logits a step, or by a kernel that chooses as the host does: the same seed gives the same
text on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfx.core.errors import OptionError, UsageError
from tfx.core.generation.beams import BeamSearch
from tfx.core.generation.causal import Batch, CausalModel
from tfx.core.generation.choosing import choosing_for
from tfx.core.generation.logits import (
    Chooser,
    Logprob,
    constrained,
    log_softmax,
    logprob,
    nothing_left,
)
from tfx.core.generation.options import GenerationOptions
from tfx.core.generation.speculation import Ahead, Speculation
from tfx.core.generation.stopping import Decoder, Ending, FinishReason
from tfx.core.wording import in_brief


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        prompt: the prompt it belongs to, counted from 0.
        sample: which of the prompt's texts.
        id: the token.
        logprob: how likely it was, where asked for.
        finish_reason: why the text ends with it; None when the text goes on.
    """

    prompt: int
    sample: int
    id: int
    logprob: Logprob | None = None
    finish_reason: FinishReason | None = None


@dataclass
class Text:
    """One generated text.

    Attributes:
        token_ids: what was generated, with the token that ended it.
        finish_reason: "eos" after one of `eos_ids`, "stop" with a stop string, else "length".
        text: decoded, without what ended it; None where there is no decoder.
        logprobs: of each token, where asked for.
    """

    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    text: str | None = None
    logprobs: list[Logprob] | None = None


def generate(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions | None = None,
    decode: Decoder | None = None,
    on_token: Callable[[Token], None] | None = None,
    seeds: Sequence[int] | None = None,
    speculation: Speculation | None = None,
) -> list[list[Text]]:
    """The texts that follow each prompt, `num_samples` of them.

    Args:
        model: gives the logits.
        prompts: token ids of each, of any lengths.
        options: how to choose tokens and when to end; greedy by default.
        decode: from token ids to text, for stop strings and the results' text.
        on_token: called with every token as soon as it is known.
        seeds: of each prompt's draws, in place of the one of `options` for all.
        speculation: reads tokens ahead of what is known; the texts are the same, and sooner there.

    Raises:
        UsageError: before any work, for a prompt that is empty, has unknown ids, or does not fit
            the model together with `max_new_tokens`, and for speculation that is not to be had;
            later, when every token is forbidden.
        NonFiniteError: the model gave logits that are not finite.
    """
    options = options or GenerationOptions()
    texts = [[_empty(options) for _ in range(options.num_samples)] for _ in prompts]
    ending = Ending(options, decode)
    for token in stream(model, prompts, options, decode, seeds, speculation):
        if on_token:
            on_token(token)
        text = texts[token.prompt][token.sample]
        text.token_ids.append(token.id)
        if text.logprobs is not None and token.logprob is not None:
            text.logprobs.append(token.logprob)
        if token.finish_reason:
            text.finish_reason = token.finish_reason
            text.text = ending.text(text.token_ids)
    return texts


def stream(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions | None = None,
    decode: Decoder | None = None,
    seeds: Sequence[int] | None = None,
    speculation: Speculation | None = None,
) -> Iterator[Token]:
    """Every token as soon as it is known, those of several texts in turn; see `generate`.

    A beam search knows its tokens when it is over, and gives them then, text by text. `settled`
    says how much of a text is safe to show while a stop string may still come.
    """
    options = options or GenerationOptions()
    _check(model, prompts, options)
    if speculation is not None:
        speculation.check(model, options)
    ending = Ending(options, decode)
    if not prompts:
        return iter(())
    if options.num_beams > 1:
        return _search(model, prompts, options, ending)
    seeds = seeds or [options.seed] * len(prompts)
    return _sample(model, prompts, options, ending, seeds, speculation or Speculation(length=0))


def _sample(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    ending: Ending,
    seeds: Sequence[int],
    speculation: Speculation,
) -> Iterator[Token]:
    """Each text's next token by itself, the likeliest or one drawn; as many as are known behind one
    pass, before the next."""
    places = [(p, s) for p in range(len(prompts)) for s in range(options.num_samples)]
    choosers = [Chooser(options, seeds[p], s, len(prompts[p])) for p, s in places]
    batch = Batch(model, prompts, options.max_new_tokens, speculation.most)
    rows = [prompt for prompt, _ in places]
    batch.keep(rows)
    ahead = Ahead(speculation, batch, prompts, rows, choosers)
    choosing = choosing_for(batch, choosers)
    chosen: list[list[int]] = [[] for _ in places]
    while True:
        going = []
        for row, (prompt, sample) in enumerate(places):
            new, reason, known = chosen[row], None, len(chosen[row])
            while reason is None and (token := choosing.token(row)) is not None:
                likely = _logprob(batch, row, token, options)
                new.append(token)
                batch.append(row, token)
                reason = ending.reason(new)
                yield Token(prompt, sample, token, likely, reason)
            ahead.learn(row, new[known:])
            if reason is None:
                going.append(row)
        if not going:
            return
        if len(going) < len(places):
            places = [places[row] for row in going]
            choosing.keep(going)
            chosen = [chosen[row] for row in going]
            ahead.keep(going)
        ahead.read()


def _logprob(batch: Batch, row: int, token: int, options: GenerationOptions) -> Logprob | None:
    """How likely the next token of a text was, where asked for."""
    if options.logprobs is None or (logits := batch.behind(row)) is None:
        return None
    return logprob(logits, token, options.logprobs)


def _search(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    ending: Ending,
) -> Iterator[Token]:
    """A beam search for each prompt, all reading in one batch."""
    count = options.num_beams
    batch = Batch(model, prompts, options.max_new_tokens)
    batch.keep([prompt for prompt in range(len(prompts)) for _ in range(count)])
    searches = [
        (prompt, BeamSearch(options, lambda new: ending.reason(new) is not None))
        for prompt in range(len(prompts))
    ]
    step = 0
    while searches:
        logits = batch.logits[:, 0]
        log_probs = log_softmax(logits)
        scores = [constrained(row, batch.ids(i), step, options) for i, row in enumerate(log_probs)]
        rows, tokens, going = [], [], []
        for i, (prompt, search) in enumerate(searches):
            here = slice(i * count, (i + 1) * count)
            search.advance(np.stack(scores[here]), logits[here])
            if search.over:
                yield from _found(prompt, search, ending)
                continue
            going.append((prompt, search))
            rows += [here.start + beam.row for beam in search.beams]
            tokens += [beam.ids[-1] for beam in search.beams]
        searches = going
        if searches:
            batch.keep(rows)
            for row, token in enumerate(tokens):
                batch.append(row, token)
            batch.read()
        step += 1


def _found(prompt: int, search: BeamSearch, ending: Ending) -> Iterator[Token]:
    """The tokens of a search's best texts."""
    if len(search.found) < search.options.num_samples:
        raise nothing_left(search.options)
    for sample, (_, beam) in enumerate(search.found[: search.options.num_samples]):
        last = len(beam.ids) - 1
        for i, token in enumerate(beam.ids):
            likely = beam.logprobs[i] if beam.logprobs else None
            yield Token(
                prompt, sample, token, likely, ending.reason(beam.ids) if i == last else None
            )


def _empty(options: GenerationOptions) -> Text:
    return Text(logprobs=None if options.logprobs is None else [])


def _check(
    model: CausalModel, prompts: Sequence[Sequence[int]], options: GenerationOptions
) -> None:
    """Refuse what the model cannot read or give."""
    vocabulary = model.vocab_size
    if options.eos_ids and max(options.eos_ids) >= vocabulary:
        message = "{eos_ids} {given}: expected ids from 0 to {last}"
        raise OptionError(message, given=options.eos_ids, last=vocabulary - 1)
    if options.logprobs is not None and options.logprobs > vocabulary:
        message = "{logprobs} {given}: expected at most {most}"
        raise OptionError(message, given=options.logprobs, most=vocabulary)
    for i, prompt in enumerate(prompts):
        try:
            check_prompt(model, prompt, options)
        except UsageError as fault:
            raise UsageError(f"prompt {i}: {fault}") from None


def check_prompt(
    model: CausalModel, prompt: Sequence[int], options: GenerationOptions | None = None
) -> None:
    """Refuse, with `UsageError`, a prompt that cannot be gone on from as the options have it."""
    options = options or GenerationOptions()
    ids, positions = np.asarray(prompt), model.max_positions
    if not ids.size:
        raise UsageError("empty; expected at least one token to go on from")
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise UsageError(f"expected a list of token ids, not {in_brief(prompt)}")
    if outside := ids[(ids < 0) | (ids >= model.vocab_size)].tolist():
        raise UsageError(f"token {outside[0]} is not from 0 to {model.vocab_size - 1}")
    if options.window:
        return
    if ids.size > positions:
        raise OptionError(
            "{count} tokens do not fit the model's {positions} positions; shorten it, or go on "
            "from the end of it with {window}",
            count=ids.size,
            positions=positions,
        )
    room = room_after(model, ids.size)
    if options.max_new_tokens > room:
        raise OptionError(
            "{count} + {new} new tokens do not fit the model's {positions} positions; "
            "lower {max_new_tokens} to {room} (the last needs no position), or go past them with "
            "{window}",
            count=ids.size,
            new=options.max_new_tokens,
            positions=positions,
            room=room,
        )


def room_after(model: CausalModel, count: int) -> int:
    """How many new tokens a model has positions for after a prompt of `count`."""
    return model.max_positions + 1 - count  # the last new token is not read
