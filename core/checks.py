"""What operations ask of their arguments, and the one-line refusals."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.dtypes import INDICES, DType
from tfx.core.errors import BackendMismatch, DTypeError, NonFiniteError, ShapeError


def one_dtype(op: str, domain: str, first: DType | None, x: Any) -> DType:
    """The dtype of `x`, which is the first seen, or no other than the first."""
    dtype: DType = x.dtype
    backend = x.backend
    if first is not None:
        raise DTypeError(f"{op} of {first} and {dtype}: dtypes are never mixed; cast one")
    if domain == "floats" and not dtype.is_float:
        raise DTypeError(f"{op} is for floats, not {dtype}; cast first")
    if dtype not in (backend.dtypes if domain == "values" else backend.arithmetic):
        raise DTypeError(f"{op} of {dtype}: backend {backend} has no arithmetic on it; cast first")
    return dtype


def check_number(op: str, args: Sequence[Any], dtype: DType | None) -> None:
    """Refuse a weak operand that is no Python number, or none that `dtype` can hold."""
    for x in args:
        if hasattr(x, "backend"):
            continue
        if not isinstance(x, int | float):
            raise TypeError(f"{op} takes tensors and Python numbers, not {type(x).__name__}")
        if dtype is None:
            continue
        if dtype.is_float:
            if isinstance(x, int) and not _holds(DType.int64, x):
                raise DTypeError(
                    f"{op} of {dtype} and an integer of more than 64 bits: write it as a float"
                )
            continue
        if isinstance(x, float):
            raise DTypeError(f"{op} of {dtype} and a Python float: cast the tensor first")
        if not _holds(dtype, x):
            raise DTypeError(f"{op} of {dtype} and {x}: no {dtype} is {x}; cast the tensor first")


def _holds(dtype: DType, number: int) -> bool:
    """Whether `number` is among the values of bool or an integer dtype."""
    if dtype is DType.bool:
        return isinstance(number, bool)
    count = 1 << 8 * dtype.itemsize
    return 0 <= number + (0 if dtype is DType.uint8 else count // 2) < count


def has_gradients(x: Any) -> bool:
    """Whether derivatives by `x` make sense: it holds floats that its backend computes with."""
    return x.dtype.is_float and x.dtype in x.backend.arithmetic


def check_dtypes(op: str, x: Any, y: Any) -> None:
    """Refuse tensors of two dtypes."""
    if x.dtype is not y.dtype:
        raise DTypeError(f"{op} of {x.dtype} and {y.dtype}: dtypes are never mixed; cast one")


def boolean(x: Any) -> Any:
    """`x`, a bool tensor."""
    if kind(x) is not DType.bool:
        raise DTypeError(f"&, | and ~ are for bool tensors, not {kind(x)}")
    return x


def index(x: Any) -> Any:
    """`x`, a tensor of indices."""
    if kind(x) not in INDICES:
        raise DTypeError(f"indices are int32 or int64 tensors, not {kind(x)}")
    return x


def kind(x: Any) -> str:
    """The dtype of a tensor; the name of any other type."""
    return x.dtype if hasattr(x, "backend") else type(x).__name__


def check_capability(backend: Backend, dtype: DType) -> None:
    """Refuse a dtype the backend can not even hold."""
    if dtype not in backend.dtypes and dtype not in backend.storage_dtypes:
        raise DTypeError(
            f"backend {backend} has no {dtype}; it has {', '.join(sorted(backend.dtypes))}"
        )


def one_backend(op: str, first: Backend | None, other: Backend) -> Backend:
    """The backend of the first tensor; a second one is refused."""
    if first is not None:
        raise BackendMismatch(f"{op} of tensors on {first} and {other}; x.to(backend) moves one")
    return other


def check_lengths(shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape as Python integers; negative ones are refused."""
    lengths = tuple(operator.index(n) for n in shape)
    if min(lengths, default=0) < 0:
        raise ShapeError(f"lengths must not be negative: {lengths}")
    return lengths


def check_host_values(host: HostArray, dtype: DType) -> None:
    """Refuse values that `dtype` would change by more than rounding."""
    kind = host.dtype.kind
    if kind not in "biuf":
        raise DTypeError(f"cannot make a {dtype} tensor of {host.dtype} values")
    if host.dtype == np.uint16 and dtype.is_float and dtype is not DType.bfloat16:
        raise DTypeError(
            f"uint16 words are taken for bfloat16 alone, not for {dtype}; convert them"
        )
    if dtype.is_integer and host.dtype != dtype:
        limits = np.iinfo(str(dtype))
        within = (host >= limits.min) & (host <= limits.max)
        if not np.all(within & (host == np.trunc(host)) if kind == "f" else within):
            raise DTypeError(f"some of these {host.dtype} values are no {dtype}")


def check_finite(what: str, *arrays: HostArray) -> None:
    """Refuse what a model gave that is infinite or NaN; `what` begins the message."""
    if not all(np.isfinite(x).all() for x in arrays):
        raise NonFiniteError(
            f"{what} not finite: the model's parameters are too large, or theta or the head mask"
        )


def shape_misfit(op: str, args: Sequence[Any]) -> ShapeError | None:
    """What is wrong with the shapes given to an operation that broadcasts, or multiplies."""
    shapes = [x.shape for x in args if hasattr(x, "backend")]
    try:
        if op == "matmul":
            (*rows, inner), (*others, also_inner, _) = shapes
            if inner != also_inner:
                raise ValueError
            np.broadcast_shapes(tuple(rows[:-1]), tuple(others))
        elif op in BROADCASTING:
            np.broadcast_shapes(*shapes)
    except ValueError:
        return ShapeError(f"{op}({', '.join(map(str, shapes))}): the shapes do not fit together")
    return None


BROADCASTING = frozenset({"add", "sub", "mul", "div", "maximum", "less", "equal", "where"})
