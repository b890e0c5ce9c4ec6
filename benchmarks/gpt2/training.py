"""Training steps on random tokens: forward, backward, clipping and AdamW; tokens a second.

Everybody has the same random GPT-2 in float32 without dropout and the same batches, and their
losses must agree. Plain torch has torch's own AdamW, as it comes and with `fused=True`.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
from contest import Peer, Round, run
from random_gpt2 import SIZES, add_size, random_weights
from tfx_peers import KERNELS, peer

SPREAD = 0.02
BATCHES = {"124M": (4, 256), "1M": (16, 128), "tiny": (16, 128)}
LR, BETAS, DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0


def batch(args: argparse.Namespace, number: int) -> tuple[Any, Any]:
    """Token ids and their successors, (rows, length) each."""
    rows, length = BATCHES[args.size]
    rng = np.random.default_rng(number)
    ids = rng.integers(0, SIZES[args.size]["vocab_size"], (rows, length + 1))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def timed(args: argparse.Namespace, step: Any) -> Round:
    """A round: `step` takes a batch and returns the loss as a number."""
    done = 0

    def go() -> tuple[float, list[float]]:
        nonlocal done
        batches = [batch(args, done + i) for i in range(args.steps)]
        done += args.steps
        start = time.perf_counter()
        losses = [step(ids, targets) for ids, targets in batches]
        seconds = time.perf_counter() - start
        return sum(ids.size for ids, _ in batches) / seconds, losses

    return go


def plain_torch(fused: bool | None, args: argparse.Namespace) -> Round:
    import torch
    from plain_torch import GPT2

    model = GPT2(**SIZES[args.size])
    model.take(random_weights(args.size, SPREAD))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=fused)

    def step(ids: Any, targets: Any) -> float:
        loss = model(torch.from_numpy(ids), torch.from_numpy(targets))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(loss.item())

    return timed(args, step)


def tfx(backend: str, args: argparse.Namespace) -> Round:
    import tfx
    from tfx.core.autograd import value_and_grad
    from tfx.core.creation import tensor
    from tfx.core.dtypes import DType
    from tfx.core.optim import AdamW, TrainState
    from tfx.core.parameters import Parameters
    from tfx.models.gpt2.model import Config, loss

    config = Config(**SIZES[args.size], eos_token_id=None)
    B = tfx.backend(backend)
    params = Parameters.from_host(random_weights(args.size, SPREAD), B, DType.float32)
    optimizer = AdamW(
        np.full((args.rounds + 1) * args.steps, LR),
        params,
        beta1=BETAS[0],
        beta2=BETAS[1],
        decay={name: DECAY * (len(shape) == 2) for name, shape in params.shapes.items()},
        grad_clip=CLIP,
    )
    differentiate = value_and_grad(lambda p, ids, targets: loss(p, config, ids, targets))
    state = TrainState.start(params)

    def step(ids: Any, targets: Any) -> float:
        nonlocal state
        value, grads = differentiate(state.params, tensor(ids, B), tensor(targets, B))
        state, _ = optimizer.update(state, value, state.params.flatten(grads))
        return float(value.item())

    return timed(args, step)


PEERS = {
    "plain torch": Peer(partial(plain_torch, None), ("torch",)),
    "plain torch, fused AdamW": Peer(partial(plain_torch, True), ("torch",)),
    "tfx numpy": peer(tfx, "numpy"),
    KERNELS: peer(tfx, "numpy", kernels=True),
    "tfx torch": peer(tfx, "torch"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_size(parser)
    parser.add_argument("--steps", type=int, default=1, help="in a round (default 1)")
    run(parser, PEERS, list(PEERS)[:2], "tokens/s", tolerance=1e-2)


if __name__ == "__main__":
    main()
