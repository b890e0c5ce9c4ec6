"""Headers from strangers: what we read the library reads alike, and no lie gets through."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from tfx.core.errors import WeightsError
from tfx.core.weights import open_weights, write_weights

DTYPES = ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]

Contents = dict[str, tuple[str, list[int], bytes]]


def library_reads(blob: bytes) -> Contents:
    """What the safetensors library sees in a file: names with dtype, shape and bytes."""
    return {
        name: (entry["dtype"], list(entry["shape"]), bytes(entry["data"]))
        for name, entry in safetensors.deserialize(blob)  # type: ignore[no-untyped-call]
    }


def we_read(path: Path) -> Contents:
    names = {"bool": "BOOL", "uint8": "U8", "bfloat16": "BF16"}
    names |= {f"int{n}": f"I{n}" for n in (8, 32, 64)} | {
        f"float{n}": f"F{n}" for n in (16, 32, 64)
    }
    return {
        name: (names[tensor.dtype], list(tensor.shape), tensor.array.tobytes())
        for name, tensor in open_weights(path).items()
    }


def with_header(header: str | bytes, data: bytes = b"") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


def fault_of(path: Path) -> str:
    """The message that refuses `path`: one printable line that names the file."""
    with pytest.raises(WeightsError) as caught:
        open_weights(path)
    message = str(caught.value)
    assert message.isprintable()
    assert str(path) in message
    assert len(message) < len(str(path)) + 300
    return message


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=8)),
        max_size=5,
    ),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text('a\0\n"\\é😀')),
)
def test_both_read_what_either_writes(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: dict[str, tuple[str, list[int]]],
    metadata: dict[str, str],
) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    arrays = {name: np.ones(shape, dtype) for name, (dtype, shape) in shapes.items()}
    arrays.pop("__metadata__", None)
    contents = []
    for write in (
        lambda: write_weights(path, arrays, metadata),
        lambda: safetensors.numpy.save_file(arrays, path, metadata or None),
    ):
        write()
        contents.append(we_read(path))
        assert contents[-1] == library_reads(path.read_bytes())
        assert open_weights(path).metadata == metadata
        with safetensors.safe_open(path, "np") as theirs:
            assert (theirs.metadata() or {}) == metadata
    assert contents[0] == contents[1]


# Lies


def small_file() -> bytes:
    return with_header(
        '{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"b":{"dtype":"U8","shape":[3,1],"data_offsets":[8,11]},'
        '"c":{"dtype":"BF16","shape":[],"data_offsets":[11,13]}}   ',
        bytes(range(13)),
    )


def agrees_with_library(path: Path, blob: bytes) -> bool:
    """Whether we read `blob`; if we do, the library must, and see the same."""
    path.write_bytes(blob)
    try:
        ours = we_read(path)
    except WeightsError as error:
        refusal = str(error)
    else:
        assert ours == library_reads(blob)
        return True
    assert refusal.isprintable()
    return False


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    blob = small_file()
    assert agrees_with_library(tmp_path / "x", blob)
    for length in range(len(blob)):
        (tmp_path / "x").write_bytes(blob[:length])
        fault_of(tmp_path / "x")


def test_every_flipped_bit_of_the_header_is_refused_or_harmless(tmp_path: Path) -> None:
    blob = small_file()
    accepted = 0
    bits = 8 * (len(blob) - 13)
    assert bits > 1300
    for bit in range(bits):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        accepted += agrees_with_library(tmp_path / "x", bytes(flipped))
    assert 0 < accepted < 60  # letters of names and metadata, F32 to I32


def test_shuffled_headers_are_refused_or_read_as_the_library_does(tmp_path: Path) -> None:
    lottery = random.Random(1)
    blob = small_file()
    tokens = re.findall(rb'"[^"]*"|\d+|.', blob[8:-13])
    extras = [
        b"-1",
        b"-0",
        b"00",
        b"1.0",
        b"1e2",
        b"9" * 30,
        b"true",
        b"null",
        b"NaN",
        b'"\\u0061"',
    ]
    extras += [
        b'"\\ud800"',
        b'"\xff"',
        b'"dtype"',
        b'"F16"',
        b'"I16"',
        b"[",
        b"]",
        b"{",
        b"}",
        b" \n",
    ]
    accepted = 0
    for _ in range(3000):
        mutated = list(tokens)
        for _ in range(lottery.choice([1, 1, 2, 3])):
            place, other = lottery.randrange(len(mutated)), lottery.randrange(len(mutated))
            match lottery.randrange(4):
                case 0:
                    mutated[place] = lottery.choice(extras)
                case 1:
                    mutated[place], mutated[other] = mutated[other], mutated[place]
                case 2:
                    mutated[place:place] = mutated[other : other + 6]
                case 3:
                    del mutated[place]
        accepted += agrees_with_library(tmp_path / "x", with_header(b"".join(mutated), blob[-13:]))
    assert 0 < accepted < 1500


def entry(dtype: str = '"F32"', shape: str = "[2]", offsets: str = "[0,8]", more: str = "") -> str:
    return f'{{"x":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}}}'


def two(first: list[int], second: list[int]) -> str:
    sizes = [end - begin for begin, end in (first, second)]
    return json.dumps(
        {
            name: {"dtype": "U8", "shape": [size], "data_offsets": offsets}
            for name, size, offsets in zip("xy", sizes, (first, second), strict=True)
        }
    )


LIES: list[tuple[str | bytes, str]] = [
    (entry(offsets="[0,4]"), "'x': float32 of shape .2. takes 8 bytes, data_offsets give it 4"),
    (entry(offsets="[8,0]"), "'x': data_offsets .8, 0. should be .begin, end."),
    (entry(offsets="[8,16]"), "'x': leaves a hole"),
    (entry(offsets="[0]"), r"'x': data_offsets \[0\]"),
    (entry(offsets="[0,8,8]"), "'x': .* more than 2"),
    (entry(offsets="[0,8.0]"), "'x': .*, not '.0]"),
    (entry(offsets="[-8,0]"), "'x': .* whole number"),
    (entry(offsets="[false,8]"), "'x': .* whole number"),
    (entry(offsets="[18446744073709551608,18446744073709551616]"), "'x': .* whole number"),
    (entry(offsets='["0","8"]'), "'x': .* whole number"),
    (entry(offsets="8"), "'x': .* a list"),
    (entry(shape="[4]", offsets="[0,16]"), "cut short: its tensors take 16 bytes, it has 8"),
    (entry(shape="[1]", offsets="[0,4]"), "the last 4 bytes belong to no tensor"),
    ("{}", "the last 8 bytes belong to no tensor"),
    (entry(shape="[2.0]"), "'x': .*, not '.0]"),
    (entry(shape="[2e0]"), "'x': .*, not 'e0]"),
    (entry(shape="[true]"), "'x': .* whole number .* not 'true"),
    (entry(shape="[-2]"), "'x': .* whole number"),
    (entry(shape="[02]"), "'x': "),
    (entry(shape="[NaN]"), "'x': .* whole number"),
    (entry(shape="[Infinity]"), "'x': .* whole number"),
    (entry(shape="null"), "'x': .* a list"),
    (entry(shape="2"), "'x': .* a list"),
    (entry(shape='"2"'), "'x': .* a list"),
    (entry(shape="[[2]]"), "'x': .* whole number"),
    (entry(shape="[2,]"), "'x': .* whole number"),
    (entry(shape="[1,1,1,1,1,1,1,1,2]"), "'x': .* more than 8"),
    (entry(shape=f"[{'9' * 5000}]"), "'x': .* whole number"),
    (entry(shape="[4611686018427387906]"), "'x': .* too large"),  # times 4 is 8, in 64 bits
    (entry(shape="[4294967296,4294967296]"), "'x': .* too large"),
    (entry(shape="[0,9223372036854775807]", offsets="[0,0]"), "'x': .* too large"),
    (entry(dtype='"F8_E4M3"'), "'x': has dtype 'F8_E4M3'; expected one of BOOL"),
    (entry(dtype='"f32"'), "'x': has dtype 'f32'"),
    (entry(dtype='"float32"'), "'x': has dtype 'float32'"),
    (entry(dtype="null"), "'x': .* a string"),
    (entry(dtype="32"), "'x': .* a string"),
    (entry(dtype='"\\n\u202e' + "A" * 5000 + '"'), r"'x': has dtype '\\n\\u202eAAA.*\.\.\.'"),
    (entry(more=',"extra":1'), "'x': has an unknown field 'extra'"),
    (entry(more=',"dtype":"F32"'), "'x': key 'dtype' appears twice"),
    (entry(more=',"\\u0064type":"F32"'), "'x': key 'dtype' appears twice"),
    (entry(more=","), "'x': .* a string"),
    ('{"x":{"dtype":"F32","shape":[2]}}', "'x': lacks"),
    ('{"x":{}}', "'x': lacks"),
    ('{"x":null}', "'x': .* an object"),
    ('{"x":[]}', "'x': .* an object"),
    (entry()[:-1] + "," + entry()[1:], "key 'x' appears twice"),
    (entry()[:-1] + "," + entry()[1:].replace('"x"', '"\\u0078"'), "key 'x' appears twice"),
    ('{"__metadata__":{"k":3}}', "__metadata__: .* a string"),
    ('{"__metadata__":{"k":null}}', "__metadata__: .* a string"),
    ('{"__metadata__":{"k":{"k":"v"}}}', "__metadata__: .* a string"),
    ('{"__metadata__":{"k":"v","k":"v"}}', "__metadata__: key 'k' appears twice"),
    ('{"__metadata__":{},"__metadata__":{}}', "key '__metadata__' appears twice"),
    ('{"__metadata__":[]}', "__metadata__: .* an object"),
    (two([0, 5], [4, 8]), "'y': overlaps the one before it"),
    (two([0, 8], [0, 8]), "'y': overlaps"),
    (two([0, 3], [4, 8]), "'y': leaves a hole"),
    (two([1, 4], [4, 8]), "'x': leaves a hole"),
    (two([0, 8], [9, 9]), "'y': leaves a hole"),
    (entry().replace("x", "\\ud800"), "is not valid"),
    (entry().replace("x", "\\uZZZZ"), "is not valid"),
    (entry().replace("x", "a\nb"), "a string"),
    (entry().replace("x", "a\0b"), "a string"),
    (entry().encode().replace(b"x", b"\xff"), "is not valid"),
    (entry().encode().replace(b"x", b"\xed\xa0\x80"), "is not valid"),
    (entry().encode().replace(b"x", b"\xc0\xaf"), "is not valid"),
    (entry().replace("F32", "x").replace("x", "\\n\\u001b[31m"), "tensor '.n.x1b.31m': has dtype"),
    (entry() + "x", "nothing but spaces"),
    (entry() + entry(), "nothing but spaces"),
    (entry() + "\0", "nothing but spaces"),
    (entry().replace(":", " ", 1), "':'"),
    (entry()[:-1], "','"),
    (entry().replace('"', "'"), "a string"),
    ("{" * 1000, "a string"),
    ('{"x":' * 1000 + "}" * 1000, "unknown field 'x'"),
    ('{"x":{"shape":' + "[" * 100_000 + "]" * 100_000 + "}}", "'x': .* whole number"),
    ("{", "a string"),
    (" " + entry(), "no safetensors file"),
    ("\ufeff" + entry(), "no safetensors file"),
    ("[]", "no safetensors file"),
    ("", "no safetensors file"),
    (entry().encode("utf-16-le"), "a string"),
]


@pytest.mark.parametrize("number", range(len(LIES)))
def test_a_lie_is_named(tmp_path: Path, number: int) -> None:
    header, fault = LIES[number]
    path = tmp_path / "lie.safetensors"
    path.write_bytes(with_header(header, bytes(8)))
    assert re.search(fault, fault_of(path))


def test_the_truth_beside_the_lies(tmp_path: Path) -> None:
    """The headers that the lies are made of are read, so each lie is refused for its fault."""
    for header in [entry(), two([0, 4], [4, 8]), two([4, 8], [0, 4]), two([0, 8], [8, 8])]:
        assert agrees_with_library(tmp_path / "x", with_header(header, bytes(8)))
    spaced = entry().replace(",", " ,\n\t").replace(":", "\r : ").replace("[2 ", "[ 2 ") + " \n"
    assert agrees_with_library(tmp_path / "x", with_header(spaced, bytes(8)))
    escaped = entry().replace("x", "\\ud83d\\ude00\\n\\/")
    assert agrees_with_library(tmp_path / "x", with_header(escaped, bytes(8)))


def test_a_header_over_the_cap(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(with_header(b"{}" + b" " * SIXTEEN_MB))
    assert "its header takes 16777218 bytes; at most 16777216" in fault_of(tmp_path / "x")


# Memory

UNDER_A_LIMIT = """
import resource, sys
from tfx.core.weights import open_weights
from tfx.core.errors import WeightsError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        print(len(open_weights(path)))
    except WeightsError as error:
        print("refused", error)
