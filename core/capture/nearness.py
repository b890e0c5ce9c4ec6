"""Whether a replay computed what was recorded."""

from __future__ import annotations

from collections.abc import Sequence

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


def check_replay(
    name: str, backend: Backend, recorded: Sequence[Array], replayed: Sequence[Array]
) -> None:
    """Refuse a replay whose outputs are not those that were recorded.

    Raises:
        CaptureError: names the function and the output.
    """
    for i, (x, y) in enumerate(zip(recorded, replayed, strict=True)):
        dtype = backend.dtype(x)
        here, there = Tensor(x, backend).numpy(), Tensor(y, backend).numpy()
        if not _near(here, there, SHARES.get(dtype, 0.0)):
            raise CaptureError(
                f"output {i} of {name!r}, {dtype}{backend.shape(x)}, is another when it is "
                "replayed: the function depends on more than its arguments, or a plan of the "
                "backend is wrong; TFX_JIT=0 runs it without capture"
            )


def _near(x: HostArray, y: HostArray, share: float) -> bool:
    """Whether two arrays lie within `share` of the length of the first; NaN equals NaN."""
    x, y = x.reshape(-1), y.reshape(-1)
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
