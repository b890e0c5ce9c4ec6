"""Generators on the host for one seed: a stream of its own for each purpose."""

from __future__ import annotations

import zlib

import numpy as np


def host_generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """NumPy's generator for what a run of this seed draws for one purpose, at one place in it.

    The streams of different purposes and places are independent of each other, and each can be had
    at any time: nothing is carried along.

    >>> first = host_generator(42, "order", 0).permutation(5)
    >>> (host_generator(42, "order", 0).permutation(5) == first).all()
    np.True_
    """
    key = (zlib.crc32(purpose.encode()), *place)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
