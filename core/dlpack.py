"""Arrays from other libraries and to them, over the same memory, by DLPack.

The protocol: https://data-apis.org/array-api/latest/design_topics/data_interchange.html
"""

from __future__ import annotations

from typing import Any

from tfx.core.backend import Backend
from tfx.core.checks import check_capability
from tfx.core.dtypes import DType
from tfx.core.errors import DLPackError, DTypeError, GradientError, TfxError
from tfx.core.tensor import Tensor
from tfx.core.wording import kind_of, one_line

_HOST = (1, 3)
"""Kinds of devices whose memory the processor reads: its own, and what CUDA has pinned of it."""

_KINDS = {1: "the CPU", 2: "CUDA device", 3: "the CPU", 10: "ROCm device", 13: "managed memory"}


def from_dlpack(x: Any, backend: Backend) -> Tensor:
    """A tensor over the memory of `x`, an array or a tensor of any library that speaks DLPack.

    Nothing is copied where the backend's library can take the memory as it is: on NumPy, CuPy and
    torch. What waits in a stream of the device is waited for there. The memory is one from then on:
    who changes `x` changes the tensor, and `write` on the tensor may change `x`.

    Raises:
        DLPackError: `x` speaks no DLPack, lies on another device than the backend's, or is
            something that the library cannot take; says what to do.
        DTypeError: the backend has no such dtype, or tfx none.
        GradientError: `x` is a recorded tensor.

    >>> import numpy as np
    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> numbers = np.zeros(2)
    >>> x = from_dlpack(numbers, NumpyBackend())
    >>> numbers[0] = 5
    >>> x.tolist()
    [5.0, 0.0]
    """
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise DLPackError(
            f"from_dlpack takes an array with __dlpack__, not {kind_of(x)}; tensor() copies numbers"
        )
    there, here = tuple(x.__dlpack_device__()), backend.dlpack_device()
    if there != here and not (there[0] in _HOST and here[0] in _HOST):
        raise DLPackError(
            f"from_dlpack: the array lies on {_place(there)}, and {backend} computes on "
            f"{_place(here)}; open a backend there, or copy the array: tensor() takes NumPy's"
        )
    try:
        raw = backend.from_dlpack(x)
    except TfxError:
        raise
    except (BufferError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise DLPackError(f"from_dlpack: {backend} cannot take {kind_of(x)}, {_said(error)}") from (
            error
        )
    check_capability(backend, backend.dtype(raw))
    return Tensor(raw, backend)


def exported(x: Tensor, *, stream: Any, **how: Any) -> Any:
    """What `x.__dlpack__` gives; the rest is as the protocol has it. No stream is one of them, the
    device's default; of the others None is not passed on, to libraries that have not heard of them.

    Raises:
        DLPackError: the library refuses; says why.
        DTypeError: the backend keeps bfloat16 as words, which would pass for integers.
        GradientError: the tensor is recorded.
    """
    if x.node is not None:
        raise GradientError("a recorded tensor has no DLPack: detach() it first")
    if x.dtype is DType.bfloat16 and x.dtype in x.backend.storage_dtypes:
        raise DTypeError(f"bfloat16 on {x.backend} has no DLPack; cast to float32 first")
    try:
        asked = {name: value for name, value in how.items() if value is not None}
        return x.backend.dlpack(x.data, stream=stream, **asked)
    except (BufferError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        if isinstance(error, TfxError):
            raise
        raise DLPackError(f"{x.backend} gives no DLPack of this tensor, {_said(error)}") from error


def _place(device: tuple[Any, ...]) -> str:
    kind, number = map(int, device)
    name = _KINDS.get(kind, f"a device of kind {kind}, number")
    return name if kind in _HOST else f"{name} {number}"


def _said(error: Exception) -> str:
    return f"says {one_line(error).rstrip('.')}"
