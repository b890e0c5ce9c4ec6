"""The tokenizer against a slow, plain one written from the definition, on a vocabulary of its own.

The comparison with other tokenizers, on GPT-2's vocabulary, is in test_bpe_peers.py.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfx.core.errors import TokenizerError
from tfx.core.tokenizer import bpe
from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET, Merger, spelled_bytes
from tfx.core.tokenizer.pretokenize import split
from tfx.core.tokenizer.unicode_classes import LETTERS, NUMBERS, WHITE_SPACE, ranges

SAMPLE = (
    "the theatre of the others, they're there; 1234 and 12 naïve cafés — 日本語 日本 😀😀\n\n  then"
)
SPECIAL = ("<|endoftext|>", "<|end|>")
SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
)
SPACES += "\u2028\u2029\u202f\u205f\u3000"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")

# ---- the plain tokenizer -------------------------------------------------------------------------


def kind(character: str) -> str:
    if character in SPACES:
        return "space"
    major = unicodedata.category(character)[0]
    return major if major in "LN" else "other"


def plain_words(text: str) -> list[str]:
    """The pattern's alternatives, tried in order at each place."""
    words, start = [], 0
    while start < len(text):
        found = [c for c in CONTRACTIONS if text.startswith(c, start)]
        first = start + (text[start] == " ")
        end = start
        if found:
            end += len(found[0])
        elif first < len(text) and kind(text[first]) != "space":
            end = first
            while end < len(text) and kind(text[end]) == kind(text[first]):
                end += 1
        else:
            while end < len(text) and kind(text[end]) == "space":
                end += 1
            if end < len(text) and end - start > 1:
                end -= 1
        words.append(text[start:end])
        start = end
    return words


def plain_merge(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Merge the first occurrence of the earliest pair until there is none."""
    while known := [merges.index(pair) for pair in pairwise(pieces) if pair in merges]:
        left, right = merges[min(known)]
        at = list(pairwise(pieces)).index((left, right))
        pieces = [*pieces[:at], left + right, *pieces[at + 2 :]]
    return pieces


def learn(text: str, count: int) -> list[tuple[str, str]]:
    """The `count` most frequent pairs, learnt one after the other."""
    words = [list(spelled(word)) for word in plain_words(text)]
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        words = [plain_merge(word, merges) for word in words]
    return merges


def spelled(text: str) -> str:
    return "".join(ALPHABET[byte] for byte in text.encode())


MERGES = learn(SAMPLE, 40)
VOCAB = {token: i for i, token in enumerate([*ALPHABET, *map("".join, MERGES), *SPECIAL])}
TOKENIZER = ByteLevelBPE(VOCAB, MERGES, special_tokens=SPECIAL, eos_token=SPECIAL[0])

pieces = st.sampled_from(
    [*SAMPLE.split(" "), *CONTRACTIONS, *SPACES, "\x1c", "\x1f", "'", "\u200d"]
)
texts = st.lists(pieces | st.text(st.characters(exclude_categories=["Cs", "Cn"]))).map("".join)
NEWER_UNICODE = tuple(map(int, unicodedata.unidata_version.split("."))) > (16, 0, 0)
same_unicode = pytest.mark.skipif(
    NEWER_UNICODE, reason="this Python knows characters that Unicode 16.0 does not have"
)

# ---- words ---------------------------------------------------------------------------------------


@same_unicode
@given(texts)
@example("a" * 5000 + " b" * 5000)
@example("é\x1c \x85 " * 3000)
@example("\n" * 9000 + "x")
@example("日本 " * 3000 + "😀")
def test_words_are_those_of_the_definition(text: str) -> None:
    assert [word for words in split(text) for word in words] == plain_words(text)


@pytest.mark.parametrize(
    ("table", "member"),
    [
        (LETTERS, lambda c: unicodedata.category(c)[0] == "L"),
        (NUMBERS, lambda c: unicodedata.category(c)[0] == "N"),
        (WHITE_SPACE, lambda c: c in SPACES),
    ],
    ids=["letters", "numbers", "white space"],
)
def test_classes_are_those_of_this_python_as_far_as_it_knows(
    table: str, member: Callable[[str], bool]
) -> None:
    listed = {chr(code) for first, last in ranges(table) for code in range(first, last + 1)}
    known = {c for c in map(chr, range(0x110000)) if unicodedata.category(c) != "Cn"}
    ours, theirs = listed & known, {c for c in known if member(c)}
    assert ours <= theirs if NEWER_UNICODE else ours == theirs
    assert not (NEWER_UNICODE and listed - known)


def test_classes_do_not_depend_on_python() -> None:
    """Unicode 16.0's own totals; and U+2EBF0, a letter since 15.1, is one word with others."""
    totals = [sum(last - first + 1 for first, last in ranges(t)) for t in (LETTERS, NUMBERS)]
    assert totals == [141_028, 1_911]
    assert list(split("日\U0002ebf0日")) == [["日\U0002ebf0日"]]


# ---- encoding ------------------------------------------------------------------------------------


def plain_encode(text: str) -> list[int]:
    return [
        VOCAB[token]
        for word in plain_words(text)
        for token in plain_merge(list(spelled(word)), MERGES)
    ]


@same_unicode
@given(texts)
@example(SAMPLE)
def test_ids_are_those_of_the_definition(text: str) -> None:
    assert TOKENIZER.encode(text) == plain_encode(text)


@given(st.randoms(use_true_random=False), st.text("abc", max_size=60))
def test_any_order_of_merges_is_followed(draw: random.Random, word: str) -> None:
    """Merges that use what is made later, and several that make the same token."""
    tokens = ["a", "b", "c"]
    merges: set[tuple[str, str]] = set()
    for _ in range(12):
        merges.add((draw.choice(tokens), draw.choice(tokens)))
        tokens = sorted({*tokens, *map("".join, merges)})
    order = sorted(merges)
    draw.shuffle(order)
    vocab = {
        token: i for i, token in enumerate({**dict.fromkeys(ALPHABET), **dict.fromkeys(tokens)})
    }
    merger = Merger(vocab, order)
    expected = [vocab[token] for token in plain_merge(list(word), order)]
    assert list(merger(word)) == expected
    letters = [vocab[letter] for letter in word]
    assert merger._merge_long(letters.copy()) == merger._merge_short(letters) == expected


def test_a_long_word_does_not_take_its_square() -> None:
    merges = [("x", "x"), ("xx", "xx"), ("xxxx", "xxxx")]
    vocab = {t: i for i, t in enumerate([*ALPHABET, "xx", "xxxx", "xxxxxxxx"])}
    tokenizer = ByteLevelBPE(vocab, merges)
    assert tokenizer.encode("x" * 300_007) == [258] * 37_500 + [257, 256, VOCAB["x"]]


def test_words_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "_MOST_KEPT", 10)
    tokenizer = ByteLevelBPE(VOCAB, MERGES)
    text = " ".join(map(str, range(100))) + " " + "long" * 100
    assert tokenizer.encode(text) == plain_encode(text) == tokenizer.encode(text)
    assert 0 < len(tokenizer._words) <= 10
    assert max(map(len, tokenizer._words)) <= 32


