"""NumPy on the CPU."""

from __future__ import annotations

import math

import numpy as np

from tfx.backends.numpy.halves import widened
from tfx.backends.numpy.kernels import KERNELS
from tfx.backends.numpy.plans import PLANS
from tfx.core import host_memory, threefry
from tfx.core.array_backend import ArrayBackend
from tfx.core.backend import Array, HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError


class NumpyBackend(ArrayBackend):
    """Tensors over `numpy.ndarray`."""

    name = "numpy"

    def __init__(self, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise BackendError(f"backend 'numpy' has no device {device!r}; it has 'cpu'")
        super().__init__(np)
        self.plans = PLANS
        self.fused.update({kernel.name: kernel for kernel in KERNELS})

    def borrow(self, value: HostArray, *, dtype: DType) -> Array:
        if value.dtype != self._native[dtype]:
            return self.asarray(value, dtype=dtype)
        view = np.asarray(value).view()
        view.flags.writeable = False
        return view

    def to_numpy(self, x: Array) -> HostArray:
        return np.array(x, order="C")

    def cast(self, x: Array, *, dtype: DType) -> Array:
        if x.dtype == np.float16 and dtype is DType.float32:
            return widened(x)
        return super().cast(x, dtype=dtype)

    def matmul(self, x: Array, y: Array) -> Array:
        if x.dtype == np.float16:  # NumPy's half product is a scalar loop that rounds at every step
            return np.matmul(widened(x), widened(y)).astype(np.float16)
        return np.matmul(x, y)

    def concat(self, *xs: Array, axis: int) -> Array:
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        return np.concatenate(xs, axis, out=host_memory.empty(tuple(shape), xs[0].dtype))

    def random_bits(
        self, counter: Array, *, key: tuple[int, int], shape: tuple[int, ...], bits: int
    ) -> Array:
        return threefry.words(key, int(counter), math.prod(shape), bits).reshape(shape)
