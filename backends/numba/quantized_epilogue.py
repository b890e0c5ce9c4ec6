"""What follows a product: bias, activation and residual, over outputs still in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfx.backends.numba.arithmetic import gelu, gelu_new, row, silu
from tfx.backends.numba.compiling import helper

ACTIVATIONS = {None: 0, "gelu_new": 1, "gelu": 2, "relu": 3, "silu": 4}
"""What the kernels call them."""

_ZERO = np.float32(0)


@helper
def finish(
    found: Any, low: Any, b: Any, activation: Any, residual: Any, first: Any, y: Any
) -> None:
    """y[first + i, low + j] = residual[first + i, low + j] + activation(found[i, j] + b[low + j]).

    Without a bias or a residual, it is empty. `residual` may be `y`.
    """
    count = found.shape[1]
    for i in range(found.shape[0]):
        part = row(found, i)
        if len(b):
            bias = b[low : low + count]
            for j in range(count):
                part[j] += bias[j]
        if activation == 1:
            for j in range(count):
                part[j] = gelu_new(part[j])
        elif activation == 2:
            for j in range(count):
                part[j] = gelu(part[j])
        elif activation == 3:
            for j in range(count):  # a NaN stays one: it says that x was not finite
                part[j] = _ZERO if part[j] < _ZERO else part[j]
        elif activation == 4:
            for j in range(count):
                part[j] = silu(part[j])
        out = row(y, first + i)[low : low + count]
        if len(residual):
            more = row(residual, first + i)[low : low + count]
            for j in range(count):
                out[j] = more[j] + part[j]
        else:
            for j in range(count):
                out[j] = part[j]