"""

limits_memory = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="limits memory as Linux does"
)
SIXTEEN_MB = 16 * 2**20


def bombs() -> dict[str, bytes]:
    """Headers of 16 MB that a general parser would blow up, closed as well as can be."""
    fill = SIXTEEN_MB - 100
    return {
        "spaces": b"{" + b" " * fill + b"}",
        "lists": b'{"x":{"shape":[' + b"[]," * (fill // 3) + b"[]]}}",
        "objects": b'{"x":[' + b"{}," * (fill // 3) + b"{}]}",
        "nesting": b'{"x":' * (fill // 6) + b"}" * (fill // 6),
        "numbers": b'{"x":{"shape":[' + b"1000," * (fill // 5) + b"1]}}",
        "digits": b'{"x":{"shape":[' + b"9" * fill + b"]}}",
        "one long name": b'{"' + "\U0001f600".encode() + b"a" * fill + b'":{}}',
        "one long name of escapes": b'{"' + "\U0001f600".encode() + b"\\n" * (fill // 2) + b'":{}}',
        "backslashes": b'{"' + b"\\" * fill,
        "metadata": b'{"__metadata__":{' + many(b'"%x":""', fill // 12) + b"}}",
    }


def many(pattern: bytes, count: int) -> bytes:
    return b",".join(pattern % number for number in range(count))


def open_under_a_limit(folder: Path, files: dict[str, bytes]) -> list[str]:
    """What comes of opening files with these contents in a process that may grow by 200 MB."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    run = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, *(str(folder / name) for name in files)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.splitlines()


