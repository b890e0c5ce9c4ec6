"""What is particular to the cupy backend: devices, streams, and what it never copies.

Tests that need a CUDA device, real or simulated, are skipped where the probe finds none. Those that
count copies ask the simulated device, `cudasim`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tfx.backends.cupy import plugin
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError
from tfx.core.quantized import linear_q4
from tfx.core.specs import Probe
from tfx.models.microgpt import model
from tfx.testing.calling import put
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Op
from tfx.testing.trials import Trial, check_values


@pytest.fixture
def no_copies(B: Backend) -> Callable[[], Any]:
    """A context in which nothing may cross between host and device, nor wait for it."""
    cudasim = pytest.importorskip("cudasim", reason="only a simulated device counts copies")

    @contextmanager
    def watched() -> Iterator[None]:
        cudasim.counts(reset=True)
        yield
        counts = cudasim.counts()
        crossings = {name: counts[name] for name in ("host_to_device", "device_to_host", "syncs")}
        assert crossings == dict.fromkeys(crossings, 0)

    return watched


# ---- devices and streams -------------------------------------------------------------------------


def test_it_does_not_open_where_it_cannot_run(B: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Probe(ready=False, reason="no CUDA driver found", cure="install one")
    monkeypatch.setattr("tfx.backends.cupy.backend.probe", lambda: nowhere)
    with pytest.raises(
        BackendError, match=r"^backend 'cupy' cannot run here: no CUDA driver found; install one$"
    ):
        type(B)()


def test_a_device_is_named_by_its_number(B: Backend) -> None:
    assert (str(B), B.device) == ("cupy:0", "0")
    assert str(type(B)("0")) == "cupy:0"
    with pytest.raises(BackendError, match=r"^backend 'cupy' has no device '99' here; it has: 0"):
        type(B)("99")


def test_every_primitive_runs_on_its_device_whichever_is_current(cupy: Any, B: Backend) -> None:
    devices = plugin.probe().devices
    if len(devices) < 2:
        pytest.skip("one CUDA device; this takes two")
    second = type(B)("1")
    for op in PRIMITIVE_OPS.values():
        trial = Trial(op, op.samples[0], DType.float32)
        out = getattr(second, op.name)(*trial.raw(second), **trial.sample.statics)
        assert cupy.cuda.runtime.getDevice() == 0
        assert (second.is_array(out), B.is_array(out)) == (True, False)
        np.testing.assert_allclose(second.to_numpy(out), trial.expected, rtol=1e-5, atol=1e-5)
    made = second.full(shape=(), value=3, dtype=DType.int64), second.arange(stop=3)
    bits = second.random_bits(made[0], key=(0, 1), shape=(3,), bits=24)
    assert all(second.is_array(x) for x in (*made, bits))


def test_work_and_its_result_stay_in_order_on_the_users_stream(cupy: Any, B: Backend) -> None:
    values = np.random.default_rng(0).standard_normal((50, 50))
    with cupy.cuda.Stream(non_blocking=True):
        x = tensor(values, B)
        for _ in range(5):
            x = (x @ x).tanh()
        found = x.numpy()
    for _ in range(5):
        values = np.tanh(values @ values)
    np.testing.assert_allclose(found, values, rtol=1e-9)
    B.synchronize()


def test_asarray_has_its_copy_at_once(B: Backend) -> None:
    values = np.arange(1e5)
    x = B.asarray(values, dtype=DType.float64)
    values[:] = -1
    np.testing.assert_array_equal(B.to_numpy(x), np.arange(1e5))


# ---- what is never copied ------------------------------------------------------------------------


@pytest.mark.parametrize("op", PRIMITIVE_OPS.values(), ids=str)
def test_no_primitive_crosses_to_the_host(op: Op, B: Backend, no_copies: Callable[[], Any]) -> None:
    for sample in op.samples:
        raw = Trial(op, sample, DType.float32).raw(B)
        with no_copies():
            getattr(B, op.name)(*raw, **sample.statics)


def test_making_arrays_and_many_pieces_copies_nothing(
    B: Backend, no_copies: Callable[[], Any]
) -> None:
    with no_copies():
        counter = B.full(shape=(), value=3, dtype=DType.int64)
        B.random_bits(counter, key=(1, 2), shape=(3, 5), bits=24)
        pieces = [B.full(shape=(2, 3), value=0.5, dtype=DType.float16) for _ in range(50)]
        B.concat(*pieces, axis=1)
        B.cast(B.arange(stop=5), dtype=DType.bfloat16)


def test_a_training_step_copies_nothing(B: Backend, no_copies: Callable[[], Any]) -> None:
    """And its loss and gradients are NumPy's."""
    config = model.Config(vocab_size=11)
    weights = model.initial_weights(config, random.Random(0))

    def step(backend: Backend, watched: Callable[[], Any]) -> tuple[Any, Any]:
        params = {name: tensor(values, backend) for name, values in weights.items()}
        window = ([10, 3, 3, 7], [3, 3, 7, 10], [0.25] * 4)
        read = [tensor(np.array(x), backend) for x in window]
        with watched():
            return value_and_grad(model.loss)(params, config, *read)

    loss, grads = step(B, no_copies)
    expected, numpy_grads = step(NumpyBackend(), contextmanager(lambda: iter([None])))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for name, g in numpy_grads.items():
        np.testing.assert_allclose(grads[name].numpy(), g.numpy(), rtol=1e-9, atol=1e-12)


