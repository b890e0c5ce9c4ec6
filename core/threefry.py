"""Threefry-2x32-20, the one generator behind `random_bits`.

J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11. A counter-based
generator: a fixed scrambling of (key, counter), so that any word can be had at any time, on any
device, without a state to carry along.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
"""By how many bits, round by round: four of them, then the other four."""

PARITY = 0x1BD11BDA
"""What the third word of the key schedule is made with."""

_MASK = 0xFFFFFFFF
_BLOCK = 1 << 15  # pairs of words that pass through all rounds while they are in a core's cache

Words = npt.NDArray[np.uint32]


def threefry2x32(key: tuple[int, int], c0: Any, c1: Any) -> tuple[Any, Any]:
    """Twenty rounds over the counter words (c0, c1).

    Arguments are Python integers, or integer arrays of one dtype of any library whose arrays know
    `+ ^ & << >>`: of 64 bits, or of 32 where they are unsigned and wrap. Values are 32-bit words.
    Returns two words of the same kind.

    >>> [hex(word) for word in threefry2x32((0, 0), 0, 0)]
    ['0x6b200159', '0x99ba4efe']
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    x0 = (c0 + schedule[0]) & _MASK
    x1 = (c1 + schedule[1]) & _MASK
    for group in range(5):
        for rotation in ROTATIONS[:4] if group % 2 == 0 else ROTATIONS[4:]:
            x0 = (x0 + x1) & _MASK
            x1 = ((x1 << rotation) & _MASK) | (x1 >> (32 - rotation))
            x1 = x1 ^ x0
        x0 = (x0 + schedule[(group + 1) % 3]) & _MASK
        x1 = (x1 + schedule[(group + 2) % 3] + group + 1) & _MASK
    return x0, x1


def words(key: tuple[int, int], counter: int, count: int, bits: int) -> npt.NDArray[np.int32]:
    """The first `count` words of the draw `counter`, as `Backend.random_bits` defines them."""
    pairs = np.empty(((count + 1) // 2, 2), np.uint32)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        x0 = np.arange(start, start + len(block), dtype=np.uint32)
        x1 = np.full(len(block), counter & _MASK, np.uint32)
        _scramble(key, x0, x1)
        np.right_shift(x0, 32 - bits, out=block[:, 0])
        np.right_shift(x1, 32 - bits, out=block[:, 1])
    return pairs.reshape(-1)[:count].view(np.int32)


def _scramble(key: tuple[int, int], x0: Words, x1: Words) -> None:
    """`threefry2x32` in place, where 32 bits are all there are and sums wrap by themselves."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    high = np.empty_like(x1)
    x0 += np.uint32(schedule[0])
    x1 += np.uint32(schedule[1])
    for group in range(5):
        for rotation in ROTATIONS[:4] if group % 2 == 0 else ROTATIONS[4:]:
            x0 += x1
            np.right_shift(x1, 32 - rotation, out=high)
            x1 <<= rotation
            x1 |= high
            x1 ^= x0
        x0 += np.uint32(schedule[(group + 1) % 3])
        x1 += np.uint32((schedule[(group + 2) % 3] + group + 1) & _MASK)


def fold_in(key: tuple[int, int], data: int) -> tuple[int, int]:
    """A key of its own for each `data`: one for every place in a model that draws.

    >>> fold_in((0, 42), 1) != fold_in((0, 42), 2)
    True
    """
    return threefry2x32(key, data & _MASK, (data >> 32) & _MASK)


def key_from_seed(seed: int) -> tuple[int, int]:
    """The generator's key for a seed of up to 64 bits."""
    return (seed >> 32) & _MASK, seed & _MASK
