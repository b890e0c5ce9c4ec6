"""What a GPT-2 learns from: text or token files as one row of ids, and batches cut from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from tfx.core.errors import DataError
from tfx.core.files import open_regular, reason, shown
from tfx.core.seeds import host_generator
from tfx.core.tokenizer import ByteLevelBPE
from tfx.core.tokenizer.corpus import read_texts

Ids = npt.NDArray[np.integer]

_TOKEN_FILES = (".bin", ".npy")
_SUFFIXES = (*_TOKEN_FILES, ".txt")
_AT_ONCE = 2**22  # ids that are looked at together, in a file that may be larger than the memory


@dataclass(frozen=True)
class Sources:
    """The files to learn from, and those to validate on if they are others.

    Attributes:
        train: a text file, a token file, or a folder of text files.
        val: the like; None where a part of `train` is kept for it.
    """

    train: Path
    val: Path | None = None

    @classmethod
    def of(cls, data: Path) -> Sources:
        """What `--data` means: a folder's `train.*` and `val.*` where it has them, else itself.

        Other files beside a `train.*` are left alone: what it was made from, or texts to test on.

        Raises:
            DataError: there are two of a kind, or a `val.*` that no `train.*` goes with.
        """
        train, val = (
            [file for suffix in _SUFFIXES if (file := data / f"{name}{suffix}").exists()]
            for name in ("train", "val")
        )
        for files in (train, val):
            if len(files) > 1:
                raise DataError(
                    f"{shown(data)} has {' and '.join(file.name for file in files)}; "
                    "leave the one that is meant"
                )
        if val and [file.suffix for file in train] != [val[0].suffix]:
            there = train[0].name if train else "no train.*"
            raise DataError(
                f"{shown(data)} has {there} and {val[0].name}; "
                f"expected train{val[0].suffix} beside it"
            )
        return cls(train[0], val[0] if val else None) if train else cls(data)

    @property
    def are_tokens(self) -> bool:
        return self.train.suffix in _TOKEN_FILES


@dataclass(frozen=True, eq=False)
class Corpus:
    """The ids to learn from and those to validate on; token files stay on the disk."""

    train: Ids
    val: Ids

    def check(self, vocab_size: int, block_size: int, origin: Path) -> None:
        """Raise `DataError` for ids that a model does not know, and for too few of them."""
        if len(self.train) <= block_size:
            raise DataError(
                f"{shown(origin)} has {len(self.train)} tokens to train on, and a sequence takes "
                f"{block_size + 1}: more than block_size; give more data, or --set block_size"
            )
        if len(self.val) == 1:
            raise DataError(
                f"{shown(origin)} has 1 token to validate on; give more data or a larger share "
                "with --set val_fraction, which may be 0"
            )
        for part in (*_parts(self.train), *_parts(self.val)):
            if not 0 <= part.min() <= part.max() < vocab_size:
                wrong = part[(part < 0) | (part >= vocab_size)][0]
                raise DataError(
                    f"{shown(origin)} has the token id {wrong}; the model knows 0 to "
                    f"{vocab_size - 1} (--set vocab_size)"
                )

    def has(self, token: int) -> bool:
        """Whether a token occurs in what is learnt from."""
        return any((part == token).any() for part in _parts(self.train))

    def fingerprint(self) -> str:
        """The same for the same ids, however they were stored."""
        digest = hashlib.sha256()
        for ids in (self.train, self.val):
            digest.update(len(ids).to_bytes(8))
            for part in _parts(ids):
                digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


def _parts(ids: Ids) -> Iterator[Ids]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def read_corpus(sources: Sources, tokenizer: ByteLevelBPE | None, val_fraction: float) -> Corpus:
    """The ids of text or token files; `val_fraction` is the share of the end that is kept for
    validation where there are no files for it.

    Documents, which are files of text, are joined by the token that ends a text.

    Raises:
        DataError: a file is missing, empty, or of another kind.
    """
    if sources.are_tokens:
        return _token_corpus(sources, val_fraction)
    assert tokenizer is not None
    documents = list(read_texts(sources.train))
    if sources.val is not None:
        kept = list(read_texts(sources.val))
    else:
        documents, kept = _split(documents, val_fraction)
    return Corpus(_encoded(documents, tokenizer), _encoded(kept, tokenizer))


def _split(documents: Sequence[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """The documents up to a share of all characters, and the rest; one may be cut in two."""
    left = round(sum(map(len, documents)) * (1 - val_fraction))
    first, rest = [], []
    for text in documents:
        first.append(text[:left])
        rest.append(text[left:])
        left -= len(first[-1])
    return [text for text in first if text], [text for text in rest if text]


def _encoded(documents: Sequence[str], tokenizer: ByteLevelBPE) -> Ids:
    between = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    parts = [np.empty(0, dtype)]
    for number, text in enumerate(documents):
        parts.append(np.array((between if number else []) + tokenizer.encode(text), dtype))
    return np.concatenate(parts)


def _token_corpus(sources: Sources, val_fraction: float) -> Corpus:
    ids = _mapped(sources.train)
    if sources.val is not None:
        return Corpus(ids, _mapped(sources.val))
    kept = round(len(ids) * (1 - val_fraction))
    return Corpus(ids[:kept], ids[kept:])


def _mapped(file: Path) -> Ids:
    """The ids in a token file: uint16 one after the other (`.bin`), or NumPy's own form."""
    try:
        with open_regular(file) as opened:
            size = opened.seek(0, 2)
        if file.suffix == ".npy":
            ids = _numpy_row(file)
        elif size % 2:
            raise DataError(f"{shown(file)} has {size} bytes; expected uint16 ids, two bytes each")
        else:
            ids = np.memmap(file, "<u2", mode="r") if size else np.empty(0, np.uint16)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the token file {shown(file)}: {reason(error)}") from None
    if not len(ids):
        raise DataError(f"the token file {shown(file)} is empty")
    return ids


