"""Weights that a golden test and the script behind it draw alike, by NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SIZES = {"vocab_size": 31, "n_positions": 16, "n_embd": 16, "n_layer": 3, "n_head": 4}

Array = npt.NDArray[np.float64]


def golden_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    """Tensors of a GPT-2 by their names in a checkpoint, drawn in the order of the names, and large
    enough that every one of them matters."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.4, shapes[name]) for name in sorted(shapes)}
    for name in weights:
        if "ln_" in name and name.endswith("weight"):
            weights[name] += 1
    return weights


def golden_ids(count: int, length: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Texts of random tokens (count, length)."""
    return np.random.default_rng(seed + 1).integers(0, SIZES["vocab_size"], (count, length))
