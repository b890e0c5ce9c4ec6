"""A language model as they came to be after GPT-2, in small.

It differs from GPT-2 as LLaMA does (Touvron et al. 2023, arXiv:2302.13971): a token's position is
not added to its embedding, but turns its queries and keys; RMSNorm in place of LayerNorm; a gated
perceptron, SwiGLU; no biases.

Shapes: B texts of T new tokens, C channels, H heads of D channels, S positions, V tokens. Matrices
are (outputs, inputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.creation import arange, tensor
from tfx.core.dtypes import DType
from tfx.core.nn import attention, cross_entropy, embedding, rms_norm
from tfx.core.nn import linear as linear_map
from tfx.core.ops import concat
from tfx.core.seeds import host_generator
from tfx.core.tensor import Tensor

Params = Mapping[str, Tensor]

linear = partial(linear_map, outputs_first=True)


@dataclass(frozen=True)
class Config:
    """The size of a model."""

    vocab_size: int
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 32
    block_size: int = 64

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter."""
        c, hidden = self.n_embd, 3 * self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, c)}
        for i in range(self.n_layer):
            shapes |= {f"layer{i}.{name}": (c, c) for name in ("wq", "wk", "wv", "wo")}
            shapes |= {f"layer{i}.{name}": (hidden, c) for name in ("w_gate", "w_up")}
            shapes |= {f"layer{i}.w_down": (c, hidden)}
            shapes |= {f"layer{i}.norm{n}": (c,) for n in (1, 2)}
        return shapes | {"norm": (c,), "head": (self.vocab_size, c)}


def initial_weights(config: Config, seed: int) -> dict[str, HostArray]:
    """Gains of 1; matrices normal, with a spread of 1 / sqrt(inputs)."""
    rng = host_generator(seed, "weights")
    return {
        name: np.ones(shape) if len(shape) == 1 else rng.normal(0, shape[-1] ** -0.5, shape)
        for name, shape in config.shapes().items()
    }


@dataclass(frozen=True)
class Rotation:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864): channels i and D/2 + i of a head are a
    point of the plane, turned by position / 10000^(2i/D). The product of two that are turned
    depends on how far apart they stand, and on nothing else of where.

    Attributes:
        cos, sin: of every angle: (positions, D/2) in a table, (..., T, 1, D/2) for some tokens.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def table(cls, config: Config, backend: Backend, dtype: DType) -> Rotation:
        """All positions, computed on the host and copied once."""
        half = config.n_embd // config.n_head // 2
        speeds = 10000.0 ** -(np.arange(half) / half)
        angles = np.arange(config.block_size)[:, None] * speeds
        return cls(tensor(np.cos(angles), backend, dtype), tensor(np.sin(angles), backend, dtype))

    def at(self, positions: Tensor) -> Rotation:
        """For tokens at these positions (..., T)."""
        return Rotation(*(table.take(positions)[..., None, :] for table in (self.cos, self.sin)))

    def __call__(self, x: Tensor) -> Tensor:
        """Turn all heads of x (B, T, C)."""
        half = self.cos.shape[-1]
        pairs = x.reshape(*x.shape[:-1], x.shape[-1] // (2 * half), 2 * half)  # (B, T, H, D)
        a, b = pairs[..., :half], pairs[..., half:]
        turned = concat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1)
        return turned.reshape(x.shape)


def logits(
    p: Params, config: Config, table: Rotation, ids: Tensor, cache: KVCache | None = None
) -> Tensor:
    """Scores (B, T, V) of the token after each of the ids (B, T); with a cache, after its own."""
    count = ids.shape[1]
    turn = table.at(arange(count, ids.backend) if cache is None else cache.positions(count))
    x = embedding(p["embed"], ids)  # (B, T, C)
    for i in range(config.n_layer):
        x = x + attend(p, config, i, rms_norm(x, p[f"layer{i}.norm1"]), turn, cache)
        x = x + perceptron(p, i, rms_norm(x, p[f"layer{i}.norm2"]))
    if cache is not None:
        cache.advance(count)
    return linear(rms_norm(x, p["norm"]), p["head"])


def attend(
    p: Params, config: Config, layer: int, x: Tensor, turn: Rotation, cache: KVCache | None
) -> Tensor:
    """Causal self-attention of all heads at once: (B, T, C) -> (B, T, C)."""
    q, k, v = (linear(x, p[f"layer{layer}.w{name}"]) for name in "qkv")
    q, k = turn(q), turn(k)
    offset = visible = None
    if cache is not None:
        k, v, offset = cache.extend(layer, k, v)  # (B, S, C)
        visible = None if cache.visible is None else cache.visible[:, None, None, :]
    scale = (config.n_embd // config.n_head) ** -0.5
    y = attention(q, k, v, scale, offset, visible, heads=config.n_head)
    return linear(y, p[f"layer{layer}.wo"])


def perceptron(p: Params, layer: int, x: Tensor) -> Tensor:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202): (B, T, C) -> (B, T, C)."""
    gate = linear(x, p[f"layer{layer}.w_gate"], activation="silu")
    return linear(gate * linear(x, p[f"layer{layer}.w_up"]), p[f"layer{layer}.w_down"])


def loss(p: Params, config: Config, table: Rotation, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the targets (B, T) that follow the ids (B, T)."""
    return cross_entropy(logits(p, config, table, ids), targets).mean()
