"""Operations composed from primitives: every backend has them as soon as it has those.

All take and return tensors; floats keep their dtype. The primitives themselves are methods and
operators of `Tensor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfx.core.checks import check_number, kind
from tfx.core.creation import arange
from tfx.core.dtypes import HALVES, DType
from tfx.core.errors import DTypeError, ShapeError
from tfx.core.shapes import normal_axes
from tfx.core.tensor import Number, Tensor, apply

# ---- selection ---------------------------------------------------------------------------


def where(condition: Tensor, x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """x where the bool `condition` holds, else y; one of them may be a number. Shapes broadcast."""
    if kind(condition) is not DType.bool:
        raise DTypeError(f"where needs a bool tensor as condition, not {kind(condition)}")
    dtypes = [v.dtype for v in (x, y) if isinstance(v, Tensor)]
    if not dtypes:
        raise DTypeError("where needs a tensor for x or y: two numbers have no dtype")
    if dtypes[0] is not dtypes[-1]:
        raise DTypeError(f"where of {dtypes[0]} and {dtypes[1]}: dtypes are never mixed; cast one")
    if dtypes[0] not in condition.backend.dtypes:
        raise DTypeError(f"{condition.backend} does not compute with {dtypes[0]}; cast first")
    check_number("where", (x, y), dtypes[0])
    return apply("where", condition, x, y)


def maximum(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """The larger of both; NaN where either is. Equals share the gradient."""
    return apply("maximum", x, y)


def minimum(x: Tensor, y: Tensor | Number) -> Tensor:
    """The smaller of both; NaN where either is. Equals share the gradient."""
    if not x.dtype.is_float:  # -x may overflow
        return where(x < y, x, y)
    return -((-x).maximum(-y))


def clip(x: Tensor, low: Number, high: Number) -> Tensor:
    """x held between two numbers; the gradient is 0 outside, a half at either bound."""
    return minimum(x.maximum(low), high)


def absolute(x: Tensor) -> Tensor:
    """|x|; the gradient at 0 is 0."""
    if not x.dtype.is_float:
        return where(x < 0, -x, x)
    return x.maximum(-x)


def relu(x: Tensor) -> Tensor:
    """x where it is positive, else 0; the gradient at 0 is 0."""
    return where(0 < x, x, 0)


def isfinite(x: Tensor) -> Tensor:
    """False where x is infinite or NaN."""
    return absolute(x) < math.inf


# ---- exponentials and roots ----------------------------------------------------------------


def exp(x: Tensor) -> Tensor:
    """e**x."""
    return x.exp()


def log(x: Tensor) -> Tensor:
    """Natural logarithm."""
    return x.log()


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return x.tanh()


def sqrt(x: Tensor) -> Tensor:
    """Square root."""
    return x.sqrt()


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x)."""
    return x**-0.5


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), by way of tanh, which overflows for no x."""
    return (x * 0.5).tanh() * 0.5 + 0.5


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) (Elfwing et al. 2017, arXiv:1702.03118)."""
    return x * sigmoid(x)


# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969):
# numerator and denominator, highest power first, of erf(x)/x in x**2 and of exp(x**2) erfc(x) in x.
ERF_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2,
     3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2,
     1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
ERFC_LARGE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip


def erf(x: Tensor) -> Tensor:
    """The error function, to 1e-15 in float64 (Cody's rational approximations).

    Beyond |x| = 6 it is 1 to the last place, so the arguments of both branches are held where
    nothing overflows and the branch that is not taken leaves no NaN in a gradient.
    """
    if x.dtype in HALVES:  # too narrow for the coefficients
        return erf(x.widened()).cast(x.dtype)
    near = clip(x, -0.5, 0.5)
    small = near * _rational(near * near, *ERF_SMALL)
    size = minimum(absolute(x), 6.0)
    large = 1.0 - (-size * size).exp() * _rational(size, *ERFC_LARGE)
    return where(size < 0.46875, small, where(x < 0, -large, large))