def test_a_batch_is_its_texts() -> None:
    options = {"add_prefix_space": True, "allowed_special": "none"}
    batch = ["the<|end|>", "", "then"]
    assert TOKENIZER.encode_batch(batch, **options) == [
        TOKENIZER.encode(text, **options) for text in batch
    ]


# ---- special tokens and the space in front -------------------------------------------------------


def test_special_tokens_are_found_in_text_unless_forbidden() -> None:
    text = "the<|end|>the<|endoftext|>"
    the, end, end_of_text = plain_encode("the"), VOCAB["<|end|>"], VOCAB["<|endoftext|>"]
    assert TOKENIZER.encode(text) == [*the, end, *the, end_of_text]
    assert TOKENIZER.encode(text, allowed_special="none") == plain_encode(text)
    assert TOKENIZER.encode(text, allowed_special=["<|end|>"]) == [
        *the,
        end,
        *plain_encode("the<|endoftext|>"),
    ]


def test_of_two_tokens_at_one_place_the_longer_is_found() -> None:
    vocab = VOCAB | {"<|end|>of": len(VOCAB), "the the": len(VOCAB) + 1}
    tokenizer = ByteLevelBPE(
        vocab, MERGES, special_tokens=[*SPECIAL, "<|end|>of"], added_tokens=["the the"]
    )
    ids = tokenizer.encode("<|end|>of<|end|>the the")
    assert ids == [vocab["<|end|>of"], vocab["<|end|>"], vocab["the the"]]
    assert tokenizer.encode("the the", allowed_special="none") == [vocab["the the"]]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the the"


def test_a_special_token_ends_the_words_around_it() -> None:
    """White space before it is white space at an end, whatever follows."""
    assert TOKENIZER.encode("a  <|end|>b") == [
        *plain_encode("a  "),
        VOCAB["<|end|>"],
        *plain_encode("b"),
    ]


@pytest.mark.parametrize(
    ("text", "spaced"),
    [("the", " the"), (" the", " the"), ("\nthe", " \nthe"), ("", "")],
)
def test_a_space_in_front(text: str, spaced: str) -> None:
    always = ByteLevelBPE(VOCAB, MERGES, add_prefix_space=True)
    assert always.encode(text) == plain_encode(spaced)
    assert always.encode(text, add_prefix_space=False) == plain_encode(text)
    assert TOKENIZER.encode(text, add_prefix_space=True) == plain_encode(spaced)
    assert TOKENIZER.encode(f"<|end|>{text}", add_prefix_space=True)[1:] == plain_encode(spaced)


# ---- decoding ------------------------------------------------------------------------------------


@given(texts)
def test_decoding_gives_the_text_back(text: str) -> None:
    for allowed in ("all", "none"):
        ids = TOKENIZER.encode(text, allowed_special=allowed)
        assert TOKENIZER.decode(ids, errors="strict") == text


