"""The weights that a new GPT-2 begins with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tfx.core.dtypes import DType
from tfx.core.seeds import host_generator
from tfx.models.gpt2.model import Config

Weights = dict[str, npt.NDArray[np.floating]]


def initial_weights(config: Config, seed: int, dtype: DType = DType.float64) -> Weights:
    """Weights from a seed, the same for every backend.

    Matrices and embeddings are normal with a spread of `initializer_range`. What a block adds to
    its input goes through `c_proj`, and is divided by sqrt(2 layers), so that the sum of all blocks
    has the spread of one (Radford et al. 2019, section 2.3). Biases are 0, layer norms 1.

    Numbers are drawn in float64, in the order of `config.shapes()`; returned as float64 for a model
    of that dtype, else as float32, to take no more memory than the model does.
    """
    rng = host_generator(seed, "weights")
    storage = np.float64 if dtype is DType.float64 else np.float32
    weights: Weights = {}
    for name, shape in config.shapes().items():
        if len(shape) == 1:
            value = 1.0 if name.endswith("weight") else 0.0
            weights[name] = np.full(shape, value, storage)
            continue
        spread = config.initializer_range
        if name.endswith("c_proj.weight"):
            spread /= math.sqrt(2 * config.n_layer)
        weights[name] = (rng.standard_normal(shape) * spread).astype(storage)
    return weights