def _numpy_row(file: Path) -> Ids:
    try:
        ids: npt.NDArray[Any] = open_memmap(file, mode="r")
    except OSError:
        raise
    except Exception:  # of many kinds, as its parser left them
        raise DataError(
            f"{shown(file)} is no whole file of NumPy's that holds numbers; "
            "expected one row of whole numbers, as numpy.save writes it"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(
            f"{shown(file)} holds {ids.dtype} of shape {ids.shape}; "
            "expected one row of whole numbers"
        )
    return ids


class Batches:
    """Sequences of the training data in a random order: every batch is a function of its number.

    In each epoch the ids are cut into sequences from an offset of its own, and these are shuffled.
    A sequence's targets reach one token beyond it, so all tokens but a few at the ends are learnt
    once an epoch, and those in another.

    Args:
        ids: the training data.
        block_size: tokens in a sequence.
        batch_size: sequences in a batch.
        seed: of offsets and orders.
    """

    def __init__(self, ids: Ids, block_size: int, batch_size: int, seed: int) -> None:
        self._ids, self._seed = ids, seed
        self._block_size, self._batch_size = block_size, batch_size
        self.per_epoch = max(1, (len(ids) - block_size) // block_size)
        self._starts = lru_cache(maxsize=2)(self._starts_of)

    def _starts_of(self, epoch: int) -> Ids:
        """Where the sequences of an epoch begin, in their order."""
        rng = host_generator(self._seed, "order", epoch)
        spare = len(self._ids) - 1 - self.per_epoch * self._block_size
        offset = rng.integers(spare + 1)
        return offset + rng.permutation(self.per_epoch) * self._block_size

    def __getitem__(self, number: int) -> tuple[Ids, Ids]:
        """The ids of a batch and the ids that follow them, (batch_size, block_size) each."""
        first = number * self._batch_size
        places = (divmod(i, self.per_epoch) for i in range(first, first + self._batch_size))
        starts = np.array([self._starts(epoch)[place] for epoch, place in places])
        return _sequences(self._ids, starts, self._block_size)


def windows(ids: Ids, block_size: int, batch_size: int, most: int) -> list[tuple[Ids, Ids]]:
    """Batches of sequences side by side, at most so many batches, evenly spread over the ids.

    What is shorter than a sequence at the end is left out, unless there is nothing else.
    """
    length = min(block_size, len(ids) - 1)
    starts = np.arange((len(ids) - 1) // length) * length
    if len(starts) > most * batch_size:
        starts = starts[np.linspace(0, len(starts) - 1, most * batch_size).round().astype(int)]
    cuts = [*range(0, len(starts), batch_size), len(starts)]
    return [_sequences(ids, starts[a:b], length) for a, b in pairwise(cuts)]


def _sequences(ids: Ids, starts: Ids, length: int) -> tuple[Ids, Ids]:
    rows = ids[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return rows[:, :-1], rows[:, 1:]


def characters(ids: Ids, tokenizer: ByteLevelBPE) -> int:
    """How many characters begin in the text of these ids; tokens that are no text have none."""
    known = ids[ids < tokenizer.vocab_size].tolist()
    return characters_in(tokenizer.decode_bytes(known, skip_special_tokens=True))


def characters_in(text: bytes) -> int:
    """How many characters begin in some UTF-8.

    >>> characters_in("né".encode()), characters_in("é".encode()[1:])
    (2, 0)
    """
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) & 0xC0 != 0x80))
