"""The examples of a training run: those to learn from, those held out, and batches of either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.errors import DataError
from tfx.core.files import shown
from tfx.core.seeds import host_generator
from tfx.models.gpt2.tasks.records import SUFFIXES, Record, read_records
from tfx.models.gpt2.tasks.task import Example, Task

_ALIKE = 16
"""Texts of so many batches are sorted by their length, to be padded less."""


@dataclass(frozen=True)
class Records:
    """What was read: to learn from, and to judge by."""

    train: list[Record]
    val: list[Record]

    @classmethod
    def read(cls, data: Path, val_fraction: float, seed: int) -> Records:
        """The records of a file, of which a share drawn by the seed is held out; or those of a
        folder's `train` and `val` files.

        Raises:
            DataError: it cannot be read, or too little is left to learn from.
        """
        if data.is_dir():
            return cls(*(read_records(_one_of(data, name)) for name in ("train", "val")))
        records = read_records(data)
        held_out = round(len(records) * val_fraction)
        if held_out >= len(records):
            raise DataError(f"{shown(data)} has {len(records)} records; none is left to learn from")
        order = host_generator(seed, "held out").permutation(len(records))
        val = set(order[:held_out].tolist())
        parts: tuple[list[Record], list[Record]] = ([], [])
        for number, record in enumerate(records):
            parts[number in val].append(record)
        return cls(*parts)


def _one_of(folder: Path, name: str) -> Path:
    there = [file for suffix in SUFFIXES if (file := folder / f"{name}{suffix}").exists()]
    if len(there) != 1:
        found = " and ".join(file.name for file in there) or f"no {name} file"
        raise DataError(
            f"{shown(folder)} has {found}; expected one of "
            f"{' and '.join(name + suffix for suffix in SUFFIXES)}"
        )
    return there[0]


@dataclass(frozen=True, eq=False)
class Examples:
    """The same as the model reads it."""

    train: list[Example]
    val: list[Example]

    @classmethod
    def of(cls, records: Records, task: Task, note: Callable[[str], None]) -> Examples:
        """The examples in some records; tells how many of them were too long."""
        parts = [[task.example(x, True) for x in part] for part in (records.train, records.val)]
        cut = sum(example.cut for part in parts for example in part)
        if cut:
            note(f"{cut} of {sum(map(len, parts))} texts are cut to {task.length} tokens")
        return cls(*parts)

    def fingerprint(self) -> str:
        """The same for the same records in the same order."""
        digest = hashlib.sha256()
        for part in (self.train, self.val):
            for example in part:
                digest.update(json.dumps(dict(example.record.values), sort_keys=True).encode())
            digest.update(b"\n")
        return digest.hexdigest()


class Batches:
    """Batches of examples in a random order: each is a function of its number.

    Every epoch has an order of its own, in which neighbours are of like length. The examples that
    do not fill a last batch are left out of that epoch.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self.per_epoch = max(1, len(examples) // batch_size)
        self._lengths = np.array([example.length for example in examples])
        self._places = lru_cache(maxsize=2)(self._places_of)

    def _places_of(self, epoch: int) -> HostArray:
        """The examples of each batch of an epoch."""
        rng = host_generator(self._seed, "order", epoch)
        order = rng.permutation(len(self._examples))
        order = np.resize(order, max(len(order), self._batch_size))  # of too few, some twice
        order = order[: self.per_epoch * self._batch_size]
        pool = _ALIKE * self._batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        batches = order.reshape(self.per_epoch, self._batch_size)
        return np.asarray(batches[rng.permutation(self.per_epoch)])

    def __getitem__(self, number: int) -> list[Example]:
        epoch, place = divmod(number, self.per_epoch)
        return [self._examples[i] for i in self._places(epoch)[place]]


def in_batches(examples: Sequence[Example], batch_size: int) -> Iterator[list[int]]:
    """The places of all examples, in batches of like length."""
    order = sorted(range(len(examples)), key=lambda i: examples[i].length)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
