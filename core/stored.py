"""Tensors whose numbers are kept otherwise than they are computed with, mostly in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from tfx.core.backend import Array
from tfx.core.dtypes import DType
from tfx.core.errors import GradientError
from tfx.core.tensor import Tensor


class Stored(Tensor):
    """A constant that a model computes with as with any tensor of its shape and dtype.

    An operation that knows nothing of it gets the numbers it stands for, made anew at each use. For
    a fused op there may be something better in `FORMS`.

    Attributes:
        parts: the tensors it is kept as, which are its leaves in a tree.
        dtype: what it is computed with in.

    A subclass lists its forms, and says by `computed` what it stands for.
    """

    FORMS: ClassVar[dict[tuple[str, int], Callable[..., Any]]] = {}
    """By the name of a fused op and the position of an argument of this class: a function of the
    same arguments, the others of which are ordinary tensors."""

    __slots__ = ("_dtype", "_shape", "parts")

    def __init__(self, parts: Sequence[Tensor], shape: tuple[int, ...], dtype: DType) -> None:
        self.parts = tuple(parts)
        self.backend = parts[0].backend
        self.node = None
        self._shape = shape
        self._dtype = dtype

    def computed(self) -> Tensor:
        """The numbers it stands for, as a tensor like any other."""
        raise NotImplementedError

    def with_parts(self, parts: Sequence[Tensor]) -> Self:
        """The same with other numbers, kept in the same way."""
        raise NotImplementedError

    def called(
        self,
        op: Callable[..., Any],
        name: str,
        position: int,
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> Any:
        """What the fused op `name` gives, whose argument at `position` this is."""
        form = self.FORMS.get((name, position))
        if form is None:
            return op(*map(_ordinary, args), **options)
        ordinary = (x if i == position else _ordinary(x) for i, x in enumerate(args))
        return form(*ordinary, **options)

    @property
    def data(self) -> Array:
        return self.computed().data

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> DType:
        return self._dtype

    @property
    def nbytes(self) -> int:
        """How much memory its parts take."""
        return sum(part.size * part.dtype.itemsize for part in self.parts)

    def to(self, backend: Any) -> Self:
        """A copy on another backend, kept in the same way."""
        return self.with_parts([part.to(backend) for part in self.parts])

    def detach(self) -> Self:
        return self

    def requires_grad_(self) -> Tensor:
        """Refused: a step would be lost in the rounding."""
        raise GradientError(
            f"{self.dtype} kept as {' and '.join(part.dtype for part in self.parts)} has no "
            "gradients; train with weights as they are, and quantize what comes of it"
        )

    def tree_leaves(self) -> list[Tensor]:
        return list(self.parts)

    def tree_form(self) -> Hashable:
        """What it stands for, as far as its parts do not tell."""
        return self._dtype, self._shape

    def tree_like(self, values: Iterator[Any]) -> Self:
        return self.with_parts([next(values) for _ in self.parts])


def _ordinary(x: Any) -> Any:
    return x.computed() if isinstance(x, Stored) else x
