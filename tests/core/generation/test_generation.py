"""Generation on every backend against a plain model that knows no cache and no batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from causal_models import TinyGPT, one_thread, plain_logits, random_weights

from tfx.core.backend import Backend, Fused
from tfx.core.cache import KVCache
from tfx.core.capture import eager
from tfx.core.dtypes import DType
from tfx.core.errors import NonFiniteError, UsageError
from tfx.core.fused import composed
from tfx.core.generation.generate import GenerationOptions, Text, Token, generate, stream
from tfx.core.generation.logits import choose, constrained, log_softmax, uniform
from tfx.core.generation.sampling import sample_token
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend

HEADS = 4
WEIGHTS = random_weights()
PROMPTS = [[5, 9, 3, 1], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [60, 0]]
SAMPLED: dict[str, Any] = {"temperature": 1.5, "top_k": 40, "top_p": 0.95, "min_p": 0.01}


def tiny(backend: Backend) -> TinyGPT:
    return TinyGPT.of(WEIGHTS, HEADS, backend, DType.float64)


@pytest.fixture(scope="module", autouse=True)
def calm() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def model() -> TinyGPT:
    return tiny(StrictBackend())


def plainly(prompt: Sequence[int], options: GenerationOptions, sample: int = 0) -> list[int]:
    """The same, one text at a time and from the start at every token."""
    ids = list(prompt)
    for step in range(options.max_new_tokens):
        row = constrained(plain_logits(WEIGHTS, HEADS, ids), np.array(ids), step, options)
        ids.append(choose(row, options, uniform(options.seed, sample, step)))
        if ids[-1] in options.eos_ids:
            break
    return ids[len(prompt) :]


def ids_of(texts: list[list[Text]]) -> list[list[list[int]]]:
    return [[text.token_ids for text in of_prompt] for of_prompt in texts]


# ---- the tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"max_new_tokens": 30},
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"seed": 1, **SAMPLED},
        {"seed": 2, "eos_ids": (14, 36, 42), "min_new_tokens": 4, **SAMPLED},
    ],
    ids=str,
)
def test_a_batch_gives_what_a_plain_model_gives_each_prompt(
    given: dict[str, Any], backend: Backend
) -> None:
    options = GenerationOptions(**({"max_new_tokens": 12} | given))
    expected = [[plainly(prompt, options)] for prompt in PROMPTS]
    assert ids_of(generate(tiny(backend), PROMPTS, options)) == expected
    assert len({token for [ids] in expected for token in ids}) >= 15


def test_samples_are_their_own_and_do_not_depend_on_how_many(backend: Backend) -> None:
    def texts(prompts: list[list[int]], count: int) -> list[list[list[int]]]:
        options = GenerationOptions(max_new_tokens=6, seed=3, num_samples=count, **SAMPLED)
        return ids_of(generate(tiny(backend), prompts, options))

    options = GenerationOptions(max_new_tokens=6, seed=3, **SAMPLED)
    four = texts(PROMPTS, 4)
    assert four[1] == [plainly(PROMPTS[1], options, sample) for sample in range(4)]
    assert len({tuple(ids) for ids in four[1]}) == 4
    assert [of_prompt[:2] for of_prompt in four] == texts(PROMPTS, 2)
    assert texts(PROMPTS[2:3], 4) == four[2:3]


def test_prompts_can_have_seeds_of_their_own(model: TinyGPT) -> None:
    def texts(prompts: list[list[int]], **more: Any) -> list[list[Text]]:
        options = GenerationOptions(max_new_tokens=8, num_samples=2, **SAMPLED | more)
        return generate(model, prompts, options, seeds=seeds if len(prompts) > 1 else None)

    seeds = [7, 5, 7]
    together = texts([[1, 2], [1, 2], [3]])
    assert together == [
        texts([prompt], seed=seed)[0]
        for prompt, seed in zip([[1, 2], [1, 2], [3]], seeds, strict=True)
    ]
    assert together[0] != together[1]


def test_another_seed_gives_another_text(model: TinyGPT) -> None:
    def text(seed: int) -> tuple[int, ...]:
        options = GenerationOptions(max_new_tokens=8, seed=seed, **SAMPLED)
        return tuple(generate(model, [[7]], options)[0][0].token_ids)

    assert len({text(seed) for seed in range(5)}) == 5


def test_samples_have_the_distribution_of_the_logits(model: TinyGPT) -> None:
    options = GenerationOptions(max_new_tokens=1, num_samples=4000, temperature=2.0, top_k=8)
    drawn = [ids[0] for ids in ids_of(generate(model, [[7]], options))[0]]
    logits = plain_logits(WEIGHTS, HEADS, [7]) / 2
    top = np.argsort(-logits)[:8]
    expected = np.exp(log_softmax(logits[top])) * 4000
    counts = np.array([drawn.count(token) for token in top])
    assert counts.sum() == 4000
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # 0.999 of chi-square, 7 degrees


class Forgetful(KVCache):
    """Loses one slot of one layer."""

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if layer == 1 and self.length == 12:
            k = k * 0
        return super().extend(layer, k, v)


class Shifted(KVCache):
    """Counts the padding as positions."""

    def positions(self, count: int) -> Tensor:
        padding, self._padding = self._padding, None
        positions = super().positions(count)
        self._padding = padding
        return positions


class Blind(KVCache):
    """Does not say what is padding."""

    def pad_left(self, counts: Sequence[int]) -> None:
        super().pad_left(counts)
        self.visible = None


@pytest.mark.parametrize("broken", [Forgetful, Shifted, Blind])
def test_a_fault_in_the_cache_does_not_go_unnoticed(broken: type[KVCache]) -> None:
    class Faulty(TinyGPT):
        def start(self, batch: int, capacity: int) -> KVCache:
            cache = super().start(batch, capacity)
            cache.__class__ = broken
            return cache

    options = GenerationOptions(max_new_tokens=20)
    faulty = Faulty.of(WEIGHTS, HEADS, StrictBackend(), DType.float64)
    with eager():  # what a fault does by the length alone, it would do once
        found = ids_of(generate(faulty, PROMPTS, options))
    assert found != [[plainly(p, options)] for p in PROMPTS]


# ---- beams -------------------------------------------------------------------------------------


def plain_beams(prompt: list[int], count: int, length: int) -> list[list[int]]:
    """The textbook's search, for texts of one length."""
    beams = [(0.0, list(prompt))]
    for _ in range(length):
        grown = [
            (score + float(x), [*ids, token])
            for score, ids in beams
            for token, x in enumerate(log_softmax(plain_logits(WEIGHTS, HEADS, ids)))
        ]
        beams = sorted(grown, key=lambda beam: -beam[0])[:count]
    return [ids[len(prompt) :] for _, ids in beams]


