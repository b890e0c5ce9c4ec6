"""The object that `tfx.load` gives: a language model for Python code."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from tfx.core.arguments import checked_call
from tfx.core.backend import HostArray
from tfx.core.creation import tensor
from tfx.core.errors import UsageError
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
from tfx.core.pipelines.inside import Thetas
from tfx.core.pipelines.loaded_model import LoadedModel, quiet
from tfx.core.pipelines.prompts import Prompt, about, is_prompt, several
from tfx.core.wording import kind_of, meant, quoted

Request: TypeAlias = tuple[list[int], GenerationOptions]
"""The ids of a prompt, and how to go on from them."""

OPTIONS = tuple(f.name for f in fields(GenerationOptions))

_CALLED = {
    "do_sample": "temperature",
    "num_return_sequences": "num_samples",
    "max_length": "max_new_tokens",
    "eos_token_id": "eos_ids",
    "stop_strings": "stop",
}
"""What others call an option of ours, or what takes its place."""


@dataclass(frozen=True)
class Choice:
    """How to go on from prompts.

    Attributes:
        options: for all of them.
        cut: whether to generate no more than there is room for.
        draws_seed: whether each prompt has a seed of its own.
        theta: what attention is scaled by; None as the model was loaded.
        head_mask: what each head's output is multiplied by; None for 1.
    """

    options: GenerationOptions
    cut: bool
    draws_seed: bool
    theta: Thetas | None = None
    head_mask: ArrayLike | None = None


class LanguageModel(LoadedModel):
    """A model that text is written with. `tfx.load` makes it."""

    # ---- what comes next ----

    @checked_call
    @quiet
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        seed: int | None = None,
        theta: Thetas | None = None,
        head_mask: ArrayLike | None = None,
        **options: Any,
    ) -> Any:
        """What follows a prompt, or each of several, which are read as one batch.

        Args:
            prompts: a text or its token ids; or a list of such.
            seed: of the draws, where `temperature` is above 0: each prompt gets what it would get
                alone. None: each draws a seed of its own.
            theta: what attention is scaled by, for models that heed it: a number, one for each
                layer, one for each head; or a function that is called before each step with the
                number of new tokens so far, and gives one of these.
            head_mask: what the output of each head is multiplied by: (H,) or (L, H).
            options: of `tfx.core.generation.GenerationOptions`; the likeliest tokens by default.
                Without `max_new_tokens`, 50 or as many as there is room for.

        Returns:
            A `tfx.core.generation.Text` for one prompt, a list of them with `num_samples` above 1;
            for a list of prompts a list of these. `text` is what is new, `token_ids` all of it.

        Raises:
            UsageError: a prompt or an option will not do; says which and why.
        """
        one, given = several(prompts)
        choice = self.choice(options, seed, theta, head_mask)
        found: list[Any] = self.texts(self._requests(given, choice), choice)
        found = [texts[0] if len(texts) == 1 else texts for texts in found]
        return found[0] if one else found

    @checked_call
    def stream(
        self,
        prompt: Prompt,
        *,
        seed: int | None = None,
        theta: Thetas | None = None,
        head_mask: ArrayLike | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The like of one prompt, piece by piece as it is generated; together they are its text.

        A character is held back until it is whole, and what may begin a stop string until it is
        known not to.

        Raises:
            UsageError: at once, as `generate` does.
        """
        if not is_prompt(prompt):
            raise UsageError(f"expected one prompt to stream from, not {kind_of(prompt)}")
        choice = self.choice(options, seed, theta, head_mask)
        [(ids, chosen)] = self._requests([prompt], choice)
        if chosen.num_samples > 1:
            raise UsageError(f"num_samples {chosen.num_samples}: one text is streamed at a time")
        decode = self.codec.decode
        with np.errstate(all="ignore"):
            tokens = stream(self.writing(choice), [ids], chosen, decode)
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

    @checked_call
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
        one, given = several(texts)
        found = []
        for number, text in enumerate(given):
            with about(number, len(given), "text"):
                found.append(self._logits(text))
        if one:
            return found[0]
        rows = hasattr(texts, "__array__") and isinstance(given[0], np.ndarray)
        return np.stack(found) if rows else found

    # ---- what pipelines are made of ----

    def choice(
        self,
        options: Mapping[str, Any],
        seed: int | None,
        theta: Thetas | None = None,
        head_mask: ArrayLike | None = None,
    ) -> Choice:
        """What options by name come to, the model's ends among them.

        Raises:
            UsageError: there is no such option, or its value will not do.
        """
        for name in options:
            if name not in OPTIONS:
                other = _CALLED.get(name)
                hint = f" Here it is {other}." if other else meant(name, OPTIONS)
                raise UsageError(f"there is no option {quoted(name)}.{hint}")
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(given.get("stop"), str | list):
            stop = given["stop"]
            given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        least = given.get("min_new_tokens", 0)
        if isinstance(least, int):
            given.setdefault("max_new_tokens", max(GenerationOptions.max_new_tokens, least))
        own: dict[str, Any] = {"eos_ids": self.parts.eos_ids, "seed": seed or 0}
        chosen = GenerationOptions(**own | given)
        cut = options.get("max_new_tokens") is None and not chosen.window
        draws_seed = seed is None and chosen.temperature > 0
        return Choice(chosen, cut, draws_seed, theta, head_mask)

    def request(self, ids: list[int], choice: Choice) -> Request:
        """A prompt with options of its own.

        Raises:
            UsageError: it cannot be gone on from so.
        """
        its = choice.options
        if choice.cut:
            room = room_after(self.causal, len(ids))
            if max(1, its.min_new_tokens) <= room < its.max_new_tokens:
                its = replace(its, max_new_tokens=room)
        if choice.draws_seed:
            its = replace(its, seed=secrets.randbelow(2**32))
        check_prompt(self.causal, ids, its)
        return ids, its

    def texts(self, requests: Sequence[Request], choice: Choice) -> list[list[Text]]:
        """What follows each prompt: those whose options are alike but for the seed are read
        together."""
        decode = None if self.parts.codec is None else self.parts.codec.decode
        alike: dict[GenerationOptions, list[int]] = {}
        for place, (_, options) in enumerate(requests):
            alike.setdefault(replace(options, seed=0), []).append(place)
        found: dict[int, list[Text]] = {}
        for options, places in alike.items():
            ids = [requests[place][0] for place in places]
            seeds = [requests[place][1].seed for place in places]
            texts = generate(self.writing(choice), ids, options, decode, seeds=seeds)
            found |= zip(places, texts, strict=True)
        return [found[place] for place in range(len(requests))]

    def writing(self, choice: Choice) -> CausalModel:
        """What goes on from one batch of texts.

        Raises:
            TfxError: theta or the head mask will not do.
        """
        model = self.causal
        theta, head_mask = choice.theta, choice.head_mask
        if theta is None and head_mask is None:
            return model
        under = self._able("be steered by theta or a head mask", self.parts.inside.under)
        return under(theta, head_mask)

    def _requests(self, prompts: Sequence[Prompt], choice: Choice) -> list[Request]:
        found = []
        for number, prompt in enumerate(prompts):
            with about(number, len(prompts), "prompt"):
                found.append(self.request(self.prompt_ids(prompt), choice))
        return found

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
