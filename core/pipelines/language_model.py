"""The object that `tfx.load` gives: a language model for Python code."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.errors import TfxError, UsageError
from tfx.core.generation import (
    CausalModel,
    GenerationOptions,
    Growing,
    Text,
    Verifying,
    check_prompt,
    generate,
    room_after,
    stream,
)
from tfx.core.pipelines.loadable import Codec, Loaded
from tfx.core.wording import did_you_mean, kind_of, quoted

Prompt: TypeAlias = str | Sequence[int]
"""A text, or its token ids."""

quiet = np.errstate(all="ignore")
"""NumPy would warn of overflows on stderr; what comes of them is found out and is an error."""

LOGITS_AT_ONCE = 2**23
"""So many logits are in memory at a time where only something of each is kept."""

OPTIONS = tuple(f.name for f in fields(GenerationOptions))

_CALLED = {
    "do_sample": "temperature",
    "num_return_sequences": "num_samples",
    "max_length": "max_new_tokens",
    "eos_token_id": "eos_ids",
    "stop_strings": "stop",
}
"""What others call an option of ours, or what takes its place."""


class LanguageModel:
    """A model on a backend. `tfx.load` makes it.

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
        """The text of token ids."""
        return self.codec.decode(ids)

    # ---- what comes next ----

    @quiet
    def generate(
        self, prompts: Prompt | Sequence[Prompt], *, seed: int | None = None, **options: Any
    ) -> Any:
        """What follows a prompt, or each of several, which are read as one batch.

        Args:
            prompts: a text or its token ids; or a list of such.
            seed: of the draws, where `temperature` is above 0; None draws one.
            options: of `tfx.core.generation.GenerationOptions`; the likeliest tokens by default.
                Without `max_new_tokens`, 50 or as many as there is room for.

        Returns:
            A `tfx.core.generation.Text` for one prompt, a list of them with `num_samples` above 1;
            for a list of prompts a list of these. `text` is what is new, `token_ids` all of it.

        Raises:
            UsageError: a prompt or an option will not do; says which and why.
        """
        one = is_prompt(prompts)
        given: Any = [prompts] if one else list(prompts)
        found: list[Any] = self.texts(self._requests(given, seed, options))
        found = [texts[0] if len(texts) == 1 else texts for texts in found]
        return found[0] if one else found

    def stream(self, prompt: Prompt, *, seed: int | None = None, **options: Any) -> Iterator[str]:
        """The like of one prompt, piece by piece as it is generated; together they are its text.

        A character is held back until it is whole, and what may begin a stop string until it is
        known not to.

        Raises:
            UsageError: at once, as `generate` does.
        """
        if not is_prompt(prompt):
            raise UsageError(f"expected one prompt to stream from, not {kind_of(prompt)}")
        [(ids, chosen)] = self._requests([prompt], seed, options)
        if chosen.num_samples > 1:
            raise UsageError(f"num_samples {chosen.num_samples}: one text is streamed at a time")
        decode = self.codec.decode
        with np.errstate(all="ignore"):
            tokens = stream(self.causal, [ids], chosen, decode)
        growing = Growing(decode, chosen.stop)

        def pieces() -> Iterator[str]:
            while True:
                with np.errstate(all="ignore"):
                    token = next(tokens, None)
                    piece = None if token is None else growing.feed(token)
                if piece is None:
                    return
                if piece:
                    yield piece

        return pieces()

    @quiet
    def logits(self, texts: Prompt | Sequence[Prompt]) -> Any:
        """Scores of what follows each token, on the host in float32 or float64.

        Args:
            texts: a text or its token ids; or several. An array (B, T) is texts of one length.

        Returns:
            (T, V) for one; for several, a list of such; (B, T, V) for an array of two axes.

        Raises:
            UsageError: a text is empty, too long, or has ids that the model does not know.
        """
        if isinstance(texts, np.ndarray) and texts.ndim == 2:
            return np.stack([self._logits(row.tolist()) for row in texts])
        given: Any = texts
        return self._logits(given) if is_prompt(given) else [self._logits(x) for x in given]

    @quiet
    def save(self, folder: str | PathLike[str]) -> None:
        """Write the model to a new folder, which `load` takes, and others' programs if they know
        the model.

        Raises:
            UsageError: the model's plugin cannot write it.
            WeightsError: the folder is taken, or cannot be written.
        """
        if self.parts.save is None:
            raise UsageError(
                f"{self.name} cannot be saved from Python: its plugin does not say how"
            )
        self.parts.save(Path(folder))

    # ---- what pipelines are made of ----

    def options(
        self, options: Mapping[str, Any], seed: int | None = None
    ) -> tuple[GenerationOptions, bool]:
        """Options by name, the model's ends among them; and whether they may be cut to the room.

        Raises:
            UsageError: there is no such option, or its value will not do.
        """
        for name in options:
            if name not in OPTIONS:
                other = _CALLED.get(name)
                hint = f" Here it is {other}." if other else did_you_mean(name, OPTIONS)
                raise UsageError(f"there is no option {quoted(name)}.{hint}")
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(given.get("stop"), str | list):
            stop = given["stop"]
            given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        if given.get("temperature") and seed is None:
            seed = secrets.randbelow(2**32)
        least = given.get("min_new_tokens", 0)
        default = GenerationOptions.max_new_tokens
        if isinstance(least, int):
            given.setdefault("max_new_tokens", max(default, least))
        own: dict[str, Any] = {"eos_ids": self.parts.eos_ids, "seed": seed or 0}
        chosen = GenerationOptions(**own | given)
        return chosen, options.get("max_new_tokens") is None and not chosen.window

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt; for an empty text, the token that begins texts."""
        if not isinstance(prompt, str):
            return [int(token) for token in prompt]
        if prompt:
            return self.encode(prompt)
        if self.parts.begin is None:
            raise UsageError(
                "it is empty, and no token of this model begins a text; give some text"
            )
        return [self.parts.begin]

    def texts(self, requests: Sequence[tuple[list[int], GenerationOptions]]) -> list[list[Text]]:
        """What follows each of some ids, as its options have it: those alike are read together."""
        decode = None if self.parts.codec is None else self.parts.codec.decode
        alike: dict[GenerationOptions, list[int]] = {}
        for place, (_, options) in enumerate(requests):
            alike.setdefault(options, []).append(place)
        found: dict[int, list[Text]] = {}
        for options, places in alike.items():
            ids = [requests[place][0] for place in places]
            found |= zip(places, generate(self.causal, ids, options, decode), strict=True)
        return [found[place] for place in range(len(requests))]

    def _requests(
        self, prompts: Sequence[Prompt], seed: int | None, options: Mapping[str, Any]
    ) -> list[tuple[list[int], GenerationOptions]]:
        chosen, may_cut = self.options(options, seed)
        found = []
        for number, prompt in enumerate(prompts):
            with about(number, len(prompts), "prompt"):
                ids = self.prompt_ids(prompt)
                its = self.cut_to_room(chosen, len(ids)) if may_cut else chosen
                check_prompt(self.causal, ids, its)
            found.append((ids, its))
        return found

    def cut_to_room(self, options: GenerationOptions, count: int) -> GenerationOptions:
        """The options with no more new tokens than there is room for after `count`."""
        room = room_after(self.causal, count)
        if not 1 <= room < options.max_new_tokens or options.min_new_tokens > room:
            return options  # `check_prompt` has more to say
        return replace(options, max_new_tokens=room)

    def checked(self, ids: Sequence[int]) -> list[int]:
        """Ids that the model can read.

        Raises:
            UsageError: there are none, too many, or some that it does not know.
        """
        check_prompt(self.causal, ids, GenerationOptions(max_new_tokens=1))
        return list(ids)

    def each_logits(self, ids: Sequence[int], at_once: int) -> Iterator[Any]:
        """The scores (t, V) behind each of some ids, on the backend, `at_once` of them at a time;
        one by one of a model that gives no others."""
        model = self.causal
        cache: Any = model.start(1, len(ids))
        if not isinstance(model, Verifying):
            at_once = 1
        for start in range(0, len(ids), at_once):
            row = np.array([ids[start : start + at_once]], np.int64)
            read = tensor(row, self.backend, self.backend.index_dtype)
            if isinstance(model, Verifying):
                yield model.each_logits(read, cache)[0]
            else:
                yield model.logits(read, cache)

    def _logits(self, text: Prompt) -> HostArray:
        ids = self.checked(self.prompt_ids(text))
        return np.concatenate([x.widened().numpy() for x in self.each_logits(ids, len(ids))])


def is_prompt(given: object) -> bool:
    """Whether it is one prompt: a text, or whole numbers.

    >>> is_prompt("a"), is_prompt([1, 2]), is_prompt(["a", "b"]), is_prompt([[1], [2]])
    (True, True, False, False)
    """
    if isinstance(given, str):
        return True
    if isinstance(given, np.ndarray):
        return given.ndim == 1
    if not isinstance(given, Sequence):
        raise UsageError(f"expected a text, token ids, or a list of these, not {kind_of(given)}")
    return bool(given) and all(isinstance(x, int | np.integer) for x in given)


@contextmanager
def about(number: int, count: int, what: str) -> Iterator[None]:
    """Errors say which of several inputs they are about.

    >>> with about(2, 5, "prompt"):
    ...     raise UsageError("empty")
    Traceback (most recent call last):
    ...
    tfx.core.errors.UsageError: prompt 2: empty
    """
    try:
        yield
    except TfxError as fault:
        where = f"the {what}" if count == 1 else f"{what} {number}"
        kind = UsageError if isinstance(fault, UsageError) else type(fault)
        raise kind(f"{where}: {fault}") from None
