"""CuPy on one CUDA device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import cupy

from tfx.backends.cupy.graphs import Graphs
from tfx.backends.cupy.kernels import KERNELS
from tfx.backends.cupy.kernels.segments import add_at
from tfx.backends.cupy.plugin import probe
from tfx.core.array_backend import ArrayBackend
from tfx.core.backend import PRIMITIVES, Array, HostArray, Operand
from tfx.core.errors import BackendError

_WRITE = cupy.ElementwiseKernel(
    "T slab, int64 start, int64 inner, int64 count, int64 room",
    "raw T buffer",
    "buffer[i / count * room + start * inner + i % count] = slab",
    "tfx_write",
)
_WRITE_AT = cupy.ElementwiseKernel(
    "T slab, raw I start, int64 inner, int64 count, int64 room",
    "raw T buffer",
    "buffer[i / count * room + start[0] * inner + i % count] = slab",
    "tfx_write_at",
)
"""A slab of `count` numbers for each index before the axis, and a buffer with `room` for as many;
`inner` of them belong to one place along the axis."""


class CupyBackend(ArrayBackend):
    """Tensors over `cupy.ndarray`; work is queued on CuPy's current stream.

    Products of float32 are true float32 unless the user sets `CUPY_TF32=1`.
    """

    name = "cupy"

    def __init__(self, device: str | None = None) -> None:
        here = probe()
        if not here.ready:
            raise BackendError(f"backend 'cupy' cannot run here: {here.reason}")
        self.device = here.devices[0] if device is None else device
        if self.device not in here.devices:
            known = ", ".join(here.devices)
            raise BackendError(f"backend 'cupy' has no device {device!r} here; it has: {known}")
        super().__init__(cupy)
        self._device = cupy.cuda.Device(int(self.device))
        if len(here.devices) > 1:
            for name in PRIMITIVES:
                setattr(self, name, self._on_device(getattr(self, name)))
        for kernel in KERNELS:
            vjp = kernel.vjp and self._on_device(kernel.vjp)
            forward = self._on_device(kernel.forward)
            self.fused[kernel.name] = replace(kernel, forward=forward, vjp=vjp)

    def _on_device(self, primitive: Callable[..., Any]) -> Callable[..., Any]:
        """CuPy computes on the thread's current device, wherever the arguments are."""

        @wraps(primitive)
        def there(*arrays: Any, **params: Any) -> Any:
            with self._device:
                return primitive(*arrays, **params)

        return there

    def is_array(self, x: object) -> bool:
        return isinstance(x, cupy.ndarray) and x.device == self._device

    def to_numpy(self, x: Array) -> HostArray:
        host: HostArray = cupy.asnumpy(x, order="C")
        return host

    def concat(self, *xs: Array, axis: int) -> Array:
        # cupy.concatenate copies a table of pointers to the device when there are many.
        lengths = [x.shape[axis] for x in xs]
        shape = (*xs[0].shape[:axis], sum(lengths), *xs[0].shape[axis + 1 :])
        out = cupy.empty(shape, xs[0].dtype)
        start = 0
        for x, length in zip(xs, lengths, strict=True):
            out[(slice(None),) * axis + (slice(start, start + length),)] = x
            start += length
        return out

    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        out = x.copy()
        add_at(out, indices, updates, axis=axis)
        return out

    def write(self, buffer: Array, slab: Array, start: Operand, *, axis: int) -> Array:
        if 0 in buffer.strides:
            buffer = buffer.copy()
        inner = math.prod(slab.shape[axis + 1 :])
        new, all_ = (x.shape[axis] * inner for x in (slab, buffer))
        # A position on the device stays there.
        kernel = _WRITE if isinstance(start, int) else _WRITE_AT
        return kernel(slab, start, inner, new, all_, buffer)

    def replayer(self) -> Graphs:
        return Graphs(self._device)

    def synchronize(self) -> None:
        self._device.synchronize()

    def peak_memory(self) -> int | None:
        with self._device:  # its pool gives nothing back, unless it is asked to
            taken: int = cupy.get_default_memory_pool().total_bytes()
        return taken or None
