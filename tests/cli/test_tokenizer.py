"""`tfx tokenizer train`, `encode` and `decode`, as typed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from imports import imports_of

from tfx.core.tokenizer import ByteLevelBPE, load_tokenizer, save_tokenizer
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.tokenizer.files import END_OF_TEXT

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
TOKENS = [*sorted(ALPHABET), *map("".join, MERGES), END_OF_TEXT]
OURS = ByteLevelBPE(
    {token: number for number, token in enumerate(TOKENS)}, MERGES, special_tokens=[END_OF_TEXT]
)
TEXT = f"the theatre: naïve 日本 😀{END_OF_TEXT}\r\n\n the end \n"
HEAVY = {"numpy", "torch", "cupy", "rich", "pluggy", "tokenizers", "tfx.core.tokenizer"}

RHYME = "the cat sat on the mat, the rat sat on the cat; that's that.\n\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder commands run in, with a tokenizer in `tok` and a text in `text`."""
    save_tokenizer(OURS, tmp_path / "tok")
    (tmp_path / "text").write_bytes(TEXT.encode())
    return tmp_path


def ids_of(text: str) -> str:
    return " ".join(map(str, OURS.encode(text)))


# ---- train ---------------------------------------------------------------------------------------


def train(invoke: Any, *args: str) -> Any:
    return invoke("tokenizer", "train", "--data", "rhyme.txt", "--vocab-size", "262", *args)


@pytest.fixture
def rhyme(tmp_path: Path) -> Path:
    pytest.importorskip("tokenizers")
    (tmp_path / "rhyme.txt").write_text(RHYME)
    return tmp_path


def test_train_writes_a_tokenizer(invoke: Any, rhyme: Path) -> None:
    done = train(invoke, "--out", "new/tok")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"new/tok: 262 tokens, special: {END_OF_TEXT}\n"
    trained = load_tokenizer(rhyme / "new" / "tok")
    assert trained.vocab_size == 262
    assert trained.eos_id == 261
    assert trained.merges[0] == ("a", "t")


def test_train_says_in_json_what_it_made(invoke: Any, rhyme: Path) -> None:
    done = train(invoke, "--out", "tok", "--special", "<a>", "--special", END_OF_TEXT, "--json")
    assert json.loads(done.stdout) == {
        "out": "tok",
        "files": ["merges.txt", "tokenizer_config.json", "vocab.json", "tokenizer.json"],
        "vocab_size": 262,
        "merges": 4,
        "special_tokens": {"<a>": 260, END_OF_TEXT: 261},
        "eos_token": END_OF_TEXT,
    }
    assert load_tokenizer(rhyme / "tok").special_tokens == {"<a>", END_OF_TEXT}


def test_train_reads_a_folder(invoke: Any, rhyme: Path) -> None:
    (rhyme / "data").mkdir()
    (rhyme / "data" / "b.txt").write_text(RHYME[30:])
    (rhyme / "data" / "a.txt").write_text(RHYME[:30])
    args = ["--data", "data", "--vocab-size", "262", "--out", "two"]
    assert invoke("tokenizer", "train", *args).exit_code == 0
    assert train(invoke, "--out", "one").exit_code == 0
    one, two = (load_tokenizer(rhyme / name) for name in ("one", "two"))
    assert one.merges == two.merges


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--vocab-size", "256"], 2, "of 256 tokens is too small; expected at least 257: the 256"),
        (["--vocab-size", "many"], 2, "'many' is not a valid int"),
        (["--special", ""], 2, "name of a special token, not an empty one"),
        (["--vocab-size", "9999"], 1, "tokens at most, not 9999; take more text, or a vocabulary"),
        (["--data", "nowhere"], 1, "cannot read the data file nowhere: No such file"),
        (["--data", "."], 1, "binary.txt is not UTF-8 text: byte 0xe9 at offset 3"),
        (["--out", "rhyme.txt"], 1, "rhyme.txt is a file; expected a folder for the tokenizer"),
        (
            ["--out", "old", "--data", "nowhere"],
            1,
            "old/vocab.json is in the way, and no tokenizer is written over",
        ),
    ],
)
def test_train_refuses(invoke: Any, rhyme: Path, args: list[str], code: int, message: str) -> None:
    (rhyme / "binary.txt").write_bytes(b"caf\xe9")
    (rhyme / "old").mkdir()
    (rhyme / "old" / "vocab.json").write_text("{}")
    done = train(invoke, "--out", "tok", *args)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("tfx: ")
    assert message in done.stderr.splitlines()[0]
    assert not (rhyme / "tok").exists()
    assert [file.name for file in (rhyme / "old").iterdir()] == ["vocab.json"]


