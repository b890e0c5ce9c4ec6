"""GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Blocks of causal self-attention and a perceptron, each behind a layer norm and added to what came
in; before them a sum of token and position embeddings, behind them a head, which as a rule is the
token embedding transposed. Parameters bear the names of OpenAI's checkpoint, whose matrices are
(inputs, outputs).

Shapes: B texts of T new tokens, C channels, H heads, S positions to attend to, V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfx.core.cache import KVCache, positions_among
from tfx.core.creation import arange
from tfx.core.dropout import Dropout
from tfx.core.nn import attention, cross_entropy, embedding, layer_norm, linear
from tfx.core.tensor import Tensor
from tfx.models.gpt2.config import Config

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pass:
    """What else one pass through the model goes by.

    Attributes:
        cache: what earlier passes have seen; takes in the new tokens.
        visible: bool (B, T), False where a text holds padding; None where none does. Only without
            a cache, which knows its own.
        dropout: while the model is trained.
    """

    cache: KVCache | None = None
    visible: Tensor | None = None
    dropout: Dropout | None = None

    def drop(self, x: Tensor, rate: float) -> Tensor:
        return x if self.dropout is None else self.dropout(x, rate)


def logits(p: Params, config: Config, ids: Tensor, through: Pass = Pass()) -> Tensor:
    """Scores (B, T, V) of the token after each of the ids (B, T)."""
    return head(p, trunk(p, config, ids, through))


def trunk(p: Params, config: Config, ids: Tensor, through: Pass = Pass()) -> Tensor:
    """The last hidden states (B, T, C)."""
    positions = positions_of(ids, through)
    x = embedding(p["wte.weight"], ids) + embedding(p["wpe.weight"], positions)  # (B, T, C)
    x = through.drop(x, config.embd_pdrop)
    for i in range(config.n_layer):
        x = block(p, config, i, x, through)
    if through.cache is not None:
        through.cache.advance(ids.shape[1])
    return norm(p, config, "ln_f", x)


def head(p: Params, x: Tensor) -> Tensor:
    """Hidden states (..., C) to scores (..., V)."""
    return linear(x, p.get("lm_head.weight", p["wte.weight"]), outputs_first=True)


def positions_of(ids: Tensor, through: Pass) -> Tensor:
    """Where each token stands in its text: (T,), or (B, T) where texts are padded."""
    count = ids.shape[1]
    if through.cache is not None:
        return through.cache.positions(count)
    if through.visible is not None:
        return positions_among(through.visible)
    return arange(count, ids.backend)


def block(p: Params, config: Config, layer: int, x: Tensor, through: Pass) -> Tensor:
    """One layer: (B, T, C) -> (B, T, C)."""
    here = f"h.{layer}"
    y = attend(p, config, layer, norm(p, config, f"{here}.ln_1", x), through)
    x = x + through.drop(y, config.resid_pdrop)
    y = norm(p, config, f"{here}.ln_2", x)
    y = dense(p, f"{here}.mlp.c_fc", y, activation=config.activation_function)  # (B, T, 4C)
    return x + through.drop(dense(p, f"{here}.mlp.c_proj", y), config.resid_pdrop)


def attend(p: Params, config: Config, layer: int, x: Tensor, through: Pass) -> Tensor:
    """Causal self-attention of all heads at once: (B, T, C) -> (B, T, C)."""
    here, c = f"h.{layer}.attn", config.n_embd
    qkv = dense(p, f"{here}.c_attn", x)  # (B, T, 3C)
    q, k, v = qkv[..., :c], qkv[..., c : 2 * c], qkv[..., 2 * c :]
    offset, visible = None, through.visible
    if through.cache is not None:
        k, v, offset = through.cache.extend(layer, k, v)  # (B, S, C)
        visible = through.cache.visible
    if visible is not None:
        visible = visible[:, None, None, :]  # (B, 1, 1, S)
    dropped = None
    if through.dropout is not None:
        scores = (len(x), config.n_head, q.shape[1], k.shape[1])
        dropped = through.dropout.factor(scores, config.attn_pdrop, x.dtype)
    if config.reorder_and_upcast_attn:
        q, k, v = (part.widened() for part in (q, k, v))
    scale = config.attention_scale(layer)
    y = attention(q, k, v, scale, offset, visible, dropped, heads=config.n_head)
    return dense(p, f"{here}.c_proj", y.cast(x.dtype))


def dense(p: Params, name: str, x: Tensor, **more: Any) -> Tensor:
    return linear(x, p[f"{name}.weight"], p[f"{name}.bias"], **more)


def norm(p: Params, config: Config, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"], eps=config.layer_norm_epsilon)


def loss(p: Params, config: Config, ids: Tensor, targets: Tensor, through: Pass = Pass()) -> Tensor:
    """Mean cross-entropy of the targets (B, T) that follow the ids (B, T)."""
    return cross_entropy(logits(p, config, ids, through), targets).mean()
