"""microGPT: Andrej Karpathy's smallest complete GPT, on tensors.

After https://gist.github.com/karpathy/8627fe009c40f57531cb18360106ce95, which computes the same
numbers one at a time. It differs from GPT-2 in this: RMSNorm without gain instead of LayerNorm,
once more right after the embedding, and none before the head; ReLU instead of GELU; no biases; a
head of its own instead of the transposed embedding.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.cache import KVCache
from tfx.core.nn import attention, cross_entropy, embedding, rms_norm
from tfx.core.nn import linear as linear_map
from tfx.core.tensor import Tensor

Params = Mapping[str, Tensor]

linear = partial(linear_map, outputs_first=True)


@dataclass(frozen=True)
class Config:
    """The size of a microGPT; the defaults are the original's."""

    vocab_size: int
    n_layer: int = 1
    n_embd: int = 16
    block_size: int = 16
    n_head: int = 4

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Every parameter, (outputs, inputs), in the order the original draws them."""
        c = self.n_embd
        shapes = {
            "wte": (self.vocab_size, c),
            "wpe": (self.block_size, c),
            "lm_head": (self.vocab_size, c),
        }
        for i in range(self.n_layer):
            shapes |= {f"layer{i}.attn_w{name}": (c, c) for name in "qkvo"}
            shapes |= {f"layer{i}.mlp_fc1": (4 * c, c), f"layer{i}.mlp_fc2": (c, 4 * c)}
        return shapes


def initial_weights(config: Config, rng: random.Random, std: float = 0.08) -> dict[str, HostArray]:
    """Normal numbers, drawn row by row from Python's generator as the original does."""
    return {
        name: np.array([[rng.gauss(0, std) for _ in range(columns)] for _ in range(rows)])
        for name, (rows, columns) in config.shapes().items()
    }


def forward(p: Params, config: Config, ids: Tensor, cache: KVCache | None = None) -> Tensor:
    """Logits (T, vocab_size) for each of the ids (T,); with a cache, after what it holds."""
    positions = p["wpe"][: len(ids)] if cache is None else p["wpe"].take(cache.positions(len(ids)))
    x = embedding(p["wte"], ids) + positions  # (T, C)
    x = rms_norm(x)
    for i in range(config.n_layer):
        x = x + attend(p, config, i, rms_norm(x), cache)
        hidden = linear(rms_norm(x), p[f"layer{i}.mlp_fc1"], activation="relu")  # (T, 4C)
        x = x + linear(hidden, p[f"layer{i}.mlp_fc2"])
    return linear(x, p["lm_head"])


def attend(p: Params, config: Config, layer: int, x: Tensor, cache: KVCache | None) -> Tensor:
    """Causal self-attention of all heads at once: (T, C) -> (T, C)."""
    q, k, v = (linear(x, p[f"layer{layer}.attn_w{name}"]) for name in "qkv")  # (T, C) each
    offset = None
    if cache is not None:
        k, v, offset = cache.extend(layer, k, v)
    scale = (config.n_embd // config.n_head) ** -0.5
    y = attention(q, k, v, scale, offset, heads=config.n_head)
    return linear(y, p[f"layer{layer}.attn_wo"])


def loss(p: Params, config: Config, ids: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of the next token, of each position as much as its share (T,) says.

    1 / n for each of n positions is their mean. A share of 0 leaves out what fills up a document
    behind its end, and causality hides that from all before it.
    """
    return (cross_entropy(forward(p, config, ids), targets) * shares).sum()
