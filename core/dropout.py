"""Dropout: numbers at random places become zero, the rest grow to keep the mean.

Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", JMLR
15.
"""

from __future__ import annotations

import itertools

from tfx.core.checkpointing import once
from tfx.core.checks import index
from tfx.core.creation import full
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError, UsageError
from tfx.core.fused import fused
from tfx.core.ops import where
from tfx.core.tensor import Tensor, apply
from tfx.core.threefry import fold_in

BITS = 24
"""Of each word, that are compared with the rate."""


@fused
def dropout_factor(
    step: Tensor, *, key: tuple[int, int], shape: tuple[int, ...], rate: float, dtype: DType
) -> Tensor:
    """Numbers of `shape` and `dtype`: 0 for a share of `rate`, 1 / (1 - rate) for the rest.

    0 stands where `random_bits` with the counter `step` (0-d, of integers) and `key` draws less
    than round(rate * 2**24) in 24 bits. Kernels draw the same: their zeros are in the same places.

    Raises:
        UsageError: `rate` is not a share below 1.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"dropout {rate}: expected a share from 0 up to, not including, 1")
    if step.shape:
        raise ShapeError(f"the step of dropout has shape {step.shape}: expected one number")
    bits = apply("random_bits", index(step), key=key, shape=shape, bits=BITS)
    kept = full((), 1 / (1 - rate), step.backend, dtype)
    return where(bits < how_many_zeros(rate), 0.0, kept)


def how_many_zeros(rate: float) -> int:
    """For which of all 2**BITS draws, the lowest, there is a zero."""
    return round(rate * (1 << BITS))


class Dropout:
    """The dropout of one forward pass; every call in it draws numbers of its own.

    The same key and step give the same masks on every backend. The step is a tensor, so a recorded
    pass that is replayed draws anew.

    Args:
        key: of the whole run; see `tfx.core.threefry.key_from_seed`.
        step: a 0-d integer tensor that is another for each pass.
    """

    def __init__(self, key: tuple[int, int], step: Tensor) -> None:
        self._key = key
        self._step = step
        self._calls = itertools.count(1)

    def __call__(self, x: Tensor, rate: float) -> Tensor:
        """`x` with a share of `rate` set to zero, and the rest divided by 1 - rate."""
        factor = self.factor(x.shape, rate, x.dtype)
        return x if factor is None else x * factor

    def factor(self, shape: tuple[int, ...], rate: float, dtype: DType) -> Tensor | None:
        """What something of `shape` is to be multiplied by, 0 or 1 / (1 - rate) in each place; None
        where `rate` is 0.

        Raises:
            UsageError: `rate` is not a share below 1.
        """
        if rate == 0:
            return None
        key = fold_in(self._key, once(self._calls.__next__))
        return dropout_factor(self._step, key=key, shape=shape, rate=rate, dtype=dtype)
