"""Whether a replay computed what was recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfx.core.backend import Array, Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import CaptureError
from tfx.core.tensor import Tensor

SHARES = {
    DType.float64: 1e-6,
    DType.float32: 1e-2,
    DType.float16: 1e-1,
    DType.bfloat16: 1e-1,
}
"""The distance that is let pass, as a share of the length of the recorded array as a vector.

Loose, since a step of Adam takes the sign of gradients that are nothing but rounding; what a fault
of capture does is larger by orders of magnitude."""

_LEAST = 1e-2
"""Each number counts for at least so much of the length: what is next to nothing may be nothing but
rounding."""

_BLOCK = 1 << 20

SAMPLED = 1 << 22
"""Of a larger output so many numbers are kept to compare, evenly spread: all of a model's
parameters, kept twice, would decide how much memory a training step takes."""


@dataclass(frozen=True)
class Recorded:
    """What an output was when it was recorded, on the host."""

    dtype: DType
    shape: tuple[int, ...]
    sample: HostArray

    @classmethod
    def of(cls, backend: Backend, x: Array) -> Recorded:
        shape = backend.shape(x)
        return cls(backend.dtype(x), shape, _sample(backend, x))


def check_replay(
    name: str, backend: Backend, recorded: Sequence[Recorded], replayed: Sequence[Array]
) -> None:
    """Refuse a replay whose outputs are not those that were recorded.

    Raises:
        CaptureError: names the function and the output.
    """
    for i, (was, x) in enumerate(zip(recorded, replayed, strict=True)):
        if not _near(was.sample, _sample(backend, x), SHARES.get(was.dtype, 0.0)):
            raise CaptureError(
                f"output {i} of {name!r}, {was.dtype}{was.shape}, is another when it is "
                "replayed: the function depends on more than its arguments, or a plan of the "
                "backend is wrong; TFX_JIT=0 runs it without capture"
            )


def _sample(backend: Backend, x: Array) -> HostArray:
    count = math.prod(backend.shape(x))
    step = -(-count // SAMPLED) | 1  # odd: an even one passes over columns of most matrices
    flat = backend.reshape(x, shape=(count,))
    if step > 1:
        flat = backend.slice(flat, starts=(0,), stops=(count,), steps=(step,))
    return Tensor(flat, backend).numpy()


def _near(x: HostArray, y: HostArray, share: float) -> bool:
    """Whether two arrays lie within `share` of the length of the first; NaN equals NaN."""
    length = apart = 0.0
    for start in range(0, x.size, _BLOCK):
        a, b = (z[start : start + _BLOCK].astype(np.float64) for z in (x, y))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(all="ignore"):
            gap = np.where(same, 0.0, a - b)
        apart += float(np.dot(gap, gap))
        finite = a[np.isfinite(a)]
        length += float(np.dot(finite, finite))
    return apart <= share**2 * (length + x.size * _LEAST**2)
