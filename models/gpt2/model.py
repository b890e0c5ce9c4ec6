"""GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Blocks of causal self-attention and a perceptron, each behind a layer norm and added to what came
in; before them a sum of token and position embeddings, behind them a head, which as a rule is the
token embedding transposed. Parameters bear the names of OpenAI's checkpoint, whose matrices are
(inputs, outputs).

Shapes: B texts of T new tokens, C channels, H heads, S positions to attend to, V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfx.core.checkpointing import checkpointed
from tfx.core.nn import Activation, attention, cross_entropy, embedding, layer_norm, linear
from tfx.core.ops import split
from tfx.core.tensor import Tensor
from tfx.models.gpt2.passing import PLAIN, Pass

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Config:
    """Names, meanings and defaults are those of transformers' `GPT2Config`."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: Activation = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | tuple[int, ...] | None = 50256
    pruned_heads: tuple[tuple[int, tuple[int, ...]], ...] = ()  # (layer, heads it has lost)

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def inner(self) -> int:
        """The width of the MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a text, of those that the model knows.

        >>> Config().eos_ids, Config(eos_token_id=(3, 60000)).eos_ids, Config(vocab_size=9).eos_ids
        ((50256,), (3,), ())
        """
        ends = self.eos_token_id
        several = ends if isinstance(ends, tuple) else () if ends is None else (ends,)
        return tuple(token for token in several if token < self.vocab_size)

    def heads(self, layer: int) -> Sequence[int]:
        """The numbers of a layer's heads, of those it was made with."""
        pruned = dict(self.pruned_heads).get(layer, ())
        return [head for head in range(self.n_head) if head not in pruned]

    def width(self, layer: int) -> int:
        """How many channels the heads of a layer have between them."""
        return len(self.heads(layer)) * self.head_size

    def attention_scale(self, layer: int) -> float:
        """What the scores of a layer are multiplied by."""
        scale = self.head_size**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter by its name in a checkpoint; matrices are (inputs, outputs).

        >>> list(Config(n_layer=0).shapes())
        ['wte.weight', 'wpe.weight', 'ln_f.weight', 'ln_f.bias']
        """
        c = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.vocab_size, c),
            "wpe.weight": (self.n_positions, c),
        }
        for i in range(self.n_layer):
            width = self.width(i)
            for name, inputs, outputs in (
                ("attn.c_attn", c, 3 * width),
                ("attn.c_proj", width, c),
                ("mlp.c_fc", c, self.inner),
                ("mlp.c_proj", self.inner, c),
            ):
                shapes[f"h.{i}.{name}.weight"] = (inputs, outputs)
                shapes[f"h.{i}.{name}.bias"] = (outputs,)
            for name in ("ln_1", "ln_2"):
                shapes |= {f"h.{i}.{name}.weight": (c,), f"h.{i}.{name}.bias": (c,)}
        shapes |= {"ln_f.weight": (c,), "ln_f.bias": (c,)}
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, c)
        return shapes


def logits(p: Params, config: Config, ids: Tensor, through: Pass = PLAIN) -> Tensor:
    """Scores (B, T, V) of the token after each of the ids (B, T)."""
    return head(p, trunk(p, config, ids, through))


def loss(p: Params, config: Config, ids: Tensor, targets: Tensor, through: Pass = PLAIN) -> Tensor:
    """Mean cross-entropy of the targets (B, T) that follow the ids (B, T)."""
    return cross_entropy(logits(p, config, ids, through), targets).mean()


def trunk(p: Params, config: Config, ids: Tensor, through: Pass = PLAIN) -> Tensor:
    """The last hidden states (B, T, C)."""
    through.check(config.n_layer, config.n_head, ids.shape[1])
    x = embedding(p["wte.weight"], ids) + embedding(p["wpe.weight"], through.positions(ids))
    x = through.drop(x, config.embd_pdrop)  # (B, T, C)
    layer = checkpointed(block) if through.checkpoint else block
    for i in range(config.n_layer):
        through.shown.hidden(x)
        x = layer(p, config, i, x, through)
    through.shown.hidden(x)
    x = norm(p, config, "ln_f", x)
    through.shown.hidden(x)
    if through.cache is not None:
        through.cache.advance(ids.shape[1])
    return x


def head(p: Params, x: Tensor) -> Tensor:
    """Hidden states (..., C) to scores (..., V)."""
    return linear(x, p.get("lm_head.weight", p["wte.weight"]), outputs_first=True)


def block(p: Params, config: Config, i: int, x: Tensor, through: Pass) -> Tensor:
    """Layer i: (B, T, C) -> (B, T, C)."""
    y = attend(p, config, i, norm(p, config, f"h.{i}.ln_1", x), through)
    x = added(p, config, f"h.{i}.attn.c_proj", y, x, through)
    y = norm(p, config, f"h.{i}.ln_2", x)
    y = dense(p, f"h.{i}.mlp.c_fc", y, config.activation_function)  # (B, T, inner)
    return added(p, config, f"h.{i}.mlp.c_proj", y, x, through)


def attend(p: Params, config: Config, i: int, x: Tensor, through: Pass) -> Tensor:
    """Causal self-attention, the heads side by side: (B, T, C) -> (B, T, C), to be projected."""
    heads = config.heads(i)
    q, k, v = split(dense(p, f"h.{i}.attn.c_attn", x), 3)  # (B, T, C) each
    k, v, offset, visible = through.keys_and_values(i, k, v)  # (B, S, C)
    kept = through.drop_scores(q, k, len(heads), config.attn_pdrop)
    if config.reorder_and_upcast_attn:
        q, k, v = q.widened(), k.widened(), v.widened()
    q = through.by_theta(i, q, heads)
    scale = config.attention_scale(i)
    y = attention(q, k, v, scale, offset, visible, kept, heads=len(heads))  # (B, T, C)
    y = through.by_head_mask(i, y, heads)
    through.show_attention(i, q, k, scale, offset, visible, heads)
    return y.cast(x.dtype)


def added(p: Params, config: Config, name: str, y: Tensor, x: Tensor, through: Pass) -> Tensor:
    """What came into a block (..., C), and what goes out of `y` to be added to it."""
    if through.dropout is None:
        return dense(p, name, y, residual=x)
    return x + through.drop(dense(p, name, y), config.resid_pdrop)


def dense(
    p: Params,
    name: str,
    x: Tensor,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    w, b = p[f"{name}.weight"], p[f"{name}.bias"]
    return linear(x, w, b, residual, activation=activation)


def norm(p: Params, config: Config, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"], eps=config.layer_norm_epsilon)
