"""What is shown of a text that grows: never too much, and in the end all of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfx.core.generation import GenerationOptions, Growing, Token, Turns, decoder
from tfx.core.generation.stopping import Ending
from tfx.core.tokenizer import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET

VOCAB = {token: i for i, token in enumerate([*ALPHABET, "th", "the", "<end>"])}
TOKENIZER = ByteLevelBPE(
    VOCAB, [("t", "h"), ("th", "e")], special_tokens=["<end>"], eos_token="<end>"
)
END = VOCAB["<end>"]


def tokens(ids: list[int], options: GenerationOptions) -> list[Token]:
    """As generation gives them, until the text ends."""
    ending, found = Ending(options, decoder(TOKENIZER)), []
    for i, token in enumerate(ids):
        reason = ending.reason(ids[: i + 1])
        found.append(Token(0, 0, token, None, reason))
        if reason:
            break
    return found


def pieces(ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    options = GenerationOptions(max_new_tokens=len(ids), eos_ids=(END,), stop=stop)
    growing = Growing(decoder(TOKENIZER), stop)
    return [growing.feed(token) for token in tokens(ids, options)]


def test_a_character_is_shown_when_it_is_whole() -> None:
    assert pieces(TOKENIZER.encode("né€")) == ["n", "", "é", "", "", "€"]
    assert pieces(list("né".encode()[:2])) == ["n", "\N{REPLACEMENT CHARACTER}"]


def test_what_may_be_a_stop_string_is_held_back() -> None:
    assert pieces(TOKENIZER.encode("a\nUp\nUser"), ("\nUs",)) == ["a", "", "", "\nUp", "", "", ""]
    assert pieces(TOKENIZER.encode("a\nU"), ("\nUs",)) == ["a", "", "\nU"]  # the text is over


def test_what_ends_a_text_is_not_shown() -> None:
    assert pieces([*TOKENIZER.encode("the"), END]) == ["the", ""]
    assert pieces([0xC3, END]) == ["", "\N{REPLACEMENT CHARACTER}"]


def test_ids_beyond_the_tokenizer_stand_for_no_text() -> None:
    assert pieces([65, 300, 66]) == ["A", "", "B"]
    assert pieces([0xE2, 0x82, *[300] * 9, 0xAC]) == [*[""] * 11, "€"]
    assert decoder(TOKENIZER)([65, 300, 66]) == "AB"


WORDS = ["▁one", "▁two", "▁th", "ree", "<0xE2>", "<0x82>", "<0xAC>", "\ufffd"]


def words(ids: Sequence[int]) -> str:
    """As SentencePiece: the space before the first word is dropped, bytes are tokens."""
    spelled = b"".join(
        bytes([int(word[3:5], 16)]) if word.startswith("<") else word.encode()
        for word in (WORDS[i] for i in ids)
    )
    return spelled.decode(errors="replace").replace("▁", " ").removeprefix(" ")


def test_any_decoder_will_do() -> None:
    def shown(ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
        growing = Growing(words, stop)
        last = len(ids) - 1
        return [
            growing.feed(Token(0, 0, token, None, "length" if i == last else None))
            for i, token in enumerate(ids)
        ]

    assert shown([0, 1, 2, 3, 0]) == ["one", " two", " th", "ree", " one"]
    assert shown([0, 4, 5, 6, 1]) == ["one", "", "", "€", " two"]
    assert shown([0, 4, 1]) == ["one", "", "\ufffd two"]
    assert shown([7, 7, 0]) == ["", "\ufffd", "\ufffd one"]
    assert shown([0, 2, 3], ("three",)) == ["one", " ", ""]


@pytest.mark.parametrize("seed", range(200))
def test_the_pieces_are_the_text_and_none_is_ever_taken_back(seed: int) -> None:
    rng = random.Random(seed)
    letters = "aé€🎈"
    text = "".join(rng.choices(letters, k=40))
    ids = [x for x in TOKENIZER.encode(text) if rng.random() < 0.97]  # with broken characters
    stop = tuple("".join(rng.choices(letters, k=n)) for n in (2, 3, 5))
    options = GenerationOptions(max_new_tokens=len(ids), stop=stop)
    done = [token.id for token in tokens(ids, options)]
    shown = pieces(ids, stop)
    assert "".join(shown) == Ending(options, decoder(TOKENIZER)).text(done)
    for i in range(len(shown)):
        so_far = "".join(shown[:i])
        assert not any(s in so_far for s in stop)


STREAMS = st.lists(
    st.integers(0, len(VOCAB) + 1)  # with two ids beyond the tokenizer
    | st.sampled_from([*"é€🎈".encode(), 0xE0, 0x80, 0xFF]),
    max_size=40,
)
"""Ids, half of them bytes of characters of two to four and of what breaks those."""


@given(STREAMS)
def test_broken_bytes_are_shown_as_the_whole_text_has_them(ids: list[int]) -> None:
    decode = decoder(TOKENIZER)
    growing, shown = Growing(decode), ""
    for i, token in enumerate(ids):
        shown += growing.feed(Token(0, 0, token, None, None))
        spelled = [token for token in ids[: i + 1] if token < TOKENIZER.vocab_size]
        assert decode(ids).startswith(shown)
        assert len(shown) >= len(decode(spelled)) - 1
        assert len(shown) >= len(decode(spelled[:-3]))  # a character has three more bytes at most
    assert shown + growing.feed(Token(0, 0, END, None, "eos")) == decode(ids)


def test_a_token_costs_the_decoding_of_a_few() -> None:
    asked: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return decoder(TOKENIZER)(ids)

    growing = Growing(decode)
    beyond = len(VOCAB)
    ids = [0xE2, *[beyond] * 50, *[0xFF] * 50, *TOKENIZER.encode("the end" * 10)]
    for token in ids:
        growing.feed(Token(0, 0, token, None, None))
    assert max(asked) <= 8 and len(asked) <= 3 * len(ids)


def test_texts_take_turns() -> None:
    shown: list[str] = []
    turns = Turns(["1: ", "2: ", "3: "], shown.append)
    assert shown == ["1: "]
    turns.add(1, "b")
    turns.add(2, "c\n", complete=True)
    turns.add(0, "a")
    assert shown == ["1: ", "a"]
    turns.add(0, "\n", complete=True)
    assert shown == ["1: ", "a", "\n", "2: b"]
    turns.add(1, "b\n", complete=True)
    assert "".join(shown) == "1: a\n2: bb\n3: c\n"
