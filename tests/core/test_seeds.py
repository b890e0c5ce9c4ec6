"""One seed, many streams: each its own, and always the same."""

from __future__ import annotations

from itertools import product

from tfx.core.seeds import host_generator


def test_each_purpose_and_place_has_a_stream_of_its_own() -> None:
    seeds = (0, 1, 2**32, 2**63 - 1)
    places: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 0), (0, 1))
    drawn = {
        host_generator(seed, purpose, *place).bytes(16)
        for seed, purpose, place in product(seeds, ("weights", "order"), places)
    }
    assert len(drawn) == len(seeds) * 2 * len(places)


def test_a_stream_is_the_same_for_ever() -> None:
    """Checkpoints of earlier versions go on with the order that they began with."""
    order = host_generator(42, "order", 3).permutation(10)
    assert order.tolist() == [8, 5, 2, 7, 4, 6, 9, 3, 0, 1]
