"""The NumPy backend's plans: made before there are numbers, carried out over and over."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.backends.numpy.kernels import KERNELS
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend, Fused
from tfx.core.dtypes import DType
from tfx.core.fused import FUSED, composed
from tfx.core.tensor import Tensor
from tfx.core.tolerances import TOLERANCES, gaps
from tfx.testing.calling import told
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.records import Op
from tfx.testing.trials import trials

B = NumpyBackend()
BY_NAME = {kernel.name: kernel for kernel in KERNELS}


@dataclass
class Memory:
    """A workspace whose memory is full of NaN, and scratch is again when the calls are done.

    Attributes:
        roomy: results are parts of larger arrays.
        granted: the positions of results that may lie over their argument.
    """

    roomy: bool = False
    granted: frozenset[int] = frozenset()
    lent: list[Any] = field(default_factory=list)

    def result(self, shape: tuple[int, ...], dtype: Any, of: int = 0) -> Any:
        if not self.roomy or not shape:
            return _spoilt(shape, dtype)
        return _spoilt((*shape[:-1], shape[-1] + 3), dtype)[..., 1:-2]

    def saved(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return _spoilt(shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.lent.append(_spoilt(shape, dtype))
        return self.lent[-1]

    def may_overwrite(self, x: Any, of: int = 0) -> bool:
        return of in self.granted

    def carry_out(self, calls: Sequence[Any]) -> None:
        for function, args in calls:
            function(*args)
        for x in self.lent:
            _spoil(x)


def _spoilt(shape: tuple[int, ...], dtype: Any) -> Any:
    x = np.empty(shape, dtype)
    _spoil(x)
    return x


def _spoil(x: Any) -> None:
    x[...] = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).max if x.dtype.kind == "i" else 1


WITHOUT_GRADIENT = {"adamw_step", "linear_q8", "linear_q4", "linear_half"}


def kernel_calls(op: Op, dtype: DType, layout: str) -> list[tuple[Sequence[Any], dict[str, Any]]]:
    """Raw arguments and keywords of every call that the op's samples make of its kernel."""
    backend = NumpyBackend()
    name = op.name.split()[0]
    kernel = backend.fused[name]
    seen = []

    def forward(B: Backend, *raw: Any, **params: Any) -> tuple[Any, Any]:
        seen.append((raw, params))
        return kernel.forward(B, *raw, **params)

    backend.fused[name] = Fused(name, forward, supports=kernel.supports)
    for trial in trials(op, op.samples, backend, dtype, (layout,)):
        op.call(*trial.tensors(backend), **trial.sample.statics)
    return seen


def turned(raw: Sequence[Any], name: str) -> list[Any]:
    """Other arguments of the same shapes."""
    return [_turned(x, name) if isinstance(x, np.ndarray) else x for x in raw]


def _turned(x: Any, name: str) -> Any:
    if x.dtype.kind == "b":
        return np.asarray(~x)
    if x.dtype.kind == "i":
        return np.asarray(x - 1) if name == "attention" else np.flip(x)
    return np.asarray(np.flip(x) * x.dtype.type(0.75))


def by_definition(
    name: str, raw: Sequence[Any], params: dict[str, Any], g: Any
) -> tuple[list[Any], list[Any]]:
    """Results and, weighted by `g`, gradients of the composed form."""
    tensors = [Tensor(x, B) if isinstance(x, np.ndarray) else x for x in raw]
    at = [i for i, x in enumerate(raw) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]

    def value(some: Sequence[Tensor]) -> Any:
        args = list(tensors)
        for i, x in zip(at, some, strict=True):
            args[i] = x
        return FUSED[name](*args, **params)

    with composed():
        out = value([tensors[i] for i in at])
        if g is None:
            return [x.numpy() for x in (out if isinstance(out, tuple) else [out])], []
        some = [tensors[i] for i in at]
        _, grads = value_and_grad(lambda p: (value(p) * Tensor(g, B)).sum(), autograd="core")(some)
    found: list[Any] = [None] * len(raw)
    for i, x in zip(at, grads, strict=True):
        found[i] = x.numpy()
    return [out.numpy()], found


