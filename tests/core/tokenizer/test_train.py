"""Vocabularies learnt from text, against the definition written out and the library's own way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfx.core.errors import DataError, TfxError, TokenizerError, UsageError
from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.tokenizer.files import END_OF_TEXT
from tfx.core.tokenizer.train import train_tokenizer

library = pytest.importorskip("tokenizers")

NAMES = Path(__file__).parents[3] / "models" / "microgpt" / "names.txt"
RHYME = (
    "the cat sat on the mat, the rat sat on the cat; that's that.\n\n"
    "Whoever grows 12 yellow pumpkins should quickly fix a big jar of vinegar, they've said!\n"
)

# ---- the definition ------------------------------------------------------------------------------

WORDS = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)


def plain_learn(texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The most frequent pair of neighbours in ASCII texts, merged, `count` times over.

    Of pairs equally frequent, the one whose tokens were there first.
    """
    found = Counter(word for text in texts for word in WORDS.findall(text))
    words = {word: [ALPHABET[byte] for byte in word.encode()] for word in found}
    ids = {token: i for i, token in enumerate(sorted(ALPHABET))}
    merges: list[tuple[str, str]] = []
    while len(ids) < 256 + count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, tokens in words.items():
            for pair in pairwise(tokens):
                pairs[pair] += found[word]
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append((left, right))
        ids.setdefault(left + right, len(ids))
        for tokens in words.values():
            at = 0
            while at < len(tokens) - 1:
                if tokens[at : at + 2] == [left, right]:
                    tokens[at : at + 2] = [left + right]
                at += 1
    return merges


def learn_all(texts: Sequence[str], special: Sequence[str] = ()) -> ByteLevelBPE:
    """As large a vocabulary as the texts give."""
    with pytest.raises(DataError) as caught:
        train_tokenizer(texts, 100_000, special)
    size = int(str(caught.value).split()[3])
    return train_tokenizer(texts, size, special)


@settings(deadline=None)
@given(st.lists(st.text("abc '\n1!", max_size=30) | st.just("the cat"), max_size=5))
@example([RHYME])
@example(["aaaa aaa aaaaaaa"])
def test_merges_are_those_of_the_definition(texts: list[str]) -> None:
    ours = learn_all(texts)
    assert ours.merges == plain_learn(texts, 100_000)
    assert learn_all(texts[::-1]).merges == ours.merges


@pytest.mark.parametrize("size", [257, 258, 400])
def test_merges_of_a_corpus_are_those_of_the_definition(size: int) -> None:
    texts = NAMES.read_text(encoding="utf-8")[:10_000].splitlines(keepends=True)
    ours = train_tokenizer(texts, size)
    assert ours.vocab_size == size
    assert ours.merges == plain_learn(texts, size - 257)


def test_the_library_alone_learns_the_same() -> None:
    """On text beyond ASCII, cut in other places, with its own layout of ids."""
    text = (
        "".join(path.read_text(encoding="utf-8") for path in sorted(NAMES.parents[2].glob("*.md")))
        + "naïve café — 日本語, 日本! 👍🏽👍🏽 привет при " * 20
    )
    peer = library.Tokenizer(library.models.BPE())
    peer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    peer.train_from_iterator([text], trainer)
    merges = [tuple(pair) for pair in json.loads(peer.to_str())["model"]["merges"]]
    assert train_tokenizer([text], 800).merges == merges


# ---- what comes of it ----------------------------------------------------------------------------


def test_ids_are_laid_out_as_those_of_gpt2() -> None:
    """Known from its vocabulary: `!` is 0, `A` 32, a space 220; and the end of a text is last."""
    ours = train_tokenizer([RHYME], 300)
    known = {"!": 0, "A": 32, "~": 93, "¡": 94, "ÿ": 187, "Ā": 188, "Ċ": 198, "Ġ": 220, "Ń": 255}
    assert {token: ours.vocab[token] for token in known} == known
    assert [ours.id_to_token(256 + i) for i in range(43)] == ["".join(m) for m in ours.merges]
    assert (ours.eos_token, ours.eos_id, ours.special_tokens) == (END_OF_TEXT, 299, {END_OF_TEXT})
    assert not ours.add_prefix_space


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "ignore")))
@example("".join(map(chr, range(0x300))))
@example("\ufeff\r\n\x85\u2028e\u0301 é ﬁ İ ſ")
def test_any_text_comes_back(text: str) -> None:
    ids = TRAINED.encode(text, allowed_special="none")
    assert TRAINED.decode(ids, errors="strict") == text