def test_train_without_the_library(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rhyme.txt").write_text(RHYME)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    done = train(invoke, "--out", "tok")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("needs the library tokenizers: pip install 'tfx-lm[tokenizers]'")


# ---- encode and decode ---------------------------------------------------------------------------


def test_encode_prints_ids(invoke: Any, folder: Path) -> None:
    done = invoke("tokenizer", "encode", "--tokenizer", "tok", "the theatre")
    assert (done.exit_code, done.stdout) == (0, f"{ids_of('the theatre')}\n")


@pytest.mark.parametrize("path", ["tok", "tok/tokenizer.json", "tok/vocab.json"])
def test_encode_takes_any_tokenizer_file(invoke: Any, folder: Path, path: str) -> None:
    done = invoke("tokenizer", "encode", f"a{END_OF_TEXT}", "--tokenizer", path)
    assert done.stdout == f"{TOKENS.index('a')} {TOKENS.index(END_OF_TEXT)}\n"


def test_encode_shows_tokens_in_json(invoke: Any, folder: Path) -> None:
    done = invoke("tokenizer", "encode", "at the", "--tokenizer", "tok", "--json")
    numbers = OURS.encode("at the")
    assert json.loads(done.stdout) == {"token_ids": numbers, "tokens": ["a", "t", "Ġthe"]}


def test_a_file_comes_back_byte_for_byte(tfx: Any, folder: Path) -> None:
    encode = ["tokenizer", "encode", "--tokenizer", "tok"]
    decode = ["tokenizer", "decode", "--tokenizer", "tok"]
    from_file = tfx(*encode, "-f", "text")
    assert from_file.stdout == f"{ids_of(TEXT)}\n"
    for args in ([], ["-f", "-"]):
        with open(folder / "text", "rb") as stdin:
            assert tfx(*encode, *args, stdin=stdin).stdout == from_file.stdout
    for latin in ({}, {"PYTHONIOENCODING": "latin-1"}):
        with open(folder / "back", "wb") as stdout:
            assert tfx(*decode, input=from_file.stdout, stdout=stdout, env=latin).returncode == 0
        assert (folder / "back").read_bytes() == TEXT.encode()


def test_decode_takes_ids_apart_or_together(invoke: Any, folder: Path) -> None:
    first, *rest = ids_of("the end").split()
    for args in ([first, *rest], [first, " ".join(rest)], [f" {first}\n", *rest]):
        assert invoke("tokenizer", "decode", "--tokenizer", "tok", *args).stdout == "the end"


def test_decode_in_json(invoke: Any, folder: Path) -> None:
    numbers = OURS.encode("the end")
    done = invoke("tokenizer", "decode", "--tokenizer", "tok", "--json", *map(str, numbers))
    assert json.loads(done.stdout) == {"token_ids": numbers, "text": "the end"}


def test_half_a_character_is_replaced(invoke: Any, folder: Path) -> None:
    half = str(OURS.encode("é")[0])
    assert invoke("tokenizer", "decode", half, "--tokenizer", "tok").stdout == "\ufffd"


def test_nothing_is_nothing(tfx: Any, folder: Path) -> None:
    assert tfx("tokenizer", "encode", "", "--tokenizer", "tok").stdout == "\n"
    assert tfx("tokenizer", "encode", "--tokenizer", "tok", input="").stdout == "\n"
    assert tfx("tokenizer", "decode", "--tokenizer", "tok", input="\n").stdout == ""


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["encode", "a"], 2, "Missing option '--tokenizer'"),
        (["encode", "a", "--tokenizer", "nowhere"], 1, "nowhere: No such file"),
        (["encode", "a", "--tokenizer", "."], 1, ".: no tokenizer in this folder; expected"),
        (["encode", "a", "-f", "text", "--tokenizer", "tok"], 2, "TEXT and --file each give a"),
        (["encode", "-f", "none", "--tokenizer", "tok"], 1, "cannot read none: No such file"),
        (["encode", "-f", "tok", "--tokenizer", "tok"], 1, "cannot read tok: it is a folder"),
        (["encode", "-f", "latin", "--tokenizer", "tok"], 1, "latin is not UTF-8 text: byte 0xe9"),
        (["decode", "1", "x2", "--tokenizer", "tok"], 2, "token ids, as in 15496 995, got 'x2'"),
        (["decode", "1.5", "--tokenizer", "tok"], 2, "got '1.5'"),
        (["decode", "٣", "--tokenizer", "tok"], 2, "got '٣'"),
        (["decode", "9" * 5000, "--tokenizer", "tok"], 2, "got '999"),
        (["decode", "260", "--tokenizer", "tok"], 1, "no token has id 260; this tokenizer has ids"),
        (["decode", "-1", "--tokenizer", "tok"], 2, "No such option: -1"),
    ],
)
def test_bad_input_is_one_line(
    invoke: Any, folder: Path, args: list[str], code: int, message: str
) -> None:
    (folder / "latin").write_bytes(b"caf\xe9")
    done = invoke("tokenizer", *args)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("tfx: ")
    assert message in done.stderr.splitlines()[0]


