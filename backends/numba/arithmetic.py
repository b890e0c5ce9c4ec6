"""What compiled functions share: rows of arrays, exp, and activations with their derivatives.

All of it is inlined into loops over many numbers, which then compute several at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.ir_utils import alias_func_extensions
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array, populate_array

from tfx.backends.numba.compiling import exact, helper
from tfx.core.ops import ERF_SMALL, ERFC_LARGE

# ---- rows -----------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def row(typingctx: Any, x: Any, at: Any) -> Any:
    """x[at], an index or a tuple of all but the last, as an array whose numbers lie side by side:
    the compiler cannot know that of `x`."""
    result = types.Array(x.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = make_array(x)(context, builder, args[0])
        *strides, _ = cgutils.unpack_tuple(builder, source.strides)
        *_, length = cgutils.unpack_tuple(builder, source.shape)
        several = isinstance(at, types.BaseTuple)
        indices = cgutils.unpack_tuple(builder, args[1]) if several else args[1:]
        kinds = at.types if several else [at]
        pointer = source.data
        for index, kind, stride in zip(indices, kinds, strides, strict=True):
            index = context.cast(builder, index, kind, types.intp)
            pointer = cgutils.pointer_add(builder, pointer, builder.mul(index, stride))
        out = make_array(result)(context, builder)
        size = source.itemsize
        populate_array(
            out, data=pointer, shape=[length], strides=[size], itemsize=size, meminfo=None
        )
        return out._getvalue()

    return result(x, at), codegen


def _is_part(result: str, args: Any, aliases: dict[str, set[str]], given: set[str]) -> None:
    """Have Numba know that what is written to a row is written to its array: else, in loops that
    threads share, it takes such a write for one that nobody reads, and leaves it out."""
    whole = args[0].name
    if whole in given:
        given.add(result)
    else:
        aliases.setdefault(whole, set()).add(result)
        aliases.setdefault(result, set()).add(whole)


alias_func_extensions["row", __name__] = _is_part


@helper
def add_rows(total: Any, rows: Any) -> None:
    """The sum of the rows, into `total`."""
    total[:] = total.dtype.type(0)
    for i in range(rows.shape[0]):
        part = row(rows, i)
        for j in range(len(total)):
            total[j] += part[j]


@intrinsic  # type: ignore[untyped-decorator]
def _ordered(typingctx: Any, x: Any) -> Any:
    """The bits of a real number as an integer, such that integers are in the order of numbers; or
    the number of such an integer."""
    pairs = {types.float32: types.int32, types.float64: types.int64}
    pairs |= {integer: real for real, integer in pairs.items()}

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(signature.args[0].bitwidth)
        bits = builder.bitcast(args[0], integer)
        sign = builder.ashr(bits, integer(integer.width - 1))
        turned = builder.xor(bits, builder.and_(sign, integer(2 ** (integer.width - 1) - 1)))
        return builder.bitcast(turned, context.get_value_type(signature.return_type))

    return pairs[x](x), codegen


_LOWEST = {
    types.float32: np.finfo(np.float32).min,
    types.float64: np.finfo(np.float64).min,
}


def highest(numbers: Any) -> Any:
    """The largest of them, but finite where all are -inf; NaN where one of them is, or a number."""
    raise NotImplementedError("for compiled functions")


@overload(highest, strict=False)  # type: ignore[untyped-decorator]
def _highest(numbers: Any) -> Any:
    lowest = _LOWEST[numbers.dtype]

    def found(numbers: Any) -> Any:
        # As integers, since of real numbers, the compiler has to take each by itself.
        top = _ordered(lowest)
        for j in range(len(numbers)):
            top = max(top, _ordered(numbers[j]))
        return _ordered(top)

    return found


# ---- exp --------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_add(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once where the processor can."""
    return x(x, x, x), lambda context, builder, signature, args: _fused(builder, *args)


