"""The kernels by Numba where the conformance kit does not look: as plans over memory settled
beforehand, in tiles, on several threads, far from 0, against torch, and kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from tfx.backends.numba import attention, compiling, plugin, tiles
from tfx.backends.numba.arithmetic import exp, highest, row
from tfx.backends.numba.compiling import Row, Rows, compiled
from tfx.backends.numba.skinny import skinny
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Fused
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.plugins import import_target
from tfx.core.tensor import Tensor
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.trials import check_gradients, check_values

KERNELS: list[Fused] = [import_target(spec.target) for spec in plugin.tfx_kernels()]


@pytest.fixture
def B() -> NumpyBackend:
    """The NumPy backend with these kernels, and a record of its own to change."""
    backend = NumpyBackend()
    backend.fused.update({kernel.name: kernel for kernel in KERNELS})
    return backend


# ---- arithmetic ------------------------------------------------------------------------------


@compiled
def _exps(out: Row, x: Row) -> None:
    for j in range(len(x)):
        out[j] = exp(x[j])


@compiled
def _tops(out: Row, x: Rows) -> None:
    for i in range(len(out)):
        out[i] = highest(row(x, i))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_is_good_to_two_units_in_the_last_place(dtype: Any) -> None:
    limits = np.finfo(dtype)
    least, most = np.log(np.longdouble(limits.tiny)), np.log(np.longdouble(limits.max))
    x = np.concatenate([np.linspace(least, most, 100_001)[1:-1], np.linspace(-1, 1, 9999)])
    x = x.astype(dtype)
    found = np.empty_like(x)
    _exps.of(x.dtype)(found, x)
    expected = np.exp(x.astype(np.longdouble))
    assert np.abs(found / expected - 1).max() < 2 * limits.eps
    ends = np.array([np.nan, -np.inf, np.inf, -1e30, 1e30, 0, 1.001 * most, 1.2 * least], dtype)
    found = np.empty_like(ends)
    _exps.of(x.dtype)(found, ends)
    np.testing.assert_array_equal(found, [np.nan, 0, np.inf, 0, np.inf, 1, np.inf, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_highest_is_finite(dtype: Any) -> None:
    x = np.full((6, 37), -np.inf, dtype)
    x[1, 36], x[2, :2], x[3, 5], x[4] = -3, (-5, -4), 7, np.linspace(-2, -1, 37)
    x[5, [3, 30]] = np.inf, 1
    found = np.empty(6, dtype)
    _tops.of(x.dtype)(found, x)
    assert found.tolist() == [np.finfo(dtype).min, -3, -4, 7, -1, np.inf]


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64])
@pytest.mark.parametrize("name", ["gelu_new", "gelu", "silu", "relu"])
def test_activations_of_large_numbers(B: NumpyBackend, name: Any, dtype: DType) -> None:
    """Far from 0, where nothing may overflow, and both branches of erf."""
    numbers = [-1e4, -40.0, -8.0, -5.0, -0.7, -0.6, 0.0, 0.6, 0.7, 5.0, 8.0, 40.0, 1e4]
    x, one = tensor([numbers], B, dtype), tensor(np.eye(13), B, dtype)

    def results() -> list[Any]:
        value, slope = value_and_grad(lambda x: nn.linear(x, one, activation=name).sum())(x)
        return [nn.linear(x, one, activation=name).numpy(), value.numpy(), slope.numpy()]

    found = results()
    with composed():
        expected = results()
    tolerance = 1e-6 if dtype is DType.float32 else 1e-14
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["gelu_new", "gelu", "silu"])
def test_not_a_number_stays_so(B: NumpyBackend, name: Any) -> None:
    x = tensor([[np.nan, 1.0]], B, DType.float32)
    hidden = nn.linear(x, tensor(np.ones((2, 3)), B, DType.float32), activation=name)
    assert np.isnan(hidden.numpy()).all()
    for y in (nn.softmax(x), nn.layer_norm(x, x[0] * 0 + 1, x[0]), nn.rms_norm(x)):
        assert np.isnan(y.numpy()).all()
    assert np.isnan(nn.cross_entropy(x, tensor([1], B)).numpy()).all()


# ---- plans -----------------------------------------------------------------------------------


class Odd:
    """Memory full of NaN, of which results are parts of larger arrays."""

    def result(self, shape: tuple[int, ...], dtype: Any, of: int = 0) -> Any:
        if not shape:
            return self.saved(shape, dtype)
        *outside, last = shape
        return (
            self.saved((*outside, last + 3), dtype)[..., :last]
            if outside
            else self.saved(shape, dtype)
        )

    def saved(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.full(shape, np.nan).astype(dtype)

    scratch = saved

    def may_overwrite(self, x: Any, of: int = 0) -> bool:
        return False


class Giving(Odd):
    """Lets results take the place of arguments."""

    def may_overwrite(self, x: Any, of: int = 0) -> bool:
        return True


def replayed(kernel: Fused) -> Fused:
    """The kernel as a program has it: planned before there are values, and called twice."""

    def later(plan: Any, *raw: Any, **params: Any) -> Any:
        places = [np.zeros_like(x) if isinstance(x, np.ndarray) else x for x in raw]
        *planned, calls = plan(NumpyBackend(), Odd(), *places, **params)
        for place, x in zip(places, raw, strict=True):
            if isinstance(x, np.ndarray):
                np.copyto(place, x)
        for function, args in (*calls, *calls):
            function(*args)
        return planned

    def forward(B: Any, *raw: Any, **params: Any) -> Any:
        return tuple(later(kernel.plan, *raw, **params))

    def vjp(B: Any, g: Any, out: Any, saved: Any, *raw: Any, **params: Any) -> Any:
        def plan(B: Any, space: Any, g: Any, *raw: Any, **params: Any) -> Any:
            assert kernel.plan_vjp is not None
            return kernel.plan_vjp(B, space, g, out, saved, *raw, **params)

        return later(plan, g, *raw, **params)[0]

    return replace(kernel, forward=forward, vjp=vjp if kernel.vjp else None)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [kernel.name for kernel in KERNELS])
def test_plans_read_nothing_before_they_are_carried_out(B: NumpyBackend, name: str) -> None:
    B.fused[name] = replayed(B.fused[name])
    for op in FUSED_OPS:
        if op.name.split()[0] == name:
            check_values(op, B, op.samples, DType.float64)
            check_gradients(op, B, op.samples, DType.float64)


def test_an_optimizer_may_work_in_place(B: NumpyBackend) -> None:
    rng = np.random.default_rng(1)
    p, g, m, v, decay = rng.random((5, 3001))
    rates, factor = np.array([0.1, 1.5, 1.25]), np.array(0.5)
    plan = B.fused["adamw_step"].plan
    assert plan is not None
    for moves in (True, False):
        args = g, m, v, rates, decay, np.array(moves), factor
        params = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
        expected, _ = B.fused["adamw_step"].forward(B, p, *args, **params)
        own = [x.copy() for x in (p, m, v)]
        new, _, calls = plan(B, Giving(), own[0], g, own[1], own[2], *args[3:], **params)
        for function, call in calls:
            function(*call)
        for mine, given, wanted in zip(new, own, expected, strict=True):
            assert mine is given
            np.testing.assert_array_equal(mine, wanted)
        assert (new[0] == p).all() != moves


def test_a_loss_may_turn_logits_into_their_gradient(B: NumpyBackend) -> None:
    rng = np.random.default_rng(2)
    logits, targets, g = rng.standard_normal((5, 11)), rng.integers(0, 11, 5), rng.random(5)
    kernel = B.fused["cross_entropy"]
    assert kernel.vjp is not None and kernel.plan_vjp is not None
    out, saved = kernel.forward(B, logits, targets)
    expected, _ = kernel.vjp(B, g, out, saved, logits, targets)
    (found, _), calls = kernel.plan_vjp(B, Giving(), g, out, saved, logits, targets)
    for function, args in calls:
        function(*args)
    assert found is logits
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("activation", [None, "gelu_new"])
def test_weights_that_were_borrowed_stay_as_they_are(B: NumpyBackend, activation: Any) -> None:
    weights = np.ones((4, 4), np.float32)
    w = Tensor(B.borrow(weights, dtype=DType.float32), B)
    nn.linear(tensor(np.ones((2, 4), np.float32), B), w, w[0], w[:2], activation=activation)
    nn.layer_norm(w, w[0], w[1])
    assert (weights == 1).all()


@pytest.mark.parametrize("rows", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("outputs_first", [False, True])
def test_products_of_few_rows(rows: int, outputs_first: bool) -> None:
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, 262)).astype(np.float32)[:, 1:-2]
    w = rng.standard_normal((259, 1031)).astype(np.float32)
    w = np.asfortranarray(w) if outputs_first else w
    out = np.full((rows, 1031), np.nan, np.float32)
    call = skinny(x, w, out)
    assert call is not None
    function, args = call
    function(*args)
    np.testing.assert_allclose(out, x.astype(np.float64) @ w, atol=1e-4)


def test_products_of_other_kinds_are_left_to_blas() -> None:
    x, w = np.ones((4, 512), np.float32), np.ones((512, 1024), np.float32)
    for left, right in ((x[:1], w), (np.ones((9, 512), np.float32), w), (x, w[:, :8])):
        assert skinny(left, right, np.empty((len(left), right.shape[1]), np.float32)) is None
    turned = np.ones((512, 4), np.float32).T
    assert skinny(turned, w, np.empty((4, 1024), np.float32)) is None
    wide = x.astype(np.float64), w.astype(np.float64)
    assert skinny(*wide, np.empty((4, 1024))) is None


# ---- attention -------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 2, 128])
def test_attention_in_tiles(B: NumpyBackend, monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    monkeypatch.setattr(tiles, "_QUERIES", queries)
    monkeypatch.setattr(attention, "_in_one", lambda q, k: False)
    B.fused["attention"] = replayed(B.fused["attention"])
    for op in FUSED_OPS:
        if op.name.startswith("attention"):
            check_values(op, B, op.samples, DType.float64)
            check_gradients(op, B, op.samples, DType.float64)


@pytest.mark.parametrize("queries", [1, 30])
def test_a_cache_is_read_as_far_as_it_is_written(B: NumpyBackend, queries: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 40, 32))
    x[:, 36:] = np.nan
    cache, start = tensor(x, B), 36 - queries
    q = cache[:, start:36]
    found = nn.attention(q, cache, cache, 0.5, tensor(start, B), heads=2).numpy()
    seen = cache[:, :36]
    expected = nn.attention(q, seen, seen, 0.5, tensor(start, B), heads=2).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("length", [5, 150])
def test_attention_is_that_of_torch(B: NumpyBackend, length: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(4).standard_normal((2, length, 3 * 32)).astype(np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    parts = [y.unflatten(-1, (4, 8)).transpose(1, 2) for y in theirs.chunk(3, -1)]
    y = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    y = y.transpose(1, 2).flatten(2)
    y.square().sum().backward()

    def loss(x: Tensor) -> Tensor:
        y = nn.attention(x[..., :32], x[..., 32:64], x[..., 64:], 8**-0.5, heads=4)
        return (y * y).sum()

    value, slope = value_and_grad(loss)(tensor(x, B))
    np.testing.assert_allclose(value.item(), y.square().sum().item(), rtol=1e-5)
    np.testing.assert_allclose(slope.numpy(), theirs.grad.numpy(), atol=2e-5)


# ---- threads ---------------------------------------------------------------------------------


def test_several_threads_give_the_same_bits(
    B: NumpyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numba

    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba is held to one thread")
    rng = np.random.default_rng(5)
    x, gain, bias = (tensor(rng.standard_normal(n), B) for n in ((300, 24), 24, 24))
    targets = tensor(rng.integers(0, 24, 300), B)

    def results() -> list[Any]:
        def loss(p: list[Tensor]) -> Tensor:
            return nn.cross_entropy(nn.layer_norm(*p), targets).sum()

        value, slopes = value_and_grad(loss)([x, gain, bias])
        return [y.tolist() for y in (value, *slopes)]

    alone = results()
    monkeypatch.setattr(compiling, "MANY", 1)
    monkeypatch.setattr(compiling, "threads", lambda: 2)
    assert results() == alone


def test_fewer_threads_are_asked_for_by_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 4)
    for text, expected in (("", 4), ("3", 3), ("8", 4), ("2,1", 2), ("many", 4), ("0", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        compiling.threads.cache_clear()
        assert compiling.threads() == expected
    compiling.threads.cache_clear()


# ---- the plugin ------------------------------------------------------------------------------


def test_without_numba_it_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    assert plugin.tfx_kernels() == []


PROGRAM = """if True:
    import sys, tfx
    from tfx.core.plugins import PluginHost
    assert any(name == "numpy:rms_norm" for name in PluginHost().kernels())
    print("numba" in sys.modules, end=" ")
    from tfx.core import nn
    x = tfx.tensor([[3.0, 4.0]], tfx.backend("numpy"))
    from numba.core import event
    with event.install_recorder("numba:compile") as recorder:
        import numpy as np
        from tfx.backends.numba.small import small
        from tfx.core.planning import FRESH
        out = np.empty((1, 1))
        for function, args in small(np.ones((1, 2)), np.ones((2, 1)), out, FRESH):
            function(*args)
        print(out.item() == 2, end=" ")
        print(abs(nn.rms_norm(x).numpy() ** 2 - [0.72, 1.28]).max() < 1e-5, end=" ")
    print(len(recorder.buffer))
