"""The primitives of tfx as pure functions of JAX arrays, each under the name tfx calls it by.

What they promise stands in `tfx.core.backend.Backend`. Names like `sum` and `slice` hide Python's
own in this file.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tfx.core.dtypes import HALVES, DType
from tfx.core.threefry import threefry2x32

JAX_DTYPE = {dtype: jnp.dtype(str(dtype)) for dtype in DType}
INDEX = DType.int32

Operand = Array | bool | int | float


# ---- arrays --------------------------------------------------------------------------------------


def full(*, shape: tuple[int, ...], value: float, dtype: DType) -> Array:
    return jnp.full(shape, value, JAX_DTYPE[dtype])


def arange(*, stop: int) -> Array:
    return jnp.arange(stop, dtype=JAX_DTYPE[INDEX])


def cast(x: Array, *, dtype: DType) -> Array:
    return x.astype(JAX_DTYPE[dtype])


# ---- elementwise ---------------------------------------------------------------------------------

neg = jnp.negative
exp = jnp.exp
log = jnp.log
tanh = jnp.tanh
sqrt = jnp.sqrt
add = jnp.add
sub = jnp.subtract
mul = jnp.multiply
div = jnp.true_divide
maximum = jnp.maximum
less = jnp.less
equal = jnp.equal


def pow(x: Array, *, exponent: float) -> Array:
    # JAX's slope of x**0.0 is NaN where x is 0; that of x**0 is 0.
    return jnp.power(x, exponent or 0)


def where(condition: Array, x: Operand, y: Operand) -> Array:
    return jnp.where(condition, x, y)


# ---- reductions and products ---------------------------------------------------------------------


def sum(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.sum(x, axis, dtype=x.dtype, keepdims=keepdims)


def max(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.max(x, axis, keepdims=keepdims)


def argmax(x: Array, *, axis: int) -> Array:
    return jnp.argmax(x, axis).astype(JAX_DTYPE[INDEX])


def matmul(x: Array, y: Array) -> Array:
    wide = jnp.float32 if x.dtype.name in HALVES else x.dtype
    return jnp.matmul(x, y, precision="highest", preferred_element_type=wide).astype(x.dtype)


# ---- shape ---------------------------------------------------------------------------------------


def reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


def transpose(x: Array, *, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(x, shape)


def concat(*xs: Array, axis: int) -> Array:
    # Of a single array, JAX would return that very array, and `write` might consume it.
    return jnp.concatenate(xs, axis) if len(xs) > 1 else jnp.copy(xs[0])


def slice(
    x: Array, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> Array:
    return lax.slice(x, starts, stops, steps)


def pad(x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), [(*width, 0) for width in widths])


# ---- index and random ----------------------------------------------------------------------------


def take(x: Array, indices: Array, *, axis: int) -> Array:
    return jnp.take(x, indices, axis, mode="clip")


def scatter_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    return x.at[(np.s_[:],) * axis + (indices,)].add(updates)


def write(buffer: Array, slab: Array, start: Array | int, *, axis: int) -> Array:
    return lax.dynamic_update_slice_in_dim(buffer, slab, start, axis)


def random_bits(
    counter: Array, *, key: tuple[Any, Any], shape: tuple[int, ...], bits: int
) -> Array:
    count = math.prod(shape)
    blocks = jnp.arange((count + 1) // 2, dtype=jnp.uint32)
    pair = threefry2x32(key, blocks, jnp.full_like(blocks, counter.astype(jnp.uint32)))
    words = jnp.stack(pair, -1).reshape(-1)[:count] >> (32 - bits)
    return lax.bitcast_convert_type(words, jnp.int32).reshape(shape)
