"""Learning a vocabulary from text; the library `tokenizers` does the counting.

Nothing is normalised: each of the 256 bytes is a token from the start, so any text can be encoded
and comes back as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfx.core.errors import DataError, TfxError, TokenizerError, UsageError
from tfx.core.tokenizer.bpe import ByteLevelBPE, half_character
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.tokenizer.files import END_OF_TEXT
from tfx.core.tokenizer.pretokenize import split
from tfx.core.wording import kind_of, quoted


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, special: Sequence[str] = (END_OF_TEXT,)
) -> ByteLevelBPE:
    """Learn a byte-level BPE vocabulary: the most frequent pair becomes a token, again and again.

    Ids are laid out as GPT-2's: the bytes, then the merges as they were learnt, then the special
    tokens. The same texts give the same tokenizer, in whatever order they come.

    Args:
        texts: the text to learn from, in pieces; a word ends where its piece ends.
        vocab_size: how many tokens there shall be: 256 bytes, the special ones, and merges.
        special: tokens that stand for no text; where one occurs in a text, it is passed over.
            `<|endoftext|>`, if it is among them, becomes the token that ends a text.

    Raises:
        UsageError: the size is too small for bytes and special tokens, or a name is none, or
            taken.
        DataError: the texts have too few pairs for a vocabulary of that size.
        TokenizerError: a text is no text, or holds half a character.
        TfxError: the library `tokenizers` is not installed.
    """
    names = list(dict.fromkeys(special))
    _check_arguments(texts, vocab_size, names)
    merges = _learn(_stretches(texts, names), vocab_size - len(names))

    ordinary = dict.fromkeys([*sorted(ALPHABET), *map("".join, merges)])
    size = len(ordinary) + len(names)
    if size < vocab_size:
        raise DataError(
            f"the texts give {size} tokens at most, not {vocab_size}; "
            f"take more text, or a vocabulary of {size}"
        )
    for name in names:
        if name in ordinary:
            raise UsageError(
                f"the special token {quoted(name)} is also how an ordinary one is spelled; "
                "give it another name"
            )
    return ByteLevelBPE(
        {token: number for number, token in enumerate([*ordinary, *names])},
        merges,
        special_tokens=names,
        eos_token=END_OF_TEXT if END_OF_TEXT in names else None,
    )


def _check_arguments(texts: Iterable[str], vocab_size: int, names: list[str]) -> None:
    if isinstance(texts, str):
        raise TokenizerError("expected texts to learn from, not a str; put it into a list")
    for name in names:
        if not isinstance(name, str) or not name:
            what = "an empty one" if name == "" else kind_of(name)
            raise UsageError(f"expected a text as the name of a special token, not {what}")
        _check_utf8(name)
    if type(vocab_size) is not int:
        raise UsageError(f"expected an int as the vocabulary's size, not {kind_of(vocab_size)}")
    if vocab_size < 256 + len(names):
        raise UsageError(
            f"a vocabulary of {vocab_size} tokens is too small; expected at least "
            f"{256 + len(names)}: the 256 bytes and {len(names)} special"
        )


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise half_character(text) from None


def _stretches(texts: Iterable[str], special: list[str]) -> Iterator[str]:
    """The texts without the special tokens, in short pieces; no word reaches over an end."""
    longest_first = sorted(special, key=len, reverse=True)
    whole = re.compile("|".join(map(re.escape, longest_first)) or r"\Z")
    for text in texts:
        if not isinstance(text, str):
            raise TokenizerError(f"expected texts to learn from, not {kind_of(text)}")
        _check_utf8(text)
        for part in whole.split(text):
            yield from map("".join, split(part))


def _learn(texts: Iterator[str], size: int) -> list[tuple[str, str]]:
    """The merges that make a vocabulary of `size` tokens, or of as many as the texts give."""
    tokenizers = _library()
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=list(ALPHABET), show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        raise TfxError(
            "training a tokenizer needs the library tokenizers: pip install 'tfx-lm[tokenizers]'"
        ) from None
    return tokenizers