def test_beams_of_a_batch_are_those_of_each_prompt(backend: Backend) -> None:
    options = GenerationOptions(max_new_tokens=8, num_beams=4, num_samples=4)
    found = ids_of(generate(tiny(backend), PROMPTS, options))
    assert found == [plain_beams(prompt, 4, 8) for prompt in PROMPTS]


def test_searches_that_are_over_leave_the_batch(model: TinyGPT) -> None:
    options = GenerationOptions(
        max_new_tokens=12, num_beams=3, eos_ids=(14, 42), early_stopping=True, logprobs=2
    )
    together = generate(model, PROMPTS, options)
    rows = [shape[0] for shape in model.read]
    assert rows[0] == len(PROMPTS)
    assert rows[1] == 3 * len(PROMPTS)
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < rows[1]
    for prompt, texts in zip(PROMPTS, together, strict=True):
        [alone] = generate(model, [prompt], options)
        assert alone[0].token_ids == texts[0].token_ids
        check_logprobs(prompt, texts[0], 2)


# ---- how a text ends ---------------------------------------------------------------------------


def test_texts_end_at_eos_and_leave_the_batch(model: TinyGPT) -> None:
    free = GenerationOptions(max_new_tokens=15)
    whole = [ids for [ids] in ids_of(generate(model, PROMPTS, free))]
    eos = whole[1][6]
    model.read.clear()
    texts = generate(model, PROMPTS, GenerationOptions(max_new_tokens=15, eos_ids=(eos,)))
    for [text], ids in zip(texts, whole, strict=True):
        end = ids.index(eos) + 1 if eos in ids else 15
        assert text.token_ids == ids[:end]
        assert text.finish_reason == ("eos" if eos in ids else "length")
    ends = sorted((len(text.token_ids) for [text] in texts), reverse=True)
    assert ends[-1] < 15
    going = [sum(end > step for end in ends) for step in range(1, 15)]
    assert model.read == [(4, 9), *((rows, 1) for rows in going if rows)]


def test_a_prompt_is_read_once_however_many_its_texts(model: TinyGPT) -> None:
    options = GenerationOptions(max_new_tokens=3, num_samples=5, temperature=1.0)
    generate(model, PROMPTS[:2], options)
    assert model.read == [(2, 4), (10, 1), (10, 1)]