@limits_memory
def test_no_malformed_file_crashes_hangs_or_takes_200_mb(tmp_path: Path) -> None:
    blob = small_file()
    files = {f"cut {length}": blob[:length] for length in range(len(blob))}
    for bit in range(8 * (len(blob) - 13)):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        files[f"bit {bit}"] = bytes(flipped)
    files |= {f"lie {n}": with_header(lie, bytes(8)) for n, (lie, _) in enumerate(LIES)}
    answers = open_under_a_limit(tmp_path, files)
    assert len(answers) == len(files)
    assert sum(answer.startswith("refused") for answer in answers) > 1700


@limits_memory
def test_no_header_takes_200_mb(tmp_path: Path) -> None:
    assert all(len(header) <= SIXTEEN_MB for header in bombs().values())
    files = {name: with_header(header) for name, header in bombs().items()}
    answers = open_under_a_limit(tmp_path, files)
    assert len(answers) == len(bombs())
    assert answers[0] == "0"
    assert all(answer.startswith("refused") for answer in answers[1:])


@limits_memory
@pytest.mark.slow
def test_no_number_of_tensors_takes_200_mb(tmp_path: Path) -> None:
    tensor = b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    most, more = (with_header(b"{" + many(tensor, n) + b"}") for n in (2**17, 2**17 + 1))
    answers = open_under_a_limit(tmp_path, {"most": most, "more": more})
    assert answers[0] == str(2**17)
    assert "more than 131072 keys" in answers[1]
