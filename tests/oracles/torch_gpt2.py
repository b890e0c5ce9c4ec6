"""GPT-2 and its training in plain torch: modules, autograd and AdamW of torch, nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import pytest

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional


class Attention(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = torch.nn.Linear(width, 3 * width)
        self.c_proj = torch.nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = (
            part.view(b, t, self.heads, c // self.heads).transpose(1, 2)
            for part in self.c_attn(x).split(c, dim=2)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads)
        mask = torch.ones(t, t, dtype=torch.bool).tril()
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        return self.c_proj((weights @ v).transpose(1, 2).reshape(b, t, c))


class MLP(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = torch.nn.Linear(width, 4 * width)
        self.c_proj = torch.nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), MLP(width)

    def forward(self, x: Any) -> Any:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TorchGPT2(torch.nn.Module):  # type: ignore[misc]
    """Linear layers as torch has them, (outputs, inputs): GPT-2's matrices are transposed."""

    def __init__(self, vocab: int, positions: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(vocab, width)
        self.wpe = torch.nn.Embedding(positions, width)
        self.h = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = torch.nn.LayerNorm(width)
        self.double()

    def loss(self, ids: Any, targets: Any) -> Any:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.weight.T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def take(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Begin with GPT-2's weights, by its names."""
        for name, parameter in self.named_parameters():
            given = torch.tensor(weights[name], dtype=torch.float64)
            with torch.no_grad():
                parameter.copy_(given.T if _is_linear(name, parameter) else given)

    def given(self, gradients: bool = False) -> dict[str, npt.NDArray[Any]]:
        """The weights, or their gradients, as GPT-2 has them."""
        return {
            name: (x.T if _is_linear(name, x) else x).detach().numpy()
            for name, parameter in self.named_parameters()
            for x in [parameter.grad if gradients else parameter]
        }


def _is_linear(name: str, parameter: Any) -> bool:
    return parameter.ndim == 2 and ".c_" in name


def _clip(model: TorchGPT2, most: float) -> float:
    """Scale the gradient to a norm of at most so much; torch's own would add 1e-6 to the norm."""
    gradients = [p.grad for p in model.parameters()]
    norm = math.sqrt(sum((g * g).sum().item() for g in gradients))
    for g in gradients:
        g *= min(1.0, most / norm)
    return norm


def train(
    model: TorchGPT2,
    steps: Sequence[Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]],
    rates: Sequence[float],
    decay: float,
    clip: float,
) -> tuple[list[float], list[float]]:
    """Train as nanoGPT does, each step on several batches; losses, and norms before clipping."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for batches, rate in zip(steps, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = sum(model.loss(*map(torch.tensor, batch)) for batch in batches) / len(batches)
        loss.backward()
        norms.append(_clip(model, clip))
        losses.append(loss.item())
        optimizer.step()
    return losses, norms
