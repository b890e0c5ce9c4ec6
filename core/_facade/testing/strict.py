"""`StrictBackend`: NumPy behind a wall, for finding code that takes liberties with raw arrays."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tfx.core.array_backend import ArrayBackend
from tfx.core.backend import PRIMITIVES, Array, Backend, HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import BackendError
from tfx.testing.contract import CONTRACT, ArrayType, require


class StrictBackend(Backend):
    """A backend that holds its callers, and NumPy, to the contract.

    Its raw arrays are opaque: only primitives see their values, and every primitive checks its call
    and its result by `tfx.testing.contract`. The values lie read-only, strided and perhaps
    backwards, in a larger buffer full of NaN. What `write` has consumed, views of it included, can
    not be used again, and arrays of another instance are refused.

    Attributes:
        transfers: how often `asarray` and `to_numpy` were called.

    >>> from tfx.core.creation import tensor
    >>> strict = StrictBackend()
    >>> strict.add(tensor([1.0], strict).data, np.float32(2))
    Traceback (most recent call last):
        ...
    tfx.testing.contract.ContractError: add got a float32, not an array of this backend or a number
    """

    name = "strict"
    dtypes = ArrayBackend.dtypes
    storage_dtypes = ArrayBackend.storage_dtypes
    deterministic = False  # NumPy sums in the order of the strides, and those vary

    def __init__(self, device: str | None = None) -> None:
        if device not in (None, "cpu"):
            raise BackendError(f"backend 'strict' has no device {device!r}; it has 'cpu'")
        super().__init__()
        self.transfers: Counter[str] = Counter()
        self._numpy = _Numpy(np)
        self._turn = itertools.count()

    def is_array(self, x: object) -> bool:
        return isinstance(x, StrictArray) and x.owner is self

    def shape(self, x: Array) -> tuple[int, ...]:
        return self._own("shape", x).type.shape  # what was consumed still has one

    def dtype(self, x: Array) -> DType:
        return self._own("dtype", x).type.dtype

    def _own(self, op: str, x: Any) -> StrictArray:
        given = type(x).__name__
        require(isinstance(x, StrictArray), f"{op} got a {given}, not an array of this backend")
        require(x.owner is self, f"{op} got an array of another instance of {self}")
        return x  # type: ignore[no-any-return]

    def _call(self, op: str, args: tuple[Any, ...], statics: dict[str, Any]) -> Any:
        """Check the arguments, compute, check the result, and scatter it through memory."""
        types = [self._type(op, x) for x in args]
        promised = CONTRACT[op](self, *types, **statics)
        values = [x.values if isinstance(x, StrictArray) else x for x in args]
        if op == "write":
            values[0].flags.writeable = True
            args[0].memory.consumed = True
        with np.errstate(all="ignore"):
            result = getattr(self._numpy, op)(*values, **statics)
        require(type(result) is np.ndarray, f"{op} returned a {type(result).__name__}")
        returned = ArrayType(result.shape, self._numpy.dtype(result))
        require(returned == promised, f"{op} returned {returned}, not {promised}")
        if op in _TRANSFERS:
            self.transfers[op] += 1
        if op == "to_numpy":
            return result
        memory = args[0].memory if op in _VIEWS else _Memory()
        return StrictArray(self, promised, self._scattered(result), memory)

    def _type(self, op: str, x: Any) -> Any:
        """What the contract is to know of an argument."""
        if type(x) in (bool, int, float) or op == "asarray":
            return x
        number = not isinstance(x, StrictArray)
        require(
            not number, f"{op} got a {type(x).__name__}, not an array of this backend or a number"
        )
        array = self._own(op, x)
        require(not array.memory.consumed, f"{op} got an array that write had consumed")
        return array.type

    def _scattered(self, values: HostArray) -> HostArray:
        """A read-only view of the same values in a larger buffer, in one of four layouts."""
        turn = next(self._turn)
        *outer, last = values.shape or (1,)
        poison = {"f": np.nan, "b": True}.get(values.dtype.kind, 85)
        size = (*(n + 2 for n in outer), 2 * last + 1)
        buffer = np.full(size, poison, values.dtype, order="F" if turn & 1 else "C")
        view = buffer[(*(slice(1, -1) for _ in outer), slice(1, None, 2))]
        view = np.flip(view) if turn & 2 else view
        view = view if values.shape else view[0, ...]
        view[...] = values
        view.flags.writeable = False
        return view


class StrictArray:
    """A raw array of a `StrictBackend`: nothing for callers but its identity."""

    __slots__ = ("memory", "owner", "type", "values")

    def __init__(
        self, owner: StrictBackend, type: ArrayType, values: HostArray, memory: _Memory
    ) -> None:
        self.owner = owner
        self.type = type
        self.values = values
        self.memory = memory

    def __repr__(self) -> str:
        return f"<StrictArray {self.type.dtype} {self.type.shape}>"


class _Memory:
    """What an array shares with its views: whether `write` has consumed it."""

    __slots__ = ("consumed",)

    def __init__(self) -> None:
        self.consumed = False


class _Numpy(ArrayBackend):
    """NumPy's arrays, without thought for speed."""

    def to_numpy(self, x: Array) -> HostArray:
        return np.array(x, order="C")

    def matmul(self, x: Array, y: Array) -> Array:
        wide = np.result_type(x, np.float32)  # halves accumulate in float32
        return np.matmul(x, y, dtype=wide).astype(x.dtype, copy=False)


_TRANSFERS = ("asarray", "to_numpy")
_VIEWS = ("reshape", "transpose", "broadcast_to", "slice")


def _checked(op: str) -> Callable[..., Any]:
    def primitive(self: StrictBackend, *args: Any, **statics: Any) -> Any:
        return self._call(op, args, statics)

    primitive.__name__ = op
    primitive.__doc__ = getattr(Backend, op).__doc__
    return primitive


for _op in PRIMITIVES:
    setattr(StrictBackend, _op, _checked(_op))
