"""Byte-level byte-pair encoding: any text to token ids and back without loss.

Special tokens such as `<|endoftext|>` are found first; what stands between them is cut into words
(`pretokenize`), and each word's bytes are merged to tokens (`byte_pairs`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import index
from types import MappingProxyType
from typing import Literal, TypeAlias

from tfx.core.errors import TokenizerError
from tfx.core.tokenizer.byte_pairs import Merger, spelled_bytes
from tfx.core.tokenizer.pretokenize import split
from tfx.core.wording import kind_of, quoted

AllowedSpecial: TypeAlias = Literal["all", "none"] | Collection[str]

_MOST_KEPT, _LONGEST_KEPT = 65536, 32
"""How many words are remembered, and how long ones: some 15 MB of a language, 60 MB at worst."""


class ByteLevelBPE:
    """A tokenizer; `tfx.core.tokenizer.files.load_tokenizer` reads one from files.

    Args:
        vocab: the id of every token, special ones included: 0 to `len(vocab) - 1`, each once.
            Ordinary tokens are spelled in `tfx.core.tokenizer.byte_pairs.ALPHABET`.
        merges: the pairs that become one token, first learnt first.
        special_tokens: tokens that `encode` finds whole in a text and `decode` may leave out.
        added_tokens: tokens that `encode` finds whole in a text, and that are text otherwise.
        eos_token: the token that ends a text.
        add_prefix_space: whether `encode` puts a space before a text when not told.

    Raises:
        TokenizerError: the parts do not make a byte-level tokenizer; the message says where.

    >>> from tfx.core.tokenizer.byte_pairs import ALPHABET
    >>> vocab = {spelled: byte for byte, spelled in enumerate(ALPHABET)}
    >>> tokenizer = ByteLevelBPE(vocab | {"Ġt": 256, "Ġto": 257}, [("Ġ", "t"), ("Ġt", "o")])
    >>> tokenizer.encode("to go to")
    [116, 111, 32, 103, 111, 257]
    >>> tokenizer.decode([257, 33])
    ' to!'
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        special_tokens: Collection[str] = (),
        added_tokens: Collection[str] = (),
        eos_token: str | None = None,
        add_prefix_space: bool = False,
    ) -> None:
        _check_ids(vocab)
        _check_spelling(vocab, {*special_tokens, *added_tokens})
        self.vocab: Mapping[str, int] = MappingProxyType(dict(vocab))
        self.special_tokens = frozenset(special_tokens)
        self.added_tokens = frozenset(added_tokens) - self.special_tokens
        self.add_prefix_space = add_prefix_space
        self.eos_token = eos_token
        self.eos_id = None if eos_token is None else self.token_to_id(eos_token)
        self._merger = Merger(vocab, merges)
        self._words = _Words(self._merger)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are; ids run from 0 to one less."""
        return len(self.vocab)

    @property
    def special_ids(self) -> set[int]:
        """The ids of the special tokens."""
        return {self.vocab[token] for token in self.special_tokens}

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The pairs that become one token, first learnt first."""
        tokens = self._tokens
        return [(tokens[left], tokens[right]) for left, right in self._merger.pairs]

    def encode(
        self,
        text: str,
        *,
        add_prefix_space: bool | None = None,
        allowed_special: AllowedSpecial = "all",
    ) -> list[int]:
        """The ids of `text`.

        Special tokens in the text become their ids, as with `transformers`. For text from
        strangers there is `allowed_special="none"`, which reads them as plain characters; a
        collection lets only those through. With `add_prefix_space` a text that does not begin
        with a space gets one, and so does each stretch of text after a special token.

        Raises:
            TokenizerError: for a lone surrogate, which is half a character and has no UTF-8
                bytes, and for a name in `allowed_special` that is no special token.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"expected a text to encode, not {kind_of(text)}")
        prefix = self.add_prefix_space if add_prefix_space is None else add_prefix_space
        ids: list[int] = []
        for place, part in enumerate(self._parts(text, allowed_special)):
            if place % 2:
                ids.append(self.vocab[part])
                continue
            plain = f" {part}" if prefix and part and part[0] != " " else part
            try:
                for words in split(plain):
                    ids.extend(chain.from_iterable(map(self._words.__getitem__, words)))
            except UnicodeEncodeError:
                raise half_character(text) from None
        return ids

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        add_prefix_space: bool | None = None,
        allowed_special: AllowedSpecial = "all",
    ) -> list[list[int]]:
        """The ids of each text, as `encode` gives them."""
        return [
            self.encode(text, add_prefix_space=add_prefix_space, allowed_special=allowed_special)
            for text in texts
        ]

    def decode(
        self, ids: Iterable[int], *, errors: str = "replace", skip_special_tokens: bool = False
    ) -> str:
        """The text of `ids`.

        What a model writes need not end with a whole character. `errors` says what becomes of
        bytes that are no UTF-8, as for `bytes.decode`: "replace" puts U+FFFD, "strict" raises.

        Raises:
            TokenizerError: for an id out of range, and for such bytes if `errors="strict"`.
        """
        data = self.decode_bytes(ids, skip_special_tokens=skip_special_tokens)
        try:
            return data.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"the ids stand for bytes that are no UTF-8: {error.reason} at byte "
                f"{error.start} of {len(data)}; errors='replace' puts U+FFFD there"
            ) from None

    def decode_bytes(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> bytes:
        """The bytes of `ids`, UTF-8 or not; `TokenizerError` for an id out of range."""
        table = self._ordinary_bytes if skip_special_tokens else self._bytes
        return b"".join(map(table.__getitem__, self._checked(ids)))

    def token_to_id(self, token: str) -> int:
        """The id of a token in the vocabulary's spelling; `TokenizerError` where there is none."""
        if token not in self.vocab:
            raise TokenizerError(f"no token is spelled {quoted(token)}; a space is spelled 'Ġ'")
        return self.vocab[token]

    def id_to_token(self, token_id: int) -> str:
        """How the vocabulary spells a token; `TokenizerError` for an id out of range."""
        (checked,) = self._checked([token_id])
        return self._tokens[checked]

    def _parts(self, text: str, allowed: AllowedSpecial) -> list[str]:
        """Text, token, text, token, ..., text: special tokens first, in what is left the added."""
        if allowed == "all":
            allowed = self.special_tokens
        elif allowed == "none":
            allowed = ()
        elif unknown := set(allowed) - self.special_tokens:
            known = ", ".join(sorted(self.special_tokens)) or "none"
            raise TokenizerError(f"{quoted(min(unknown))} is no special token; there are: {known}")
        parts = _cut_out(allowed, text)
        return [
            piece
            for place, part in enumerate(parts)
            for piece in ([part] if place % 2 else _cut_out(self.added_tokens, part))
        ]

    def _checked(self, ids: Iterable[int]) -> list[int]:
        try:
            checked = list(map(index, ids))
        except TypeError:
            raise TokenizerError(
                f"expected a row of whole numbers as ids, not {kind_of(ids)}"
            ) from None
        if checked and not (min(checked) >= 0 and max(checked) < self.vocab_size):
            wrong = next(i for i in checked if not 0 <= i < self.vocab_size)
            raise TokenizerError(
                f"no token has id {wrong}; this tokenizer has ids 0 to {self.vocab_size - 1}"
            )
        return checked

    @cached_property
    def _tokens(self) -> list[str]:
        return sorted(self.vocab, key=self.vocab.__getitem__)

    @cached_property
    def _bytes(self) -> list[bytes]:
        verbatim = self.special_tokens | self.added_tokens
        return [t.encode() if t in verbatim else spelled_bytes(t) for t in self._tokens]

    @cached_property
    def _ordinary_bytes(self) -> list[bytes]:
        pairs = zip(self._tokens, self._bytes, strict=True)
        return [b"" if token in self.special_tokens else data for token, data in pairs]


