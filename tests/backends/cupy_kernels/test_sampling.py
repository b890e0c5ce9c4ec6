"""Tokens chosen on the device: the ids that the host chooses, with one small copy a token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.creation import tensor
from tfx.core.errors import NonFiniteError, UsageError
from tfx.core.fused import composed
from tfx.core.generation import GenerationOptions, generate
from tfx.core.generation.sampling import sample_token
from tfx.models.gpt2.initial import initial_weights
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config

INF = math.inf


def both(B: Any, rows: Any, numbers: Any, **options: Any) -> tuple[list[int], list[int]]:
    """The ids that the device chooses, and those of the host's form."""
    logits = tensor(np.asarray(rows), B)
    uniforms = None if numbers is None else tensor(np.asarray(numbers, np.float64), B)
    found = sample_token(logits, uniforms, **options)
    assert found.dtype is B.index_dtype
    with composed():
        return found.tolist(), sample_token(logits, uniforms, **options).tolist()


# ---- the same ids --------------------------------------------------------------------------------

values = st.one_of(
    st.integers(-3, 3).map(float),  # equals
    st.floats(-30, 30, width=32),
    st.just(-INF),
    st.just(-0.0),
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(values, min_size=1, max_size=70).filter(lambda row: max(row) > -INF),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    st.sampled_from([0, 1, 2, 5, 100]),
    st.one_of(st.just(1.0), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]), st.floats(0, 1)),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_the_device_chooses_what_the_host_does(
    B: Any, row: list[float], number: float, temperature: float, k: int, p: float, least: float
) -> None:
    numbers = [number] if temperature else None
    how = {"temperature": temperature, "top_k": k, "top_p": p, "min_p": least}
    found, expected = both(B, np.array([row], np.float32), numbers, **how)
    assert found == expected
    assert found[0] >= 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [33, 1025, 5000])
def test_many_rows_of_many_kinds(B: Any, dtype: type, size: int) -> None:
    rng = np.random.default_rng(size)
    rows = rng.normal(0, 3, (12, size)).astype(dtype)
    rows[3:6] = np.round(rows[3:6])  # full of equals
    rows[6] = 0
    rows[7, ::2] = -INF
    rows[8] = -INF
    rows[8, size // 2] = 1
    rows[9] *= 1e30
    assert both(B, rows, None)[0] == rows.argmax(1).tolist()
    for how in (
        {},
        {"top_k": 1},
        {"top_k": 40, "temperature": 0.8},
        {"top_p": 0.9},
        {"top_p": 0.0},
        {"top_p": 0.5, "top_k": 100, "min_p": 0.02, "temperature": 1.3},
        {"min_p": 0.1},
    ):
        numbers = rng.random(12)
        numbers[:2] = 0.0, math.nextafter(1, 0)
        found, expected = both(B, rows, numbers, **({"temperature": 1.0} | how))
        assert found == expected


@pytest.mark.parametrize("size", [1, 3, 10, 64, 1500])
def test_equals_on_a_boundary(B: Any, size: int) -> None:
    """Numbers that part two tokens, and shares that part two sets: of equals, as few as reach the
    share, those with larger ids."""
    rows = np.zeros((6, size), np.float32)
    numbers = np.array([0.0, 0.2, 0.25, 0.5, 0.75, 0.9])
    for p in (0.1, 0.25, 0.5, 0.7, 1.0):
        found, expected = both(B, rows, numbers, temperature=1.0, top_p=p)
        assert found == expected
        if p in (0.25, 0.5, 1.0):  # which are what they say
            count = max(1, math.ceil(p * size))
            assert found == [size - count + int(number * count) for number in numbers]


def test_shares_are_probabilities(B: Any) -> None:
    row = np.array([0.0, -INF, math.log(2), math.log(5), -INF], np.float32)
    numbers = (np.arange(80) + 0.5) / 80
    ids, _ = both(B, np.tile(row, (80, 1)), numbers, temperature=1.0)
    assert np.bincount(ids, minlength=5).tolist() == [10, 0, 20, 50, 0]


@pytest.mark.parametrize("wrong", [math.nan, INF, -INF])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_rows_of_which_nothing_can_be_chosen(B: Any, wrong: float, temperature: float) -> None:
    rows = np.zeros((3, 50), np.float32)
    rows[1, 7 if wrong != -INF else slice(None)] = wrong
    numbers = [0.5] * 3 if temperature else None
    found, expected = both(B, rows, numbers, temperature=temperature)
    assert found == expected
    assert found[1] == -1
    assert found[0] >= 0


def test_a_temperature_that_nothing_can_be_divided_by(B: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)
    for temperature in (1e-40, 5e-324):
        found, expected = both(B, rows, [0.1, 0.9], temperature=temperature)
        assert found == expected == [-1, -1]


def test_halves_go_by_way_of_the_host(B: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float16)
    assert both(B, rows, None)[0] == rows.argmax(1).tolist()


# ---- texts ---------------------------------------------------------------------------------------

CONFIG = Config(vocab_size=83, n_positions=40, n_embd=32, n_layer=2, n_head=4)
WEIGHTS = {name: w * 4 for name, w in initial_weights(CONFIG, seed=0).items()}
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]


