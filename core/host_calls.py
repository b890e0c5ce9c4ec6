"""Which calls of fused ops kernels take that work on NumPy's arrays: the `supports` of each.

They take float32 and float64, arrays all of one dtype, in the shapes that the op is defined for.
What they leave goes to the composed form, which handles it, or says what is wrong with it.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from tfx.core.backend import Backend
from tfx.core.nn import Activation

Array = npt.NDArray[Any]

FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
"""The dtypes the kernels handle."""

INDICES = frozenset({np.dtype(np.int32), np.dtype(np.int64)})
"""The dtypes of indices."""

_POSITION = np.dtype(np.int64)  # of an offset
_ACTIVATIONS = frozenset({None, *get_args(Activation)})


def floats(*arrays: Array | None) -> bool:
    """float32 or float64 arrays, all of one dtype."""
    dtype = arrays[0].dtype  # type: ignore[union-attr]
    for x in arrays:
        if x is not None and x.dtype != dtype:
            return False
    return dtype in FLOATS


def takes_rows(B: Backend, x: Array, **_: Any) -> bool:
    """`softmax` and other ops of one array, row by row or number by number."""
    return x.ndim > 0 and x.size > 0 and floats(x)


def takes_linear(
    B: Backend,
    x: Array,
    w: Array,
    b: Array | None,
    residual: Array | None,
    *,
    activation: str | None,
    outputs_first: bool,
) -> bool:
    """`linear`."""
    if x.ndim < 2 or w.ndim != 2 or not x.size or not w.size or activation not in _ACTIVATIONS:
        return False
    outputs, inputs = w.shape if outputs_first else w.shape[::-1]
    return (
        x.shape[-1] == inputs
        and (b is None or b.shape == (outputs,))
        and (residual is None or residual.shape == (*x.shape[:-1], outputs))
        and floats(x, w, b, residual)
    )


def takes_gelu(B: Backend, x: Array, *, approximate: str) -> bool:
    """`gelu`."""
    return approximate in ("none", "tanh") and takes_rows(B, x)


def takes_rms_norm(B: Backend, x: Array, gain: Array | None, *, eps: float) -> bool:
    """`rms_norm`."""
    fits = gain is None or gain.shape == x.shape[-1:]
    return x.ndim > 0 and x.size > 0 and fits and floats(x, gain)


def takes_layer_norm(B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> bool:
    """`layer_norm`."""
    fits = gain.shape == bias.shape == x.shape[-1:]
    return x.ndim > 0 and x.size > 0 and fits and floats(x, gain, bias)


def takes_attention(
    B: Backend,
    q: Array,
    k: Array,
    v: Array,
    scale: Any,
    offset: Array | None,
    visible: Array | None,
    factor: Array | None,
    *,
    causal: bool,
    heads: int | None,
) -> bool:
    """`attention`, with a number for a scale."""
    if q.ndim < 2 or not q.size or not v.size:
        return False
    *outside, queries, width = q.shape
    if not (
        k.shape == (*outside, *k.shape[-2:-1], width)
        and k.shape[:-1] == v.shape[:-1]
        and (heads is None or width % heads == 0 == v.shape[-1] % heads)
        and isinstance(scale, float)
        and floats(q, k, v, factor)
        and (offset is None or (offset.shape == () and offset.dtype == _POSITION))
        and (visible is None or visible.dtype == np.bool_)
    ):
        return False
    if visible is None and factor is None:
        return True
    scores = (*outside, *(() if heads is None else (heads,)), queries, k.shape[-2])
    return all(x is None or _broadcasts(x.shape, scores) for x in (visible, factor))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


def takes_cross_entropy(B: Backend, logits: Array, targets: Array) -> bool:
    """`cross_entropy`."""
    return (
        logits.ndim > 1
        and logits.size > 0
        and logits.shape[:-1] == targets.shape
        and targets.dtype in INDICES
        and floats(logits)
    )


def takes_embedding(B: Backend, table: Array, ids: Array) -> bool:
    """`embedding`."""
    return table.ndim == 2 and table.size > 0 < ids.size and ids.dtype in INDICES and floats(table)


def takes_adamw_step(
    B: Backend,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rates: Array,
    decay: Array | None,
    healthy: Array | None,
    factor: Array | None,
    **_: float,
) -> bool:
    """`adamw_step`."""
    return (
        p.ndim > 0
        and p.size > 0
        and p.shape == g.shape == m.shape == v.shape
        and rates.shape == (3,)
        and (decay is None or decay.shape in ((), p.shape))
        and (healthy is None or (healthy.shape == () and healthy.dtype == np.bool_))
        and (factor is None or factor.shape == ())
        and floats(p, g, m, v, rates, decay, factor)
    )
