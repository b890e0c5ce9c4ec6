"""torch on the CPU or on one CUDA device."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from tfx.backends.torch.kernels import KERNELS
from tfx.backends.torch.plugin import cuda_devices
from tfx.backends.torch.precision import float32_products, half_products
from tfx.core import host_memory, threefry
from tfx.core.backend import Array, Backend, HostArray, Operand
from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import BackendError
from tfx.core.wording import megabytes

_TORCH = {dtype: getattr(torch, dtype) for dtype in DType}
_DTYPE = {native: dtype for dtype, native in _TORCH.items()}
_HALVES = (torch.float16, torch.bfloat16)
_python: Any = operator  # knows weak numbers on either side of a torch array


class TorchBackend(Backend):
    """Tensors over `torch.Tensor`, with torch's own autograd."""

    name = "torch"
    dtypes = frozenset(DType)
    device_random = True
    native_autograd = True

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.device = "cpu" if device is None else device
        if self.device != "cpu" and self.device not in (here := cuda_devices()):
            known = ", ".join((*here, "cpu"))
            raise BackendError(f"backend 'torch' has no device {device!r} here; it has: {known}")
        self.deterministic = self.device == "cpu"  # index_add_ and attention use atomics on CUDA
        self.fused.update({kernel.name: kernel for kernel in KERNELS})
        self._device = torch.device(self.device)

    def is_array(self, x: object) -> bool:
        return isinstance(x, torch.Tensor) and x.device == self._device

    def dtype(self, x: Array) -> DType:
        return _DTYPE[x.dtype]

    # ---- arrays ------------------------------------------------------------------------------

    def asarray(self, value: HostArray, *, dtype: DType) -> Array:
        if dtype is DType.bfloat16 and value.dtype == np.uint16:
            words = torch.from_numpy(np.array(value, order="C").view(np.int16))
            return words.view(torch.bfloat16).to(self._device)
        host = np.array(value, "float32" if dtype is DType.bfloat16 else str(dtype), order="C")
        return torch.from_numpy(host).to(self._device, _TORCH[dtype])

    def to_numpy(self, x: Array) -> HostArray:
        words = x.detach().view(torch.int16) if x.dtype == torch.bfloat16 else x.detach()
        host: HostArray = words.to("cpu", copy=True, memory_format=torch.contiguous_format).numpy()
        return host.view(np.uint16) if x.dtype == torch.bfloat16 else host

    def full(self, *, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
        return torch.full(shape, value, dtype=_TORCH[dtype], device=self._device)

    def arange(self, *, stop: int) -> Array:
        return torch.arange(stop, device=self._device)

    def cast(self, x: Array, *, dtype: DType) -> Array:
        return x.to(_TORCH[dtype])

    # ---- elementwise -------------------------------------------------------------------------

    neg = staticmethod(torch.neg)
    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    tanh = staticmethod(torch.tanh)
    sqrt = staticmethod(torch.sqrt)
    add = staticmethod(_python.add)
    sub = staticmethod(_python.sub)
    mul = staticmethod(_python.mul)
    less = staticmethod(_python.lt)
    equal = staticmethod(_python.eq)
    where = staticmethod(torch.where)

    def div(self, x: Operand, y: Operand) -> Array:
        # torch's `1.5 / y` is 1.5 * (1 / y), rounded twice.
        return torch.div(x if isinstance(x, torch.Tensor) else y.new_full((), x), y)

    def pow(self, x: Array, *, exponent: float) -> Array:
        return torch.pow(x, exponent)

    def maximum(self, x: Operand, y: Operand) -> Array:
        if not isinstance(x, torch.Tensor):
            x = y.new_full((), x)
        elif not isinstance(y, torch.Tensor):
            y = x.new_full((), y)
        return torch.maximum(x, y)

    # ---- reductions and products: for torch, no axes mean all axes ---------------------------

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        return torch.sum(x, axis, keepdims, dtype=x.dtype) if axis else x.clone()

    def max(self, x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
        return torch.amax(x, axis, keepdims) if axis else x.clone()

    def argmax(self, x: Array, *, axis: int) -> Array:
        return torch.argmax(x, axis)

    def matmul(self, x: Array, y: Array) -> Array:
        products = half_products if x.dtype in _HALVES else float32_products
        with products.held():
            return torch.matmul(x, y)

    # ---- shape -------------------------------------------------------------------------------

    def reshape(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)

    def transpose(self, x: Array, *, axes: tuple[int, ...]) -> Array:
        return x.permute(axes)

    def broadcast_to(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        return x.expand(shape)

    def concat(self, *xs: Array, axis: int) -> Array:
        if self.device != "cpu" or any(map(self.recording_natively, xs)):
            return torch.cat(xs, axis)
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        words = host_memory.empty(tuple(shape), f"i{xs[0].element_size()}")
        return torch.cat(xs, axis, out=torch.from_numpy(words).view(xs[0].dtype))

    def slice(
        self, x: Array, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
    ) -> Array:
        return x[(*map(slice, starts, stops, steps), ...)]

    def pad(self, x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        from_the_last = [width for pair in reversed(widths) for width in pair]
        return torch.constant_pad_nd(x, from_the_last, value)

    # ---- index -------------------------------------------------------------------------------

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        if indices.ndim == 1:
            return x.index_select(axis, indices)
        rows = x.index_select(axis, indices.reshape(-1))
        return rows.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])

    def scatter_add(self, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
        flat = indices.reshape(-1)
        rows = updates.reshape(*x.shape[:axis], len(flat), *x.shape[axis + 1 :])
        return x.index_add(axis, flat, rows)

    def write(self, buffer: Array, slab: Array, start: Operand, *, axis: int) -> Array:
        recorded = self.recording_natively(buffer) or self.recording_natively(slab)
        if recorded or 0 in buffer.stride():
            buffer = buffer.clone(memory_format=torch.contiguous_format)
        count = slab.shape[axis]
        if isinstance(start, int):
            buffer.narrow(axis, start, count).copy_(slab)
            return buffer
        return buffer.index_copy_(axis, self.arange(stop=count) + start, slab)

    # ---- random ------------------------------------------------------------------------------

    def random_bits(
        self, counter: Array, *, key: tuple[int, int], shape: tuple[int, ...], bits: int
    ) -> Array:
        count = math.prod(shape)
        if self.device == "cpu":  # where NumPy has the unsigned words that torch lacks
            return torch.from_numpy(threefry.words(key, int(counter), count, bits).reshape(shape))
        blocks = self.arange(stop=(count + 1) // 2)
        pair = threefry.threefry2x32(key, blocks, counter + 0 * blocks)
        words = torch.stack(pair, -1).reshape(-1)[:count] >> (32 - bits)
        return words.to(torch.int32).reshape(shape)

    # ---- beyond the primitives ---------------------------------------------------------------

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self._device)

    def dlpack_device(self) -> tuple[int, int]:
        kind, number = torch.empty(0, device=self._device).__dlpack_device__()
        return int(kind), int(number)

    def from_dlpack(self, x: Any) -> Array:
        """torch knows neither arrays that are not to be written to nor such as run backwards."""
        if self.device == "cpu" and not isinstance(x, torch.Tensor):
            with suppress(RuntimeError):  # a dtype that NumPy has not
                x = np.from_dlpack(x)
                if not x.flags.writeable:
                    raise BufferError("it is read-only, which torch cannot keep to; copy it first")
                if min(x.strides, default=0) < 0:
                    raise BufferError("it runs backwards in memory; copy it first")
        taken = torch.from_dlpack(x)
        as_dtype(str(taken.dtype).removeprefix("torch."))
        return taken

    def out_of_memory(self, error: BaseException) -> str | None:
        if isinstance(error, torch.OutOfMemoryError):  # how much was asked, and what there is
            return ". ".join(" ".join(str(error).split()).split(". ")[1:3]).rstrip(".")
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        if isinstance(error, RuntimeError) and asked:
            return f"{megabytes(int(asked[1]))} more asked for"
        return super().out_of_memory(error)

    def peak_memory(self) -> int | None:
        return None if self.device == "cpu" else torch.cuda.max_memory_reserved(self._device)

    def value_and_grad(
        self, fn: Callable[..., Array], arrays: Sequence[Array]
    ) -> tuple[Array, Sequence[Array | None]]:
        with torch.enable_grad(), float32_products.held(), half_products.held():
            leaves = [x.detach().requires_grad_() for x in arrays]
            value = fn(*leaves)
            if not value.requires_grad:
                return value, [None] * len(leaves)
            return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True)

    def checkpoint(self, fn: Callable[[], Array]) -> Array:
        # Nothing here draws from torch's own generator.
        out: Array = torch_checkpoint(fn, use_reentrant=False, preserve_rng_state=False)
        return out

    def stop_gradient(self, x: Array) -> Array:
        return x.detach()

    def recording_natively(self, x: Array) -> bool:
        return bool(x.requires_grad) and torch.is_grad_enabled()
