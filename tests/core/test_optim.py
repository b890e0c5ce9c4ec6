"""AdamW against torch's, against plain Python numbers, and against numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tfx.core import tree
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import Table, linear
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend

SHAPES = {"w": (3, 4), "b": (4,), "scale": ()}
STEPS = 50
SETTINGS: list[dict[str, Any]] = [
    {},
    {"beta1": 0.85, "beta2": 0.99},
    {"decay": 0.1},
    {"decay": 0.3, "beta1": 0.0, "eps": 1e-3},
]


def random_arrays(seed: int, scale: float = 1.0) -> dict[str, HostArray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(scale * rng.standard_normal(s)) for name, s in SHAPES.items()}


def gradients(step: int) -> dict[str, HostArray]:
    return random_arrays(100 + step, scale=10.0 ** (step % 5 - 2))  # of very different sizes


def start_on(backend: Backend, dtype: DType = DType.float64) -> TrainState:
    return TrainState.start(Parameters.from_host(random_arrays(0), backend, dtype))


def on(backend: Backend, arrays: dict[str, HostArray], dtype: str = "float64") -> dict[str, Tensor]:
    return {name: tensor(array, backend, dtype) for name, array in arrays.items()}


def flat_on(backend: Backend, arrays: dict[str, HostArray], dtype: DType = DType.float64) -> Tensor:
    return Parameters.from_host(arrays, backend, dtype).flat


def number(backend: Backend, value: float, dtype: str = "float64") -> Tensor:
    return full((), value, backend, dtype)


def run(backend: Backend, schedule: Table, **settings: Any) -> list[dict[str, HostArray]]:
    """The parameters after each of the steps."""
    state = start_on(backend)
    optimizer = AdamW(schedule, state.params, **settings)
    seen = []
    for step in range(len(schedule)):
        g = state.params.flatten(on(backend, gradients(step)))
        state, _ = optimizer.update(state, number(backend, 1.0), g)
        seen.append({name: x.array for name, x in state.params.to_host().items()})
    assert state.step.item() == len(schedule)
    assert state.healthy.item()
    return seen


def by_hand(
    schedule: Table,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
    grad_clip: float = math.inf,
) -> list[list[float]]:
    """The same in Python's floats, all parameters in one list."""
    p = flat(random_arrays(0))
    m, v = [0.0] * len(p), [0.0] * len(p)
    seen = []
    for t, rate in enumerate(schedule.tolist(), start=1):
        g = flat(gradients(t - 1))
        size = math.sqrt(math.fsum(x * x for x in g))
        g = [x * min(1.0, grad_clip / size) for x in g]
        for i in range(len(p)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            p[i] -= rate * (m_hat / (math.sqrt(v_hat) + eps) + decay * p[i])
        seen.append(list(p))
    return seen


def flat(named: dict[str, HostArray]) -> list[float]:
    return [x for array in named.values() for x in array.reshape(-1).tolist()]


@pytest.mark.parametrize(
    "settings", [*SETTINGS, {"grad_clip": 0.5}, {"grad_clip": 3, "decay": 0.1}]
)
def test_it_is_the_papers(backend: Backend, settings: dict[str, Any]) -> None:
    schedule = linear(STEPS, 0.02, end=0.001, warmup=5)
    expected = by_hand(schedule, **settings)
    for found, wanted in zip(run(backend, schedule, **settings), expected, strict=True):
        np.testing.assert_allclose(flat(found), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_is_torchs(backend: Backend, settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    schedule = linear(STEPS, 0.02, end=0.001, warmup=5)
    theirs = {name: torch.tensor(array) for name, array in random_arrays(0).items()}
    decay = settings.get("decay", 0.0)
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    optimizer = kind(
        theirs.values(),
        betas=(settings.get("beta1", 0.9), settings.get("beta2", 0.999)),
        eps=settings.get("eps", 1e-8),
        weight_decay=decay,
    )
    for step, ours in enumerate(run(backend, schedule, **settings)):
        for group in optimizer.param_groups:
            group["lr"] = schedule[step]
        for name, g in gradients(step).items():
            theirs[name].grad = torch.tensor(g)
        optimizer.step()
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name].numpy(), rtol=0, atol=1e-12)


def test_some_decay_and_others_do_not(backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    schedule, decay = linear(STEPS, 0.02), {"scale": 0.0, "w": 0.3, "b": 0.01}
    theirs = {name: torch.tensor(array) for name, array in random_arrays(0).items()}
    groups = [{"params": [theirs[name]], "weight_decay": decay[name]} for name in theirs]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    for step, ours in enumerate(run(backend, schedule, decay=decay)):
        for group in optimizer.param_groups:
            group["lr"] = schedule[step]
        for name, g in gradients(step).items():
            theirs[name].grad = torch.tensor(g)
        optimizer.step()
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name].numpy(), rtol=0, atol=1e-12)


