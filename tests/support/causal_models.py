"""Small causal models to generate with: GPT-2, its plain twin, and transformers' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from optional import torch

from tfx.core.backend import Backend, HostArray
from tfx.core.cache import KVCache
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.parameters import borrowed
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config

Weights = Mapping[str, HostArray]


def random_weights(
    seed: int = 0, vocabulary: int = 61, positions: int = 64, width: int = 32, layers: int = 2
) -> dict[str, HostArray]:
    """A GPT-2's tensors under their own names, large enough that every one of them matters."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> HostArray:
        return rng.normal(0, 0.4, shape)

    weights = {"wte.weight": normal(vocabulary, width), "wpe.weight": 2 * normal(positions, width)}
    for i in range(layers):
        for name, shape in {
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (width, 4 * width),
            "mlp.c_proj": (4 * width, width),
        }.items():
            weights[f"h.{i}.{name}.weight"] = normal(*shape)
            weights[f"h.{i}.{name}.bias"] = normal(shape[1])
    for name in [f"h.{i}.ln_{j}" for i in range(layers) for j in (1, 2)] + ["ln_f"]:
        weights[f"{name}.weight"] = 1 + normal(width)
        weights[f"{name}.bias"] = normal(width)
    weights["ln_f.bias"] *= 0.1  # which would say the same everywhere
    return weights


@dataclass(frozen=True, eq=False)
class TinyGPT(LanguageModel):
    """The real model, which remembers the shapes of the ids it read, call by call."""

    read: list[tuple[int, ...]] = field(default_factory=list)

    @classmethod
    def of(
        cls, weights: Weights, heads: int, backend: Backend, dtype: DType = DType.float32
    ) -> Self:
        vocabulary, width = weights["wte.weight"].shape
        config = Config(
            vocab_size=vocabulary,
            n_positions=len(weights["wpe.weight"]),
            n_embd=width,
            n_layer=sum(name.endswith("ln_1.bias") for name in weights),
            n_head=heads,
        )
        return cls(config, borrowed(weights, backend, dtype))

    def logits(self, ids: Tensor, cache: KVCache, theta: Tensor | None = None) -> Tensor:
        self.read.append(ids.shape)
        return super().logits(ids, cache, theta)

    def each_logits(self, ids: Tensor, cache: KVCache) -> Tensor:
        self.read.append(ids.shape)
        return super().each_logits(ids, cache)


def plain_logits(
    w: Weights, heads: int, ids: Sequence[int], theta: npt.ArrayLike = 1.0
) -> npt.NDArray[np.float64]:
    """What the same GPT-2 gives behind one text, in float64: no cache, no batch, no tensors.

    Theta broadcasts with (layers, heads, tokens): each token may have been read by another.
    """
    depth = sum(name.endswith("ln_1.bias") for name in w)
    each_theta = np.broadcast_to(np.asarray(theta, np.float64), (depth, heads, len(ids)))

    def norm(name: str, x: HostArray) -> HostArray:
        off = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((off**2).mean(-1, keepdims=True) + 1e-5)
        return np.asarray(off / scale * w[f"{name}.weight"] + w[f"{name}.bias"])

    def dense(name: str, x: HostArray) -> HostArray:
        return np.asarray(x @ w[f"{name}.weight"] + w[f"{name}.bias"])

    x = w["wte.weight"][list(ids)] + w["wpe.weight"][: len(ids)]
    future = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    layer = 0
    while f"h.{layer}.ln_1.weight" in w:
        q, k, v = (
            y.reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for y in np.split(dense(f"h.{layer}.attn.c_attn", norm(f"h.{layer}.ln_1", x)), 3, -1)
        )
        scores = each_theta[layer][..., None] * (q @ k.transpose(0, 2, 1)) / np.sqrt(q.shape[-1])
        scores = np.exp(scores + future)
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        joined = mixed.transpose(1, 0, 2).reshape(len(ids), -1)
        x = x + dense(f"h.{layer}.attn.c_proj", joined)
        h = dense(f"h.{layer}.mlp.c_fc", norm(f"h.{layer}.ln_2", x))
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + dense(f"h.{layer}.mlp.c_proj", h)
        layer += 1
    return np.asarray(norm("ln_f", x)[-1] @ w["wte.weight"].T, np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: in models this small, more wait for each other."""
    before = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)


# ---- transformers -------------------------------------------------------------------------------


def transformers_gpt2(transformers: Any, seed: int = 0, **config: Any) -> Any:
    """A small GPT2LMHeadModel with random weights that do not repeat one token for ever."""
    sizes = {"vocab_size": 97, "n_positions": 256, "n_embd": 48, "n_layer": 3, "n_head": 4}
    ends = {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.4}
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**(sizes | ends | config))).eval()


def transformers_weights(model: Any) -> dict[str, HostArray]:
    """The tensors of a GPT2LMHeadModel under the names of a checkpoint."""
    named = model.named_parameters()
    return {name.removeprefix("transformer."): x.numpy(force=True) for name, x in named}


class TransformersModel:
    """A GPT2LMHeadModel behind the interface of a causal model: transformers computes the logits,
    tfx chooses the tokens."""

    def __init__(self, model: Any, backend: Backend) -> None:
        self.model = model
        self.backend = backend
        self.vocab_size = model.config.vocab_size
        self.max_positions = model.config.n_positions

    def start(self, batch: int, capacity: int) -> TransformersCache:
        return TransformersCache(batch)

    def logits(self, ids: Tensor, cache: TransformersCache) -> Tensor:
        until = cache.length + ids.shape[1]
        positions = torch.arange(until)[None] - cache.padding[:, None]
        with torch.no_grad():
            out = self.model(
                input_ids=torch.from_numpy(ids.numpy()),
                attention_mask=(positions >= 0).long(),
                position_ids=positions[:, cache.length :].clamp(min=0),
                past_key_values=cache.past,
                use_cache=True,
            )
        cache.past, cache.length = out.past_key_values, until
        return tensor(out.logits[:, -1].numpy(), self.backend)


class TransformersCache:
    def __init__(self, batch: int) -> None:
        self.past: Any = None
        self.length = 0
        self.padding = torch.zeros(batch, dtype=torch.long)

    def pad_left(self, counts: Sequence[int]) -> None:
        self.padding = torch.tensor(list(counts))

    def reorder(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(list(rows))
        self.past.batch_select_indices(chosen)
        self.padding = self.padding[chosen]
