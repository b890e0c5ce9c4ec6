"""Products of few rows with a large matrix, which read each weight from memory once: all rows of
`x` meet it while it is in a core's cache. BLAS takes three times as long for two as for one."""

from __future__ import annotations

import numpy as np
from numba import prange

from tfx.backends.numba.arithmetic import row
from tfx.backends.numba.compiling import Array, Rows, shared
from tfx.core.planning import Call

_FEWEST, _MOST = 2, 8  # rows
_LARGE = 1 << 18  # weights, which do not stay in a core's cache
_WIDE = 512  # columns whose sums stay in a core's first cache


@shared
def _by_outputs(out: Rows, x: Rows, w: Rows) -> None:
    """x @ w.T, a row of `w` with four of `x` at a time; where there are fewer, with the last one
    again."""
    real = x.dtype.type
    count = out.shape[0]
    for m in prange(w.shape[0]):
        weights = row(w, m)
        for i in range(0, count, 4):
            row0, row1 = row(x, i), row(x, min(i + 1, count - 1))
            row2, row3 = row(x, min(i + 2, count - 1)), row(x, min(i + 3, count - 1))
            dot0 = dot1 = dot2 = dot3 = real(0)
            for c in range(len(weights)):
                dot0 += weights[c] * row0[c]
                dot1 += weights[c] * row1[c]
                dot2 += weights[c] * row2[c]
                dot3 += weights[c] * row3[c]
            row(out, min(i + 3, count - 1))[m] = dot3
            row(out, min(i + 2, count - 1))[m] = dot2
            row(out, min(i + 1, count - 1))[m] = dot1
            row(out, i)[m] = dot0


@shared
def _by_inputs(out: Rows, x: Rows, w: Rows) -> None:
    """x @ w, four rows of `w` at a time, some columns of them."""
    real = x.dtype.type
    inputs, outputs = w.shape
    whole = inputs - inputs % 4
    for block in prange((outputs + _WIDE - 1) // _WIDE):
        start, stop = block * _WIDE, min((block + 1) * _WIDE, outputs)
        for i in range(out.shape[0]):
            row(out, i)[start:stop] = real(0)
        for k in range(0, whole, 4):
            row0, row1 = row(w, k)[start:stop], row(w, k + 1)[start:stop]
            row2, row3 = row(w, k + 2)[start:stop], row(w, k + 3)[start:stop]
            for i in range(out.shape[0]):
                sums, factors = row(out, i)[start:stop], row(x, i)
                factor0, factor1 = factors[k], factors[k + 1]
                factor2, factor3 = factors[k + 2], factors[k + 3]
                for j in range(len(sums)):
                    near = factor0 * row0[j] + factor1 * row1[j]
                    sums[j] += near + (factor2 * row2[j] + factor3 * row3[j])
        for k in range(whole, inputs):
            last = row(w, k)[start:stop]
            for i in range(out.shape[0]):
                sums, factor = row(out, i)[start:stop], row(x, i)[k]
                for j in range(len(sums)):
                    sums[j] += factor * last[j]


def skinny(x: Array, w: Array, out: Array) -> Call | None:
    """The call for x @ w into `out`, where it is quicker than BLAS; else None."""
    if not _FEWEST <= len(x) <= _MOST or w.size < _LARGE or x.dtype != np.float32:
        return None
    if x.strides[1] != x.itemsize or out.strides[1] != out.itemsize:
        return None
    if w.strides[1] == w.itemsize:
        return _by_inputs.of(x.dtype, size=w.size), (out, x, w)
    if w.strides[0] == w.itemsize:
        return _by_outputs.of(x.dtype, size=w.size), (out, x, w.T)
    return None
