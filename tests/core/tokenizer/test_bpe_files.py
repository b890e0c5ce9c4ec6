"""Tokenizer files: every form gives the same tokenizer, and every fault is named."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tfx.core.errors import TokenizerError
from tfx.core.tokenizer import files as tokenizer_files
from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.tokenizer.files import END_OF_TEXT, load_tokenizer

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("#", "v"), ("e", "r")]
VOCAB = {t: i for i, t in enumerate([*ALPHABET, *map("".join, MERGES), "model", END_OF_TEXT])}
LINES = [" ".join(merge) for merge in MERGES]
TEXT = f"the other model#v {END_OF_TEXT}the end"
IDS = ByteLevelBPE(VOCAB, MERGES, special_tokens=[END_OF_TEXT]).encode(TEXT)

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
ADDED = {"content": END_OF_TEXT, "id": VOCAB[END_OF_TEXT], "special": True, "normalized": False}
ADDED |= {"lstrip": False, "rstrip": False, "single_word": False}
TOKENIZER_JSON: dict[str, Any] = {
    "version": "1.0",
    "truncation": {"max_length": 3, "strategy": "LongestFirst"},
    "padding": None,
    "added_tokens": [ADDED],
    "normalizer": None,
    "pre_tokenizer": {**BYTE_LEVEL, "use_regex": True},
    "post_processor": BYTE_LEVEL,
    "decoder": BYTE_LEVEL,
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": VOCAB,
        "merges": LINES,
    },
}


def write(folder: Path, **files: Any) -> Path:
    """Write `vocab_json=...` as `vocab.json`: text as it is, all else as JSON."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        stem, _, kind = name.rpartition("_")
        (folder / f"{stem}.{kind}").write_bytes(text.encode("utf-8", "surrogatepass"))
    return folder


def two_files(folder: Path, vocab: dict[str, Any] = VOCAB, **files: Any) -> Path:
    return write(folder, vocab_json=vocab, merges_txt="\n".join(LINES), **files)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = deepcopy(TOKENIZER_JSON)
    change(content)
    return content