def test_a_parameter_whose_decay_is_not_told(backend: Backend) -> None:
    with pytest.raises(KeyError, match="scale"):
        AdamW(linear(2, 0.1), start_on(backend).params, decay={"w": 0.1, "b": 0.0})


def test_gradients_can_be_summed_before_the_step(backend: Backend) -> None:
    """As over machines: the mean of flat gradients, judged and clipped as one."""
    optimizer, before = trained_a_little(backend)
    one, two = gradients(3), gradients(4)
    g = (flat_on(backend, one) + flat_on(backend, two)) * 0.5
    state, norm = optimizer.update(before, number(backend, 1.0), g)
    both = [(x + y) / 2 for x, y in zip(flat(one), flat(two), strict=True)]
    assert norm.item() == pytest.approx(np.linalg.norm(both), rel=1e-14)
    spoiled = flat_on(backend, one) + flat_on(backend, two | {"scale": np.array(math.nan)})
    with np.errstate(all="ignore"):
        state, _ = optimizer.update(before, number(backend, 1.0), spoiled)
    assert bits(state) == bits(before)


def test_a_state_is_taken_apart_and_put_together(backend: Backend) -> None:
    _, state = trained_a_little(backend)
    found = tree.leaves(state)
    assert [id(x) for x in found] == [
        id(x) for x in (state.params.flat, state.m, state.v, state.step, state.healthy)
    ]
    others = [x if x.dtype is DType.bool else x + 1 for x in found]
    loss, again = tree.like((found[0], state), iter([others[0], *others]))
    assert isinstance(again, TrainState)
    assert [id(x) for x in tree.leaves([loss, again])] == [id(x) for x in (others[0], *others)]
    for name, stored in state.params.to_host().items():
        np.testing.assert_array_equal(again.params[name].numpy(), stored.array + 1)


def bits(state: TrainState) -> list[bytes]:
    """Everything in a state but `healthy`, to the last bit."""
    return [x.numpy().tobytes() for x in (state.params.flat, state.m, state.v, state.step)]


def trained_a_little(backend: Backend, dtype: DType = DType.float64) -> tuple[AdamW, TrainState]:
    state = start_on(backend, dtype)
    optimizer = AdamW(linear(STEPS, 0.02), state.params, decay=0.1, grad_clip=1.0)
    for step in range(3):
        good = flat_on(backend, gradients(step), dtype)
        state, _ = optimizer.update(state, number(backend, 1.0, str(dtype)), good)
    return optimizer, state


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "w", "scale"])
def test_what_is_not_finite_changes_nothing(
    backend: Backend, where: str, value: float, dtype: DType
) -> None:
    optimizer, before = trained_a_little(backend, dtype)
    arrays = gradients(3)
    if where != "loss":
        arrays[where][(-1,) * arrays[where].ndim] = value
    loss = number(backend, value if where == "loss" else 1.0, str(dtype))
    with np.errstate(all="ignore"):
        state, norm = optimizer.update(before, loss, flat_on(backend, arrays, dtype))
        assert bits(state) == bits(before)
        assert not state.healthy.item()
        assert math.isfinite(norm.item()) == (where == "loss")

        # Nor does anything after it.
        good = flat_on(backend, gradients(4), dtype)
        state, _ = optimizer.update(state, number(backend, 1.0, str(dtype)), good)
    assert bits(state) == bits(before)
    assert not state.healthy.item()


