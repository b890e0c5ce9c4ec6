"""What a GPT-2 learns from: every way to give it, and how batches are cut from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpt2_training import TEXT, tokenizer

from tfx.core.errors import DataError
from tfx.core.tokenizer import ByteLevelBPE
from tfx.models.gpt2.data import Batches, Corpus, Ids, Sources, characters, read_corpus, windows

BPE = tokenizer()
EOT = BPE.token_to_id("<|endoftext|>")


def read(data: Path, val_fraction: float = 0.1, bpe: ByteLevelBPE | None = BPE) -> Corpus:
    return read_corpus(Sources.of(data), bpe, val_fraction)


def text_of(ids: Ids) -> str:
    return BPE.decode(ids.tolist(), errors="strict")


# ---- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("val_fraction", [0.0, 0.1, 0.5])
def test_the_end_of_a_text_is_kept_for_validation(tmp_path: Path, val_fraction: float) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    corpus = read(tmp_path / "a.txt", val_fraction)
    left = round(len(TEXT) * (1 - val_fraction))
    assert text_of(corpus.train) == TEXT[:left]
    assert text_of(corpus.val) == TEXT[left:]
    assert (len(corpus.val) == 0) == (val_fraction == 0)


def test_a_folder_of_documents(tmp_path: Path) -> None:
    for name, text in {"b": "second", "a": "first", "c": "third, and the longest"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "notes.md").write_text("no")
    corpus = read(tmp_path, 0.5)  # 17 of the 33 characters: the third is cut in two
    end = "<|endoftext|>"
    assert text_of(corpus.train) == f"first{end}second{end}third"[:43]
    assert (corpus.train == EOT).sum() == 2
    assert text_of(corpus.train) + text_of(corpus.val) == (
        f"first{end}second{end}third, and the longest"
    )
    assert corpus.has(EOT)
    assert not corpus.has(BPE.encode("Z")[0])


def test_documents_of_a_tokenizer_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one ")
    (tmp_path / "b.txt").write_text("two")
    bare = ByteLevelBPE({t: i for t, i in BPE.vocab.items() if i != EOT}, BPE.merges)
    assert text_of(read(tmp_path, 0, bare).train) == "one two"


def test_a_special_token_in_a_text_is_that_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one<|endoftext|>two")
    assert (read(tmp_path / "a.txt", 0).train == EOT).sum() == 1


def test_a_validation_text_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("to learn from")
    (tmp_path / "val.txt").write_text("to judge by")
    (tmp_path / "other.txt").write_text("neither")
    corpus = read(tmp_path, 0.5)
    assert text_of(corpus.train) == "to learn from"
    assert text_of(corpus.val) == "to judge by"


# ---- token files -------------------------------------------------------------------------------


def write_bin(path: Path, ids: Ids) -> None:
    path.write_bytes(ids.astype("<u2").tobytes())


def write_npy(path: Path, ids: Ids) -> None:
    np.save(path, ids)


@pytest.mark.parametrize(("write", "suffix"), [(write_bin, "bin"), (write_npy, "npy")])
def test_token_files(tmp_path: Path, write: Callable[[Path, Ids], None], suffix: str) -> None:
    ids = np.arange(1000, 1100)
    write(tmp_path / f"train.{suffix}", ids)
    (tmp_path / "input.txt").write_text("what they were made of")
    corpus = read(tmp_path, 0.25, None)
    assert corpus.train.tolist() == list(range(1000, 1075))
    assert corpus.val.tolist() == list(range(1075, 1100))
    assert read(tmp_path / f"train.{suffix}", 0.25, None).fingerprint() == corpus.fingerprint()

    write(tmp_path / f"val.{suffix}", ids[:7])
    corpus = read(tmp_path, 0.25, None)
    assert len(corpus.train) == 100
    assert corpus.val.tolist() == list(range(1000, 1007))


def test_token_files_are_not_read_into_memory(tmp_path: Path) -> None:
    write_bin(tmp_path / "train.bin", np.zeros(1000, np.int64))
    assert isinstance(read(tmp_path).train, np.memmap)


def test_a_fingerprint_is_of_the_ids_and_where_they_are_cut() -> None:
    ids = np.arange(10)
    same = [Corpus(ids[:8].astype(t), ids[8:].astype(t)).fingerprint() for t in ("u2", ">i4")]
    others = [Corpus(ids[:7], ids[7:]), Corpus(ids[:8], ids[8:] + 1), Corpus(ids[8:], ids[:8])]
    assert same[0] == same[1]
    assert len({same[0], *(other.fingerprint() for other in others)}) == 4


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("train.txt val.bin", r"has train\.txt and val\.bin; expected train\.bin beside it"),
        ("train.bin val.npy", r"has train\.bin and val\.npy; expected train\.npy beside it"),
        ("train.bin train.txt", r"has train\.bin and train\.txt; leave the one that is meant"),
        ("train.npy train.bin val.npy", r"has train\.bin and train\.npy"),
        ("train.bin val.bin val.txt", r"has val\.bin and val\.txt; leave the one"),
        ("val.txt a.txt", r"has no train\.\* and val\.txt; expected train\.txt beside it"),
    ],
)
def test_a_folder_whose_files_contradict_each_other(tmp_path: Path, files: str, words: str) -> None:
    for name in files.split():
        (tmp_path / name).write_bytes(b"abcd")
    with pytest.raises(DataError, match=words):
        Sources.of(tmp_path)


# ---- refusals ----------------------------------------------------------------------------------


def two_rows(path: Path) -> None:
    np.save(path, np.zeros((2, 2), int))


def fractions(path: Path) -> None:
    np.save(path, np.zeros(2))


def pickled(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


def cut_short(path: Path) -> None:
    np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:-1])


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, np.arange(3))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"abc\xff", "not UTF-8 text: byte 0xff at offset 3"),
        ("a.bin", b"", "is empty"),
        ("a.bin", b"abc", "3 bytes; expected uint16"),
        ("a.npy", b"", "a.npy is no whole file of NumPy's that holds numbers"),
        ("a.npy", b"abc", "a.npy is no whole file of NumPy's .* as numpy.save writes it"),
        ("a.npy", b"\x93NUMPY\1\0\2\0({", "is no whole file of NumPy's"),
        ("a.npy", cut_short, "is no whole file of NumPy's"),
        ("a.npy", archive, "is no whole file of NumPy's"),
        ("a.npy", two_rows, r"int64 of shape \(2, 2\); expected one row of whole numbers"),
        ("a.npy", fractions, "expected one row of whole numbers"),
        ("a.npy", pickled, "is no whole file of NumPy's that holds numbers"),
        ("a.npy", None, "cannot read the token file .*: No such file"),
        ("a.txt", None, "cannot read"),
        ("a.bin", None, "cannot read the token file .*: No such file"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, name: str, content: bytes | Callable[[Path], None] | None, words: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content(path)
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no \.txt file"):
        read(tmp_path)


@pytest.mark.parametrize("ids", [[0, 1, 2, 50, 4, 5, 6], [0, 1, 2, -1, 4, 5, 6]])
def test_ids_that_the_model_does_not_know(ids: list[int]) -> None:
    for corpus in (
        Corpus(np.array(ids), np.arange(2)),
        Corpus(np.arange(9), np.array(ids)),
    ):
        with pytest.raises(DataError, match=f"here has the token id {ids[3]}; .* 0 to 49"):
            corpus.check(50, 4, Path("here"))
        corpus = Corpus(np.abs(corpus.train), np.abs(corpus.val))
        corpus.check(51, 4, Path("here"))


def test_too_few_tokens() -> None:
    Corpus(np.arange(9), np.arange(2)).check(50, 8, Path("here"))
    Corpus(np.arange(9), np.arange(0)).check(50, 8, Path("here"))
    with pytest.raises(DataError, match="here has 8 tokens to train on, and a sequence takes 9"):
        Corpus(np.arange(8), np.arange(2)).check(50, 8, Path("here"))
    with pytest.raises(DataError, match="here has 1 token to validate on"):
        Corpus(np.arange(9), np.arange(1)).check(50, 8, Path("here"))


# ---- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [9, 10, 16, 17, 23, 24, 25, 100, 1001])
def test_an_epoch_learns_every_token_once(count: int) -> None:
    batches = Batches(np.arange(count), block_size=8, batch_size=1, seed=3)
    missed: Counter[int] = Counter()
    for epoch in range(80):
        seen = []
        for i in range(batches.per_epoch):
            ids, targets = batches[epoch * batches.per_epoch + i]
            assert ids.shape == targets.shape == (1, 8)
            np.testing.assert_array_equal(targets, ids + 1)
            seen += targets.reshape(-1).tolist()
        assert len(set(seen)) == len(seen)
        left = set(range(1, count)) - set(seen)
        assert len(left) < 16
        if seen:
            assert set(range(min(seen), max(seen) + 1)) == set(seen)  # what is left is at the ends
        missed.update(left)
    if count >= 100:
        assert max(missed.values()) < 80  # nothing is left out for ever


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    ids = np.arange(500)
    here, there = (Batches(ids, 8, 4, seed=5) for _ in range(2))
    expected = [here[i][0] for i in range(60)]
    for i in (59, 3, 17, 0, 44):  # in any order, from whatever epoch
        np.testing.assert_array_equal(there[i][0], expected[i])
    other = Batches(ids, 8, 4, seed=6)
    assert any((other[i][0] != expected[i]).any() for i in range(10))


def test_a_batch_goes_on_where_the_last_ended() -> None:
    """However large, and across epochs: sequences are numbered, not batches."""
    ids = np.arange(100)
    single = Batches(ids, 8, 1, seed=1)
    for size in (2, 5, 30):
        batches = Batches(ids, 8, size, seed=1)
        for i in range(3):
            expected = [single[i * size + j][0][0] for j in range(size)]
            np.testing.assert_array_equal(batches[i][0], np.array(expected))


def test_epochs_have_orders_and_offsets_of_their_own() -> None:
    batches = Batches(np.arange(1000), 8, 1, seed=1)
    orders = [
        [int(batches[epoch * batches.per_epoch + i][0][0, 0]) for i in range(batches.per_epoch)]
        for epoch in range(8)
    ]
    assert len({tuple(order) for order in orders}) == 8
    assert len({min(order) % 8 for order in orders}) > 2
    for order in orders:
        assert order != sorted(order)


# ---- validation --------------------------------------------------------------------------------


def test_windows_stand_side_by_side() -> None:
    found = windows(np.arange(100), block_size=8, batch_size=5, most=1000)
    assert [ids.shape for ids, _ in found] == [(5, 8), (5, 8), (2, 8)]
    ids = np.concatenate([ids.reshape(-1) for ids, _ in found])
    np.testing.assert_array_equal(ids, np.arange(96))
    for ids, targets in found:
        np.testing.assert_array_equal(targets, ids + 1)


@pytest.mark.parametrize(("count", "shape"), [(2, (1, 1)), (8, (1, 7)), (9, (1, 8)), (16, (1, 8))])
def test_a_short_text_is_one_window(count: int, shape: tuple[int, int]) -> None:
    ((ids, _),) = windows(np.arange(count), block_size=8, batch_size=5, most=1000)
    assert ids.shape == shape


def test_at_most_so_many_windows_from_everywhere() -> None:
    found = windows(np.arange(8001), block_size=8, batch_size=5, most=3)
    assert [ids.shape for ids, _ in found] == [(5, 8)] * 3
    starts = np.concatenate([ids[:, 0] for ids, _ in found])
    assert starts[0] == 0
    assert starts[-1] == 7992
    assert np.ptp(np.diff(starts)) <= 8


def test_characters_are_counted_where_they_begin() -> None:
    text = "Früh, für\nund <|endoftext|>€"
    ids = np.array(BPE.encode(text))
    assert characters(ids, BPE) == len(text.replace("<|endoftext|>", ""))
    halves = ids[:3], ids[3:]  # within the ü
    assert sum(characters(half, BPE) for half in halves) == characters(ids, BPE)
    assert characters(np.array([BPE.vocab_size + 3, *ids]), BPE) == characters(ids, BPE)
    assert characters(ids.reshape(1, -1), BPE) == characters(ids, BPE)
