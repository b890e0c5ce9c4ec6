"""`Parameters`: named tensors that lie side by side in one flat buffer.

The names are the checkpoint's. One buffer means one optimizer update, one copy and one message to
another machine for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.checks import check_capability
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, GradientError, ShapeError
from tfx.core.tensor import Tensor
from tfx.core.weights import StoredTensor


class Parameters(Mapping[str, Tensor]):
    """A mapping from names to tensors, all cut from `flat`.

    Immutable: `replaced(flat)` gives the same names over another buffer.

    Attributes:
        flat: all numbers, in the order of the names: (count,).
        shapes: the shape of each parameter.
        form: the same as pairs, to compare.

    Raises:
        GradientError: `flat` is recorded, and the tensors cut from it would not be.
    """

    def __init__(self, flat: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.flat = flat
        self.shapes = dict(shapes)
        self.form = tuple(self.shapes.items())
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        self._bounds = list(accumulate(sizes, initial=0))
        self._tensors: dict[str, Tensor] | None = None
        self._check(flat)

    def _check(self, flat: Tensor) -> None:
        _refuse_recorded(flat, "parameters cannot be cut from a recorded buffer")
        if flat.shape != (self._bounds[-1],):
            raise ShapeError(f"parameters of {self._bounds[-1]} numbers cut from {flat.shape}")

    def _cut(self) -> dict[str, Tensor]:
        """Views of the buffer, where the library has views; made when they are first asked for,
        since a state of training is often but passed on."""
        backend, data = self.flat.backend, self.flat.data
        tensors = {}
        for (name, shape), (start, stop) in zip(
            self.shapes.items(), pairwise(self._bounds), strict=True
        ):
            cut = backend.slice(data, starts=(start,), stops=(stop,), steps=(1,))
            tensors[name] = Tensor(backend.reshape(cut, shape=shape), backend)
        return tensors

    @classmethod
    def from_host(
        cls, arrays: Mapping[str, HostArray | StoredTensor], backend: Backend, dtype: DType
    ) -> Parameters:
        """Copy floats from the host to a backend, as `dtype`, one tensor after the other.

        Raises:
            DTypeError: an array holds no floats. bfloat16's words come as `StoredTensor`.
        """
        shapes = {name: array.shape for name, array in arrays.items()}
        flat, start = full((sum(map(math.prod, shapes.values())),), 0.0, backend, dtype), 0
        for name, array in arrays.items():
            part = tensor(_floats(name, array, dtype), backend, dtype).reshape(-1)
            flat = flat.write(part, start)
            start += part.size
        return cls(flat, shapes)

    def replaced(self, flat: Tensor) -> Parameters:
        """The same names and shapes over another buffer."""
        new = Parameters.__new__(Parameters)
        new.flat, new.shapes, new._bounds = flat, self.shapes, self._bounds
        new.form = self.form
        new._tensors = None
        new._check(flat)
        return new

    def flatten(self, named: Mapping[str, Tensor]) -> Tensor:
        """Tensors of these names and shapes, gradients for instance, as one buffer like `flat`.

        Raises:
            GradientError: one of them is recorded, and the buffer would not be.
        """
        backend = self.flat.backend
        parts = []
        for name, shape in self.shapes.items():
            _refuse_recorded(named[name], "a recorded tensor cannot be flattened")
            parts.append(backend.reshape(named[name].data, shape=(math.prod(shape),)))
        return Tensor(backend.concat(*parts, axis=0), backend)

    def to_host(self, flat: Tensor | None = None) -> dict[str, StoredTensor]:
        """Host copies by name, of these parameters or of another buffer of the same form."""
        source = self.flat if flat is None else flat
        numbers = source.backend.to_numpy(source.data)
        parts = np.split(numbers, self._bounds[1:-1])
        named = zip(self.shapes.items(), parts, strict=True)
        return {
            name: StoredTensor(source.dtype, part.reshape(shape)) for (name, shape), part in named
        }

    def __getitem__(self, name: str) -> Tensor:
        if self._tensors is None:
            self._tensors = self._cut()
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def borrowed(
    arrays: Mapping[str, HostArray | StoredTensor], backend: Backend, dtype: DType
) -> dict[str, Tensor]:
    """Floats from the host as tensors of `dtype`, sharing the host's memory where backend and dtype
    allow it: parameters that will not be trained.

    Raises:
        DTypeError: an array holds no floats, or the backend has no such dtype.
    """
    check_capability(backend, dtype)
    return {
        name: Tensor(backend.borrow(_floats(name, array, dtype), dtype=dtype), backend)
        for name, array in arrays.items()
    }


def _floats(name: str, array: HostArray | StoredTensor, wanted: DType) -> HostArray:
    """What `tensor` makes `wanted` of: floats, or bfloat16's words where that is what is wanted."""
    if isinstance(array, StoredTensor):
        if array.dtype is DType.bfloat16:
            return array.array if wanted is DType.bfloat16 else array.to_float32()
        array = array.array
    if array.dtype.kind != "f":
        hint = "; wrap bfloat16's words in StoredTensor" if array.dtype == np.uint16 else ""
        raise DTypeError(f"parameter {name!r} is of {array.dtype}, expected floats{hint}")
    return array


def _refuse_recorded(x: Tensor, what: str) -> None:
    if x.node is not None:
        raise GradientError(f"{what}: its gradient would be lost; detach() it first")