def assert_near(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    wide = expected.astype(np.float64)
    scale = max(1.0, np.abs(wide).max(initial=0.0, where=np.isfinite(wide)))
    bound = TOLERANCES[DType(expected.dtype.name)].bound * scale
    assert (gaps(found.astype(np.float64), wide) <= bound).all()


def check_plan(
    name: str, rounds: Sequence[Sequence[Any]], params: dict[str, Any], memory: Memory
) -> None:
    """Plan on spoilt arguments; then carry the plan out on each round's."""
    kernel = BY_NAME[name]
    assert kernel.plan is not None
    values = [[x.copy() if isinstance(x, np.ndarray) else x for x in raw] for raw in rounds]
    raw = rounds[0]
    arrays = [i for i, x in enumerate(raw) if isinstance(x, np.ndarray)]
    for i in arrays:
        _spoil(raw[i])
    out, saved, calls = kernel.plan(B, memory, *raw, **params)
    g, back = None, None
    assert (kernel.plan_vjp is None) == (name in WITHOUT_GRADIENT)
    if kernel.plan_vjp is not None:
        g = _spoilt(out.shape, out.dtype)
        back = kernel.plan_vjp(B, memory, g, out, saved, *raw, **params)
    for i in range(len(values)):
        _carry_out(name, raw, values[i], params, memory, (out, calls), g, back)


def _carry_out(
    name: str,
    raw: Sequence[Any],
    values: Sequence[Any],
    params: dict[str, Any],
    memory: Memory,
    forward: Any,
    g: Any,
    back: Any,
) -> None:
    arrays = [i for i, x in enumerate(raw) if isinstance(x, np.ndarray)]
    for i in arrays:
        raw[i][...] = values[i]
    out, calls = forward
    weights = None
    if g is not None:
        weights = np.random.default_rng(1).standard_normal(g.shape).astype(g.dtype)
        g[...] = weights
    memory.carry_out(calls)
    if back is not None:
        memory.carry_out(back[1])
    outs, grads = by_definition(name, values, params, weights)
    for mine, theirs in zip(out if isinstance(out, tuple) else [out], outs, strict=True):
        assert_near(mine, theirs)
    for i in arrays:
        if i not in memory.granted:
            np.testing.assert_array_equal(raw[i], values[i])
        if grads and grads[i] is not None and back[0][i] is not None:
            assert_near(back[0][i], grads[i])
    if grads:
        for mine, theirs in zip(back[0], grads, strict=True):
            assert mine is not None or theirs is None or name == "attention"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "op", [op for op in FUSED_OPS if op.name.split()[0] in NumpyBackend().fused], ids=str
)
@pytest.mark.parametrize(
    ("dtype", "layout", "roomy"),
    [
        (DType.float64, "plain", False),
        (DType.float64, "plain", True),
        (DType.float64, "strided", False),
        (DType.float64, "transposed", True),
        (DType.float32, "plain", True),
    ],
)
def test_a_plan_holds_for_whatever_is_in_its_arguments(
    op: Op, dtype: DType, layout: str, roomy: bool
) -> None:
    name = op.name.split()[0]
    calls = kernel_calls(op, dtype, layout)
    assert calls
    for raw, params in calls:
        rounds = [raw, turned(raw, name), raw]
        with told([getattr(x, "shape", x) for x in raw], params):
            check_plan(name, rounds, params, Memory(roomy))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_few_scores_of_any_size(size: float) -> None:
    q, k, v = np.random.default_rng(0).standard_normal((3, 5, 8))
    for causal in (True, False):
        for heads in (None, 4):
            rounds = [[x.copy(), k * size, v, 0.5, None, None, None] for x in (q, q * size)]
            check_plan("attention", rounds, {"causal": causal, "heads": heads}, Memory())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_few_scores_that_see_nothing_are_zeros() -> None:
    q, k, v = np.ones((3, 5, 8))
    k[0] = -np.inf
    for causal in (True, False):
        out, _ = BY_NAME["attention"].forward(
            B, q, k, v, 0.5, None, None, None, causal=causal, heads=None
        )
        assert (out[0] == (0 if causal else 1)).all() and (out[1:] == 1).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("size", [1.0, 400.0])