def letters(ids: Sequence[int]) -> str:
    return "".join(chr(ord("A") + token) for token in ids)


@pytest.mark.parametrize("beams", [1, 3])
def test_stop_strings(beams: int, model: TinyGPT) -> None:
    free = GenerationOptions(max_new_tokens=20, num_beams=beams)
    [[whole]] = generate(model, [[7]], free, letters)
    assert whole.text == letters(whole.token_ids)
    stop = letters(whole.token_ids[3:5])
    options = GenerationOptions(
        max_new_tokens=20, num_beams=beams, stop=("never", stop), length_penalty=-5.0
    )
    [[text]] = generate(model, [[7]], options, letters)
    assert text.finish_reason == "stop"
    assert letters(text.token_ids).endswith(stop)
    assert text.text == letters(text.token_ids[:-2])
    if beams == 1:
        assert text.token_ids == whole.token_ids[:5]


def test_the_text_leaves_out_eos(model: TinyGPT) -> None:
    [[whole]] = generate(model, [[7]], GenerationOptions(max_new_tokens=9))
    eos = whole.token_ids[5]
    options = GenerationOptions(max_new_tokens=9, eos_ids=(eos,))
    [[text]] = generate(model, [[7]], options, letters)
    assert text.token_ids[-1] == eos
    assert text.text == letters(text.token_ids[:-1])


# ---- log-probabilities -------------------------------------------------------------------------


def check_logprobs(prompt: list[int], text: Text, count: int) -> None:
    assert text.logprobs is not None
    assert len(text.logprobs) == len(text.token_ids)
    for i, (token, found) in enumerate(zip(text.token_ids, text.logprobs, strict=True)):
        row = log_softmax(plain_logits(WEIGHTS, HEADS, [*prompt, *text.token_ids[:i]]))
        assert found.value == pytest.approx(row[token], rel=1e-9)
        best = np.argsort(-row)[:count]
        assert [token for token, _ in found.top] == best.tolist()
        np.testing.assert_allclose([x for _, x in found.top], row[best], rtol=1e-9)


@pytest.mark.parametrize("count", [0, 3])
def test_logprobs_are_those_of_the_model(count: int, model: TinyGPT) -> None:
    options = GenerationOptions(
        max_new_tokens=8, logprobs=count, num_samples=2, repetition_penalty=1.5, **SAMPLED
    )
    for prompt, texts in zip(PROMPTS, generate(model, PROMPTS, options), strict=True):
        for text in texts:
            check_logprobs(prompt, text, count)
    assert generate(model, [[7]], GenerationOptions(max_new_tokens=2))[0][0].logprobs is None


# ---- streaming ---------------------------------------------------------------------------------


def test_a_token_is_given_before_the_next_is_computed(model: TinyGPT) -> None:
    options = GenerationOptions(max_new_tokens=5, num_samples=2, temperature=1.0)
    tokens = stream(model, PROMPTS[:2], options)
    assert model.read == []
    seen: list[Token] = []
    for token in tokens:
        seen.append(token)
        assert len(model.read) == math.ceil(len(seen) / 4)
    places = [(token.prompt, token.sample) for token in seen]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)] * 5
    assert [token.finish_reason for token in seen] == [None] * 16 + ["length"] * 4


@pytest.mark.parametrize("given", [SAMPLED, {"num_beams": 3}], ids=str)
def test_a_stream_and_its_callback_give_what_generate_gives(
    given: dict[str, Any], model: TinyGPT
) -> None:
    options = GenerationOptions(max_new_tokens=6, num_samples=2, eos_ids=(14, 36), **given)
    heard: list[Token] = []
    texts = generate(model, PROMPTS, options, on_token=heard.append)
    assert heard == list(stream(model, PROMPTS, options))
    for p, s in ((p, s) for p in range(len(PROMPTS)) for s in range(2)):
        tokens = [token for token in heard if (token.prompt, token.sample) == (p, s)]
        assert [token.id for token in tokens] == texts[p][s].token_ids
        reasons = [token.finish_reason for token in tokens]
        assert reasons == [None] * (len(tokens) - 1) + [texts[p][s].finish_reason]