# ---- scatter_add and write -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int32", "int64", "float16", "float32", "float64"]
)
def test_scatter_add_in_every_dtype(B: Backend, dtype: str) -> None:
    """Those the device cannot add to atomically too; integers wrap."""
    x, updates = np.full((2, 4), 100, dtype), np.full((2, 3), 90, dtype)
    indices = np.array([1, 3, 1])
    out = B.scatter_add(*(put(B, a, "plain") for a in (x, indices, updates)), axis=1)
    expected = x.copy()
    np.add.at(expected, (slice(None), indices), updates)
    np.testing.assert_array_equal(B.to_numpy(out), expected, strict=True)


@pytest.mark.parametrize("on_device", [False, True])
def test_write_is_in_place_but_for_shared_cells(B: Backend, cupy: Any, on_device: bool) -> None:
    start = cupy.array(2, "int32") if on_device else 2
    slab = B.full(shape=(2, 1), value=7.0, dtype=DType.float32)
    buffer = B.full(shape=(2, 4), value=0.0, dtype=DType.float32)
    assert B.write(buffer, slab, start, axis=1).data.ptr == buffer.data.ptr
    assert buffer.tolist() == [[0, 0, 7, 0]] * 2
    shared = B.broadcast_to(B.full(shape=(), value=0.0, dtype=DType.float32), shape=(2, 4))
    assert B.write(shared, slab, start, axis=1).tolist() == [[0, 0, 7, 0]] * 2
    assert shared.tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("start", [1, np.int32(1), np.int64(1)])
def test_a_slab_goes_anywhere_in_one_launch(B: Backend, cupy: Any, start: Any) -> None:
    """Whichever axis, dtype and layout, and however far along the position says."""
    cudasim = sys.modules.get("cudasim")
    rng = np.random.default_rng(0)
    at = start if type(start) is int else cupy.asarray(start)
    for shape, axis, count in (((2, 5, 3), 1, 2), ((4,), 0, 3), ((2, 3, 4, 5), 2, 2)):
        for dtype in ("float32", "float16", "int8", "bool", "int64"):
            host = rng.integers(0, 100, shape).astype(dtype)
            slab = rng.integers(0, 100, (*shape[:axis], count, *shape[axis + 1 :])).astype(dtype)
            expected = host.copy()
            expected[(slice(None),) * axis + (slice(1, 1 + count),)] = slab
            for order in "CF":
                buffer, new = (cupy.array(x, order=order) for x in (host, slab))
                if cudasim is not None:
                    cudasim.counts(reset=True)
                B.write(buffer, new, at, axis=axis)
                assert cudasim is None or cudasim.counts()["launches"] == 1
                np.testing.assert_array_equal(B.to_numpy(buffer), expected)


def test_half_products_accumulate_in_float32(B: Backend) -> None:
    """Sums of ones would stop at 2048 if they did not."""
    for left in ((1, 4000), (2, 4000), (3, 2, 4000)):
        x = B.full(shape=left, value=1.0, dtype=DType.float16)
        y = B.full(shape=(4000, 5), value=1.0, dtype=DType.float16)
        assert set(B.to_numpy(B.matmul(x, y)).ravel().tolist()) == {4000.0}


# ---- kernels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("few", [0, 8])
@pytest.mark.parametrize("name", ["linear_q8", "linear_q4"])
def test_quantized_products_of_few_rows_and_of_many(
    B: Backend, name: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfx.backends.cupy.kernels import quantized

    monkeypatch.setattr(quantized, "FEW", few)
    (op,) = (op for op in FUSED_OPS if op.name == name)
    for dtype in (DType.float32, DType.float64):
        check_values(op, B, op.samples, dtype)


def test_a_token_s_quantized_product_is_one_launch(B: Backend, no_copies: Any) -> None:
    cudasim = pytest.importorskip("cudasim")
    q, scales = np.ones((7, 32), np.uint8), np.ones((7, 2), np.float32)
    on_device = [tensor(x, B) for x in (np.ones((1, 64), np.float32), q, scales)]
    linear_q4(*on_device)
    with no_copies():
        linear_q4(*on_device)
    assert cudasim.counts()["launches"] == 1
