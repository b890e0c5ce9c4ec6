"""Weight files: a validated, lazy, zero-copy view of a safetensors file, and the way to write one.

Reading never trusts a byte before it is checked, and there is no pickle path. Writing replaces
a file at once: whoever looks sees the old one or the new one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, WeightsError
from tfx.core.files import open_regular, reason, replace_file, shown
from tfx.core.safetensors import MAX_HEADER, Layout, build_header, parse_header
from tfx.core.wording import kind_of, quoted

_STORAGE = {
    dtype: np.dtype("uint16" if dtype is DType.bfloat16 else dtype.value).newbyteorder("<")
    for dtype in DType
}
_MEANING = {storage: dtype for dtype, storage in _STORAGE.items() if dtype is not DType.bfloat16}

_LOOKALIKES = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run 'git lfs pull'",
    b"PK\x03\x04": "a zip archive, probably PyTorch's; tfx reads no pickle, get the .safetensors",
    b"\x80": "a Python pickle, probably PyTorch's; tfx reads no pickle, get the .safetensors",
    b"GGUF": "a GGUF file; get the .safetensors it was made from",
    b"\x89HDF": "an HDF5 file, probably Keras's; get the .safetensors",
    b"<": "a web page or XML, probably an error page saved under this name; fetch the file again",
}


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """An array together with what its bits mean.

    Attributes:
        dtype: the element type.
        array: of that dtype; for bfloat16, which NumPy lacks, the bits as uint16.
    """

    dtype: DType
    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def to_float32(self) -> NDArray[np.float32]:
        """The values as float32, exactly; `DTypeError` for a dtype that float32 cannot hold.

        >>> StoredTensor(DType.bfloat16, np.array([0x3FC0], "uint16")).to_float32()
        array([1.5], dtype=float32)
        """
        if self.dtype is DType.bfloat16:
            bits = self.array.astype(np.uint32)
            bits <<= 16
            return bits.view(np.float32)
        if self.dtype in (DType.float16, DType.float32):
            return self.array.astype(np.float32)
        raise DTypeError(
            f"{self.dtype} does not fit float32; expected float16, bfloat16 or float32"
        )


def as_stored(name: str, tensor: StoredTensor, dtype: DType) -> StoredTensor:
    """A tensor as another dtype, rounded to nearest, ties to even.

    Raises:
        WeightsError: a finite number would become infinite.
    """
    if tensor.dtype is dtype:
        return tensor
    wide = tensor.array if tensor.dtype is DType.float64 else tensor.to_float32()
    with np.errstate(over="ignore"):
        single = wide.astype(np.float32, copy=False)
        array = _bfloat16(single) if dtype is DType.bfloat16 else wide.astype(dtype.value)
    converted = StoredTensor(dtype, array)
    finite = np.isfinite(wide)
    if not np.isfinite(converted.to_float32())[finite].all():
        largest = float(np.abs(wide[finite]).max())
        raise WeightsError(
            f"{quoted(name)} has numbers up to {largest:.3g}, too large for {dtype}; "
            "choose a wider dtype"
        )
    return converted


def _bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of the words, rounded; a carry into the exponent is as it should be."""
    words = np.ascontiguousarray(numbers).view(np.uint32)
    rounded = words + (0x7FFF + (words >> 16 & 1))
    nan = np.isnan(numbers)
    rounded[nan] = words[nan] | 0x400000  # a NaN whose low half alone is set stays one
    return (rounded >> 16).astype(np.uint16)


class WeightFile(Mapping[str, StoredTensor]):
    """The tensors of a file by name, in the order of its header; made by `open_weights`.

    Arrays are read-only views of one memory map: a page is read when it is first touched, and
    the map lives as long as an array of it does. The file must not shrink meanwhile; replacing
    or deleting it, as tfx does, is safe.

    Attributes:
        path: the file.
        metadata: its `__metadata__`, text to text.
    """

    def __init__(
        self, path: Path, layouts: Mapping[str, Layout], metadata: dict[str, str], data: memoryview
    ) -> None:
        self.path = path
        self.metadata = metadata
        self._layouts = layouts
        self._data = data

    def __getitem__(self, name: str) -> StoredTensor:
        dtype, shape, begin, _ = self._layouts[name]
        array = np.ndarray(shape, _STORAGE[dtype], buffer=self._data, offset=begin)
        return StoredTensor(dtype, array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layouts)

    def __len__(self) -> int:
        return len(self._layouts)

    def __repr__(self) -> str:
        return f"WeightFile({str(self.path)!r}, {len(self)} tensors)"


