"""`tfx run gpt2`: what follows a prompt, or each of many."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import perf_counter
from typing import Any

from tfx.core.backend import Backend
from tfx.core.dtypes import as_dtype
from tfx.core.generation import (
    Growing,
    Logprob,
    Speculation,
    Text,
    Token,
    Turns,
    Verifying,
    decoder,
    generate,
)
from tfx.core.recipe import Reporter, RunSettings
from tfx.core.storage import Storage
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.request import (
    Request,
    eos_ids,
    in_flags,
    kv_dtype_from,
    options_from,
    requests_from,
)
from tfx.models.gpt2.speculating import check_speculation, speculation_from
from tfx.models.gpt2.theta import under_flag

BATCH_SIZE = 8


def run(
    preset: Preset, settings: RunSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Show the prompt with what follows it; of many prompts, an object each.

    Without a tokenizer, ids are shown in place of text.

    Returns:
        The object for `--json`. The text of a sample is what was generated, without what ended it;
        its token ids are all that were generated. Of many prompts, how many there were, and the
        timing.

    Raises:
        TfxError: the weights, the prompt or the flags will not do. Nothing is shown before all
            prompts are known to be good.
    """
    options = options_from(settings)
    dtype, storage = as_dtype(settings.dtype or "float32"), Storage.asked(settings)
    kv_dtype = kv_dtype_from(settings, dtype, backend)
    check_speculation(settings)
    seed = settings.seed
    if seed is None and options.temperature:
        seed = secrets.randbelow(2**32)
    began = perf_counter()
    path = find_weights(preset, settings.weights, report.note)
    model = LanguageModel.load(path, backend, report.note, dtype, storage)
    if kv_dtype is not None:
        model = replace(model, kv_dtype=kv_dtype)
    model = under_flag(model, settings.theta)
    timing = Timing(perf_counter() - began, speculation_from(settings, preset, model, report))
    options = replace(options, seed=seed or 0, eos_ids=eos_ids(model, path))
    requests = requests_from(settings, options, model)
    if seed != settings.seed:
        report.note(f"seed: {seed}")
    result: dict[str, Any] = {
        "model": preset.name,
        "backend": backend.name,
        "device": backend.device,
        "dtype": str(model.dtype),
        "weight_bytes": model.weight_bytes,
        "seed": seed,
    }
    with in_flags(settings):
        if settings.prompts is None:
            [request] = requests
            [texts] = timing.generate(model, requests, page(request, model, report))
            result |= described(request, texts)
        else:
            result["prompts"] = len(requests)
            for batch in batches(requests, settings.batch_size or BATCH_SIZE):
                for request, texts in zip(batch, timing.generate(model, batch), strict=True):
                    line = described(request, texts)
                    line["seed"] = None if seed is None else request.options.seed
                    report.result(json.dumps(line, allow_nan=False))
    return result | {"timing": timing.described()}


def batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Neighbours with the same options but for the seed, at most `size` together."""
    for _, alike in groupby(requests, lambda request: replace(request.options, seed=0)):
        rest = list(alike)
        while rest:
            yield rest[:size]
            rest = rest[size:]


# ---- what is shown -------------------------------------------------------------------------------


def page(request: Request, model: LanguageModel, report: Reporter) -> Callable[[Token], None]:
    """Show the beginning of a page of samples; each token given then adds to it."""
    tokenizer, count = model.tokenizer, request.options.num_samples
    start = " ".join(map(str, request.ids)) if request.text is None else request.text
    titles = [f"--- sample {n} ---\n" if count > 1 else "" for n in range(1, count + 1)]
    turns = Turns([title + start for title in titles], report.piece)
    stop = request.options.stop
    texts = [] if tokenizer is None else [Growing(decoder(tokenizer), stop) for _ in range(count)]

    def add(token: Token) -> None:
        piece = texts[token.sample].feed(token) if texts else f" {token.id}"
        over = token.finish_reason is not None
        turns.add(token.sample, piece + "\n" * over, over)

    return add


def described(request: Request, texts: Sequence[Text]) -> dict[str, Any]:
    """A prompt and its samples as JSON has them."""
    samples: list[dict[str, Any]] = []
    for text in texts:
        samples.append(
            {"text": text.text, "token_ids": text.token_ids, "finish_reason": text.finish_reason}
        )
        if text.logprobs is not None:
            pairs = zip(text.token_ids, text.logprobs, strict=True)
            samples[-1]["logprobs"] = [_likelihood(*pair) for pair in pairs]
    return {"prompt": request.text, "prompt_token_ids": list(request.ids), "samples": samples}


def _likelihood(token: int, logprob: Logprob) -> dict[str, Any]:
    top = [{"token_id": other, "logprob": _finite(x)} for other, x in logprob.top]
    return {"token_id": token, "logprob": _finite(logprob.value), "top": top}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


# ---- how long it takes ---------------------------------------------------------------------------


class Clocked:
    """A causal model that notes in `calls` when it was asked for logits."""

    def __init__(self, model: Verifying) -> None:
        self.backend = model.backend
        self.vocab_size = model.vocab_size
        self.max_positions = model.max_positions
        self.start = model.start
        self.calls: list[float] = []
        self._model = model

    def logits(self, ids: Tensor, cache: Any) -> Tensor:
        self.calls.append(perf_counter())
        return self._model.logits(ids, cache)

    def each_logits(self, ids: Tensor, cache: Any) -> Tensor:
        self.calls.append(perf_counter())
        return self._model.each_logits(ids, cache)


@dataclass
class Timing:
    """Seconds in all, and what came of guesses.

    Reading the prompts ends when their first new tokens are read: those count as prompt, the others
    as decoded.
    """

    load_s: float
    speculation: Speculation | None = None
    prefill_s: float = 0.0
    decode_s: float = 0.0
    prompt_tokens: int = 0
    decoded_tokens: int = 0

    def generate(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        on_token: Callable[[Token], None] | None = None,
    ) -> list[list[Text]]:
        """The texts for requests with the same options but for the seed, on the clock."""
        decode = None if model.tokenizer is None else decoder(model.tokenizer)
        prompts = [request.ids for request in requests]
        seeds = [request.options.seed for request in requests]
        clocked = Clocked(model)
        began = perf_counter()
        texts = generate(
            clocked, prompts, requests[0].options, decode, on_token, seeds, self.speculation
        )
        ended = perf_counter()
        first_read = clocked.calls[1] if len(clocked.calls) > 1 else ended
        self.prefill_s += first_read - began
        self.decode_s += ended - first_read
        self.prompt_tokens += sum(map(len, prompts))
        self.decoded_tokens += sum(len(text.token_ids) - 1 for of in texts for text in of)
        return texts

    def described(self) -> dict[str, float | None]:
        """As JSON has it."""
        times = {
            "load_s": self.load_s,
            "prefill_s": self.prefill_s,
            "decode_s": self.decode_s,
            "prompt_tokens_per_s": _rate(self.prompt_tokens, self.prefill_s),
            "decode_tokens_per_s": _rate(self.decoded_tokens, self.decode_s),
        }
        guesses = self.speculation
        if guesses is None:
            return times
        return times | {
            "draft_s": guesses.draft_s,
            "verify_s": guesses.verify_s,
            "drafted_tokens": guesses.drafted_tokens,
            "accepted_tokens": guesses.accepted_tokens,
            "acceptance_rate": guesses.acceptance_rate,
            "tokens_per_pass": guesses.tokens_per_pass,
        }


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if count and seconds else None
