"""GPT-2 as one would write it in plain torch: modules, `F.scaled_dot_product_attention`, a tied
head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Cache:
    """The keys and values of one layer."""

    def __init__(self, heads: int, room: int, size: int) -> None:
        self.keys, self.values = torch.empty(2, 1, heads, room, size).unbind()
        self.length = 0

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in new ones; all there are."""
        start, self.length = self.length, self.length + k.shape[2]
        self.keys[:, :, start : self.length] = k
        self.values[:, :, start : self.length] = v
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.attn_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.mlp_proj = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        batch, count, width = x.shape
        qkv = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q, k, v = (y.view(batch, count, self.heads, -1).transpose(1, 2) for y in qkv)
        if cache is not None:
            k, v = cache.extend(k, v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=count > 1)
        x = x + self.attn_proj(y.transpose(1, 2).contiguous().view(batch, count, width))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """The sizes go by the names of the configuration."""

    def __init__(
        self, vocab_size: int, n_positions: int, n_embd: int, n_layer: int, n_head: int
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(n_positions, n_embd)
        self.h = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def start(self, room: int) -> list[Cache]:
        """Empty caches for a text of so many tokens."""
        blocks = [block for block in self.h if isinstance(block, Block)]
        size = self.wte.embedding_dim // blocks[0].heads
        return [Cache(block.heads, room, size) for block in blocks]

    def next(self, ids: torch.Tensor, caches: list[Cache]) -> torch.Tensor:
        """Scores of what follows the last of the ids (1, T) after what was read before; a prompt is
        read at once, and then token by token."""
        start = caches[0].length
        x = self.wte(ids) + self.wpe(torch.arange(start, start + ids.shape[1]))
        for block, cache in zip(self.h, caches, strict=True):
            x = block(x, cache)
        return F.linear(self.ln_f(x[:, -1]), self.wte.weight)

    def take(self, weights: dict[str, Any]) -> None:
        """Copy weights by the names of GPT-2's checkpoint, whose matrices are transposed."""
        own = {"attn.c_attn": "c_attn", "attn.c_proj": "attn_proj"}
        own |= {"mlp.c_fc": "c_fc", "mlp.c_proj": "mlp_proj"}
        state = {}
        for name, array in weights.items():
            value = torch.from_numpy(array)
            for theirs, mine in own.items():
                if theirs in name:
                    name = name.replace(theirs, mine)
                    value = value.t()
            state[name] = value
        self.load_state_dict(state)