def open_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Map a safetensors file: milliseconds and next to no memory, whatever its size.

    Raises `WeightsError` naming file, tensor and fault if anything about it is not as it should.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(40)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > min(size - 8, MAX_HEADER) or start[8:9] != b"{":
                raise WeightsError(_wrong_start(start, size))
            file.seek(8)
            layouts, metadata = parse_header(file.read(length), size - 8 - length)
            data = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {shown(path)}: {reason(error)}") from error
    except WeightsError as fault:
        raise WeightsError(f"{shown(path)}: {fault}") from None
    return WeightFile(path, layouts, metadata, data[8 + length :])


def _wrong_start(start: bytes, size: int) -> str:
    if size == 0:
        return "the file is empty"
    length = int.from_bytes(start[:8], "little")
    if size >= 8 and length <= MAX_HEADER and start[8:9] in (b"{", b""):
        return f"the file is cut short: {size} bytes, its header takes {length}; fetch it again"
    if size - 8 >= length > MAX_HEADER and start[8:9] == b"{":
        return f"its header takes {length} bytes; at most {MAX_HEADER} are read"
    for magic, kind in _LOOKALIKES.items():
        if length > MAX_HEADER and start.startswith(magic):
            return f"this is {kind}"
    return "this is no safetensors file: it does not begin with a length and a JSON header"


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any] | StoredTensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file, replacing an older one only when the new one is complete on disk.

    `tensors` are arrays of any layout and byte order, or `StoredTensor`s; bfloat16 needs the
    latter, since its uint16 storage alone does not say what it is. What `open_weights` returns
    can be written as it is. At most one tensor is copied at a time, and only if it is not
    contiguous.

    Raises `WeightsError`. The older file is then as it was and nothing else is left behind, unless
    only the last act failed, forcing the folder to disk: then the new file stands there.
    """
    path = Path(path)
    try:
        replace_file(path, encoded_weights(tensors, metadata))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot write {shown(path)}: {reason(error)}") from error
    except WeightsError as fault:
        raise WeightsError(f"cannot write {shown(path)}: {fault}") from None


def encoded_weights(
    tensors: Mapping[str, NDArray[Any] | StoredTensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file in flat chunks; `WeightsError` for what it cannot hold.

    Wide dtypes come first, names sorted within one width: every tensor is aligned.
    """
    stored = {name: _stored(name, tensor) for name, tensor in tensors.items()}
    ordered = sorted(stored.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    layouts, position = {}, 0
    for name, tensor in ordered:
        end = position + tensor.array.nbytes
        layouts[name] = Layout(tensor.dtype, tensor.shape, position, end)
        position = end
    yield build_header(layouts, metadata or {})
    for _, tensor in ordered:
        flat = np.asarray(tensor.array, _STORAGE[tensor.dtype], order="C").reshape(-1)
        yield flat.view(np.uint8).data


def _stored(name: str, tensor: NDArray[Any] | StoredTensor) -> StoredTensor:
    array = tensor.array if isinstance(tensor, StoredTensor) else tensor
    if not isinstance(array, np.ndarray):
        raise WeightsError(f"tensor {quoted(name)}: expected a NumPy array, not {kind_of(array)}")
    storage = array.dtype.newbyteorder("<")
    dtype = tensor.dtype if isinstance(tensor, StoredTensor) else _MEANING.get(storage)
    if dtype is None or _STORAGE[dtype] != storage:
        hint = "; wrap bfloat16 bits in StoredTensor" if storage == np.dtype("<u2") else ""
        raise WeightsError(
            f"tensor {quoted(name)}: {dtype or 'a weight'} cannot be stored as {array.dtype}{hint}"
        )
    return StoredTensor(dtype, array)
