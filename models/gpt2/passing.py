"""What a pass through the model goes by, besides its input, and what it shows of itself.

Theta multiplies the scores of attention: softmax(mask(theta * scale * q @ k^T)) @ v. At 1 it
changes nothing, bit for bit; towards 0 attention spreads, until at 0 it is the same for all that
may be seen. As (theta * q) @ k^T is the same product, it is the queries that are multiplied: a
kernel for attention needs to know nothing of theta, and it may be another one at every token, with
one cache. A head mask likewise multiplies what a head has gathered.

Shapes are those of `tfx.models.gpt2.model`, with L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfx.core.cache import KVCache, positions_among
from tfx.core.creation import arange
from tfx.core.dropout import Dropout
from tfx.core.errors import ShapeError
from tfx.core.nn import attention_weights
from tfx.core.ops import concat
from tfx.core.tensor import Tensor


@dataclass(frozen=True)
class Shown:
    """What somebody wants to see of a pass: lists that it fills, None for what nobody asked for.

    Attributes:
        hidden_states: what goes into each layer (B, T, C), what comes out of the last, and that
            normed.
        attentions: each layer's weights (B, H, T, S) times the head mask, before any dropout.
    """

    hidden_states: list[Tensor] | None = None
    attentions: list[Tensor] | None = None

    def hidden(self, x: Tensor) -> None:
        if self.hidden_states is not None:
            self.hidden_states.append(x)


@dataclass(frozen=True)
class Pass:
    """What one pass through the model goes by, besides its input.

    Attributes:
        cache: what earlier passes have seen; takes in the new tokens.
        visible: bool (B, T), False where a text holds padding; None where none does. Only without
            a cache, which knows its own.
        dropout: while the model is trained.
        checkpoint: compute each block again for its gradient, instead of keeping what is in it.
        theta: what the scores of attention are multiplied by: 0-d, for each layer (L,), for each
            head (L, H), or for each head at each of the new tokens (T, L, H); None for 1.
        head_mask: what the output of each head is multiplied by (L, H), or in every layer (H,):
            0 for a head that is to be silent. None for 1.
        shown: what is to be seen of the pass; nothing together with `checkpoint`.

    Theta and mask are of any float dtype, and cast to that of what they multiply. Heads that were
    pruned have their places in them, and no effect.
    """

    cache: KVCache | None = None
    visible: Tensor | None = None
    dropout: Dropout | None = None
    checkpoint: bool = False
    theta: Tensor | None = None
    head_mask: Tensor | None = None
    shown: Shown = Shown()

    def check(self, layers: int, heads: int, tokens: int | None = None) -> None:
        """Raise `ShapeError` unless theta and the mask suit so many layers, heads, and new tokens,
        if these are known."""
        by_token = [] if tokens is None else [(tokens, layers, heads)]
        _check_shape("theta", self.theta, (), (layers,), (layers, heads), *by_token)
        _check_shape("head_mask", self.head_mask, (heads,), (layers, heads))

    def positions(self, ids: Tensor) -> Tensor:
        """Where each token stands in its text: (T,), or (B, T) where texts are padded."""
        if self.cache is not None:
            return self.cache.positions(ids.shape[1])
        if self.visible is not None:
            return positions_among(self.visible)
        return arange(ids.shape[1], ids.backend)

    def keys_and_values(
        self, layer: int, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """All there are to attend to (B, S, C), where the first query stands among them, and which
        of them are no padding (B, 1, 1, S)."""
        offset, visible = None, self.visible
        if self.cache is not None:
            k, v, offset = self.cache.extend(layer, k, v)
            visible = self.cache.visible
        return k, v, offset, None if visible is None else visible[:, None, None, :]

    def drop(self, x: Tensor, rate: float) -> Tensor:
        return x if self.dropout is None else self.dropout(x, rate)

    def drop_scores(self, q: Tensor, k: Tensor, heads: int, rate: float) -> Tensor | None:
        """What dropout multiplies the weights of attention by (B, H, T, S)."""
        if self.dropout is None:
            return None
        return self.dropout.factor((len(q), heads, q.shape[1], k.shape[1]), rate, q.dtype)

    def by_theta(self, layer: int, q: Tensor, heads: Sequence[int]) -> Tensor:
        """A layer's queries (B, T, C) times theta."""
        theta = self.theta
        if theta is None:
            return q
        if theta.ndim:
            theta = theta[:, layer] if theta.ndim == 3 else theta[layer]
        return _by_head(q, theta, heads)

    def by_head_mask(self, layer: int, y: Tensor, heads: Sequence[int]) -> Tensor:
        """What a layer's heads have gathered (B, T, C) times the mask."""
        mask = self.head_mask
        if mask is None:
            return y
        return _by_head(y, mask[layer] if mask.ndim == 2 else mask, heads)

    def show_attention(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        scale: float,
        offset: Tensor | None,
        visible: Tensor | None,
        heads: Sequence[int],
    ) -> None:
        """Compute a layer's weights by themselves, if somebody wants to see them."""
        if self.shown.attentions is None:
            return
        weights = attention_weights(q, k, scale, offset, visible, heads=len(heads))
        if (mask := self.head_mask) is not None:
            factors = _of_heads(mask[layer] if mask.ndim == 2 else mask, heads)
            weights = weights * factors.cast(weights.dtype)[:, None, None]
        self.shown.attentions.append(weights)


PLAIN = Pass()


def _by_head(x: Tensor, factors: Tensor, heads: Sequence[int]) -> Tensor:
    """x (B, T, C), in which heads lie side by side, times one number, one for each head (H,), or
    one for each at each token (T, H)."""
    if factors.ndim:
        width, each = x.shape[-1], _of_heads(factors, heads)[..., None]
        apart = (*each.shape[:-1], width // len(heads))
        factors = each.broadcast_to(apart).reshape(*each.shape[:-2], width)
    return x * factors.cast(x.dtype)


def _of_heads(factors: Tensor, heads: Sequence[int]) -> Tensor:
    """Those of the factors (..., H) that belong to heads that are there."""
    if len(heads) == factors.shape[-1]:
        return factors
    return concat([factors[..., head : head + 1] for head in heads], -1)


def _check_shape(name: str, x: Tensor | None, *shapes: tuple[int, ...]) -> None:
    if x is not None and x.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ShapeError(f"{name} has the shape {x.shape}; expected {expected}")
