"""Weights that are stored in fewer bits than they are computed with: fused ops, and tensors.

A quantized weight (m, n), rows being outputs, is whole numbers `q` and `scales` (m, groups): the n
numbers of a row fall into groups of G = n / groups neighbours, and each number of a group is
multiplied by the group's scale. There is no offset: 0 stands for 0.

- 8 bits: q is int8 (m, n), a byte a number.
- 4 bits: q is uint8 (m, n / 2), G / 2 bytes a group. Byte i of a group has element i in its lower
  half and element i + G / 2 in its upper half, either 8 more than the number: -8 to 7.

The weight is numbers times scales, in float32 at least, rounded once to the dtype of `x`. Kernels
need not make it: they may round otherwise, within the tolerances.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tfx.core.checks import check_dtypes
from tfx.core.dtypes import HALVES, DType
from tfx.core.errors import DTypeError, ShapeError
from tfx.core.fused import fused
from tfx.core.nn import Activation, embedding, linear
from tfx.core.ops import concat
from tfx.core.stored import Stored
from tfx.core.tensor import Tensor

# ---- products ------------------------------------------------------------------------------------


@fused
def linear_q8(
    x: Tensor,
    q: Tensor,
    scales: Tensor,
    b: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: Activation | None = None,
) -> Tensor:
    """residual + activation(x @ w.T + b) with a weight w (m, n) of 8 bits: x (..., n), q int8
    (m, n), scales (m, groups) of any float dtype, b (m,), residual (..., m).

    Each n / groups neighbours in a row of q have one scale.
    """
    w = weight_from_q8(q, scales, x.dtype)
    return linear(x, w, b, residual, activation=activation, outputs_first=True)


@fused
def linear_q4(
    x: Tensor,
    q: Tensor,
    scales: Tensor,
    b: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: Activation | None = None,
) -> Tensor:
    """residual + activation(x @ w.T + b) with a weight w (m, n) of 4 bits: x (..., n), q uint8
    (m, n / 2), scales (m, groups) of any float dtype, b (m,), residual (..., m).

    A group of G = n / groups elements takes G / 2 bytes: byte i has element i in its lower half and
    element i + G / 2 in its upper half, either 8 more than the number.
    """
    w = weight_from_q4(q, scales, x.dtype)
    return linear(x, w, b, residual, activation=activation, outputs_first=True)


@fused
def linear_half(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: Activation | None = None,
    outputs_first: bool = False,
) -> Tensor:
    """`linear` with w of float16 or bfloat16, which comes to the dtype of x, b and residual."""
    return linear(
        x, widened(w, x.dtype), b, residual, activation=activation, outputs_first=outputs_first
    )


# ---- rows ----------------------------------------------------------------------------------------


@fused
def embedding_q8(q: Tensor, scales: Tensor, ids: Tensor, *, dtype: DType) -> Tensor:
    """The rows at `ids` (...) of a weight of 8 bits, as `dtype`: (..., n)."""
    return weight_from_q8(q.take(ids), scales.take(ids), dtype)


@fused
def embedding_q4(q: Tensor, scales: Tensor, ids: Tensor, *, dtype: DType) -> Tensor:
    """The rows at `ids` (...) of a weight of 4 bits, as `dtype`: (..., n)."""
    return weight_from_q4(q.take(ids), scales.take(ids), dtype)


@fused
def embedding_half(table: Tensor, ids: Tensor, *, dtype: DType) -> Tensor:
    """The rows at `ids` (...) of a table (V, n) of float16 or bfloat16, as `dtype`: (..., n)."""
    return widened(table.take(ids), dtype)


# ---- the numbers themselves ----------------------------------------------------------------------


def weight_from_q8(q: Tensor, scales: Tensor, dtype: DType) -> Tensor:
    """What q int8 (..., n) with scales (..., groups) stands for: floats (..., n)."""
    _check(q, DType.int8, scales, dtype)
    return _scaled(q.cast(_wide(dtype)), scales, dtype)


def weight_from_q4(q: Tensor, scales: Tensor, dtype: DType) -> Tensor:
    """What q uint8 (..., n / 2) with scales (..., groups) stands for: floats (..., n)."""
    _check(q, DType.uint8, scales, dtype)
    *outside, groups = scales.shape
    pairs = q.reshape(*outside, groups, q.shape[-1] // groups).cast(_wide(dtype))
    # A cast to integers cuts the fraction off.
    upper = (pairs * 0.0625).cast(q.backend.index_dtype).cast(_wide(dtype))
    lower = pairs - upper * 16.0
    numbers = concat([lower, upper], axis=-1) - 8.0
    return _scaled(numbers.reshape(*outside, 2 * q.shape[-1]), scales, dtype)


def widened(x: Tensor, dtype: DType) -> Tensor:
    """Numbers stored as float16 or bfloat16, as `dtype`."""
    if x.dtype not in HALVES or not dtype.is_float:
        raise DTypeError(f"{x.dtype} as {dtype}: expected float16 or bfloat16 as another float")
    return x.cast(dtype)


def _scaled(numbers: Tensor, scales: Tensor, dtype: DType) -> Tensor:
    """Whole numbers (..., n), each times the scale of its group."""
    shape = numbers.shape
    by_group = numbers.reshape(*scales.shape, shape[-1] // scales.shape[-1])
    return (by_group * scales.cast(_wide(dtype))[..., None]).reshape(shape).cast(dtype)


def _wide(dtype: DType) -> DType:
    return DType.float32 if dtype in HALVES else dtype


def _check(q: Tensor, expected: DType, scales: Tensor, dtype: DType) -> None:
    if q.dtype is not expected or not scales.dtype.is_float:
        raise DTypeError(
            f"numbers of {q.dtype} with scales of {scales.dtype}: expected {expected} with floats"
        )
    if not dtype.is_float:
        raise DTypeError(f"a quantized weight as {dtype}: expected a float dtype")
    (*outside, length), groups = q.shape or (0,), scales.shape[-1:]
    if scales.shape != (*outside, *groups) or groups in ((), (0,)) or length % groups[0]:
        raise ShapeError(
            f"numbers {q.shape} with scales {scales.shape}: expected one scale for each of the "
            "groups into which a row is divided"
        )


# ---- tensors that are stored so ------------------------------------------------------------------


class Quantized(Stored):
    """A matrix of 8 or 4 bits a number, to be multiplied with or to be read by rows.

    Args:
        q, scales: as `linear_q8` or `linear_q4` take them; the dtype of `q` says which.
        dtype: what it is computed with in.
        inputs_first: it stands for (inputs, outputs), the transpose of what is stored.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> from tfx.core.creation import tensor
    >>> B = NumpyBackend()
    >>> q, scales = tensor([[2, -1], [0, 3]], B, "int8"), tensor([[0.5], [2.0]], B)
    >>> w = Quantized(q, scales, DType.float32)
    >>> w.tolist(), linear(tensor([1.0, 2.0], B), w, outputs_first=True).tolist()
    ([[1.0, -0.5], [0.0, 6.0]], [0.0, 12.0])
    """

    __slots__ = ("inputs_first",)

    def __init__(
        self, q: Tensor, scales: Tensor, dtype: DType, *, inputs_first: bool = False
    ) -> None:
        rows, length = q.shape
        shape = rows, length if q.dtype is DType.int8 else 2 * length
        super().__init__((q, scales), shape[::-1] if inputs_first else shape, dtype)
        self.inputs_first = inputs_first

    @property
    def bits(self) -> int:
        return 8 if self.parts[0].dtype is DType.int8 else 4

    def computed(self) -> Tensor:
        q, scales = self.parts
        weight = weight_from_q8 if self.bits == 8 else weight_from_q4
        rows = weight(q, scales, self.dtype)
        return rows.T if self.inputs_first else rows

    def tree_form(self) -> Hashable:
        return super().tree_form(), self.inputs_first

    def with_parts(self, parts: Sequence[Tensor]) -> Quantized:
        return Quantized(parts[0], parts[1], self.dtype, inputs_first=self.inputs_first)


class Half(Stored):
    """A tensor of float16 or bfloat16, computed with in a wider dtype.

    Args:
        kept: of float16 or bfloat16.
        dtype: what it is computed with in.
    """

    __slots__ = ()

    def __init__(self, kept: Tensor, dtype: DType) -> None:
        super().__init__((kept,), kept.shape, dtype)

    def computed(self) -> Tensor:
        return widened(self.parts[0], self.dtype)

    def with_parts(self, parts: Sequence[Tensor]) -> Half:
        return Half(parts[0], self.dtype)


def _linear_quantized(
    x: Tensor,
    w: Quantized,
    b: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: Activation | None,
    outputs_first: bool,
) -> Tensor:
    if w.inputs_first is outputs_first:  # its rows are not what is asked for
        y = w.computed()
        return linear(x, y, b, residual, activation=activation, outputs_first=outputs_first)
    check_dtypes("linear", x, w)
    q, scales = w.parts
    if w.bits == 8:
        return linear_q8(x, q, scales, b, residual, activation=activation)
    return linear_q4(x, q, scales, b, residual, activation=activation)


def _linear_of_half(
    x: Tensor,
    w: Half,
    b: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: Activation | None,
    outputs_first: bool,
) -> Tensor:
    check_dtypes("linear", x, w)
    (kept,) = w.parts
    return linear_half(x, kept, b, residual, activation=activation, outputs_first=outputs_first)


def _embedding_quantized(table: Quantized, ids: Tensor) -> Tensor:
    if table.inputs_first:
        return embedding(table.computed(), ids)
    q, scales = table.parts
    if table.bits == 8:
        return embedding_q8(q, scales, ids, dtype=table.dtype)
    return embedding_q4(q, scales, ids, dtype=table.dtype)


def _embedding_of_half(table: Half, ids: Tensor) -> Tensor:
    return embedding_half(table.parts[0], ids, dtype=table.dtype)


Quantized.FORMS = {("linear", 1): _linear_quantized, ("embedding", 0): _embedding_quantized}
Half.FORMS = {("linear", 1): _linear_of_half, ("embedding", 0): _embedding_of_half}
