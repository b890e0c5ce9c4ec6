"""The safetensors format: eight bytes of length, a JSON header, then the tensors' bytes.

    {"__metadata__": {"format": "pt"},
     "wte": {"dtype": "F32", "shape": [27, 16], "data_offsets": [0, 1728]}, ...}

A header comes from strangers, so the scanner below reads this grammar and nothing more. A
general JSON parser would let repeated keys, `4.0`, `true`, `NaN`, lone surrogates and deep
nesting through to us, and build 400 MB of lists from 16 MB of brackets. Here every value is
checked as it is read, nothing recurses, and memory follows the tensors really described.

Errors are `WeightsError` without the file's name, which is not known here.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tfx.core.dtypes import DType
from tfx.core.errors import WeightsError
from tfx.core.wording import quoted

MAX_HEADER = 16 * 1024 * 1024
"""Longest header read or written, in bytes; the 148 tensors of GPT-2 take 14 thousand."""

_MAX_KEYS = 2**17  # of one object; about what fits into MAX_HEADER at 128 bytes a tensor
_MAX_RANK = 8
_METADATA = "__metadata__"

_NAMES = {
    DType.bool: "BOOL",
    DType.uint8: "U8",
    DType.int8: "I8",
    DType.int32: "I32",
    DType.int64: "I64",
    DType.float16: "F16",
    DType.bfloat16: "BF16",
    DType.float32: "F32",
    DType.float64: "F64",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class Layout(NamedTuple):
    """Where one tensor lies: bytes `begin` to `end` after the header, row-major, little-endian."""

    dtype: DType
    shape: tuple[int, ...]
    begin: int
    end: int


def build_header(layouts: Mapping[str, Layout], metadata: Mapping[str, str]) -> bytes:
    """The start of a file, its length included, padded so that the data begins at a multiple of 8.

    What `parse_header` would not give back as it was is refused here.
    """
    if _METADATA in layouts:
        raise WeightsError(f"no tensor may be called {_METADATA}")
    entries: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    for name, (dtype, shape, begin, end) in layouts.items():
        entries[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (begin, end)}
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end]
        raise WeightsError(f"the text {quoted(near)} cannot be written as UTF-8") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise WeightsError(f"a header of {len(text)} bytes; at most {MAX_HEADER} are read")
    data_size = max((layout.end for layout in layouts.values()), default=0)
    if parse_header(text, data_size) != (dict(layouts), dict(metadata)):
        raise WeightsError("names and metadata must be text")
    return len(text).to_bytes(8, "little") + text


def parse_header(text: bytes, data_size: int) -> tuple[dict[str, Layout], dict[str, str]]:
    """Read a header that describes `data_size` bytes of data: the layouts and the metadata.

    `WeightsError` unless every tensor is sound and together they cover the data exactly.

    >>> header = b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    >>> parse_header(header, data_size=8)[0]["x"].shape
    (2,)
    """
    scan = _Scanner(text)
    layouts: dict[str, Layout] = {}
    metadata: dict[str, str] = {}
    for name in scan.members():
        try:
            if name == _METADATA:
                metadata = {key: scan.string() for key in scan.members()}
            else:
                layouts[name] = _layout(scan)
        except WeightsError as fault:
            what = _METADATA if name == _METADATA else f"tensor {quoted(name)}"
            raise WeightsError(f"{what}: {fault}") from None
    scan.finish()
    _check_cover(layouts, data_size)
    return layouts, metadata


def _layout(scan: _Scanner) -> Layout:
    dtype, shape, offsets = None, None, None
    for field in scan.members():
        if field == "dtype":
            dtype = _dtype(scan.string())
        elif field == "shape":
            shape = scan.integers(_MAX_RANK)
        elif field == "data_offsets":
            offsets = scan.integers(2)
        else:
            raise WeightsError(f"has an unknown field {quoted(field)}")
    if dtype is None or shape is None or offsets is None:
        raise WeightsError("lacks one of dtype, shape and data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise WeightsError(f"data_offsets {list(offsets)} should be [begin, end]")
    # Array libraries multiply the lengths of an empty tensor too: no product may overflow.
    if math.prod(length or 1 for length in shape) * dtype.itemsize >= 2**63:
        raise WeightsError(f"shape {list(shape)} is too large")
    size, (begin, end) = math.prod(shape) * dtype.itemsize, offsets
    if size != end - begin:
        raise WeightsError(
            f"{dtype} of shape {list(shape)} takes {size} bytes, data_offsets give it {end - begin}"
        )
    return Layout(dtype, shape, begin, end)


def _dtype(name: str) -> DType:
    if name not in _DTYPES:
        raise WeightsError(f"has dtype {quoted(name)}; expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _check_cover(layouts: Mapping[str, Layout], data_size: int) -> None:
    position = 0
    for name, layout in sorted(layouts.items(), key=lambda item: (item[1].begin, item[1].end)):
        if layout.begin != position:
            fault = "overlaps the one before it" if layout.begin < position else "leaves a hole"
            raise WeightsError(
                f"tensor {quoted(name)}: {fault}: it begins at byte {layout.begin} of the data,"
                f" expected {position}"
            )
        position = layout.end
    if position > data_size:
        raise WeightsError(
            f"the file is cut short: its tensors take {position} bytes, it has {data_size} for"
            " them; fetch it again"
        )
    if position < data_size:
        raise WeightsError(f"the last {data_size - position} bytes belong to no tensor")


_SPACE = rb"[ \t\n\r]*+"
_STRING = re.compile(_SPACE + rb'"((?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*+)"')
_INTEGER = re.compile(_SPACE + rb"(0|[1-9][0-9]{0,18})(?![0-9])")
_MARKS = {mark: re.compile(_SPACE + re.escape(mark.encode())) for mark in "{}[]:,"}
_END = re.compile(_SPACE + rb"\Z")


class _Scanner:
    """Reads a header from left to right; the caller asks for what must come next."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def members(self) -> Iterator[str]:
        """The keys of an object, each different; the caller reads the value after each."""
        self._expect(_MARKS["{"], "an object")
        seen: set[str] = set()
        closed = self._found("}")
        while not closed:
            key = self.string()
            if key in seen:
                raise WeightsError(f"key {quoted(key)} appears twice")
            if len(seen) == _MAX_KEYS:
                raise WeightsError(f"the header has an object of more than {_MAX_KEYS} keys")
            seen.add(key)
            self._expect(_MARKS[":"], "':'")
            yield key
            closed = self._found("}")
            if not closed:
                self._expect(_MARKS[","], "',' or '}'")

    def integers(self, most: int) -> tuple[int, ...]:
        """A list of at most `most` numbers, each whole and not negative."""
        self._expect(_MARKS["["], "a list")
        numbers: list[int] = []
        closed = self._found("]")
        while not closed:
            if len(numbers) == most:
                raise WeightsError(f"has a list of more than {most} numbers")
            numbers.append(int(self._expect(_INTEGER, "a whole number from 0 to 2^63")[1]))
            closed = self._found("]")
            if not closed:
                self._expect(_MARKS[","], "',' or ']'")
        return tuple(numbers)

    def string(self) -> str:
        """A string, its escapes resolved."""
        raw = self._expect(_STRING, "a string")[1]
        try:
            if b"\\" not in raw:
                return raw.decode()
            text: str = json.loads(b'"' + raw + b'"')
            text.encode()  # refuses half of a surrogate pair, as UTF-8 itself would
        except ValueError:
            raise WeightsError(f"the string before byte {8 + self.at} is not valid") from None
        return text

    def finish(self) -> None:
        """Only padding may follow."""
        self._expect(_END, "nothing but spaces")

    def _found(self, mark: str) -> bool:
        match = _MARKS[mark].match(self.text, self.at)
        self.at = match.end() if match else self.at
        return match is not None

    def _expect(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        match = pattern.match(self.text, self.at)
        if match is None:
            found = self.text[self.at : self.at + 20].decode(errors="replace")
            raise WeightsError(
                f"the header should have {expected} at byte {8 + self.at}, not {found!r}"
            )
        self.at = match.end()
        return match
