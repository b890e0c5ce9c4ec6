"""microGPT's tokens: the characters of its documents, and one that stands at both ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tfx.core.errors import DataError


@dataclass(frozen=True)
class Vocabulary:
    """Characters in order; the id after the last one is BOS, which begins and ends a document.

    >>> names = Vocabulary.of(["ba", "ab"])
    >>> names.document("ab"), names.text([1, 0])
    ([2, 0, 1, 2], 'ba')
    """

    characters: tuple[str, ...]

    @classmethod
    def of(cls, documents: Iterable[str]) -> Vocabulary:
        """The vocabulary of all characters in the documents, sorted."""
        return cls(tuple(sorted(set().union(*map(set, documents)))))

    def __len__(self) -> int:
        return len(self.characters) + 1

    @property
    def bos(self) -> int:
        return len(self.characters)

    def ids(self, text: str) -> list[int]:
        """One id a character; `DataError` for one that is not in the vocabulary."""
        try:
            return [self._index[c] for c in text]
        except KeyError:
            unknown = ", ".join(repr(c) for c in sorted(set(text) - set(self.characters)))
            raise DataError(
                f"the model was not trained on {unknown} (in {text[:40]!r}); "
                f"it knows {''.join(self.characters)!r}"
            ) from None

    @cached_property
    def _index(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.characters)}

    def document(self, text: str) -> list[int]:
        """The ids of a whole document, BOS at both ends."""
        return [self.bos, *self.ids(text), self.bos]

    def text(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[i] for i in ids)
