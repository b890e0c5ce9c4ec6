"""CuPy on one CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import cupy

from tfx.backends.cupy.graphs import Graphs
from tfx.backends.cupy.kernels import KERNELS
from tfx.backends.cupy.kernels.segments import add_at
from tfx.backends.cupy.kernels.writing import write_slab
from tfx.backends.cupy.memory import shortage, uploaded
from tfx.backends.cupy.plugin import probe
from tfx.core.array_backend import ArrayBackend
from tfx.core.backend import PRIMITIVES, Array, HostArray, Operand
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError


class CupyBackend(ArrayBackend):
    """Tensors over `cupy.ndarray`; work is queued on CuPy's current stream.

    Products of float32 are true float32 unless the user sets `CUPY_TF32=1`.
    """

    name = "cupy"

    def __init__(self, device: str | None = None) -> None:
        here = probe()
        if not here.ready:
            why = "; ".join(filter(None, (here.reason, here.cure)))
            raise BackendError(f"backend 'cupy' cannot run here: {why}")
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

    def asarray(self, value: HostArray, *, dtype: DType) -> Array:
        straight = uploaded(value, self._native[dtype])
        return super().asarray(value, dtype=dtype) if straight is None else straight

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
        write_slab(buffer, slab, start, axis)
        return buffer

    def replayer(self) -> Graphs:
        return Graphs(self._device)

    def dlpack_device(self) -> tuple[int, int]:
        return 2, int(self.device)

    def from_dlpack(self, x: Any) -> Array:
        with self._device:  # whose current stream waits for what is under way in that of `x`
            return super().from_dlpack(x)

    def dlpack(self, x: Array, **how: Any) -> Any:
        with self._device:
            return x.__dlpack__(**how)

    def synchronize(self) -> None:
        self._device.synchronize()

    def out_of_memory(self, error: BaseException) -> str | None:
        return shortage(error, self._device) or super().out_of_memory(error)

    def peak_memory(self) -> int | None:
        with self._device:  # its pool gives nothing back, unless it is asked to
            taken: int = cupy.get_default_memory_pool().total_bytes()
        return taken or None