def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    real = x.type
    kind = ir.FunctionType(real, (real, real, real))
    return builder.call(builder.module.declare_intrinsic("llvm.fmuladd", [real], kind), (x, y, z))


def _polynomial(coefficients: Sequence[float]) -> Any:
    """A compiled polynomial, the coefficient of the highest power first."""

    @intrinsic  # type: ignore[untyped-decorator]
    def value(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            y, *rest = (ir.Constant(args[0].type, c) for c in coefficients)
            for c in rest:
                y = _fused(builder, y, args[0], c)
            return y

        return x(x), codegen

    return value


def _times_power(digits: int, bias: int) -> Any:
    """A compiled function of y and n + 1.5 * 2**(digits - 1), the lowest bits of which are those of
    the integer n, for 2**n y."""

    @intrinsic  # type: ignore[untyped-decorator]
    def value(typingctx: Any, y: Any, shifted: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            y, shifted = args
            integer = ir.IntType(32 if y.type == ir.FloatType() else 64)
            zero = builder.bitcast(ir.Constant(y.type, 1.5 * 2 ** (digits - 1)), integer)
            n = builder.sub(builder.bitcast(shifted, integer), zero)
            half = builder.ashr(n, integer(1))  # in two steps: 2**n itself may be out of range
            for part in half, builder.sub(n, half):
                power = builder.shl(builder.add(part, integer(bias)), integer(digits - 1))
                y = builder.fmul(y, builder.bitcast(power, y.type))
            return y

        return y(y, y), codegen

    return value


_LOG_2 = Decimal("0.693147180559945309417232121458176568")


def _exp_of(real: Any, digits: int, bias: int, degree: int, kept: int) -> Any:
    """exp(x) = 2**n exp(r), n the integer next to x / log(2); exp(r) by its series.

    Args:
        real: the dtype.
        digits, bias: of its significand, and of its exponent.
        degree: of the series, enough for |r| <= log(2) / 2.
        kept: binary digits of log(2) of which every n makes an exact multiple.
    """
    least = real(-(bias + digits) * math.log(2) - 1)  # where exp is 0
    most = real((bias + 1) * math.log(2) + 0.5)  # where it is infinite
    shift = real(1.5 * 2 ** (digits - 1))  # what is added to it is rounded to an integer
    high = round(_LOG_2 * 2**kept) / Decimal(2**kept)
    minus_high, minus_low = real(-float(high)), real(-float(_LOG_2 - high))
    log2_e = real(1 / math.log(2))
    series = _polynomial([1 / math.factorial(k) for k in range(degree, -1, -1)])
    times_power = _times_power(digits, bias)

    @exact
    def exp_of(x: Any) -> Any:
        x = least if x < least else x
        x = most if x > most else x
        shifted = _multiply_add(x, log2_e, shift)
        n = shifted - shift
        r = _multiply_add(n, minus_low, _multiply_add(n, minus_high, x))
        return times_power(series(r), shifted)

    return exp_of


_EXP = {
    types.float32: _exp_of(np.float32, 24, 127, degree=7, kept=15),
    types.float64: _exp_of(np.float64, 53, 1023, degree=13, kept=40),
}


def exp(x: Any) -> Any:
    """e**x to two units in the last place; 0 and infinity where it is out of range."""
    raise NotImplementedError("for compiled functions")


@overload(exp, strict=False)  # type: ignore[untyped-decorator]
def _exp(x: Any) -> Any:
    found = _EXP[x]
    return lambda x: found(x)


@intrinsic  # type: ignore[untyped-decorator]
def _choose(typingctx: Any, condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y, without a branch: a loop over it still computes several
    numbers at a time."""
    return x(condition, x, x), lambda context, builder, signature, args: builder.select(*args)


# ---- activations, each with its pull: the gradient by x where `g` is that by the value ----------

_SLOPE_AT_0 = 2 * math.sqrt(2 / math.pi)
_CUBE = 0.044715


@helper
def gelu_new(x: Any) -> Any:
    """x (1 + tanh(u / 2)) / 2 = x / (1 + exp(-u)), u = 2 sqrt(2 / pi) (x + 0.044715 x**3)."""
    real = type(x)
    u = x * (real(_SLOPE_AT_0) + real(_SLOPE_AT_0 * _CUBE) * (x * x))
    return x / (real(1) + exp(-u))


@helper
def gelu_new_pull(g: Any, x: Any) -> Any:
    real = type(x)
    square = x * x
    u = x * (real(_SLOPE_AT_0) + real(_SLOPE_AT_0 * _CUBE) * square)
    du = real(_SLOPE_AT_0) + real(3 * _SLOPE_AT_0 * _CUBE) * square
    s = real(1) / (real(1) + exp(-u))
    return g * (s + s * (real(1) - s) * (x * du))


_ABOVE_NEAR, _BELOW_NEAR = map(_polynomial, ERF_SMALL)
_ABOVE_FAR, _BELOW_FAR = map(_polynomial, ERFC_LARGE)


@helper
def _one_plus_erf(x: Any) -> Any:
    """Of x / sqrt(2), by Cody's two approximations (`tfx.core.ops.erf`)."""
    real = type(x)
    u = x * real(math.sqrt(0.5))
    size = abs(u)
    size = _choose(size > real(30), real(30), size)  # from where on exp(-size**2) is 0
    tail = exp(-size * size) * _ABOVE_FAR(size) / _BELOW_FAR(size)
    small = _choose(size > real(0.5), real(0.5), u)
    square = small * small
    near = real(1) + small * _ABOVE_NEAR(square) / _BELOW_NEAR(square)
    far = _choose(u < real(0), tail, real(2) - tail)
    return _choose(size < real(0.46875), near, far)


@helper
def gelu(x: Any) -> Any:
    """x (1 + erf(x / sqrt(2))) / 2."""
    return type(x)(0.5) * x * _one_plus_erf(x)


@helper
def gelu_pull(g: Any, x: Any) -> Any:
    real = type(x)
    bell = real(1 / math.sqrt(2 * math.pi)) * exp(real(-0.5) * x * x)
    return g * (real(0.5) * _one_plus_erf(x) + x * bell)


@helper
def relu(x: Any) -> Any:
    """x where it is positive, else 0."""
    return x if x > type(x)(0) else type(x)(0)


@helper
def relu_pull(g: Any, x: Any) -> Any:
    return g if x > type(x)(0) else type(x)(0)


@helper
def silu(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return x / (type(x)(1) + exp(-x))


@helper
def silu_pull(g: Any, x: Any) -> Any:
    real = type(x)
    s = real(1) / (real(1) + exp(-x))
    return g * (s * (real(1) + x * (real(1) - s)))


_ACTIVATIONS = {
    "gelu_new": (gelu_new, gelu_new_pull),
    "gelu": (gelu, gelu_pull),
    "relu": (relu, relu_pull),
    "silu": (silu, silu_pull),
}

ACTIVATIONS = tuple(_ACTIVATIONS)
"""Names, as in `tfx.core.nn.Activation`."""


def activate(name: str, x: Any) -> Any:
    """The activation of that name, a constant where this is compiled."""
    raise NotImplementedError("for compiled functions")


def pull(name: str, g: Any, x: Any) -> Any:
    """The gradient by x where `g` is that by `activate(name, x)`."""
    raise NotImplementedError("for compiled functions")


@overload(activate, strict=False, prefer_literal=True)  # type: ignore[untyped-decorator]
def _activate(name: Any, x: Any) -> Any:
    value, _ = _ACTIVATIONS[name.literal_value]
    return lambda name, x: value(x)


@overload(pull, strict=False, prefer_literal=True)  # type: ignore[untyped-decorator]
def _pull(name: Any, g: Any, x: Any) -> Any:
    _, slope = _ACTIVATIONS[name.literal_value]
    return lambda name, g, x: slope(g, x)