TRAINED = train_tokenizer([RHYME], 300)


def test_nothing_is_normalised() -> None:
    """Two spellings of one letter, widths, cases and line ends stay apart."""
    text = "é e\u0301 ａ a A ſ s ﬁ fi \r\n \n \u00a0 \ufeff"
    everything = learn_all([text + " "] * 2)
    tokens = [everything.decode([i]) for i in range(256, everything.vocab_size)]
    for whole in ("é", "\u0301", " ａ", " ſ", " ﬁ", " \ufeff"):
        assert whole in tokens
    assert everything.decode(everything.encode(text), errors="strict") == text


def test_special_tokens_are_not_learnt_from() -> None:
    texts = [f"ab<end>cd{END_OF_TEXT}ab cd<end>"]
    ours = learn_all(texts, ["<end>", END_OF_TEXT])
    assert ours.merges == plain_learn(["ab", "cd", "ab cd"], 100_000)
    assert ours.special_tokens == {"<end>", END_OF_TEXT}
    assert ours.token_to_id("<end>") == ours.vocab_size - 2
    assert ours.encode(texts[0])[1] == ours.vocab_size - 2


def test_of_two_special_tokens_at_one_place_the_longer_is_passed_over() -> None:
    ours = learn_all(["ab<e>fg ab<e>fg"], ["<e>", "<e>fg"])
    assert ours.merges == [("a", "b"), ("Ġ", "ab")]
    assert ours.eos_token is None


def test_a_name_twice_is_one_token() -> None:
    assert train_tokenizer([RHYME], 300, ["<a>", "<a>"]).vocab_size == 300


def test_no_special_tokens() -> None:
    ours = train_tokenizer([RHYME], 256, [])
    assert (ours.vocab_size, ours.merges, ours.eos_id) == (256, [], None)


@pytest.mark.parametrize(("seed", "threads"), [("0", "1"), ("7", "2")])
def test_every_process_learns_the_same(seed: str, threads: str) -> None:
    code = f"""
from pathlib import Path
from tfx.core.tokenizer.train import train_tokenizer
text = Path({str(NAMES)!r}).read_text(encoding="utf-8")
print(train_tokenizer([text], 2000).merges)
"""
    environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    text = NAMES.read_text(encoding="utf-8")
    assert done.stdout.strip() == str(train_tokenizer([text], 2000).merges)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: train_tokenizer([RHYME], 256),
            UsageError,
            "a vocabulary of 256 tokens is too small; expected at least 257: the 256 bytes and 1",
        ),
        (lambda: train_tokenizer([RHYME], -1, []), UsageError, "of -1 tokens .* at least 256"),
        (lambda: train_tokenizer([RHYME], 258, ["a1", "b1", "c1"]), UsageError, "at least 259"),
        (lambda: train_tokenizer([RHYME], 300.0), UsageError, "vocabulary's size, not a float"),
        (lambda: train_tokenizer([RHYME], True), UsageError, "vocabulary's size, not a bool"),
        (lambda: train_tokenizer([RHYME], 300, [""]), UsageError, "token, not an empty one"),
        (lambda: train_tokenizer([RHYME], 300, [3]), UsageError, "token, not an int"),
        (lambda: train_tokenizer([RHYME], 300, ["Ġ"]), UsageError, "'Ġ' is also how an ordinary"),
        (lambda: train_tokenizer([RHYME], 300, ["Ġthe"]), UsageError, "'Ġthe' is also how an"),
        (lambda: train_tokenizer([RHYME], 300, ["\ud800"]), TokenizerError, "U\\+D800"),
        (lambda: train_tokenizer(RHYME, 300), TokenizerError, "not a str; put it into a list"),
        (lambda: train_tokenizer([b"x"], 300), TokenizerError, "learn from, not a bytes"),
        (lambda: train_tokenizer(["a", "b\udce9"], 300), TokenizerError, "character 1 .*U\\+DCE9"),
        (
            lambda: train_tokenizer(["ab"], 300),
            DataError,
            "the texts give 258 tokens at most, not 300; take more text, or a vocabulary of 258",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], kind: type[TfxError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_text_that_cannot_be_had_stays_the_fault() -> None:
    def texts() -> Any:
        yield RHYME
        raise DataError("the second file is gone")

    with pytest.raises(DataError, match="the second file is gone"):
        train_tokenizer(texts(), 300)


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TfxError, match=r"pip install 'tfx-lm\[tokenizers\]'"):
        train_tokenizer([RHYME], 300)