"""


@pytest.mark.slow
def test_what_was_compiled_is_kept_for_the_next_process(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    for imported, *right, _ in said:
        assert imported == "False" and right == ["True", "True"]
    first, second = (int(compiled) for *_, compiled in said)
    assert first > 0 and second == 0


PRODUCTS = """
import sys
import numpy as np
from tfx.backends.numba.quantized import LINEAR_Q4, LINEAR_Q8

numbers = np.random.default_rng(1)
x = numbers.standard_normal((3, 128)).astype(np.float32)
ones = np.ones((5, 2), np.float32)
for bits in sys.argv[1:]:
    if bits == "8":
        kernel, w = LINEAR_Q8, numbers.integers(-127, 128, (5, 128))
        q = w.astype(np.int8)
    else:
        kernel, w = LINEAR_Q4, numbers.integers(-8, 8, (5, 128))
        lower, upper = (w + 8).astype(np.uint8).reshape(5, 2, 2, 32).transpose(2, 0, 1, 3)
        q = (lower | upper << 4).reshape(5, 64)
    found, _ = kernel.forward(None, x, q, ones, None, None, activation=None)
    assert np.abs(found - x @ w.T).max() < 0.02 * np.abs(x @ w.T).max(), bits
"""


@pytest.mark.slow
def test_code_kept_by_several_processes_is_right_in_one(tmp_path: Path) -> None:
    """Its symbols are those of the process that compiled it."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for order in ["8"], ["4"], ["8", "4"], ["4", "8"]:
        run = [sys.executable, "-c", PRODUCTS, *order]
        done = subprocess.run(run, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


BY_SEVERAL = """
import sys
from tfx.backends.numba import compiling
compiling.MANY = 1
from tfx.cli.main import main
sys.argv = ["tfx", "conformance", "numpy", "--level", "L3", "-k", "float32"]
main()
"""


@pytest.mark.slow
def test_no_two_pieces_of_code_share_a_file(tmp_path: Path) -> None:
    """Numba numbers the files of a function; two processes that begin at once may take one number
    for two variants."""
    script = """
import numpy as np
from tfx.backends.numba.quantized_floats import WIDEN

for kind in "q8", "q4":
    for scales in "float32", "uint16":
        WIDEN[kind].of(np.dtype("float32"), np.dtype(scales))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert len(list(tmp_path.rglob("*.nbi"))) == len(list(tmp_path.rglob("*.nbc"))) == 4


@pytest.mark.slow
def test_kernels_by_several_threads_are_what_they_replace(tmp_path: Path) -> None:
    """As if every array were large."""
    environment = os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    run = [sys.executable, "-c", BY_SEVERAL]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