def test_stdin_that_is_no_text_is_named(tfx: Any, folder: Path) -> None:
    done = tfx("tokenizer", "encode", "--tokenizer", "tok", input=b"\xff", encoding=None)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"tfx: stdin is not UTF-8 text: byte 0xff at offset 0\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals to open")
def test_on_a_terminal(tfx: Any, folder: Path) -> None:
    """A text ends its line, and nobody is kept waiting for what should come from a pipe."""
    ours, theirs = os.openpty()
    try:
        decode = ["tokenizer", "decode", "--tokenizer", "tok"]
        assert tfx(*decode, *ids_of("the end").split(), stdout=theirs).returncode == 0
        assert os.read(ours, 100) == b"the end\r\n"
        for args, missing in (
            (decode, "no ids to decode; give them"),
            (["tokenizer", "encode", "--tokenizer", "tok"], "no text to encode; give TEXT or"),
        ):
            done = tfx(*args, stdin=theirs)
            assert done.returncode == 2
            assert done.stderr.startswith(f"tfx: {missing}")
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_closed_pipe_ends_it_quietly(tfx: Any, folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = tfx("tokenizer", "decode", "32", "--tokenizer", "tok", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# ---- the command itself --------------------------------------------------------------------------


def test_without_a_command_the_help_goes_to_stderr(invoke: Any) -> None:
    done = invoke("tokenizer")
    assert (done.exit_code, done.stdout) == (2, "")
    commands = done.stderr.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in commands if line] == ["train", "encode", "decode"]


def test_a_typo_gets_a_suggestion(invoke: Any) -> None:
    done = invoke("tokenizer", "trian")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "tfx: No such command 'trian'. Did you mean 'train'?",
        "Try 'tfx tokenizer --help' for help.",
    ]


@pytest.mark.parametrize("command", ["train", "encode", "decode"])
def test_every_command_has_help(invoke: Any, command: str) -> None:
    done = invoke("tokenizer", command, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: tfx tokenizer {command} ")


def test_completion(tfx: Any) -> None:
    asking = {"_TFX_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for words, expected in (
        ("tfx tokenizer tr", ["train"]),
        ("tfx tokenizer train --voc", ["--vocab-size"]),
    ):
        done = tfx(env=asking | {"_TYPER_COMPLETE_ARGS": words})
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == expected


@pytest.mark.installed
@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        (["--help"], set()),
        (["trian"], set()),
        ([], set()),
        (["train", "--help"], set()),
        (["encode", "the", "--tokenizer", "tok"], {"tfx.core.tokenizer"}),
    ],
)
def test_what_is_not_needed_is_not_imported(
    folder: Path, args: list[str], allowed: set[str]
) -> None:
    _, imported = imports_of(["tokenizer", *args], cwd=folder)
    assert "tfx.cli.tokenizer" in imported
    assert imported & HEAVY == allowed