def _cut_out(tokens: Collection[str], text: str) -> list[str]:
    """Text, token, text, token, ..., text; of two tokens at one place, the longer."""
    present = [token for token in tokens if token in text]
    if not present:
        return [text]
    longest_first = sorted(present, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


class _Words(dict[str, tuple[int, ...]]):
    """The ids of the words met so far, worked out when first asked for."""

    def __init__(self, ids_of: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._ids_of = ids_of

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._ids_of(word)
        if len(word) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[word] = ids
        return ids


def _check_ids(vocab: Mapping[str, int]) -> None:
    """Refuse ids that are not 0, 1, 2, ..., each once."""
    for token, number in vocab.items():
        if type(number) is not int:
            raise TokenizerError(f"the id of {quoted(token)} is {kind_of(number)}; expected an int")
    if sorted(vocab.values()) == list(range(len(vocab))):
        return
    holders: dict[int, str] = {}
    for token, number in vocab.items():
        if (first := holders.setdefault(number, token)) != token:
            raise TokenizerError(f"{quoted(first)} and {quoted(token)} both have the id {number}")
    hole = next(number for number in range(len(vocab)) if number not in holders)
    raise TokenizerError(
        f"no token has the id {hole}; {len(vocab)} tokens must have the ids 0 to {len(vocab) - 1}"
    )


def _check_spelling(vocab: Mapping[str, int], whole: set[str]) -> None:
    """Refuse tokens that stand for no bytes: in an ordinary one, each character must for one."""
    for token in whole:
        if token not in vocab:
            raise TokenizerError(f"the special token {quoted(token)} is not in the vocabulary")
        if not token or _SURROGATE.search(token):
            raise TokenizerError(f"a special token cannot be {quoted(token)}")
    ordinary = [token for token in vocab if token not in whole]
    try:
        spelled_bytes("".join(ordinary))
    except UnicodeEncodeError as error:
        strange = error.object[error.start]
        token = next(token for token in ordinary if strange in token)
        raise TokenizerError(
            f"the token {quoted(token)} is not byte-level: {strange!r} stands for no byte; "
            "expected a byte-level vocabulary, its other tokens listed as special"
        ) from None


_SURROGATE = re.compile("[\ud800-\udfff]")


def half_character(text: str) -> TokenizerError:
    """The error for a text that has no UTF-8 bytes, which a lone surrogate in it has not."""
    found = _SURROGATE.search(text)
    assert found is not None
    return TokenizerError(
        f"character {found.start()} of the text is the lone surrogate U+{ord(found[0]):04X}, "
        "half a character; read the text as UTF-8 with errors='replace'"
    )
