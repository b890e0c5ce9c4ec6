"""Tensors from nothing, from numbers, and from host arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.checks import check_capability, check_host_values, check_lengths, check_number
from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import DTypeError, ShapeError
from tfx.core.tensor import Number, Tensor


def tensor(
    value: Any, backend: Backend, dtype: DType | str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor from numbers, nested lists or a NumPy array, copied to the backend.

    Without `dtype`, a NumPy array keeps its own; Python floats become float32, integers the
    backend's index dtype. uint16 words are taken for bfloat16 when `dtype` says so.

    Raises:
        DTypeError: the backend has no such dtype, or tfx none.
    """
    host = _host_array(value)
    if dtype is not None:
        wanted = as_dtype(dtype)
    elif isinstance(value, np.ndarray | np.generic) or host.dtype == np.bool_:
        wanted = as_dtype(host.dtype.name)
    elif host.dtype.kind == "f":
        wanted = DType.float32
    elif host.dtype.kind in "iu":
        wanted = backend.index_dtype
    else:
        raise DTypeError(f"cannot make a tensor of {host.dtype}")
    check_capability(backend, wanted)
    check_host_values(host, wanted)
    out = Tensor(backend.asarray(host, dtype=wanted), backend)
    return out.requires_grad_() if requires_grad else out


def _host_array(value: Any) -> HostArray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ShapeError("a tensor needs rows of one length; these are ragged") from error


def full(
    shape: Sequence[int], value: Number, backend: Backend, dtype: DType | str = DType.float32
) -> Tensor:
    """A tensor filled with one number."""
    wanted = as_dtype(dtype)
    check_capability(backend, wanted)
    check_number("full", (value,), wanted)
    lengths = check_lengths(shape)
    return Tensor(backend.full(shape=lengths, value=value, dtype=wanted), backend)


def arange(stop: int, backend: Backend) -> Tensor:
    """0, 1, ... stop-1 as the backend's index dtype."""
    (length,) = check_lengths((stop,))
    return Tensor(backend.arange(stop=length), backend)
