"""`JaxBackend`: the primitives compiled, and what lies between JAX's arrays and the host's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tfx.core.backend import PRIMITIVES, Array, Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError
from tfx_jax import primitives
from tfx_jax.primitives import INDEX, JAX_DTYPE

_DTYPE = {native: dtype for dtype, native in JAX_DTYPE.items()}
_TRACED = {"value", "key"}
"""Keywords that are arguments of a compiled program, and no part of it: they may be anything."""


class JaxBackend(Backend):
    """Tensors over `jax.Array`, with JAX's own autograd.

    JAX has 64-bit types only where they are switched on, and makes new arrays on its default
    device. Both are set for the length of each call and on its thread alone: the user's own JAX
    code goes on as it was configured.
    """

    name = "jax"
    api = 1
    dtypes = frozenset(DType)
    index_dtype = INDEX
    device_random = True
    native_autograd = True

    def __init__(self, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise BackendError(f"backend 'jax' has no device {device!r}; it has 'cpu'")
        super().__init__()
        self._device = jax.devices("cpu")[0]

    def is_array(self, x: object) -> bool:
        if isinstance(x, jax.core.Tracer):  # stands for an array while JAX differentiates
            return True
        return isinstance(x, jax.Array) and x.devices() == {self._device}

    def dtype(self, x: Array) -> DType:
        return _DTYPE[x.dtype]

    def asarray(self, value: HostArray, *, dtype: DType) -> Array:
        native = JAX_DTYPE[dtype]
        words = dtype is DType.bfloat16 and value.dtype == np.uint16
        host = np.array(value, value.dtype if words else native, order="C")
        with jax.enable_x64(True):
            return jax.device_put(host.view(native), self._device)

    def to_numpy(self, x: Array) -> HostArray:
        host = np.array(self.stop_gradient(x), order="C")
        return host.view(np.uint16) if x.dtype == jnp.bfloat16 else host

    def synchronize(self) -> None:
        jax.block_until_ready(jax.live_arrays(self._device.platform))

    # ---- autograd --------------------------------------------------------------------------------

    def value_and_grad(
        self, fn: Callable[..., Array], arrays: Sequence[Array]
    ) -> tuple[Array, Sequence[Array | None]]:
        with jax.enable_x64(True), jax.default_device(self._device):
            value, pull_back = jax.vjp(fn, *arrays)
            return value, pull_back(jnp.ones_like(value))

    def stop_gradient(self, x: Array) -> Array:
        with jax.enable_x64(True):
            return lax.stop_gradient(x)

    def recording_natively(self, x: Array) -> bool:
        return isinstance(x, jax.core.Tracer)


def _compiled(primitive: Callable[..., Array]) -> Callable[..., Array]:
    """A method that calls `primitive` as one XLA program for each set of shapes and keywords.

    tfx and `jax.jit` agree on what is what: arrays and weak numbers come by position and are
    traced, all else by keyword and is static.
    """
    parameters = signature(primitive).parameters.values()
    keywords = {p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
    program = jax.jit(
        primitive,
        static_argnames=keywords - _TRACED,
        donate_argnames="buffer" if primitive is primitives.write else (),
    )

    @wraps(primitive)
    def method(self: JaxBackend, *arrays: Any, **statics: Any) -> Array:
        with jax.enable_x64(True), jax.default_device(self._device):
            return program(*arrays, **statics)

    return method


for _name in PRIMITIVES:
    if hasattr(primitives, _name):
        setattr(JaxBackend, _name, _compiled(getattr(primitives, _name)))
