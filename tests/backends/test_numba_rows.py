"""Calls that are joined to one native function leave in memory what NumPy's own would."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from tfx.backends.numba.rows import native
from tfx.backends.numba.rows.row import joined
from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.capture import jit
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.planning import Call, maximum, put_row
from tfx.core.resolve import backend as opened
from tfx.core.schedules import linear

Draw = Callable[..., Any]

SIZES = st.sampled_from([1, 2, 3, 5, 8, 17, 40])
FLOATS = st.sampled_from([np.float32, np.float64])
BINARY = [np.add, np.subtract, np.multiply, np.true_divide, np.less, np.equal, maximum]
UNARY = [np.negative, np.sqrt]

few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled here is not kept among the user's."""
    monkeypatch.setattr(native, "code_folder", lambda: tmp_path)


def numbers(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed + sum(shape))
    if np.dtype(dtype).kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    return np.asarray(rng.normal(size=shape) * 8).astype(dtype)


def laid_out(draw: Draw, shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Any:
    """An array of this shape, its axes in memory in any order, with gaps or without."""
    order = draw(st.permutations(range(len(shape))))
    gap = draw(st.sampled_from([1, 1, 2]))
    stored = [shape[i] for i in order]
    if stored:
        stored[-1] *= gap
    x = numbers(tuple(stored), dtype, seed)
    x = x[..., ::gap] if stored else x
    return x.transpose([order.index(i) for i in range(len(shape))])


def by_numpy(calls: Sequence[Call]) -> None:
    for function, args in calls:
        function(*args)


def check(calls: Sequence[Call], arrays: Sequence[Any], together: bool = True) -> None:
    """Both ways from the same numbers; `together`: whether all are to be one function."""
    before = [x.copy() for x in arrays]
    with np.errstate(all="ignore"):
        by_numpy(calls)
    expected = [x.copy() for x in arrays]
    for x, old in zip(arrays, before, strict=True):
        np.copyto(x, old)
    row = joined(calls)
    if together:
        assert len(row) == 1
    with np.errstate(all="ignore"):
        by_numpy(row)
    for x, right in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(x, right)


@few
@given(st.data())
def test_elementwise_calls(data: Any) -> None:
    draw = data.draw
    shape = tuple(draw(st.lists(SIZES, max_size=3)))
    dtype = draw(FLOATS)
    pool = [laid_out(draw, shape, dtype, seed) for seed in range(3)]
    repeated = [1 if draw(st.booleans()) else n for n in shape]
    pool.append(laid_out(draw, tuple(repeated), dtype, 3))
    flag = laid_out(draw, shape, np.bool_)
    calls: list[Call] = []
    for _ in range(draw(st.integers(2, 5))):
        function: Any = draw(st.sampled_from([*BINARY, *UNARY, np.copyto]))
        x, y = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        out = draw(st.sampled_from(pool[:3]))
        if function is np.copyto:
            calls.append((function, draw(st.sampled_from([(out, x), (out, x, "same_kind", flag)]))))
        elif function in (np.less, np.equal):
            calls.append((function, (x, y, flag)))
        else:
            calls.append((function, (x, out) if function in UNARY else (x, y, out)))
    check(calls, [*pool, flag])


@few
@given(st.data())
def test_conversions(data: Any) -> None:
    draw = data.draw
    kinds = [np.bool_, np.int32, np.int64, np.float32, np.float64]
    shape = (draw(SIZES), draw(SIZES))
    pairs = [(a, b) for a in kinds for b in kinds if _keeps(a, b)]
    calls: list[Call] = []
    arrays = []
    for seed in range(2):
        source, target = draw(st.sampled_from(pairs))
        arrays += [laid_out(draw, shape, source, seed), laid_out(draw, shape, target, seed)]
        calls.append((np.copyto, (arrays[-1], arrays[-2], "unsafe")))
    check(calls, arrays)


def _keeps(source: Any, target: Any) -> bool:
    """Not floats as whole numbers, of which NumPy says nothing where they are too large."""
    ranks = ["bif".index(np.dtype(x).kind) for x in (source, target)]
    return ranks[0] <= ranks[1]


@few
@given(st.data())
def test_arrays_that_overlap(data: Any) -> None:
    """Views of one memory: what NumPy would copy first is left to NumPy."""
    draw = data.draw
    memory = numbers((40,), np.float64)
    views = [memory[start : start + 20] for start in (0, 1, 7, 20)]
    views += [x[::-1] for x in views[:2]]
    some = st.sampled_from(views)
    calls = [(np.add, (draw(some), draw(some), draw(some))) for _ in range(4)]
    check(calls, [memory], together=False)


def test_products_are_for_blas() -> None:
    x, out = np.ones((8, 8)), np.ones((8, 8))
    calls: list[Call] = [(np.dot, (x, x, out)), (np.negative, (out, x)), (np.negative, (x, out))]
    assert joined(calls)[0][0] is np.dot
    assert len(joined(calls)) == 2


@pytest.mark.parametrize("index", [0, 2, 4])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_rows_at_an_index(index: int, kind: Any) -> None:
    rows, at = numbers((5, 2, 3), np.float32), np.array(index, kind)
    out, slab = np.zeros((2, 3), np.float32), numbers((1, 2, 3), np.float32, 9)
    calls: list[Call] = [(np.take, (rows, at, 0, out, "clip")), (put_row, (rows, at, slab))]
    check(calls, [rows, out])
    at[...] = 1  # read when they are made
    by_numpy(joined(calls))
    np.testing.assert_array_equal(rows[1], slab[0])


def test_an_index_outside_reads_the_last_row() -> None:
    rows, at, out = np.arange(6.0).reshape(3, 2), np.array(9), np.zeros(2)
    check([(np.take, (rows, at, 0, out, "clip")), (np.negative, (out, out))], [out])


def test_calls_that_are_not_known_stay_where_they_were() -> None:
    x, seen = np.arange(4.0), []
    calls: list[Call] = [
        (np.negative, (x, x)),
        (np.add, (x, x, x)),
        (lambda: seen.append(x.tolist()), ()),
        (np.negative, (x, x)),
    ]
    assert len(joined(calls)) == 3
    by_numpy(joined(calls))
    assert seen == [[0, -2, -4, -6]]
    assert x.tolist() == [0, 2, 4, 6]


def test_code_is_kept_and_read_only_where_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.arange(5.0)
    calls: list[Call] = [(np.negative, (x, x)), (np.add, (x, x, x)), (np.negative, (x, x))]
    for _ in range(2):
        native.compiled.cache_clear()
        by_numpy(joined(calls))
        (kept,) = tmp_path.glob("*.row")
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert x.tolist() == [0, 4, 8, 12, 16]
    monkeypatch.setattr(native, "KEPT", 1)
    native.compiled.cache_clear()
    joined(calls[:2])
    assert len(list(tmp_path.glob("*.row"))) == 1


def test_a_training_step_of_a_small_model_is_a_few_functions() -> None:
    """Kernels of Numba's among its calls, and all kinds of others; a sum, and the first calls of
    each program, stay apart. Replayed or not, the bits are the same."""
    backend = opened("numpy")
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(16, 16)) for name in "ab"}
    one, other = (
        TrainState.start(Parameters.from_host(weights, backend, DType.float64)) for _ in range(2)
    )
    optimizer = AdamW(linear(9, 1e-2), one.params, grad_clip=1.0)

    def loss(p: Any, x: Any, targets: Any) -> Any:
        hidden = nn.rms_norm(nn.linear(x, p["a"], activation="relu")) + x
        return nn.cross_entropy(nn.linear(hidden, p["b"]), targets).mean()

    def step(state: Any, x: Any, targets: Any) -> Any:
        value, grads = value_and_grad(loss)(state.params, x, targets)
        state, norm = optimizer.update(state, value, state.params.flatten(grads))
        return state, value, norm

    replayed = jit(step, donate_argnums=(0,))
    x, targets = tensor(rng.normal(size=(8, 16)), backend), tensor([1] * 8, backend)
    for _ in range(5):
        one, value, _ = replayed(one, x + 0, targets)
        other, expected, _ = step(other, x, targets)
        assert value.item() == expected.item()
    np.testing.assert_array_equal(one.params.flat.numpy(), other.params.flat.numpy())
    assert re.search(r"these \d\d calls are joined to [1-5]$", replayed.explain())
