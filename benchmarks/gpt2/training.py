"""Training steps on random tokens: forward, backward, clipping and AdamW; tokens a second.

Everybody has the same random GPT-2 in float32 without dropout and the same batches, and their
losses must agree. Plain torch has torch's own AdamW, as it comes and with `fused=True`.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contest import Peer, Round, run
from random_gpt2 import SIZES, add_size, random_weights, transformers_model
from tfx_peers import KERNELS, peer

SPREAD = 0.02
BATCHES = {"124M": (4, 256), "1M": (16, 128), "tiny": (16, 128)}
SEED = 0
LR, BETAS, DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0


def corpus(args: argparse.Namespace) -> Any:
    """Token ids to learn from."""
    length = 64 * BATCHES[args.size][1]
    return np.random.default_rng(0).integers(0, SIZES[args.size]["vocab_size"], length)


def timed(args: argparse.Namespace, step: Any) -> Round:
    """A round: `step` takes the number of a step and returns its loss."""
    rows, length = BATCHES[args.size]
    done = 0

    def go() -> tuple[float, list[float]]:
        nonlocal done
        start = time.perf_counter()
        losses = [float(step(done + i)) for i in range(args.steps)]
        seconds = time.perf_counter() - start
        done += args.steps
        return args.steps * rows * length / seconds, losses

    return go


def plain_torch(fused: bool | None, args: argparse.Namespace, *, compiled: bool = False) -> Round:
    import torch
    from plain_torch import GPT2

    model = GPT2(**SIZES[args.size])
    model.take(random_weights(args.size, SPREAD))
    return torch_steps(args, model, torch.compile(model) if compiled else model, fused)


def transformers_by_torch(fused: bool | None, args: argparse.Namespace) -> Round:
    import torch.nn.functional as F

    model = transformers_model(args.size, SPREAD)  # evaluating: without dropout

    def loss(ids: Any, targets: Any) -> Any:
        return F.cross_entropy(model(ids, use_cache=False).logits.flatten(0, 1), targets.flatten())

    return torch_steps(args, model, loss, fused)


def torch_steps(args: argparse.Namespace, model: Any, loss_of: Any, fused: bool | None) -> Round:
    """Steps of a module of torch's, whose loss takes ids and targets."""
    import torch

    from tfx.models.gpt2.data import Batches

    rows, length = BATCHES[args.size]
    batches = Batches(corpus(args), length, rows, SEED)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=fused)
    device = matrices[0].device

    def step(number: int) -> float:
        ids, targets = (torch.from_numpy(part.copy()).to(device) for part in batches[number])
        loss = loss_of(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(loss.item())

    return timed(args, step)


def tfx(backend: str, args: argparse.Namespace) -> Round:
    """Steps as `tfx train` takes them."""
    import tfx
    from tfx.core.dtypes import DType
    from tfx.core.optim import TrainState
    from tfx.core.parameters import Parameters
    from tfx.models.gpt2.data import Corpus
    from tfx.models.gpt2.model import Config
    from tfx.models.gpt2.options import Options
    from tfx.models.gpt2.training import step_of
    from tfx.models.gpt2.training_run import Run

    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = Config(**SIZES[args.size], **none, eos_token_id=None)
    rows, length = BATCHES[args.size]
    options = Options(
        batch_size=rows,
        block_size=length,
        seed=SEED,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=DECAY,
        grad_clip=CLIP,
    )
    params = Parameters.from_host(
        random_weights(args.size, SPREAD), tfx.backend(backend), DType.float32
    )
    ids = corpus(args)
    state = TrainState.start(params)
    run = Run(options, config, None, Path(), Corpus(ids, ids[:0]), state)
    advance = step_of(run, np.full((args.rounds + 1) * args.steps, LR))

    def step(number: int) -> float:
        run.state, loss, _ = advance(run.state, number)
        return float(loss.item())

    return timed(args, step)


PEERS = {
    "plain torch": Peer(partial(plain_torch, None), ("torch",)),
    "plain torch, fused AdamW": Peer(partial(plain_torch, True), ("torch",)),
    "plain torch, fused AdamW, compiled": Peer(
        partial(plain_torch, True, compiled=True), ("torch",)
    ),
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
