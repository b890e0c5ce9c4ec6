"""Theta and head masks as Python code and flags give them, as arrays on the host.

L layers of H heads read T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError, UsageError
from tfx.core.ops import lowest
from tfx.core.wording import in_brief

Numbers = npt.NDArray[np.float64]


def by_token(
    theta: Callable[[int], ArrayLike], dtype: DType, count: int, layers: int, heads: int
) -> Numbers:
    """What a function gives for each of `count` tokens, as (T, L, H).

    >>> by_token(lambda token: [token, 1.0], DType.float32, 3, 2, 1)[:, :, 0].tolist()
    [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    found = np.empty((count, layers, heads))
    for token in range(count):
        each = thetas(theta(token), dtype)
        if each.shape not in ((), (layers,), (layers, heads)):
            raise ShapeError(
                f"theta of token {token} has the shape {each.shape}; expected () or ({layers},) or "
                f"({layers}, {heads})"
            )
        found[token] = each.reshape(each.shape + (1,) * (2 - each.ndim))
    return found


def thetas(given: ArrayLike, dtype: DType) -> Numbers:
    """What attention is to be scaled by, as an array.

    Raises:
        UsageError: it is no such numbers as a model can compute with in `dtype`, or below 0.
    """
    found = numbers("theta", given, dtype)
    if (found < 0).any():
        raise UsageError(
            f"theta {in_brief(given)}: expected numbers of at least 0; 1 changes nothing"
        )
    return found


def numbers(name: str, given: ArrayLike, dtype: DType) -> Numbers:
    """Numbers that somebody gave as an array.

    Raises:
        UsageError: they are no numbers, or not finite in `dtype`.
    """
    try:
        spelled = np.asarray(given).dtype.kind in "US"
        found = np.asarray(np.nan if spelled else given, np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if not np.isfinite(found).all():
        raise UsageError(f"{name} {in_brief(given)}: expected finite numbers, as many in every row")
    if found.size and np.abs(found).max() > (most := -lowest(dtype)):
        raise UsageError(f"{name} {in_brief(given)}: in {dtype} there are numbers up to {most:.3g}")
    return found