def test_skipped_special_tokens_leave_the_text() -> None:
    ids = [*TOKENIZER.encode("then<|end|>the"), TOKENIZER.eos_id]
    assert TOKENIZER.decode(ids) == "then<|end|>the<|endoftext|>"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "thenthe"


def test_an_added_token_is_spelled_as_itself() -> None:
    """Characters of the alphabet in it mean themselves, not the bytes they stand for elsewhere."""
    tokenizer = ByteLevelBPE(VOCAB | {"é Ġ": len(VOCAB)}, MERGES, added_tokens=["é Ġ"])
    assert tokenizer.encode("é Ġ") == [len(VOCAB)]
    assert tokenizer.decode([len(VOCAB)]) == "é Ġ"


def test_tokens_have_names() -> None:
    for token, number in VOCAB.items():
        assert TOKENIZER.token_to_id(token) == number
        assert TOKENIZER.id_to_token(number) == token
    assert TOKENIZER.vocab_size == len(TOKENIZER.vocab) == len(VOCAB)
    assert TOKENIZER.eos_id == VOCAB["<|endoftext|>"]
    assert ByteLevelBPE(VOCAB, MERGES).eos_id is None


def test_the_alphabet_is_the_published_one() -> None:
    """From GPT-2's `bytes_to_unicode`: visible Latin-1 as it is, the others from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    table = {b: chr(b) for b in visible} | {b: chr(256 + n) for n, b in enumerate(others)}
    assert [table[b] for b in range(256)] == list(ALPHABET)
    assert spelled_bytes(ALPHABET) == bytes(range(256))


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.encode("ab\udce9"), "character 2 of the text is the lone surrogate U\\+DCE9"),
        (lambda t: t.encode("\ud83d\ude00"), "character 0 .* U\\+D83D"),
        (lambda t: t.encode(b"ab"), "expected a text to encode, not a bytes"),
        (lambda t: t.encode_batch(["a", None]), "expected a text to encode, not None"),
        (
            lambda t: t.encode("", allowed_special={"<x>"}),
            "'<x>' is no special token; there are: <",
        ),
        (lambda t: t.decode([0, len(VOCAB)]), f"no token has id {len(VOCAB)}; .* ids 0 to "),
        (lambda t: t.decode([-1]), "no token has id -1"),
        (lambda t: t.decode([1.0]), "expected a row of whole numbers"),
        (lambda t: t.decode(3), "expected a row of whole numbers as ids, not an int"),
        (lambda t: t.decode([0xE9, 65], errors="strict"), "no UTF-8: .* at byte 0 of 2"),
        (lambda t: t.id_to_token(10**30), "no token has id 1000"),
        (lambda t: t.token_to_id(" the"), "no token is spelled ' the'; a space is spelled 'Ġ'"),
    ],
)
def test_bad_input_is_named(call: Callable[[ByteLevelBPE], object], message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        call(TOKENIZER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("vocab", "merges", "options", "message"),
    [
        (VOCAB | {"a": "1"}, MERGES, {}, "the id of 'a' is a str; expected an int"),
        (VOCAB | {"a": True}, MERGES, {}, "the id of 'a' is a bool"),
        (VOCAB | {"a": VOCAB["b"]}, MERGES, {}, "'a' and 'b' both have the id 98"),
        (VOCAB | {"a": -1}, MERGES, {}, "no token has the id 97; "),
        (VOCAB | {"new": len(VOCAB) + 1}, [], {}, f"no token has the id {len(VOCAB)}; "),
        ({"a": 0}, [], {}, "byte 0x00 has no token, it would be 'Ā'"),
        ({}, [], {}, "byte 0x00 has no token"),
        (VOCAB, [*MERGES, ("t", "zz")], {}, "merge 41, 't' with 'zz', names 'zz', which has no id"),
        (VOCAB, [("z", "q")], {}, "merge 1, 'z' with 'q', makes 'zq', which has no id"),
        (VOCAB, [*MERGES, MERGES[3]], {}, "merges 4 and 41 are both "),
        (VOCAB | {"▁a": len(VOCAB)}, [], {}, "the token '▁a' is not byte-level: '▁' stands for no"),
        (VOCAB | {"\ud800": len(VOCAB)}, [], {}, "the token '.ud800' is not byte-level"),
        (VOCAB, [], {"special_tokens": ["<pad>"]}, "special token '<pad>' is not in the vocab"),
        (VOCAB | {"": len(VOCAB)}, [], {"added_tokens": [""]}, "a special token cannot be ''"),
        (VOCAB, [], {"eos_token": "</s>"}, "no token is spelled '</s>'"),
    ],
)
def test_bad_parts_are_named(
    vocab: dict[str, int], merges: list[tuple[str, str]], options: dict[str, str], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        ByteLevelBPE(vocab, merges, **options)
    assert "\n" not in str(caught.value)
