"""Byte pairs: how a vocabulary spells bytes, and which neighbours in a word become one token.

Vocabularies are text files, so each byte has one visible character that stands for it (`ALPHABET`;
a space is `Ġ`). A word begins as its bytes; then, as long as two neighbours are a known pair, the
pair that was learnt first, and of its occurrences the leftmost, becomes one token.

Sources: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; the alphabet is that of
`encoder.py` in https://github.com/openai/gpt-2.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count, pairwise

from tfx.core.errors import TokenizerError
from tfx.core.wording import quoted

_spare = count(256)
ALPHABET = "".join(chr(b if chr(b).isprintable() and b != 32 else next(_spare)) for b in range(256))
"""The character for each byte: that of Latin-1 where it is visible, else the next from U+0100."""

_BYTES = codecs.charmap_build(ALPHABET)

_SHORT = 128
"""Bytes of a word up to which looking through all its pairs beats keeping a heap of them."""


def spelled_bytes(token: str) -> bytes:
    """The bytes that an ordinary token stands for.

    `UnicodeEncodeError` where a character stands for none.

    >>> spelled_bytes("ĠCaf\\u00c3\\u00a9").decode()
    ' Café'
    """
    return codecs.charmap_encode(token, "strict", _BYTES)[0]


class Merger:
    """The pairs of a vocabulary; called with a word, it gives the word's ids.

    Args:
        vocab: the id of every token.
        merges: the pairs that become one token, first learnt first.

    Raises:
        TokenizerError: a byte has no token, a merge names an unknown token or comes twice.
    """

    def __init__(self, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        for byte, spelled in enumerate(ALPHABET):
            if spelled not in vocab:
                raise TokenizerError(
                    f"byte 0x{byte:02X} has no token, it would be {spelled!r}; "
                    "a byte-level vocabulary has one for each of the 256 bytes"
                )
        self._size = size = len(vocab)
        id_of = vocab.__getitem__
        try:
            pairs = [id_of(left) * size + id_of(right) for left, right in merges]
            self._made = [id_of(left + right) for left, right in merges]
        except KeyError:
            raise TokenizerError(_unknown(vocab, merges)) from None
        self._ranks = dict(zip(pairs, range(len(pairs)), strict=True))
        if len(self._ranks) < len(pairs):
            raise TokenizerError(_repeated(merges))
        self._never = len(pairs)
        self._first = [id_of(spelled) for spelled in ALPHABET]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The ids that each merge joins, first learnt first."""
        return [divmod(pair, self._size) for pair in self._ranks]

    def __call__(self, word: str) -> tuple[int, ...]:
        """The ids of a word; `UnicodeEncodeError` if it holds a lone surrogate."""
        ids = [self._first[byte] for byte in word.encode()]
        return tuple(self._merge_short(ids) if len(ids) <= _SHORT else self._merge_long(ids))

    def _ranks_in(self, ids: list[int]) -> list[int]:
        """For each two neighbours, when their pair was learnt, or `_never`."""
        rank_of, size, never = self._ranks.get, self._size, self._never
        return [rank_of(left * size + right, never) for left, right in pairwise(ids)]

    def _merge_short(self, ids: list[int]) -> list[int]:
        """Merge by looking for the best pair again and again: quadratic, and fast for words."""
        rank_of, size, never = self._ranks.get, self._size, self._never
        ranks = self._ranks_in(ids)
        while ranks and (best := min(ranks)) != never:
            at = ranks.index(best)
            ids[at] = self._made[best]
            del ids[at + 1], ranks[at]
            if at < len(ranks):
                ranks[at] = rank_of(ids[at] * size + ids[at + 1], never)
            if at > 0:
                ranks[at - 1] = rank_of(ids[at - 1] * size + ids[at], never)
        return ids

    def _merge_long(self, ids: list[int]) -> list[int]:
        """Merge with a heap of pairs, n log n: for text without spaces, or made to be slow.

        A pair is named by the place of its left token, and lies in the heap as
        `rank * end + place`: by rank, then from left to right. If it has another rank by the
        time it comes up, one of its tokens was merged meanwhile.
        """
        rank_of, size, never, end = self._ranks.get, self._size, self._never, len(ids)
        before, after = list(range(-1, end - 1)), list(range(1, end + 1))
        ranks = [*self._ranks_in(ids), never]
        heap = [rank * end + at for at, rank in enumerate(ranks) if rank != never]
        heapify(heap)
        while heap:
            rank, at = divmod(heappop(heap), end)
            if rank != ranks[at]:
                continue
            swallowed, previous = after[at], before[at]
            following = after[at] = after[swallowed]
            ids[at], ids[swallowed] = self._made[rank], -1
            ranks[at] = ranks[swallowed] = never
            if following < end:
                before[following] = at
                ranks[at] = rank_of(ids[at] * size + ids[following], never)
            if previous >= 0:
                ranks[previous] = rank_of(ids[previous] * size + ids[at], never)
            for place in (previous, at):
                if place >= 0 and ranks[place] != never:
                    heappush(heap, ranks[place] * end + place)
        return [token for token in ids if token >= 0]


def _unknown(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> str:
    """What to say of the first merge with a token that is not in the vocabulary."""
    for number, (left, right) in enumerate(merges, 1):
        for token in (left, right, left + right):
            if token not in vocab:
                verb = "makes" if token == left + right else "names"
                merge = f"{quoted(left)} with {quoted(right)}"
                return f"merge {number}, {merge}, {verb} {quoted(token)}, which has no id"
    raise AssertionError("every merge is known")


def _repeated(merges: Sequence[tuple[str, str]]) -> str:
    """What to say of the first merge that was there before."""
    seen: dict[tuple[str, str], int] = {}
    for number, merge in enumerate(merges, 1):
        if (first := seen.setdefault(merge, number)) != number:
            return f"merges {first} and {number} are both {' with '.join(map(quoted, merge))}"
    raise AssertionError("no merge comes twice")
