"""A language model of one layer: enough to watch a training step and a decoded token at work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfx.core import nn
from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend
from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import cosine
from tfx.core.tensor import Tensor

VOCABULARY, WIDTH, HEADS, ROOM = 11, 8, 2, 16
SHAPES = {
    "wte": (VOCABULARY, WIDTH),
    "gain": (WIDTH,),
    "qkv": (WIDTH, 3 * WIDTH),
    "out": (WIDTH, WIDTH),
    "up": (WIDTH, 2 * WIDTH),
    "bias": (2 * WIDTH,),
    "down": (2 * WIDTH, WIDTH),
}


class Network:
    """The model on one backend, its optimizer, and two batches to learn from.

    Args:
        backend: where it lives, in float32.
        autograd: how it is differentiated.
        dropout: the share of the scores that training sets to zero.
        seed: of the first parameters and the batches.
    """

    def __init__(
        self,
        backend: Backend,
        autograd: Autograd = "auto",
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        host = {name: rng.normal(0, 0.4, shape) for name, shape in SHAPES.items()}
        self.backend = backend
        self.state = TrainState.start(Parameters.from_host(host, backend, DType.float32))
        self._optimizer = AdamW(cosine(1 << 16, 0.05), self.state.params, decay=0.1, grad_clip=1.0)
        ids = rng.integers(0, VOCABULARY, (2, 3, 6))
        self._batches = [tensor(batch, backend, backend.index_dtype) for batch in ids]
        self._dropout = dropout
        self._gradient = value_and_grad(self.loss, autograd=autograd)
        self.cache = KVCache(1, (3, ROOM, WIDTH), backend, DType.float32)

    def logits(self, p: Mapping[str, Tensor], ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) ids to (B, T, vocabulary) scores."""
        x = nn.embedding(p["wte"], ids)
        h = nn.linear(nn.rms_norm(x, p["gain"]), p["qkv"])
        q, k, v = (h[..., i * WIDTH : (i + 1) * WIDTH] for i in range(3))
        offset = None
        if cache is not None:
            k, v, offset = cache.extend(0, k, v)
            cache.advance(ids.shape[1])
        h = nn.attention(q, k, v, (WIDTH // HEADS) ** -0.5, offset, heads=HEADS)
        x = nn.linear(h, p["out"], None, x)
        h = nn.linear(nn.rms_norm(x), p["up"], p["bias"], activation="gelu")
        return nn.linear(nn.linear(h, p["down"], None, x), p["wte"], outputs_first=True)

    def loss(self, p: Mapping[str, Tensor], ids: Tensor, step: Tensor) -> Tensor:
        """Mean cross-entropy of each next token."""
        scores = Dropout((1, 2), step)(self.logits(p, ids[:, :-1]), self._dropout)
        return nn.cross_entropy(scores, ids[:, 1:]).mean()

    def train_step(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient norm of one step, whose result is the new state."""
        ids = self._batches[0]
        self._batches.reverse()
        value, grads = self._gradient(self.state.params, ids, self.state.step)
        flat = self.state.params.flatten(grads)
        self.state, norm = self._optimizer.update(self.state, value, flat)
        return value, norm

    def decode_step(self, ids: Tensor) -> Tensor:
        """The likeliest next token (3, 1) of each of three texts, after the new one (3, 1)."""
        return self.logits(self.state.params, ids, self.cache)[:, -1:].argmax(-1)

    def first_ids(self) -> Tensor:
        """What three texts begin with, (3, 1)."""
        return self._batches[0][:, :1]
