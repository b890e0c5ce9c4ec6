"""Which calls of fused ops kernels take: the `supports` of each.

For kernels over arrays that have NumPy's dtypes, those of NumPy or of a library in its likeness.
What they leave goes to the composed form, which handles it, or says what is wrong with it.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from tfx.core.backend import Array, Backend
from tfx.core.nn import Activation

INDICES = frozenset({np.dtype(np.int32), np.dtype(np.int64)})
"""The dtypes of indices."""

_POSITION = np.dtype(np.int64)  # of an offset
_ACTIVATIONS = frozenset({None, *get_args(Activation)})


class KernelCalls:
    """The calls in shapes that the ops are defined for, on arrays of numbers all of one dtype. A
    method takes what the op of its name does.

    Args:
        dtypes: of the numbers, by name.
        least_axes: that a result has, where a library gives something else for one without axes.
    """

    def __init__(self, *dtypes: str, least_axes: int) -> None:
        self.dtypes = frozenset(map(np.dtype, dtypes))
        self._least_axes = least_axes

    def floats(self, *arrays: Array | None) -> bool:
        """Arrays all of one of the dtypes."""
        dtype = arrays[0].dtype  # type: ignore[union-attr]
        for x in arrays:
            if x is not None and x.dtype != dtype:
                return False
        return dtype in self.dtypes

    def softmax(self, B: Backend, x: Array) -> bool:
        return x.ndim > 0 and x.size > 0 and self.floats(x)

    def euclidean_norm(self, B: Backend, x: Array) -> bool:
        return x.ndim >= self._least_axes and x.size > 0 and self.floats(x)

    def gelu(self, B: Backend, x: Array, *, approximate: str) -> bool:
        return approximate in ("none", "tanh") and self.euclidean_norm(B, x)

    def linear(
        self,
        B: Backend,
        x: Array,
        w: Array,
        b: Array | None,
        residual: Array | None,
        *,
        activation: str | None,
        outputs_first: bool,
    ) -> bool:
        if x.ndim < 2 or w.ndim != 2 or not x.size or not w.size or activation not in _ACTIVATIONS:
            return False
        outputs, inputs = w.shape if outputs_first else w.shape[::-1]
        return (
            x.shape[-1] == inputs
            and (b is None or b.shape == (outputs,))
            and (residual is None or residual.shape == (*x.shape[:-1], outputs))
            and self.floats(x, w, b, residual)
        )

    def rms_norm(self, B: Backend, x: Array, gain: Array | None, *, eps: float) -> bool:
        fits = gain is None or gain.shape == x.shape[-1:]
        return x.ndim > 0 and x.size > 0 and fits and self.floats(x, gain)

    def layer_norm(self, B: Backend, x: Array, gain: Array, bias: Array, *, eps: float) -> bool:
        fits = gain.shape == bias.shape == x.shape[-1:]
        return x.ndim > 0 and x.size > 0 and fits and self.floats(x, gain, bias)

    def attention(
        self,
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
        """With a number for a scale."""
        if q.ndim < 2 or not q.size or not v.size:
            return False
        *outside, queries, width = q.shape
        if not (
            k.shape == (*outside, *k.shape[-2:-1], width)
            and k.shape[:-1] == v.shape[:-1]
            and (heads is None or width % heads == 0 == v.shape[-1] % heads)
            and isinstance(scale, int | float)
            and self.floats(q, k, v, factor)
            and (offset is None or (offset.shape == () and offset.dtype == _POSITION))
            and (visible is None or visible.dtype == np.bool_)
        ):
            return False
        if visible is None and factor is None:
            return True
        scores = (*outside, *(() if heads is None else (heads,)), queries, k.shape[-2])
        return all(x is None or broadcasts(x.shape, scores) for x in (visible, factor))

    def cross_entropy(self, B: Backend, logits: Array, targets: Array) -> bool:
        return (
            logits.ndim > 0
            and targets.ndim >= self._least_axes
            and logits.size > 0
            and logits.shape[:-1] == targets.shape
            and targets.dtype in INDICES
            and self.floats(logits)
        )

    def embedding(self, B: Backend, table: Array, ids: Array) -> bool:
        sizes = table.ndim == 2 and table.size > 0 < ids.size
        return sizes and ids.dtype in INDICES and self.floats(table)

    def adamw_step(
        self,
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
        return (
            p.ndim >= self._least_axes
            and p.size > 0
            and p.shape == g.shape == m.shape == v.shape
            and rates.shape == (3,)
            and (decay is None or decay.shape in ((), p.shape))
            and (healthy is None or (healthy.shape == () and healthy.dtype == np.bool_))
            and (factor is None or factor.shape == ())
            and self.floats(p, g, m, v, rates, decay, factor)
        )


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of one shape broadcasts to another, which stays as it is.

    >>> broadcasts((1, 3), (2, 4, 3)), broadcasts((2, 3), (4, 3)), broadcasts((1, 4, 3), (4, 3))
    (True, False, False)
    """
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False)
    )


HOST = KernelCalls("float32", "float64", least_axes=1)
"""Those that kernels over NumPy's arrays take: NumPy makes scalars of arrays without axes."""
