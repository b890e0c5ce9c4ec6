"""What is particular to the torch backend: devices, probe, precision, its own autograd."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optional import torch

from tfx.backends.torch import plugin
from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError, ShapeError
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Op
from tfx.testing.trials import Trial


@pytest.fixture(scope="module")
def B() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    from tfx.backends.torch.backend import TorchBackend

    return TorchBackend()


@pytest.fixture
def shapes_only(B: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The backend on torch's meta device, whose arrays have no values that anybody could read."""
    monkeypatch.setattr("tfx.backends.torch.backend.cuda_devices", lambda: ("meta",))
    return type(B)("meta")


# ---- devices and probe -----------------------------------------------------------------------


def test_cpu_is_the_default_device(B: Backend) -> None:
    assert (str(B), B.device, B.deterministic) == ("torch", "cpu", True)
    assert str(type(B)("cpu")) == "torch"


@pytest.mark.parametrize("device", ["cuda:99", "cuda", "gpu", "cpu:1", ""])
def test_an_unknown_device_is_refused(B: Backend, device: str) -> None:
    with pytest.raises(
        BackendError, match=rf"^backend 'torch' has no device '{device}' here; .*cpu$"
    ):
        type(B)(device)


def test_a_cuda_device_is_named_and_not_called_deterministic(
    B: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfx.backends.torch.backend.cuda_devices", lambda: ("cuda:0", "cuda:1"))
    second = type(B)("cuda:1")
    assert (str(second), second.device, second.deterministic) == ("torch:cuda:1", "cuda:1", False)
    assert not second.is_array(torch.zeros(2))


def test_every_device_agrees_with_the_cpu(B: Backend) -> None:
    values = np.random.default_rng(0).standard_normal((5, 7))
    for device in plugin.probe().devices:
        other = type(B)(device)
        x = tensor(values, other)
        assert other.is_array(x.data)
        np.testing.assert_allclose((x @ x.T).exp().numpy(), np.exp(values @ values.T), rtol=1e-12)


def test_probe_tells_the_version(B: Backend) -> None:
    found = plugin.probe()
    assert (found.ready, found.installed, found.reason) == (True, True, None)
    assert found.version == f"torch {torch.__version__}"
    assert found.devices[-1] == "cpu"


def test_probe_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    found = plugin.probe()
    assert (found.ready, found.installed, found.devices) == (False, False, ())


@pytest.mark.parametrize(
    ("cuda", "hip", "driver", "devices"),
    [
        (None, None, True, ("cpu",)),
        ("12.8", None, False, ("cpu",)),
        ("12.8", None, True, ("cuda:0", "cpu")),
        (None, "6.4", False, ("cuda:0", "cpu")),
    ],
)
def test_probe_asks_torch_only_where_it_may_find_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cuda: str | None,
    hip: str | None,
    driver: bool,
    devices: tuple[str, ...],
) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '9.1'\ncuda = {cuda!r}\nhip = {hip!r}\n")
    installed = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(plugin, "find_spec", lambda name: installed)
    monkeypatch.setattr(plugin, "_has_cuda_driver", lambda: driver)
    monkeypatch.setattr(plugin, "cuda_devices", lambda: ("cuda:0",))
    found = plugin.probe()
    assert (found.ready, found.devices, found.version) == (True, devices, "torch 9.1")


