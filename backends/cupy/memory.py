"""The memory of a CUDA device: how large arrays get there, and what there is when it is full."""

from __future__ import annotations

from typing import Any

import cupy

from tfx.core.backend import Array, HostArray
from tfx.core.wording import megabytes

LARGE = 1 << 20
"""Bytes. Smaller arrays go by way of pinned memory, for which CuPy keeps a pool."""

_NO_ROOM = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}
"""Errors that say that memory ran out, by their status, beside CuPy's own of its pool:
cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY, CUBLAS_STATUS_ALLOC_FAILED."""


def uploaded(value: HostArray, dtype: Any) -> Array | None:
    """A large array as it lies on the host, a mapped file for instance, copied to the device.

    `cupy.array` copies it to pinned memory first, and keeps that for the next one: as much again as
    the largest tensors of a model. None where it must be laid out anew, or is small: `cupy.array`
    does that.
    """
    if value.nbytes < LARGE or value.dtype != dtype or not value.flags.c_contiguous:
        return None
    out = cupy.empty(value.shape, dtype)
    out.set(value)
    return out


def shortage(error: BaseException, device: Any) -> str | None:
    """How much was asked for and how much there is, where `error` says that there was no room."""
    if isinstance(error, cupy.cuda.memory.OutOfMemoryError):
        size = getattr(error, "_size", None)
        asked = str(error) if size is None else f"{megabytes(size)} more asked for"
    elif getattr(error, "status", 0) == _NO_ROOM.get(type(error).__name__):
        asked = "CUDA asked for room of its own"  # kernels, and what cuBLAS works in
    else:
        return None
    with device:
        pool = cupy.get_default_memory_pool()
        taken = f"{megabytes(pool.total_bytes())} taken by this process"
        limit = pool.get_limit()
        if limit:
            return f"{asked}, {taken}, which may take {megabytes(limit)} (CUPY_GPU_MEMORY_LIMIT)"
        try:
            free, total = map(megabytes, device.mem_info)
        except cupy.cuda.runtime.CUDARuntimeError:  # a device in such a state need not answer
            return f"{asked}, {taken}"
    return f"{asked}, {free} of {total} free, {taken}"
