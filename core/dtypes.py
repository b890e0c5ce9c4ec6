"""The nine element types. A `DType` is its own name: `DType.float32 == "float32"`."""

from __future__ import annotations

import builtins
from enum import StrEnum

from tfx.core.errors import DTypeError


class DType(StrEnum):
    """An element type; compare with `is` or with its name.

    >>> DType("float32").itemsize, DType.int64.is_integer, DType.bool.is_float
    (4, True, False)
    """

    bool = "bool"
    uint8 = "uint8"
    int8 = "int8"
    int32 = "int32"
    int64 = "int64"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"

    @property
    def is_float(self) -> builtins.bool:
        return self in FLOATS

    @property
    def is_integer(self) -> builtins.bool:
        return self in INTEGERS

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE[self]


FLOATS = frozenset({DType.float16, DType.bfloat16, DType.float32, DType.float64})
HALVES = frozenset({DType.float16, DType.bfloat16})
INTEGERS = frozenset({DType.uint8, DType.int8, DType.int32, DType.int64})
INDICES = frozenset({DType.int32, DType.int64})

_ITEMSIZE = {
    DType.bool: 1,
    DType.uint8: 1,
    DType.int8: 1,
    DType.int32: 4,
    DType.int64: 8,
    DType.float16: 2,
    DType.bfloat16: 2,
    DType.float32: 4,
    DType.float64: 8,
}


def as_dtype(name: str) -> DType:
    """The `DType` called `name`; `DTypeError` where there is none."""
    if isinstance(name, DType):
        return name
    try:
        return DType(name)
    except ValueError:
        raise DTypeError(f"no dtype named {str(name)!r}; there are {', '.join(DType)}") from None
