"""Weights that a golden test and the script behind it draw alike, by NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SIZES = {"vocab_size": 31, "n_positions": 16, "n_embd": 16, "n_layer": 3, "n_head": 4}

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def golden_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    """Tensors of a GPT-2 by their names in a checkpoint, drawn in the order of the names, and large
    enough that every one of them matters."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.4, shapes[name]) for name in sorted(shapes)}
    for name in weights:
        if "ln_" in name and name.endswith("weight"):
            weights[name] += 1
    return weights


def golden_ids(count: int, length: int, seed: int = 0) -> Ids:
    """Texts of random tokens (count, length)."""
    return np.random.default_rng(seed + 1).integers(0, SIZES["vocab_size"], (count, length))


def golden_padded(side: str) -> tuple[Ids, npt.NDArray[np.bool_], Ids]:
    """Three texts padded on one side: ids, what is no padding, and the place of each token."""
    ids, visible = golden_ids(3, 8, seed=2), np.zeros((3, 8), bool)
    for row, length in enumerate((8, 3, 5)):
        visible[row, slice(length) if side == "right" else slice(8 - length, 8)] = True
    return ids, visible, (visible.cumsum(1) - 1).clip(min=0)
