"""Memory of a CUDA device that two libraries share, and the streams they compute in.

torch needs a real GPU and its CUDA build for its part: docs/gpu.md has the command.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.backends.cupy import plugin
from tfx.core.capture import jit
from tfx.core.creation import tensor
from tfx.core.dlpack import from_dlpack
from tfx.core.errors import DLPackError, DTypeError


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
)
def test_cupy_and_tfx_share_memory(B: Any, cupy: Any, dtype: str) -> None:
    theirs = (cupy.arange(24).reshape(4, 6) % 2).astype(dtype)[:, ::2]
    x = from_dlpack(theirs, B)
    assert (x.dtype, x.shape, x.data.data.ptr) == (dtype, (4, 3), theirs.data.ptr)
    assert x.__dlpack_device__() == (2, 0)
    back = cupy.from_dlpack(x)
    assert back.data.ptr == theirs.data.ptr and back.strides == theirs.strides
    np.testing.assert_array_equal(x.numpy(), theirs.get(), strict=True)


def test_the_memory_lives_as_long_as_somebody_looks_at_it(B: Any, cupy: Any) -> None:
    x = from_dlpack(cupy.full(1000, 3.0), B)
    view = cupy.from_dlpack(x)
    del x
    cupy.full(1000, 4.0)
    assert (view.get() == 3).all()


def test_a_state_leaves_the_memory_of_others(B: Any, cupy: Any) -> None:
    """What is given up is updated where it lies; not so what another library may write to."""
    captured = jit(lambda state: state + 1, donate_argnums=0)
    theirs = cupy.zeros(3)
    state = captured(from_dlpack(theirs, B))
    assert theirs.tolist() == [0, 0, 0]
    theirs[...] = 99
    assert captured(state).tolist() == [2, 2, 2]


class Elsewhere:
    """An array of a library that computes in a stream of its own, as torch does."""

    def __init__(self, array: Any, own: Any) -> None:
        self.array, self.own = array, own
        self.asked: list[int] = []

    def __dlpack__(self, *, stream: int | None = None, **how: Any) -> Any:
        assert stream is not None
        self.asked.append(stream)
        with self.own:
            return self.array.__dlpack__(stream=stream, **how)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_whoever_takes_it_waits_for_what_is_under_way(B: Any, cupy: Any) -> None:
    """The values show it where the simulated device puts work off: CUDASIM_DEFER=1."""
    theirs, ours = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    with theirs:
        computed = Elsewhere(cupy.arange(1000.0) * 2, theirs)
    with ours:
        x = from_dlpack(computed, B)
        assert (x + x).tolist()[:3] == [0, 4, 8]
    assert computed.asked == [ours.ptr]


def test_a_stream_is_passed_on(B: Any, cupy: Any) -> None:
    x = tensor([1.0], B)
    stream = cupy.cuda.Stream(non_blocking=True)
    for asked in (None, -1, 1, 2, stream.ptr):
        assert "dltensor" in repr(x.__dlpack__(stream=asked))
    with pytest.raises(DLPackError, match=r"^cupy:0 gives no DLPack of this tensor, says Value"):
        x.__dlpack__(stream="first")


def test_the_host_and_other_devices_are_refused(B: Any, cupy: Any) -> None:
    with pytest.raises(
        DLPackError,
        match=r"^from_dlpack: the array lies on the CPU, and cupy:0 computes on CUDA device 0; "
        r"open a backend there, or copy the array: tensor\(\) takes NumPy's$",
    ):
        from_dlpack(np.zeros(3), B)
    for unknown in ("uint16", "complex64"):
        with pytest.raises(DTypeError, match=f"no dtype named '{unknown}'"):
            from_dlpack(cupy.zeros(3, unknown), B)
    with pytest.raises(RuntimeError):
        np.from_dlpack(tensor([1.0], B))
    if len(plugin.probe().devices) > 1:
        second = type(B)("1")
        with pytest.raises(DLPackError, match=r"lies on CUDA device 0, and cupy:1 computes on"):
            from_dlpack(cupy.zeros(3), second)
        x = tensor([1.0, 2.0], second)
        again = from_dlpack(x, second)
        assert again.data.data.ptr == x.data.data.ptr and again.tolist() == [1, 2]


def test_torch_on_the_same_gpu(B: Any, cupy: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    from tfx.backends.torch.backend import TorchBackend

    x = tensor([[1.0, 2.0], [3.0, 4.0]], B)
    theirs = torch.from_dlpack(x)
    assert theirs.device.type == "cuda" and theirs.data_ptr() == x.data.data.ptr
    theirs += 1
    torch.cuda.synchronize()
    assert x.tolist() == [[2, 3], [4, 5]]
    y = from_dlpack(theirs.T, B)
    assert y.data.data.ptr == theirs.data_ptr() and y.tolist() == [[2, 4], [3, 5]]
    z = from_dlpack(x, TorchBackend("cuda:0"))
    assert z.data.data_ptr() == x.data.data.ptr
    with torch.cuda.stream(torch.cuda.Stream()):
        assert from_dlpack(x, TorchBackend("cuda:0")).tolist() == x.tolist()
