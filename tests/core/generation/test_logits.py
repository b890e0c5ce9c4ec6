"""From logits to a token: each step against its definition spelled out, and transformers'."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tfx.core.errors import UsageError
from tfx.core.generation.logits import (
    Row,
    choose,
    constrained,
    draw,
    filtered,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    kth_largest,
    largest,
    log_softmax,
    logprob,
    penalize_repetition,
    repeated_ngram_ends,
    uniform,
)
from tfx.core.generation.options import GenerationOptions

INF = math.inf

tied_rows = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12).map(
    lambda values: np.array(values, np.float32)
)
"""Rows in which equals are common."""


def kept(row: Row) -> list[int]:
    return np.flatnonzero(row > -INF).tolist()


def random_row(seed: int, size: int = 997) -> Row:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def rounded_row(seed: int, size: int = 997) -> Row:
    """Full of ties."""
    return np.round(random_row(seed, size))


# ---- each step against its definition -----------------------------------------------------------


@given(tied_rows, st.integers(1, 14))
def test_top_k_keeps_what_fewer_than_k_exceed(row: Row, k: int) -> None:
    expected = [i for i, x in enumerate(row) if (row > x).sum() < k]
    assert kept(keep_top_k(row, k)) == expected


@given(tied_rows, st.floats(0, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_p(row: Row, p: float) -> None:
    weights = [Fraction(math.exp(x)) for x in row]
    falling = sorted(range(len(row)), key=lambda i: (row[i], i), reverse=True)
    shares = [sum((weights[i] for i in falling[:n]), Fraction()) for n in range(len(row) + 1)]
    shares = [share / shares[-1] for share in shares]
    assume(all(abs(share - Fraction(p)) > 1e-9 for share in shares[1:]))
    count = next(n for n in range(1, len(row) + 1) if shares[n] >= p)
    assert kept(keep_top_p(row, p)) == sorted(falling[:count])


def test_top_p_at_its_bounds() -> None:
    """Half the mass of four equals is two of them: p is reached, not passed; 0 keeps one."""
    row = np.zeros(4, np.float32)
    assert kept(keep_top_p(row, 0.5)) == [2, 3]
    assert kept(keep_top_p(row, math.nextafter(0.5, 1))) == [1, 2, 3]
    for size in range(1, 60):
        assert kept(keep_top_p(np.zeros(size, np.float32), 0.0)) == [size - 1]


@given(tied_rows, st.floats(0.001, 1))
def test_min_p_is_a_share_of_the_largest(row: Row, p: float) -> None:
    shares = np.exp(row.astype(np.float64) - row.max())
    assume((abs(shares / p - 1) > 1e-6).all() or p == 1)
    assert kept(keep_min_p(row, p)) == np.flatnonzero(shares >= p).tolist()


@given(tied_rows, st.lists(st.integers(0, 11)), st.sampled_from([0.5, 1.3, 2.0]))
def test_repetition_makes_a_token_less_likely_once(row: Row, ids: list[int], by: float) -> None:
    seen = np.array([i % len(row) for i in ids], np.int64)
    expected = [
        x if i not in seen else x * np.float32(by) if x < 0 else x / np.float32(by)
        for i, x in enumerate(row)
    ]
    np.testing.assert_array_equal(penalize_repetition(row, seen, by), expected)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_ngrams_end_in_what_would_repeat_them(ids: list[int], size: int) -> None:
    grams = {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}
    start = len(ids) - size + 1
    expected = {t for t in range(4) if start > 0 and (*ids[start:], t) in grams}
    assert set(repeated_ngram_ends(np.array(ids, np.int64), size).tolist()) == expected


@given(st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=700), st.integers(1, 700))
def test_the_largest_come_in_order_equals_by_place(values: list[float], count: int) -> None:
    array = np.array(values)
    order = sorted(range(len(values)), key=lambda i: -values[i])
    assert largest(array, count).tolist() == order[:count]
    k = min(count, len(values))
    assert kth_largest(array, k) == sorted(values, reverse=True)[k - 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_leaves_its_row_alone_and_keeps_its_dtype(dtype: type) -> None:
    row: Row = random_row(0).astype(dtype)
    before = row.copy()
    options = GenerationOptions(
        temperature=0.7, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.3,
        no_repeat_ngram_size=2, min_new_tokens=3, eos_ids=(7, 8),
    )  # fmt: skip
    out = constrained(row, np.array([1, 2, 3, 1]), 2, options)
    assert out.dtype == dtype
    assert set(np.flatnonzero(out != row).tolist()) == {1, 2, 3, 7, 8}
    assert (out[[2, 7, 8]] == -INF).all()
    assert filtered(out, options).dtype == dtype
    np.testing.assert_array_equal(row, before)
    assert constrained(row, np.array([1]), 3, options)[7] == row[7]  # three others have come


# ---- drawing ------------------------------------------------------------------------------------


def test_draws_follow_the_distribution() -> None:
    """Evenly spaced numbers hit each token in proportion to its probability."""
    row = np.array([0.0, -INF, math.log(2), math.log(5), -INF], np.float32)
    hits = [draw(row, (i + 0.5) / 8000, GenerationOptions()) for i in range(8000)]
    assert np.bincount(hits, minlength=5).tolist() == [1000, 0, 2000, 5000, 0]


@pytest.mark.parametrize("number", [0.0, math.nextafter(1, 0)])
def test_the_ends_of_the_unit_interval_hit_no_forbidden_token(number: float) -> None:
    for seed in range(200):
        row = random_row(seed, 50)
        row[[0, 1, 48, 49]] = -INF
        assert row[draw(row, number, GenerationOptions())] > -INF


def test_what_underflows_to_no_chance_is_not_drawn() -> None:
    assert draw(np.array([-1e6, 0, 0], np.float32), 0.0, GenerationOptions()) == 1


def test_uniforms_are_uniform_and_belong_to_seed_text_and_step() -> None:
    numbers = np.array(
        [uniform(seed, i % 4, i // 4) for seed in (0, 2**64 - 1) for i in range(10000)]
    )
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert len(set(numbers)) == len(numbers)
    counts = np.histogram(numbers, 100, (0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 148.2  # 0.999 of chi-square with 99 degrees
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


@given(st.floats(1e-30, 1e-3))
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    row = random_row(0)
    options = GenerationOptions(temperature=temperature, top_k=50, top_p=0.9, min_p=0.1)
    assert choose(row, options, 0.999) == row.argmax()


def test_a_temperature_too_small_to_divide_by() -> None:
    for temperature in (1e-40, 5e-324):
        with pytest.raises(UsageError, match=f"^temperature {temperature} is too small to divide"):
            choose(random_row(0), GenerationOptions(temperature=temperature, top_p=0.9), 0.5)


def test_a_repetition_penalty_too_small_to_divide_by() -> None:
    options = GenerationOptions(temperature=0.8, repetition_penalty=1e-40)
    row = random_row(0).astype(np.float32)
    with np.errstate(over="ignore"):
        row = constrained(row, np.array([row.argmax()]), 0, options)
    with pytest.raises(UsageError, match=r"^repetition_penalty 1e-40 is too small to divide by"):
        choose(row, options, 0.5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_when_everything_is_forbidden(temperature: float) -> None:
    options = GenerationOptions(temperature=temperature, no_repeat_ngram_size=1, top_p=0.5)
    row = constrained(random_row(0, 3), np.arange(3), 0, options)
    with pytest.raises(UsageError, match="no token is left to choose: no_repeat_ngram_size 1"):
        choose(row, options, 0.5)


def test_greedy_takes_the_first_of_equals() -> None:
    assert choose(np.array([1, 3, 3, 2], np.float32), GenerationOptions(), 0.9) == 1


# ---- log-probabilities --------------------------------------------------------------------------


def test_log_probabilities() -> None:
    row: Row = random_row(3).astype(np.float64)
    expected = row - math.log(math.fsum(math.exp(x) for x in row))
    np.testing.assert_allclose(log_softmax(row), expected, rtol=1e-13)
    np.testing.assert_allclose(log_softmax(row.astype(np.float32)), expected, rtol=1e-6, atol=1e-6)
    found = logprob(row.astype(np.float32), 5, 4)
    assert found.value == pytest.approx(expected[5], rel=1e-6)
    best = np.argsort(-expected)[:4]
    assert [i for i, _ in found.top] == best.tolist()
    np.testing.assert_allclose([x for _, x in found.top], expected[best], rtol=1e-6)
    assert logprob(row, 5, 0).top == ()


# ---- against transformers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def processors() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return pytest.importorskip("transformers.generation.logits_process")


IDS = np.random.default_rng(1).integers(0, 40, 60)

CONSTRAINTS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "penalty": ({"repetition_penalty": 1.7}, lambda P: P.RepetitionPenaltyLogitsProcessor(1.7)),
    "reward": ({"repetition_penalty": 0.6}, lambda P: P.RepetitionPenaltyLogitsProcessor(0.6)),
    "unigram": ({"no_repeat_ngram_size": 1}, lambda P: P.NoRepeatNGramLogitsProcessor(1)),
    "bigram": ({"no_repeat_ngram_size": 2}, lambda P: P.NoRepeatNGramLogitsProcessor(2)),
    "minimum": (
        {"min_new_tokens": 7, "eos_ids": (3, 5)},
        lambda P: P.MinNewTokensLengthLogitsProcessor(54, 7, [3, 5]),
    ),
}

FILTERS: dict[str, tuple[dict[str, Any], Callable[[Any], list[Any]]]] = {
    "temperature": ({"temperature": 0.7}, lambda P: [P.TemperatureLogitsWarper(0.7)]),
    "top_k": ({"top_k": 20}, lambda P: [P.TopKLogitsWarper(20)]),
    "top_p": ({"top_p": 0.83}, lambda P: [P.TopPLogitsWarper(0.83)]),
    "top_p_0": ({"top_p": 0.0}, lambda P: [P.TopPLogitsWarper(0.0)]),
    "min_p": ({"min_p": 0.05}, lambda P: [P.MinPLogitsWarper(0.05)]),
    "all": (
        {"temperature": 1.4, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
        lambda P: [
            P.TemperatureLogitsWarper(1.4),
            P.TopKLogitsWarper(30),
            P.TopPLogitsWarper(0.9),
            P.MinPLogitsWarper(0.02),
        ],
    ),
}


@pytest.mark.parametrize("rows", [random_row, rounded_row])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_as_in_transformers(
    name: str, rows: Callable[[int], Row], torch: Any, processors: Any
) -> None:
    given, processor = CONSTRAINTS[name]
    for seed in range(20):
        row = rows(seed)
        theirs = processor(processors)(torch.tensor(IDS)[None], torch.tensor(row)[None])[0]
        mine = constrained(row, IDS, 6, GenerationOptions(**given))
        assert mine.tobytes() == theirs.numpy().tobytes()
        assert (mine != row).any()


@pytest.mark.parametrize("name", FILTERS)
def test_filters_as_in_transformers(name: str, torch: Any, processors: Any) -> None:
    given, make = FILTERS[name]
    options = GenerationOptions(**({"temperature": 1.0} | given))
    for seed in range(50):
        row = random_row(seed)
        theirs = torch.tensor(row)[None]
        for processor in make(processors):
            theirs = processor(torch.tensor(IDS)[None], theirs)
        assert filtered(row, options).tobytes() == theirs[0].numpy().tobytes()


@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_equal_logits_as_in_transformers(name: str, torch: Any, processors: Any) -> None:
    """torch leaves open which of equal logits it sorts first: for top-p, their number must do."""
    given, make = FILTERS[name]
    options = GenerationOptions(**({"temperature": 1.0} | given))
    for seed in range(50):
        row = rounded_row(seed, 200)
        theirs = torch.tensor(row)[None]
        for processor in make(processors):
            theirs = processor(torch.tensor(IDS)[None], theirs)
        mine, other = filtered(row, options), theirs[0].numpy()
        if options.top_p < 1:
            mine, other = np.sort(mine), np.sort(other)
        assert mine.tobytes() == other.tobytes()


def test_probabilities_as_in_transformers(torch: Any, processors: Any) -> None:
    given, make = FILTERS["all"]
    row = random_row(0)
    theirs = torch.tensor(row)[None]
    for processor in make(processors):
        theirs = processor(torch.tensor(IDS)[None], theirs)
    expected = torch.softmax(theirs[0].double(), -1).numpy()
    options = GenerationOptions(**given)
    scores = filtered(row, options)
    hits = [draw(scores, (i + 0.5) / 20000, options) for i in range(20000)]
    np.testing.assert_allclose(
        np.bincount(hits, minlength=len(row)) / 20000, expected, atol=1.01 / 20000
    )
