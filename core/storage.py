"""What weights are kept as in memory: what was asked for, and the tensors that come of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from tfx.core.arguments import whole
from tfx.core.backend import Backend
from tfx.core.checks import check_capability
from tfx.core.dtypes import DType
from tfx.core.errors import UsageError
from tfx.core.parameters import borrowed
from tfx.core.quantization import QuantizedArray, Rounding, quantized
from tfx.core.quantized import Half, Quantized
from tfx.core.stored import Stored
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor, as_stored

BITS = {"int8": 8, "int4": 4}
HALVES = ("float16", "bfloat16")
SCHEMES = (*BITS, *HALVES)

AS_IT_IS = "none"
"""The scheme of embeddings that stay floats of the dtype that is computed with."""

Form = Rounding | DType | None
"""What one matrix is kept as: whole numbers, halves, or as it is computed with."""


class Asked(Protocol):
    """Settings that may ask for a storage; None means: not given."""

    quantize: str | None
    quantize_embeddings: str | None
    group_size: int | None

    def flag(self, name: str) -> str:
        """How the setting `name` is spelled."""


@dataclass(frozen=True)
class Storage:
    """How the matrices of a model are kept. What is no matrix stays as it is.

    Attributes:
        scheme: of `SCHEMES`.
        embeddings: the scheme of the token embedding and of the head, or `AS_IT_IS`.
        group_size, scale_dtype: of whole numbers; see `Rounding`.
    """

    scheme: str
    embeddings: str
    group_size: int = 64
    scale_dtype: DType = DType.float16

    @classmethod
    def asked(cls, settings: Asked, scale_dtype: str | None = None) -> Self | None:
        """What settings ask for; None where nothing is.

        Embeddings are kept as the other matrices, but in 8 bits where those have 4.

        Raises:
            UsageError: there is no such scheme, or what belongs to one is given without it.
        """
        scheme, flag = settings.quantize, settings.flag
        if scheme is None:
            for name in ("quantize_embeddings", "group_size"):
                if getattr(settings, name) is not None:
                    raise UsageError(
                        f"{flag(name)} says how to quantize; add {flag('quantize')} int8 or int4"
                    )
            return None
        embeddings = settings.quantize_embeddings or ("int8" if scheme == "int4" else scheme)
        for name, given, known in (
            ("quantize", scheme, SCHEMES),
            ("quantize_embeddings", embeddings, (*SCHEMES, AS_IT_IS)),
        ):
            if given not in known:
                raise UsageError(f"{flag(name)} {given}: expected one of {', '.join(known)}")
        if settings.group_size is not None:
            whole(flag("group_size"), settings.group_size)
        if settings.group_size is not None and not BITS.keys() & {scheme, embeddings}:
            raise UsageError(f"{flag('group_size')} is for int8 and int4; {scheme} has no groups")
        return cls(
            scheme,
            embeddings,
            cls.group_size if settings.group_size is None else settings.group_size,
            DType(scale_dtype or cls.scale_dtype),
        )

    def form(self, name: str, row: int, *, embedding: bool) -> Form:
        """What the matrix `name` is kept as, with rows of `row` numbers.

        Raises:
            UsageError: they do not fall into groups.
        """
        scheme = self.embeddings if embedding else self.scheme
        if scheme in HALVES:
            return DType(scheme)
        if scheme == AS_IT_IS:
            return None
        rounding = Rounding(8 if scheme == "int8" else 4, self.group_size, self.scale_dtype)
        if not rounding.divides(row):
            fitting = [n for n in (64, 128, 32, 16, 8, 4, 2) if row % n == 0]
            instead = f"choose {fitting[0]}" if fitting else "do not quantize it"
            even = " of even length" if scheme == "int4" else ""
            raise UsageError(
                f"group size {self.group_size}: the rows of {row} numbers in {name!r} do not "
                f"fall into groups{even} of so many; {instead}"
            )
        return rounding

    def __str__(self) -> str:
        groups = f" in groups of {self.group_size}" if BITS.keys() & {self.scheme} else ""
        if self.embeddings == self.scheme:
            return f"{self.scheme}{groups}"
        as_it_is = self.embeddings == AS_IT_IS
        return f"{self.scheme}{groups}, embeddings {'as they are' if as_it_is else self.embeddings}"


def kept(name: str, array: StoredTensor, form: Form, *, inputs_first: bool) -> StoredTensor:
    """A tensor of a file in the form it is to be kept in.

    Raises:
        WeightsError: it has numbers that the form has not.
    """
    if isinstance(form, Rounding):
        return quantized(name, array, form, inputs_first=inputs_first)
    return array if form is None else as_stored(name, array, form)


def placed(
    name: str,
    array: StoredTensor,
    form: Form,
    backend: Backend,
    dtype: DType,
    *,
    inputs_first: bool = False,
) -> Tensor:
    """A tensor of a file on a backend, to be computed with in `dtype`: kept in a form, or as it was
    quantized. It shares the host's memory where the backend allows that.

    Raises:
        WeightsError: it has numbers that the form has not.
        DTypeError: the backend has no dtype that this takes.
    """
    host = kept(name, array, form, inputs_first=inputs_first)
    if isinstance(host, QuantizedArray):
        whole = DType(host.q.dtype.name)
        check_capability(backend, whole)
        q = Tensor(backend.borrow(host.q, dtype=whole), backend)
        scales = borrowed({name: host.scales}, backend, DType.float32)[name]
        return Quantized(q, scales, dtype, inputs_first=host.inputs_first)
    if isinstance(form, DType) and form is not dtype:
        return Half(borrowed({name: host}, backend, form)[name], dtype)
    return borrowed({name: host}, backend, dtype)[name]


def bytes_of(tensors: Iterable[Tensor | StoredTensor]) -> int:
    """How much memory they take as they are kept."""
    return sum(
        x.nbytes
        if isinstance(x, Stored | QuantizedArray)
        else x.size * x.dtype.itemsize
        if isinstance(x, Tensor)
        else x.array.nbytes
        for x in tensors
    )