def test_a_stream_may_be_left(model: TinyGPT) -> None:
    tokens = stream(model, PROMPTS, GenerationOptions())
    next(tokens)
    tokens.close()  # type: ignore[attr-defined]
    assert len(model.read) == 1


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "given", "message"),
    [
        ([[1], []], {}, "prompt 1: empty; expected at least one token"),
        ([[1, 61]], {}, "prompt 0: token 61 is not from 0 to 60"),
        ([[1], [3, -1]], {}, "prompt 1: token -1 is not from 0 to 60"),
        ([[1.5]], {}, "prompt 0: expected a list of token ids, not [1.5]"),
        (["abc"], {}, "prompt 0: expected a list of token ids, not 'abc'"),
        (
            [[1], [1] * 40],
            {"max_new_tokens": 26},
            "prompt 1: 40 + 26 new tokens do not fit the model's 64 positions; lower "
            "max_new_tokens to 25 (the last needs no position), or go past them with window",
        ),
        ([[1] * 65], {}, "prompt 0: 65 tokens do not fit the model's 64 positions; shorten it, or "
         "go on from the end of it with window"),
        ([[1]], {"eos_ids": (3, 61)}, "eos_ids (3, 61): expected ids from 0 to 60"),
        ([[1]], {"logprobs": 62}, "logprobs 62: expected at most 61"),
        ([[1]], {"stop": ("x",)}, "stop ('x',): no decoder makes text to find it in; use eos_ids"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", [generate, stream])
def test_what_a_model_cannot_read_is_refused_before_any_work(
    call: Callable[..., object],
    prompts: Any,
    given: dict[str, Any],
    message: str,
    model: TinyGPT,
) -> None:
    with pytest.raises(UsageError) as caught:
        call(model, prompts, GenerationOptions(**given))
    assert str(caught.value).startswith(message)
    assert model.read == []


def test_every_position_can_be_used(model: TinyGPT) -> None:
    """The last token is not read, and so needs no position."""
    options = GenerationOptions(max_new_tokens=25)
    prompt = [i % 61 for i in range(40)]
    assert ids_of(generate(model, [prompt], options)) == [[plainly(prompt, options)]]


def test_no_prompts_no_texts(model: TinyGPT) -> None:
    assert generate(model, []) == []


def test_everything_forbidden_says_so(model: TinyGPT) -> None:
    options = GenerationOptions(max_new_tokens=60, no_repeat_ngram_size=1)
    with pytest.raises(UsageError, match="no token is left to choose"):
        generate(model, [list(range(4))], options)


def test_a_search_that_finds_too_few_texts_says_so() -> None:
    """Four tokens after a 0, of two kinds and in no pair twice: few texts do."""
    two = TinyGPT.of(random_weights(vocabulary=2, width=8), 2, StrictBackend())
    given: dict[str, Any] = {"max_new_tokens": 4, "num_beams": 4, "no_repeat_ngram_size": 2}
    [[best]] = generate(two, [[0]], GenerationOptions(**given))
    assert best.token_ids in ([0, 1, 1, 0], [1, 1, 0, 0])
    with pytest.raises(UsageError, match="no token is left to choose"):
        generate(two, [[0]], GenerationOptions(num_samples=4, **given))


def test_logits_that_are_not_finite_are_an_error() -> None:
    weights = WEIGHTS | {"ln_f.bias": np.full(32, np.nan)}
    with pytest.raises(NonFiniteError, match="the logits are not finite"):
        generate(TinyGPT.of(weights, HEADS, StrictBackend()), [[1]])


@pytest.mark.parametrize("given", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_where_a_device_finds_no_token_the_host_s_is_read(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device may take a number for 0 that the host divides by. Here one gives up every time, and
    in each text in turn."""
    options = GenerationOptions(max_new_tokens=8, **given)
    B = StrictBackend()
    expected = generate(tiny(B), PROMPTS, options)
    gave_up = []

    def sampling(B: Backend, logits: Any, uniforms: Any, **how: float) -> tuple[Any, None]:
        with composed():
            numbers = None if uniforms is None else Tensor(uniforms, B)
            ids = sample_token(Tensor(logits, B), numbers, **how).numpy()
        ids[len(gave_up) % len(ids)] = -1
        gave_up.append(ids)
        return B.asarray(ids, dtype=B.index_dtype), None

    monkeypatch.setitem(B.fused, "sample_token", Fused("sample_token", sampling))
    assert generate(tiny(B), PROMPTS, options) == expected
    assert len(gave_up) == 8


def test_half_precision_logits_are_chosen_from_in_float32() -> None:
    strict = StrictBackend()
    half = TinyGPT.of(random_weights(width=8), 2, strict, DType.float16)
    texts = generate(half, [[1, 2], [3]], GenerationOptions(max_new_tokens=4, **SAMPLED))
    assert [len(text.token_ids) for [text] in texts] == [4, 4]