def test_a_norm_that_overflows_is_not_finite(backend: Backend) -> None:
    optimizer, before = trained_a_little(backend)
    arrays = gradients(3) | {"scale": np.array(1e200)}
    with np.errstate(all="ignore"):
        state, norm = optimizer.update(before, number(backend, 1.0), flat_on(backend, arrays))
    assert norm.item() == math.inf
    assert bits(state) == bits(before)


def test_large_but_finite_numbers_are_healthy(backend: Backend) -> None:
    optimizer, before = trained_a_little(backend)
    arrays = {name: np.full(shape, 1e153) for name, shape in SHAPES.items()}
    state, norm = optimizer.update(before, number(backend, -1.7e308), flat_on(backend, arrays))
    assert state.healthy.item()
    assert norm.item() == pytest.approx(1e153 * math.sqrt(17))
    assert bits(state) != bits(before)


def norms(backend: Backend, grad_clip: float | None, grads: Sequence[float]) -> tuple[float, float]:
    """The norm reported for a gradient, and that of what entered the first moment."""
    params = Parameters.from_host({"x": np.zeros(len(grads))}, backend, DType.float64)
    optimizer = AdamW(linear(2, 0.1), params, beta1=0.5, grad_clip=grad_clip)
    g = tensor(np.array(grads, "float64"), backend)
    state, norm = optimizer.update(TrainState.start(params), number(backend, 0.0), g)
    return norm.item(), float(np.linalg.norm(state.m.numpy() / 0.5))


@pytest.mark.parametrize(
    ("grad_clip", "grads", "seen", "used"),
    [
        (None, [3, 4], 5, 5),
        (1.0, [3, 4], 5, 1),
        (5.0, [3, 4], 5, 5),
        (1.0, [0.3, 0.4], 0.5, 0.5),
        (1.0, [0, 0], 0, 0),
    ],
)
def test_the_gradient_is_capped_and_its_norm_told_before(
    backend: Backend, grad_clip: float | None, grads: list[float], seen: float, used: float
) -> None:
    assert norms(backend, grad_clip, grads) == pytest.approx((seen, used), rel=1e-15)


def test_the_state_keeps_its_dtypes(backend: Backend) -> None:
    _, state = trained_a_little(backend, DType.float32)
    assert state.params.flat.dtype == state.m.dtype == state.v.dtype == DType.float32
    assert (state.step.dtype, state.step.shape) == (backend.index_dtype, ())
    assert (state.healthy.dtype, state.healthy.shape) == (DType.bool, ())


def test_a_step_moves_nothing_between_host_and_device() -> None:
    strict = StrictBackend()
    optimizer, state = trained_a_little(strict)
    loss, grads = number(strict, 1.0), on(strict, gradients(3))
    before = strict.transfers.copy()
    optimizer.update(state, loss, state.params.flatten(grads))
    assert strict.transfers == before


def test_a_state_is_taken_up_where_it_was_kept(backend: Backend) -> None:
    state = start_on(backend)
    optimizer = AdamW(linear(3, 0.1), state.params)
    for step in range(2):
        g = flat_on(backend, gradients(step))
        state, _ = optimizer.update(state, number(backend, 1.0), g)
    kept = state.moments()
    assert kept.keys() == {f"{which}.{name}" for which in "mv" for name in SHAPES}
    m, v = ({name: kept[f"{which}.{name}"] for name in SHAPES} for which in "mv")
    again = TrainState.resumed(state.params, m, v, 2)
    for ours, theirs in zip(tree.leaves(again), tree.leaves(state), strict=True):
        assert ours.dtype is theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
