"""Small JSON files from strangers: what is read, and what is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfx.core.files import reason
from tfx.core.json_file import MAX_SIZE, read_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def fault(path: Path, *longest: int) -> str:
    """What is said of a file that is refused: one line that leaves naming it to the caller."""
    with pytest.raises((OSError, ValueError)) as caught:
        read_object(path, *longest)
    message = reason(caught.value)
    assert message.isprintable()
    assert path.name not in message
    return message


@given(value=st.dictionaries(st.text(), VALUES), plain=st.booleans())
@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_an_object_is_read_as_the_standard_library_reads_it(
    tmp_path: Path, value: dict[str, Any], plain: bool
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value, ensure_ascii=plain), "utf-8")
    assert read_object(path) == value


CONTENTS = {
    b"": "it is not sound JSON",
    b'{"a": 1': "it is not sound JSON",
    b"{'a': 1}": "it is not sound JSON",
    b'{"a": 1} {}': "it is not sound JSON: Extra data",
    b"[1]": "it holds a list; expected a JSON object",
    b"null": "it holds None; expected a JSON object",
    b'"a"': "it holds a str; expected a JSON object",
    b'{"a": "\xff"}': "it is not UTF-8 text: invalid start byte at byte 7",
    b'{"a": 1, "a": 1}': "it is not sound JSON: the key 'a' comes twice in one object",
    b'{"a": 1, "\\u0061": 2}': "the key 'a' comes twice",
    b'{"a": [{"b\\n": {}, "b\\n": {}}]}': "the key 'b\\n' comes twice",
    b"[" * 100_000: "its JSON is nested too deep",
    b'{"a":' * 100_000: "its JSON is nested too deep",
    b'{"a": ' + b"9" * 5000 + b"}": "it is not sound JSON",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n": "run 'git lfs pull'",
}


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: content[:12].decode("latin-1"))
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert CONTENTS[content] in fault(tmp_path / "a.json")


def test_a_long_file_is_refused_by_its_size_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_object(path, 8) == {"a": 1}
    assert fault(path, 7) == "it takes 8 bytes; as JSON at most 7 are read"
    path.write_text(json.dumps({"a": "b" * (MAX_SIZE - 9)}))
    assert len(read_object(path)["a"]) == MAX_SIZE - 9
    with path.open("ab") as file:
        file.truncate(2**40)  # sparse: to read it would take a terabyte
    assert fault(path) == f"it takes {2**40} bytes; as JSON at most {MAX_SIZE} are read"


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.json") == "No such file or directory"
    assert "it is a folder" in fault(tmp_path)
    os.mkfifo(tmp_path / "waiting")
    assert "it is a pipe" in fault(tmp_path / "waiting")