def test_few_logits_of_any_size(size: float) -> None:
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((5, 7)), rng.integers(0, 7, 5)
    check_plan("cross_entropy", [[x.copy(), targets], [x * size, targets[::-1]]], {}, Memory())
    x[:, 3] = -np.inf
    targets[targets == 3] = 4
    out, _ = BY_NAME["cross_entropy"].forward(B, x, targets)
    with composed():
        assert_near(out, FUSED["cross_entropy"](Tensor(x, B), Tensor(targets, B)).numpy())


@pytest.mark.parametrize("count", [1, 5])
def test_one_gradient_for_all_losses(count: int) -> None:
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((count, 7)), rng.integers(0, 7, count)
    kernel = BY_NAME["cross_entropy"]
    out, saved = kernel.forward(B, x, targets)
    assert kernel.vjp is not None
    found = kernel.vjp(B, np.broadcast_to(np.float64(0.3), count), out, saved, x, targets)
    _, (expected, _) = by_definition("cross_entropy", [x, targets], {}, np.full(count, 0.3))
    assert_near(found[0], expected)


@pytest.mark.parametrize("granted", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("healthy", [True, False])
def test_only_what_is_granted_is_overwritten(granted: tuple[int, ...], healthy: bool) -> None:
    rng = np.random.default_rng(0)
    p, g, m, v = rng.random((4, 70_001))
    raw = [p, g, m, v, np.array([0.1, 1.5, 1.25]), None, np.array(healthy), None]
    params = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    before = [x.copy() for x in raw[:4]]
    memory = Memory(granted=frozenset(granted))
    kernel = BY_NAME["adamw_step"]
    assert kernel.plan is not None
    out, _, calls = kernel.plan(B, memory, *raw, **params)
    expected, _ = by_definition("adamw_step", raw, params, None)
    memory.carry_out(calls)
    for i, (x, old, new) in enumerate(zip((p, m, v), (0, 2, 3), out, strict=True)):
        assert (new is x) == (i in granted)
        assert_near(new, expected[i])
        if i not in granted:
            np.testing.assert_array_equal(x, before[old])
    np.testing.assert_array_equal(g, before[1])


def _large() -> dict[str, tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 200, 256))
    w, row = rng.standard_normal((256, 256)), rng.standard_normal(256)
    ids = rng.integers(0, 256, (2, 200))
    flat = rng.random((4, 100_000))
    rates = np.array([0.1, 1.5, 1.25])
    adam = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    masks = {"causal": True, "heads": 4}
    return {
        "linear": ((x, w, row, x), {"activation": "gelu", "outputs_first": True}),
        "gelu": ((x,), {"approximate": "tanh"}),
        "rms_norm": ((x, row), {"eps": 1e-5}),
        "layer_norm": ((x, row, row), {"eps": 1e-5}),
        "softmax": ((x,), {}),
        "attention": ((x, x, x, 0.1, np.array(0), None, None), masks),
        "cross_entropy": ((x, ids), {}),
        "embedding": ((w, ids), {}),
        "euclidean_norm": ((flat[0],), {}),
        "adamw_step": ((*flat, rates, flat[0], np.array(True), np.array(0.5)), adam),
    }


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - WITHOUT_GRADIENT | {"adamw_step"}))
def test_calls_allocate_next_to_nothing(name: str) -> None:
    raw, params = _large()[name]
    kernel = BY_NAME[name]
    assert kernel.plan is not None
    memory = Memory()
    out, saved, calls = kernel.plan(B, memory, *raw, **params)
    peaks = [_peak(lambda: memory.carry_out(calls))]
    if kernel.plan_vjp is not None:
        g = np.ones(out.shape)
        _, back = kernel.plan_vjp(B, memory, g, out, saved, *raw, **params)
        peaks.append(_peak(lambda: memory.carry_out(back)))
    assert max(peaks) < raw[0].nbytes / 4, peaks


def _peak(run: Callable[[], None]) -> int:
    """Bytes that a second run has in use at its height."""
    run()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
