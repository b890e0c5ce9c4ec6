"""The files that a vocabulary is learnt from: taken as they are, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tfx.core.errors import DataError
from tfx.core.tokenizer.corpus import read_texts


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    raw = "\ufeffone\r\ntwo\rthree\n\n \0 e\u0301\x85 end \n".encode()
    (tmp_path / "notes").write_bytes(raw)
    assert "".join(read_texts(tmp_path / "notes")).encode() == raw


def test_a_folder_gives_its_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub" / "c.txt").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "sub/a.txt", "sub/c.txt/d.txt", "a.md", "txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.txt").write_text("")
    texts = list(read_texts(tmp_path))
    assert texts == ["a.txt", "b.txt", "", "sub/a.txt", "sub/c.txt/d.txt"]


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(read_texts(path))
    assert "\n" not in str(caught.value)


def test_faults_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "none", r"cannot read the data file .*none: No such file")
    refused(tmp_path / "a\0b", "embedded null byte")
    refused(tmp_path, r"the folder .* has no .txt file in it or below")
    (tmp_path / "a.txt").write_bytes(b"")
    refused(tmp_path / "a.txt", r"a\.txt is empty; expected some text")
    refused(tmp_path, "is empty; expected some text")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    for path in (tmp_path, tmp_path / "b.txt"):
        refused(path, r"b\.txt is not UTF-8 text: byte 0xe9 at offset 3; convert it")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    refused(tmp_path / "pipe.txt", "it is a pipe, socket or device, not a regular file")
