"""`adamw_step` and `euclidean_norm` on cupy, against torch's AdamW and NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.testing.calling import LAYOUTS, put

RATES = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}


def _adam_args(dtype: str, count: int = 700) -> list[Any]:
    rng = np.random.default_rng(0)
    p, g, m = (rng.standard_normal(count).astype(dtype) for _ in range(3))
    return [p, g, m, rng.uniform(0.5, 2, count).astype(dtype), np.array([0.1, 2, 3], dtype)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("decay", [None, 0.1])
def test_three_steps_are_those_of_torch(
    run: Any, near: Any, dtype: str, decay: float | None
) -> None:
    torch = pytest.importorskip("torch")
    p, *_ = _adam_args(dtype)
    mine = p, np.zeros_like(p), np.zeros_like(p)
    theirs = torch.tensor(p.astype("float64"), requires_grad=True)
    optimizer = torch.optim.AdamW(
        [theirs], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay or 0.0
    )
    shrink = None if decay is None else np.array(decay, dtype)
    for t in range(1, 4):
        g = np.random.default_rng(t).standard_normal(len(p)).astype(dtype)
        theirs.grad = torch.tensor(g.astype("float64"))
        optimizer.step()
        rates = np.array([0.1, 1 / (1 - 0.9**t), 1 / (1 - 0.95**t)], dtype)
        now, m, v = mine
        mine = run("adamw_step", now, g, m, v, rates, shrink, None, None, **RATES)
        near(mine[0], theirs.detach().numpy())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_option(run: Any, near: Any, dtype: str) -> None:
    p, g, m, v, rates = _adam_args(dtype, 37)
    decay, factor = np.linspace(0, 0.5, 37).astype(dtype), np.array(0.5, dtype)
    found = run("adamw_step", p, g, m, v, rates, decay, np.array(True), factor, **RATES)
    p, g, m, v, decay = (x.astype(np.float64) for x in (p, g * factor, m, v, decay))
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    lr, m_up, v_up = rates.astype(np.float64)
    near(found, (p - lr * (m * m_up / (np.sqrt(v * v_up) + 1e-8) + p * decay), m, v))
    assert {x.dtype.name for x in found} == {dtype}


@pytest.mark.parametrize("layout", LAYOUTS[1:3])
def test_any_layout(run: Any, layout: str) -> None:
    args = [x.reshape(5, 140) if x.size == 700 else x for x in _adam_args("float32")]
    more = None, None, None
    for x, y in zip(
        run("adamw_step", *args, *more, **RATES),
        run("adamw_step", *args, *more, layout=layout, **RATES),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


def test_without_health_nothing_moves_by_a_bit(run: Any) -> None:
    p, g, m, v, rates = _adam_args("float32")
    p[0], g[:] = -0.0, np.nan
    new = run("adamw_step", p, g, m, v, rates, None, np.array(False), None, **RATES)
    for x, old in zip(new, (p, m, v), strict=True):
        assert x.tobytes() == old.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (1025,), (300_001,)])
def test_euclidean_norm(run: Any, near: Any, dtype: str, shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    g = np.array(0.5, dtype)
    norm, (g_x,) = run("euclidean_norm", x, g=g)
    wide = x.astype(np.float64)
    expected = np.sqrt((wide * wide).sum())
    near([norm, g_x], [expected, wide / expected * 0.5])


def test_squares_beyond_the_reach_of_halves(run: Any) -> None:
    assert run("euclidean_norm", np.full(100, 300, np.float16)) == 3000


def test_what_is_not_finite_shows_in_the_norm(run: Any) -> None:
    x = np.zeros(5000, np.float32)
    x[4321] = np.nan
    assert np.isnan(run("euclidean_norm", x))


def test_launches(B: Any, launches: Any) -> None:
    p, g, m, v, rates = (put(B, x) for x in _adam_args("float32"))
    adam, norm = B.fused["adamw_step"], B.fused["euclidean_norm"]
    decay, healthy = put(B, np.array(0.1, np.float32)), put(B, np.array(True))
    step = p, g, m, v, rates, decay, healthy, decay
    assert launches(lambda: adam.forward(B, *step, **RATES)) == 1
    assert launches(lambda: norm.forward(B, p)) == 2
    assert launches(lambda: norm.vjp(B, decay, decay, None, p)) == 1


def test_what_they_leave_to_the_composed_form(B: Any) -> None:
    p, g, m, v, rates = (put(B, x) for x in _adam_args("float32", 4))
    supports, wide = B.fused["adamw_step"].supports, put(B, np.ones(4))
    none = None, None, None
    assert supports(B, p, g, m, v, rates, *none)
    assert not supports(B, p, wide, m, v, rates, *none)
    assert not supports(B, p, g[:3], m, v, rates, *none)
    assert not supports(B, p, g, m, v, rates[:2], *none)
    assert not supports(B, p, g, m, v, rates, g[:2], None, None)
    assert not supports(B, p, g, m, v, rates, None, g[0], None)
    assert not B.fused["euclidean_norm"].supports(B, p[:0])