def test_probe_imports_no_torch_that_only_knows_the_cpu(B: Backend) -> None:
    if torch.version.cuda or torch.version.hip:
        pytest.skip("this torch could find a GPU")
    program = (
        "from tfx.backends.torch.plugin import probe; probe(); import sys; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"torch", "numpy"} & set(done.stdout.split())


# ---- arrays and the host ---------------------------------------------------------------------


@pytest.mark.parametrize("op", PRIMITIVE_OPS.values(), ids=str)
def test_no_primitive_reads_values_on_the_host(op: Op, shapes_only: Backend) -> None:
    for sample in op.samples:
        trial = Trial(op, sample, DType.float32)
        out = getattr(shapes_only, op.name)(*trial.raw(shapes_only), **sample.statics)
        assert shapes_only.shape(out) == trial.expected.shape


def test_random_bits_reads_no_values_on_the_host(shapes_only: Backend) -> None:
    counter = shapes_only.full(shape=(), value=3, dtype=DType.int32)
    out = shapes_only.random_bits(counter, key=(1, 2), shape=(3, 5), bits=32)
    assert (shapes_only.shape(out), shapes_only.dtype(out)) == ((3, 5), DType.int32)


@pytest.mark.parametrize(
    "awkward",
    [
        np.arange(6.0),
        np.arange(6.0)[::-1],
        np.arange(6.0).astype(">f8"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.broadcast_to(np.float64(2), (3,)),
        np.float64(7)[...],
    ],
    ids=["plain", "backwards", "big-endian", "fortran", "read-only", "0-d"],
)
def test_asarray_copies_whatever_numpy_has(B: Backend, awkward: Any) -> None:
    before = awkward.copy()
    x, narrow = B.asarray(awkward, dtype=DType.float64), B.asarray(awkward, dtype=DType.float32)
    if awkward.flags.writeable:
        awkward[...] = -1
    np.testing.assert_array_equal(B.to_numpy(x), before.astype("f8"), strict=True)
    np.testing.assert_array_equal(B.to_numpy(narrow), before.astype("f4"), strict=True)


def test_to_numpy_copies_and_detaches(B: Backend) -> None:
    x = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    host = B.to_numpy(x)
    host[...] = -1
    assert host.flags.c_contiguous
    assert x.min() == 0


def test_bfloat16_travels_as_words(B: Backend) -> None:
    words = np.array([[0x3F80, 0xC000], [0x7F80, 0x0001]], np.uint16).T  # 1, -2, inf, 2**-133
    x = tensor(words, B, "bfloat16")
    np.testing.assert_array_equal(x.numpy(), np.array([[1, np.inf], [-2, 2.0**-133]], np.float32))
    np.testing.assert_array_equal(B.to_numpy(x.data), words, strict=True)
    assert ((x + 1).dtype, (x + 1).tolist()[0][0]) == (DType.bfloat16, 2.0)


def test_division_by_an_array_is_rounded_once(B: Backend) -> None:
    x = np.random.default_rng(0).uniform(1, 2, 1000)
    np.testing.assert_array_equal((1.7 / tensor(x, B)).numpy(), 1.7 / x)
    assert (1.7 * (1 / x) != 1.7 / x).any()


@pytest.mark.parametrize("dtype", [DType.float16, DType.bfloat16])
def test_halves_accumulate_in_float32(B: Backend, dtype: DType) -> None:
    """Sums of ones would stop at 2048 or 256 if they did not."""
    x = full((3, 40, 100), 1.0, B, dtype)
    expected = tensor(4000, B, dtype).item()
    assert set(x.sum((1, 2)).tolist()) == {expected}
    for left in ((4000,), (2, 4000), (3, 2, 4000)):
        product = full(left, 1.0, B, dtype) @ full((4000, 5), 1.0, B, dtype)
        assert set(product.reshape(-1).tolist()) == {expected}


def test_torchs_own_defaults_do_not_matter(B: Backend) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            x = tensor(np.ones((2, 3), np.float32), B)
            y = nn.gelu(nn.where(x > 0, x, 0.5).maximum(0.5) + 1.0 / x) @ x.T
            attended = nn.attention(y, y, y, 0.5, full((), 1, B, "int64"))
    finally:
        torch.set_default_dtype(before)
    assert (attended.dtype, attended.data.device.type) == (DType.float32, "cpu")


# ---- write -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [2, torch and torch.tensor(2), torch and torch.tensor(2, dtype=torch.int32)]
)
def test_write_is_in_place_but_for_shared_cells(B: Backend, start: Any) -> None:
    slab = B.full(shape=(2, 1), value=7.0, dtype=DType.float32)
    buffer = B.full(shape=(2, 4), value=0.0, dtype=DType.float32)
    assert B.write(buffer, slab, start, axis=1).data_ptr() == buffer.data_ptr()
    assert buffer.tolist() == [[0, 0, 7, 0]] * 2
    shared = B.broadcast_to(B.full(shape=(), value=0.0, dtype=DType.float32), shape=(2, 4))
    assert B.write(shared, slab, start, axis=1).tolist() == [[0, 0, 7, 0]] * 2
    assert shared.tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("start", [1, torch and torch.tensor(1)])
def test_write_leaves_what_torch_records_alone(B: Backend, start: Any) -> None:
    def fn(buffer: Any, slab: Any) -> Any:
        kept = torch.exp(buffer)
        return (B.write(kept, slab, start, axis=0) * kept).sum()

    buffer, slab = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0])
    value, (g_buffer, g_slab) = B.value_and_grad(fn, [buffer, slab])
    e = torch.exp(buffer)
    torch.testing.assert_close(value, e[0] ** 2 + 3 * e[1] + e[2] ** 2)
    torch.testing.assert_close(g_buffer, torch.stack([2 * e[0] ** 2, 3 * e[1], 2 * e[2] ** 2]))
    torch.testing.assert_close(g_slab, e[1:2])


# ---- its own autograd ------------------------------------------------------------------------