def model_on(B: Any) -> LanguageModel:
    return LanguageModel(CONFIG, {name: tensor(w, B, "float32") for name, w in WEIGHTS.items()})


@pytest.fixture(scope="module")
def model(B: Any) -> LanguageModel:
    return model_on(B)


OPTIONS: list[Any] = [
    {},
    {"temperature": 0.8, "top_k": 20, "seed": 5},
    {"temperature": 1.0, "eos_ids": tuple(range(0, 80, 7)), "seed": 1},  # texts end in turn
    pytest.param({"temperature": 1.2, "top_p": 0.9, "num_samples": 2}, marks=pytest.mark.slow),
    pytest.param(  # read anew, on the way
        {"temperature": 1.0, "window": True, "max_new_tokens": 44}, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize("given", OPTIONS, ids=str)
def test_texts_are_those_of_the_host(
    model: LanguageModel, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = GenerationOptions(**({"max_new_tokens": 10} | given))
    found = generate(model, PROMPTS, options)
    monkeypatch.delitem(model.backend.fused, "sample_token")
    assert found == generate(model, PROMPTS, options)
    on_numpy = generate(model_on(NumpyBackend()), PROMPTS, options)
    assert [[t.token_ids for t in of] for of in found] == [
        [t.token_ids for t in of] for of in on_numpy
    ]


@pytest.mark.parametrize(
    "given",
    [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"logprobs": 2},
     {"min_new_tokens": 3, "eos_ids": (1, 2)}],
    ids=str,
)  # fmt: skip
def test_what_takes_logits_on_the_host_has_them_there(
    model: LanguageModel, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(model.backend.fused, "sample_token")
    options = GenerationOptions(max_new_tokens=4, **given)
    expected = generate(model, PROMPTS, options)
    monkeypatch.undo()
    assert generate(model, PROMPTS, options) == expected


def test_logits_that_are_not_finite_are_refused_in_the_host_s_words(B: Any) -> None:
    broken = {**WEIGHTS, "ln_f.bias": np.full(CONFIG.n_embd, math.nan)}
    model = LanguageModel(CONFIG, {n: tensor(w, B, "float32") for n, w in broken.items()})
    with pytest.raises(NonFiniteError, match="the logits are not finite: the model's parameters"):
        generate(model, PROMPTS, GenerationOptions(max_new_tokens=4))
    fine = model_on(B)
    with pytest.raises(UsageError, match=r"^temperature 1e-40 is too small to divide by"):
        generate(fine, PROMPTS, GenerationOptions(temperature=1e-40, max_new_tokens=4))


# ---- what a token costs --------------------------------------------------------------------------


def cost_of_a_token(model: LanguageModel, **given: Any) -> dict[str, float]:
    """What the device is asked for by each of 8 tokens, some way into a text."""
    cudasim = pytest.importorskip("cudasim", reason="only a simulated device counts copies")
    marks = []
    options = GenerationOptions(max_new_tokens=14, **given)
    generate(model, [[1, 2, 3]], options, on_token=lambda _: marks.append(cudasim.counts()))
    return {name: (marks[12][name] - marks[4][name]) / 8 for name in marks[0]}


@pytest.mark.parametrize(
    ("given", "launches"),
    [({}, 1), ({"temperature": 0.8, "top_k": 5, "top_p": 0.9}, 3)],
    ids=str,
)
def test_a_token_costs_one_small_copy(
    model: LanguageModel, given: dict[str, Any], launches: int
) -> None:
    found = cost_of_a_token(model, **given)
    assert found["host_to_device"] == 0
    assert (found["device_to_host"], found["device_to_host_bytes"]) == (1, 8)
    assert found["syncs"] <= 1
    assert found["library_calls"] <= 2 * CONFIG.n_layer  # none of linear: what is left, attention
    on_host = cost_of_a_token(model, logprobs=0, **given)
    assert found["launches"] == on_host["launches"] + launches
    with composed():
        plain = cost_of_a_token(model, **given)
    print(f"a token: {found}\ncomposed: {plain}")
    assert plain["host_to_device"] > 0
