"""Memory that two libraries share: every backend on the CPU, NumPy and torch as the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tfx
from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.capture import jit
from tfx.core.creation import tensor
from tfx.core.dlpack import from_dlpack
from tfx.core.errors import CaptureError, DLPackError, DTypeError, GradientError

DTYPES = ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
N = NumpyBackend()


def on_cpu(backend: Backend) -> Backend:
    if backend.device != "cpu":
        pytest.skip("an array of the host does not lie on its device")
    return backend


class Stranger:
    """An array of a library that tfx has never heard of."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_and_out_again(backend: Backend, dtype: str) -> None:
    B = on_cpu(backend)
    values = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)[:, :, 1:3]
    x = from_dlpack(Stranger(values), B)
    assert (x.backend, x.dtype, x.shape) == (B, dtype, (2, 3, 2))
    np.testing.assert_array_equal(x.numpy(), values, strict=True)
    np.testing.assert_array_equal(np.from_dlpack(x), values, strict=True)
    assert x.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_nothing_is_copied(name: str) -> None:
    if name == "torch":
        pytest.importorskip("torch")
    B = tfx.backend(name)
    values = np.zeros((2, 3), np.float32)
    x = from_dlpack(values, B)
    values[1, 2] = 7
    assert x.tolist() == [[0, 0, 0], [0, 0, 7]]
    y = tensor([1.0, 2.0], B)
    np.from_dlpack(y)[0] = 5
    assert y.tolist() == [5, 2]
    assert from_dlpack(y, B).data is not y.data
    np.from_dlpack(from_dlpack(y, N))[1] = 6
    assert y.tolist() == [5, 6]


def test_torch_takes_and_gives_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = tensor([[1.0, 2.0]], N)
    theirs = torch.from_dlpack(x)
    theirs += 1
    assert x.tolist() == [[2, 3]]
    y = from_dlpack(theirs.T, N)
    theirs += 1
    assert y.tolist() == [[3], [4]]
    B = tfx.backend("torch:cpu")
    z = from_dlpack(theirs.bfloat16(), B)
    assert (z.dtype, z.tolist()) == ("bfloat16", [[3, 4]])
    assert torch.from_dlpack(z).dtype is torch.bfloat16
    with pytest.raises(DLPackError, match=r"^from_dlpack: numpy cannot take a Tensor, says Run"):
        from_dlpack(theirs.bfloat16(), N)
    with pytest.raises(DLPackError, match=r"cannot take a Tensor, says BufferError: Can't export"):
        from_dlpack(theirs.requires_grad_(), N)
    readonly = np.zeros(3)
    readonly.flags.writeable = False
    for values, why in ((readonly, "it is read-only"), (np.zeros(3)[::-1], "it runs backwards")):
        with pytest.raises(DLPackError, match=f"^from_dlpack: torch cannot take .* {why}"):
            from_dlpack(values, B)
        assert from_dlpack(values, N).shape == (3,)


def test_what_is_read_only_stays_so() -> None:
    readonly = np.zeros(3)
    readonly.flags.writeable = False
    x = from_dlpack(readonly, N)
    assert x.write(tensor(np.ones(1), N), 1).tolist() == [0, 1, 0]
    assert readonly.tolist() == [0, 0, 0]
    assert not np.from_dlpack(x).flags.writeable


def test_a_state_leaves_the_memory_of_others() -> None:
    """What is given up is updated where it lies; not so what another library may write to."""
    captured = jit(lambda state: state + 1, donate_argnums=0)
    theirs = np.zeros(3)
    state = captured(from_dlpack(theirs, NumpyBackend()))
    assert theirs.tolist() == [0, 0, 0]
    theirs[...] = 99
    assert captured(state).tolist() == [2, 2, 2]


def test_refusals(backend: Backend) -> None:
    B = backend
    for given, what in (([1.0], "a list"), (None, "None"), (3.5, "a float")):
        with pytest.raises(DLPackError, match=rf"^from_dlpack takes .*, not {what}; tensor\(\)"):
            from_dlpack(given, B)
    elsewhere = Stranger(np.zeros(3), (8, 1))
    with pytest.raises(
        DLPackError,
        match=rf"^from_dlpack: the array lies on a device of kind 8, number 1, and {B} computes on",
    ):
        from_dlpack(elsewhere, B)
    on_cpu(B)
    with pytest.raises(DLPackError, match=r"lies on CUDA device 1, and .* computes on the CPU; "):
        from_dlpack(Stranger(np.zeros(3), (2, 1)), B)
    for unknown in ("uint16", "complex64"):
        with pytest.raises(DTypeError, match=f"no dtype named '{unknown}'"):
            from_dlpack(np.zeros(3, unknown), B)
    with pytest.raises(DLPackError, match="native byte order"):
        from_dlpack(np.zeros(3, ">f4"), B)
    recorded = tensor([1.0], B, requires_grad=True)
    with pytest.raises(GradientError, match=r"detach\(\) it first"):
        np.from_dlpack(recorded)
    if "bfloat16" in B.storage_dtypes:
        with pytest.raises(DTypeError, match="cast to float32 first"):
            np.from_dlpack(tensor([1.0], B).cast("bfloat16"))
    with pytest.raises(DLPackError, match=f"^{B} gives no DLPack of this tensor, says "):
        tensor([1.0], B).__dlpack__(stream=5)


def test_a_replay_would_not_hand_it_over() -> None:
    seen = []

    def step(x: Any) -> Any:
        seen.append(np.from_dlpack(x + 1))
        return x

    with pytest.raises(CaptureError, match="hands a tensor to another library by DLPack"):
        tfx.jit(step)(tensor([1.0], N))