def test_native_gradients_are_constants_and_leave_no_trace(B: Backend) -> None:
    theirs = torch.tensor([1.0, 2.0], requires_grad=True)
    seen = []

    def fn(x: Any) -> Any:
        seen.append((B.recording_natively(x), B.recording_natively(B.stop_gradient(x))))
        return (x * x).sum()

    with torch.no_grad():
        value, (g,) = B.value_and_grad(fn, [theirs * 1])
        assert not B.recording_natively(theirs)
    assert seen == [(True, False)]
    assert (value.item(), g.tolist()) == (5.0, [2.0, 4.0])
    assert (value.requires_grad, g.requires_grad) == (False, False)
    value, _ = B.value_and_grad(fn, [theirs])
    assert not value.requires_grad
    assert theirs.grad is None


def test_native_gradient_of_what_does_not_matter_is_none(B: Backend) -> None:
    x, y = torch.tensor([1.0]), torch.tensor([2.0])
    _, (g_x, g_y) = B.value_and_grad(lambda x, y: (x * 3).sum(), [x, y])
    assert (g_x.tolist(), g_y, x.requires_grad) == ([3.0], None, False)
    value, grads = B.value_and_grad(lambda x, y: torch.tensor(4.0), [x, y])
    assert (value.item(), list(grads)) == (4.0, [None, None])


def test_ties_share_the_native_gradient(B: Backend) -> None:
    x = tensor([1.0, 3.0, 3.0, 2.0, 3.0], B)
    _, g = value_and_grad(lambda x: x.max(), autograd="native")(x)
    np.testing.assert_allclose(g.numpy(), np.array([0, 1, 1, 0, 1]) / 3, rtol=1e-6)
    for fn in (
        lambda x: x.maximum(3.0),
        lambda x: x.maximum(full((), 3.0, B)),
        lambda x: -(-x).maximum(-3.0),
    ):
        _, g = value_and_grad(lambda x, fn=fn: fn(x).sum(), autograd="native")(x)
        assert g.tolist()[1] == 0.5


# ---- precision of products -------------------------------------------------------------------


@pytest.fixture
def coarse(B: Backend) -> Iterator[None]:
    """The user's own torch code allows less exact products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def precision_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch's switch says during each product."""
    seen: list[str] = []
    for owner, name in [(torch, "matmul"), (torch.nn.functional, "scaled_dot_product_attention")]:
        product = getattr(owner, name)

        def watched(*args: Any, product: Any = product, **params: Any) -> Any:
            seen.append(torch.get_float32_matmul_precision())
            return product(*args, **params)

        monkeypatch.setattr(owner, name, watched)
    return seen


def test_products_are_exact_whatever_torch_is_told(
    B: Backend, coarse: None, precision_of: list[str]
) -> None:
    x = tensor(np.ones((2, 3, 3), np.float32), B)
    _ = x @ x
    nn.attention(x, x, x, 0.5)
    with pytest.raises(ShapeError):
        x @ x[:, :2]
    assert precision_of == ["highest"] * 3


def test_native_derivatives_of_products_are_exact(B: Backend, coarse: None) -> None:
    seen = []

    def fn(x: Any) -> Any:
        y = B.matmul(x, x)
        y.register_hook(lambda g: seen.append(torch.get_float32_matmul_precision()))
        return y.sum()

    B.value_and_grad(fn, [torch.ones(2, 2)])
    assert seen == ["highest"]


def test_switches_of_single_libraries_are_put_back(B: Backend) -> None:
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has one switch for all libraries")
    libraries = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    for library in libraries:
        library.fp32_precision = "none"  # as it is before anybody sets it: like the general one
    torch.backends.fp32_precision = "tf32"
    try:
        assert B.matmul(torch.ones(2, 2), torch.ones(2, 2)).tolist() == [[2, 2], [2, 2]]
        assert [library.fp32_precision for library in libraries] == ["tf32", "tf32"]
    finally:
        torch.backends.fp32_precision = "none"
    assert [library.fp32_precision for library in libraries] == ["none", "none"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_halves_are_added_up_exactly_while_a_product_lasts(
    B: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    before = [getattr(switches, name) for name in names]
    seen = []
    monkeypatch.setattr(
        torch, "matmul", lambda x, y: seen.append([getattr(switches, name) for name in names])
    )
    B.matmul(torch.ones(2, 2, dtype=torch.float16), torch.ones(2, 2, dtype=torch.float16))
    assert seen == [[False, False]]
    assert [getattr(switches, name) for name in names] == before


def test_threads_that_overlap_keep_the_switch_until_the_last_leaves(B: Backend) -> None:
    from tfx.backends.torch.precision import Exactly

    switch = ["loose"]
    exactly = Exactly((lambda: switch[0], lambda said: switch.__setitem__(0, said), "exact"))
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with exactly.held():
            entered.set()
            leave.wait(10)
            assert switch == ["exact"]

    thread = threading.Thread(target=other)
    with exactly.held():
        thread.start()
        entered.wait(10)
    assert switch == ["exact"]
    leave.set()
    thread.join()
    assert switch == ["loose"]