def _rational(x: Tensor, numerator: Sequence[float], denominator: Sequence[float]) -> Tensor:
    return _horner(x, numerator) / _horner(x, denominator)


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        total = total * x + c
    return total


# ---- statistics ------------------------------------------------------------------------------


def var(x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """The mean squared distance from the mean (no Bessel correction)."""
    wide = x.widened()
    off = wide - wide.mean(axis, keepdims=True)
    return (off * off).mean(axis, keepdims).cast(x.dtype)


def logsumexp(x: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) without overflow; -inf where every x is -inf."""
    top = finite_max(x, axis)
    total = (x - top).exp().sum(axis, keepdims=True).log() + top
    return total if keepdims else total.reshape(_without(total.shape, axis))


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) without overflow, as exact far from zero as near it."""
    shifted = x - finite_max(x, axis)
    return shifted - shifted.exp().sum(axis, keepdims=True).log()


def finite_max(x: Tensor, axis: int) -> Tensor:
    """The largest along `axis`, as a constant; finite even where every x is -inf."""
    return x.detach().max(axis, keepdims=True).maximum(lowest(x.dtype))


def lowest(dtype: DType) -> float:
    """The most negative finite number of a float dtype."""
    if not dtype.is_float:
        raise DTypeError(f"softmax and its kin are for floats, not {dtype}; cast first")
    return {
        DType.float16: -65504.0,
        DType.bfloat16: -3.3895313892515355e38,
        DType.float32: -3.4028234663852886e38,
        DType.float64: -1.7976931348623157e308,
    }[dtype]


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    (gone,) = normal_axes(axis, len(shape))
    return shape[:gone] + shape[gone + 1 :]


# ---- putting together ----------------------------------------------------------------------------


def concat(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors, one or more, laid one after the other along `axis`."""
    if not xs or not all(isinstance(x, Tensor) for x in xs):
        raise ShapeError("concat needs tensors, at least one")
    if len({x.dtype for x in xs}) > 1:
        raise DTypeError(f"concat of {', '.join(x.dtype for x in xs)}: dtypes are never mixed")
    (along,) = normal_axes(axis, xs[0].ndim)
    if len({(x.shape[:along], x.shape[along + 1 :]) for x in xs}) > 1:
        raise ShapeError(f"concat of {', '.join(str(x.shape) for x in xs)} along axis {along}")
    return apply("concat", *xs, axis=along)


def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    if not xs or not all(isinstance(x, Tensor) for x in xs):
        raise ShapeError("stack needs tensors, at least one")
    shape = xs[0].shape
    if any(x.shape != shape for x in xs):
        raise ShapeError(f"stack of {', '.join(str(x.shape) for x in xs)}: one shape was expected")
    (along,) = normal_axes(axis, len(shape) + 1)
    widened = (*shape[:along], 1, *shape[along:])
    return concat([x.reshape(widened) for x in xs], along)


def split(x: Tensor, count: int, axis: int = -1) -> tuple[Tensor, ...]:
    """`x` in so many parts of one length, which lie side by side along `axis`."""
    shape = x.shape
    (along,) = normal_axes(axis, len(shape))
    size = shape[along] // count if count > 0 else 0
    if size * count != shape[along] or count < 1:
        raise ShapeError(f"split of {shape} into {count} parts along axis {along}")
    before, behind = shape[:along], shape[along + 1 :]
    none, steps = (0,) * len(shape), (1,) * len(shape)
    parts = []
    for i in range(count):
        starts = (*none[:along], i * size, *none[along + 1 :])
        stops = (*before, (i + 1) * size, *behind)
        parts.append(apply("slice", x, starts=starts, stops=stops, steps=steps))
    return tuple(parts)


def causal_mask(queries: int, keys: int, offset: Tensor) -> Tensor:
    """Which of `keys` positions each of `queries` may see: bool (queries, keys).

    Query i stands at position offset + i, `offset` a 0-d tensor of the backend's index dtype, and
    sees positions up to its own.
    """
    backend = offset.backend
    standing = arange(queries, backend).reshape(queries, 1) + offset
    return arange(keys, backend) < standing + 1