# ---- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_json": TOKENIZER_JSON},
        {"tokenizer_json": changed(lambda c: c["model"].update(merges=[*map(list, MERGES)]))},
        {"tokenizer_json": changed(lambda c: c["model"].pop("type"))},
        {
            "tokenizer_json": changed(
                lambda c: (c.pop("decoder"), c["pre_tokenizer"].pop("use_regex"))
            )
        },
        {"vocab_json": VOCAB, "merges_txt": "\n".join(["#version: 0.2", *LINES, ""])},
        {"vocab_json": VOCAB, "merges_txt": "\n".join(LINES)},
        {"vocab_json": VOCAB, "merges_txt": "\r\n".join(["#version: 0.2", *LINES, "", ""])},
        {"encoder_json": VOCAB, "vocab_bpe": "\n".join(["#version: 0.2", *LINES, ""])},
    ],
)
def test_every_form_gives_the_same_tokenizer(tmp_path: Path, files: dict[str, Any]) -> None:
    write(tmp_path, **files)
    stem, _, kind = next(iter(files)).rpartition("_")
    for path in (tmp_path, str(tmp_path), tmp_path / f"{stem}.{kind}"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.encode(TEXT) == IDS
        assert tokenizer.vocab == VOCAB
        assert tokenizer.special_tokens == {END_OF_TEXT}
        assert tokenizer.eos_id == VOCAB[END_OF_TEXT]
        assert not tokenizer.add_prefix_space


def test_of_two_forms_tokenizer_json_is_read(tmp_path: Path) -> None:
    two_files(tmp_path, tokenizer_json=changed(lambda c: c["added_tokens"].clear()))
    assert load_tokenizer(tmp_path).special_tokens == set()
    assert load_tokenizer(tmp_path / "vocab.json").special_tokens == {END_OF_TEXT}


def test_no_merges_is_a_tokenizer_of_bytes(tmp_path: Path) -> None:
    for merges in ("", "#version: 0.2\n"):
        write(tmp_path, vocab_json=VOCAB, merges_txt=merges)
        assert load_tokenizer(tmp_path).encode("the") == [VOCAB[letter] for letter in "the"]


def test_tokens_added_in_tokenizer_json(tmp_path: Path) -> None:
    pad = {**ADDED, "content": "<pad>", "id": len(VOCAB)}
    word = {"content": "the end", "id": len(VOCAB) + 1, "special": False}
    write(tmp_path, tokenizer_json=changed(lambda c: c["added_tokens"].extend([pad, word])))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == len(VOCAB) + 2
    assert tokenizer.special_tokens == {END_OF_TEXT, "<pad>"}
    ids = tokenizer.encode("<pad>the end")
    assert ids == [len(VOCAB), len(VOCAB) + 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the end"


def test_tokens_added_beside_vocab_json(tmp_path: Path) -> None:
    """As `transformers` wrote them: ids in one file, roles in another."""
    two_files(
        tmp_path,
        added_tokens_json={"<pad>": len(VOCAB), "the end": len(VOCAB) + 1},
        special_tokens_map_json={"pad_token": "<pad>", "eos_token": {"content": END_OF_TEXT}},
    )
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens == {END_OF_TEXT, "<pad>"}
    assert tokenizer.encode("<pad>the end") == [len(VOCAB), len(VOCAB) + 1]


@pytest.mark.parametrize(
    "more", [{"additional_special_tokens": ["model"]}, {"extra_special_tokens": {"x": "model"}}]
)
def test_the_config_names_special_tokens(tmp_path: Path, more: dict[str, Any]) -> None:
    config = {
        **more,
        "added_tokens_decoder": {str(len(VOCAB)): {**ADDED, "content": "<end>"}},
        "eos_token": "<end>",
        "pad_token": None,
        "add_prefix_space": True,
        "add_bos_token": False,
        "model_max_length": 1024,
    }
    two_files(tmp_path, tokenizer_config_json=config)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens == {END_OF_TEXT, "<end>", "model"}
    assert tokenizer.eos_id == len(VOCAB)
    assert tokenizer.add_prefix_space


def test_a_text_may_end_with_nothing(tmp_path: Path) -> None:
    vocab = {token: i for token, i in VOCAB.items() if token != END_OF_TEXT}
    tokenizer = load_tokenizer(two_files(tmp_path, vocab))
    assert tokenizer.eos_id is None
    assert tokenizer.special_tokens == set()


# ---- faults --------------------------------------------------------------------------------------


def refused(path: Path, message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["model"].update(type="WordPiece"),
            "its model is 'WordPiece'; only byte-level",
        ),
        (lambda c: c["model"].update(type=["BPE"]), r"its model is \['BPE'\]"),
        (lambda c: c["model"].update(dropout=0.1), "its model has dropout set"),
        (lambda c: c["model"].update(end_of_word_suffix="</w>"), "has end_of_word_suffix set"),
        (lambda c: c["model"].update(byte_fallback=True), "has byte_fallback set"),
        (lambda c: c["model"].update(ignore_merges={}), "has ignore_merges set"),
        (lambda c: c["model"].update(vocab=[]), "vocab is a list; expected a dict"),
        (lambda c: c["model"].pop("vocab"), "vocab is None; expected a dict"),
        (lambda c: c["model"].update(merges=3), "merges is an int; expected a list"),
        (lambda c: c["model"].update(merges=["a b c"]), "merge 1 is 'a b c'; expected two tokens"),
        (lambda c: c["model"].update(merges=["h e", ["a", 1]]), r"merge 2 is \['a', 1\]; expected"),
        (lambda c: c["model"].update(merges=[None]), "merge 1 is None"),
        (
            lambda c: c["model"].update(merges=["h e", "h e"]),
            "merges 1 and 2 are both 'h' with 'e'",
        ),
        (lambda c: c["model"]["vocab"].update(the=1.5), "the id of 'the' is a float"),
        (lambda c: c["model"]["vocab"].update(the=10**40), "no token has the id 263"),
        (lambda c: c["model"]["vocab"].pop("a"), "byte 0x61 has no token|no token has the id 97"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "its normalizer is NFC; expected none"),
        (lambda c: c.update(normalizer=BYTE_LEVEL), "its normalizer is ByteLevel; expected none"),
        (lambda c: c.update(pre_tokenizer=None), "its pre_tokenizer is None; expected ByteLevel"),
        (lambda c: c.update(pre_tokenizer=[1]), "its pre_tokenizer is a list; expected ByteLevel"),
        (lambda c: c["pre_tokenizer"].update(use_regex=False), "use_regex off; expected it on"),
        (
            lambda c: c["pre_tokenizer"].pop("add_prefix_space"),
            "add_prefix_space is None; expected a",
        ),
        (
            lambda c: c.update(post_processor={"type": "TemplateProcessing"}),
            "is TemplateProcessing;",
        ),
        (
            lambda c: c.update(decoder={"type": "WordPiece"}),
            "its decoder is WordPiece; expected Byte",
        ),
        (lambda c: c.update(added_tokens={}), "added_tokens is a dict; expected a list"),
        (lambda c: c.update(added_tokens=[3]), "id is None; expected an int|content is None"),
        (lambda c: c.update(added_tokens=[{"id": 5}]), "content is None; expected a str"),
        (lambda c: c.update(added_tokens=[{**ADDED, "id": True}]), "id is a bool; expected an int"),
        (
            lambda c: c.update(added_tokens=[{**ADDED, "id": 3}]),
            "has the id 3, in the vocabulary 262",
        ),
        (
            lambda c: c.update(added_tokens=[{**ADDED, "lstrip": True}]),
            "lstrip set; expected it off",
        ),
        (
            lambda c: c.update(added_tokens=[{**ADDED, "special": 1}]),
            "special is an int; expected a b",
        ),
    ],
)
def test_a_fault_in_tokenizer_json_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write(tmp_path, tokenizer_json=changed(change))
    refused(tmp_path / "tokenizer.json", message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab_json": "[1]"}, "vocab.json: it holds a list; expected a JSON object"),
        ({"vocab_json": "{"}, "vocab.json: it is not sound JSON: Expecting property name"),
        ({"vocab_json": ""}, "vocab.json: it is not sound JSON: Expecting value"),
        ({"vocab_json": "[" * 200_000}, "vocab.json: its JSON is nested too deep"),
        (
            {"vocab_json": '{"a": 1, "a": 1}'},
            "vocab.json: it is not sound JSON: the key 'a' comes twice",
        ),
        ({"vocab_json": '{"a": ' + "1" * 5000 + "}"}, "vocab.json: .* JSON: Exceeds the"),
        ({"vocab_json": '{"a": NaN}'}, "vocab.json: the id of 'a' is a float"),
        ({"vocab_json": '{"\\ud800": 0}'}, "vocab.json: the token '.ud800' is not byte-level"),
        ({"vocab_json": "\ud800"}, "vocab.json: it is not UTF-8 text: .* at byte 0"),
        (
            {"vocab_json": {**VOCAB, "a\nb" * 99: 263}},
            r"vocab.json: the token 'a\\nba.*\.\.\.' is not",
        ),
        ({"merges_txt": "h e\n\nt h"}, "merges.txt: merge 2 is ''; expected two tokens"),
        ({"merges_txt": "h e\nth"}, "merges.txt: merge 2 is 'th'; expected two tokens"),
        ({"merges_txt": "h  e"}, "merges.txt: merge 1 is 'h  e'"),
        (
            {"merges_txt": "h e\nq z"},
            "vocab.json: merge 2, 'q' with 'z', makes 'qz', which has no id",
        ),
        ({"merges_txt": "h " + "z" * 500}, r"names 'zzz.*\.\.\.', which has no id"),
        ({"merges_txt": "\ud800 a"}, "merges.txt: not UTF-8 text"),
        (
            {"added_tokens_json": {"<pad>": "5"}},
            "added_tokens.json: <pad> is a str; expected an int",
        ),
        ({"added_tokens_json": {"<pad>": 5}}, "vocab.json: 'ą' and '<pad>' both have the id 5"),
        (
            {"tokenizer_config_json": {"eos_token": "</s>"}},
            "special token '</s>' is not in the voc",
        ),
        (
            {"tokenizer_config_json": {"eos_token": 5}},
            "tokenizer_config.json: eos_token is an int; expected its text, or a dict with it",
        ),
        (
            {"special_tokens_map_json": {"pad_token": ["a"]}},
            "special_tokens_map.json: pad_token is a list; expected its text, or a dict",
        ),
        (
            {"tokenizer_config_json": {"additional_special_tokens": ["a", 5]}},
            "an entry of additional_special_tokens is an int; expected its text",
        ),
        (
            {"tokenizer_config_json": {"add_bos_token": True}},
            "config.json: add_bos_token is set; exp",
        ),
        (
            {"tokenizer_config_json": {"add_prefix_space": 1}},
            "add_prefix_space is an int; expected a",
        ),
        (
            {"tokenizer_config_json": {"added_tokens_decoder": {"x": 1}}},
            "decoder has 'x' for an id",
        ),
        ({"special_tokens_map_json": "{}}"}, "special_tokens_map.json: .* JSON: Extra data"),
    ],
)
def test_a_fault_in_the_other_files_is_named(
    tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    write(two_files(tmp_path), **files)
    refused(tmp_path / "vocab.json", message)


def test_missing_files_are_named(tmp_path: Path) -> None:
    refused(tmp_path, "no tokenizer in this folder; expected tokenizer.json, or vocab.json with")
    refused(tmp_path / "nowhere", "nowhere: No such file")
    write(tmp_path, vocab_json=VOCAB)
    refused(tmp_path / "vocab.json", "merges.txt: No such file")
    refused(tmp_path / "a\0b", "embedded null byte")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    refused(tmp_path / "tokenizer.json", "it is a pipe, socket or device, not a regular file")


def test_a_file_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, tokenizer_json=TOKENIZER_JSON)
    size = (tmp_path / "tokenizer.json").stat().st_size
    monkeypatch.setattr(tokenizer_files, "MAX_FILE", size)
    assert load_tokenizer(tmp_path).encode(TEXT) == IDS
    monkeypatch.setattr(tokenizer_files, "MAX_FILE", size - 1)
    refused(tmp_path / "tokenizer.json", f"at most {size - 1} are read")


def test_a_damaged_file_is_refused_or_sound(tmp_path: Path) -> None:
    """Cut anywhere or with a bit flipped: a `TokenizerError`, or a tokenizer that works."""
    draw = random.Random(0)
    file = tmp_path / "tokenizer.json"
    whole = json.dumps(TOKENIZER_JSON, ensure_ascii=False).encode()
    cut = [whole[: draw.randrange(len(whole))] for _ in range(200)]
    flipped = []
    for _ in range(1000):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        flipped.append(bytes(data))
    faults = []
    for data in cut + flipped:
        file.write_bytes(data)
        try:
            tokenizer = load_tokenizer(file)
        except TokenizerError as error:
            faults.append(str(error))
        else:
            assert tokenizer.decode(tokenizer.encode(TEXT), errors="strict").endswith("the end")
    assert not any("\n" in fault for fault in faults)
    assert 900 < len(faults) < 1200
