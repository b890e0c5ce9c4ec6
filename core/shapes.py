"""Axes, shapes and index expressions, brought to the one form the primitives take."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfx.core.errors import ShapeError

Axis = int | Sequence[int] | None


def normal_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """`axis` as distinct, non-negative axes; None means all.

    >>> normal_axes(-1, 3), normal_axes(None, 2)
    ((2,), (0, 1))
    """
    if axis is None:
        return tuple(range(ndim))
    axes: tuple[int, ...]
    if isinstance(axis, int) or not isinstance(axis, Sequence):  # Sequence is slow to say no
        axes = (operator.index(axis),)
    else:
        axes = tuple(axis)
    if axes and min(axes) < 0:
        axes = tuple([a + ndim if a < 0 else a for a in axes])
    if len(set(axes).intersection(range(ndim))) != len(axes):
        raise ShapeError(f"axis {axis} does not fit a tensor of {ndim} axes")
    return axes


def shape_argument(lengths: Sequence[Any]) -> tuple[int, ...]:
    """Lengths given one by one or as one sequence.

    >>> shape_argument((2, 3)) == shape_argument(([2, 3],))
    True
    """
    if len(lengths) == 1 and isinstance(lengths[0], Sequence):
        return tuple(lengths[0])
    return tuple(lengths)


def complete_shape(asked: tuple[int, ...], old: tuple[int, ...]) -> tuple[int, ...]:
    """`asked` with its -1, if it has one, computed so that `old` can take it.

    >>> complete_shape((2, -1), (4, 3))
    (2, 6)
    """
    new, size = asked, math.prod(old)
    given = math.prod(new)
    if given < 0 and new.count(-1) == 1:
        at = new.index(-1)
        new = (*new[:at], size // -given, *new[at + 1 :])
        given = math.prod(new)
    if given != size or min(new, default=0) < 0:
        raise ShapeError(f"cannot reshape {old} to {asked}")
    return new


class Index(NamedTuple):
    """An index expression: cut, then reshape, then pick along one axis."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]
    shape: tuple[int, ...]
    pick: tuple[int, Any] | None  # the axis, and the tensor of integers that stood there


def parse_index(key: Any, shape: tuple[int, ...]) -> Index:
    """What `x[key]` asks of an `x` of `shape`: integers, slices, `...`, None, one integer tensor.

    >>> parse_index((slice(1, None), None, -1), (3, 4))
    Index(starts=(1, 3), stops=(3, 4), steps=(1, 1), shape=(2, 1), pick=None)
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    used = len([part for part in parts if part is not None]) - len(dots)
    if used > len(shape) or len(dots) > 1:
        raise ShapeError(f"index {key!r} does not fit the shape {shape}")
    here = dots[0] if dots else len(parts)
    parts[here : here + 1] = [slice(None)] * (len(shape) - used)

    cuts: list[tuple[int, int, int]] = []
    result: list[int] = []
    pick: tuple[int, Any] | None = None
    for part in parts:
        if part is None:
            result.append(1)
            continue
        length = shape[len(cuts)]
        if isinstance(part, slice):
            cut = _cut(part, length)
            result.append(len(range(*cut)))
        elif hasattr(part, "backend"):
            if pick is not None:
                raise ShapeError("at most one axis can be indexed by a tensor; chain two indexings")
            cut = (0, length, 1)
            pick = (len(result), part)
            result.append(length)
        else:
            cut = _single(part, length, key, shape)
        cuts.append(cut)
    if pick is not None:
        picking = [i for i, part in enumerate(parts) if not isinstance(part, slice | None)]
        if picking[-1] - picking[0] >= len(picking):  # NumPy moves such axes to the front
            raise ShapeError(
                "an integer and a tensor in one index stand side by side; chain two indexings"
            )
    starts, stops, steps = zip(*cuts, strict=True) if cuts else ((), (), ())
    return Index(starts, stops, steps, tuple(result), pick)


def _cut(part: slice, length: int) -> tuple[int, int, int]:
    start, stop, step = part.indices(length)
    if step < 1:
        raise ShapeError(f"a slice step must be at least 1, not {step}")
    return start, max(start, stop), step


def _single(part: Any, length: int, key: Any, shape: tuple[int, ...]) -> tuple[int, int, int]:
    try:
        if isinstance(part, bool):
            raise TypeError
        i = operator.index(part)
    except TypeError:
        raise ShapeError(
            f"cannot index by {type(part).__name__}: use integers, slices, None or int tensors"
        ) from None
    if not -length <= i < length:
        raise ShapeError(f"index {key!r} is out of range for the shape {shape}")
    i %= length
    return i, i + 1, 1
