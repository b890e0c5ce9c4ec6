"""microGPT in plain torch: modules' functions, autograd, and torch's own fused Adam; with --compile
by `torch.compile`, once for documents of any length, and its compiling left out of the time."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from task import (
    ADAM_EPSILON,
    BETA1,
    BETA2,
    EPSILON,
    HEAD_SIZE,
    LEARNING_RATE,
    N_EMBD,
    N_HEAD,
    Task,
    arguments,
    report,
)
from torch import Tensor

WARM = 20
"""Documents to compile for, of many lengths."""


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (N_EMBD,), eps=EPSILON)


def split_heads(x: Tensor) -> Tensor:
    return x.view(-1, N_HEAD, HEAD_SIZE).transpose(0, 1)


def loss_of(p: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    n = len(inputs)
    x = rms_norm(F.embedding(inputs, p["wte"]) + p["wpe"][:n])
    normed = rms_norm(x)
    q = split_heads(F.linear(normed, p["attn_wq"]))
    k = split_heads(F.linear(normed, p["attn_wk"]))
    v = split_heads(F.linear(normed, p["attn_wv"]))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = F.linear(mixed.transpose(0, 1).reshape(n, N_EMBD), p["attn_wo"]) + x
    hidden = F.relu(F.linear(rms_norm(x), p["mlp_fc1"]))
    x = F.linear(hidden, p["mlp_fc2"]) + x
    return F.cross_entropy(F.linear(x, p["lm_head"]), targets)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, help="torch's own choice where left out")
    parser.add_argument("--compile", action="store_true", help="the loss by torch.compile")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    task = Task(args.data, args.steps)
    parameters = {
        name: torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        for name, rows in task.parameters.items()
    }
    optimizer = torch.optim.Adam(
        parameters.values(), LEARNING_RATE, (BETA1, BETA2), ADAM_EPSILON, fused=True
    )

    loss_by = torch.compile(loss_of, dynamic=True) if args.compile else loss_of
    for step in range(WARM if args.compile else 0):
        tokens = torch.tensor(task.tokens(step))
        loss_by(parameters, tokens[:-1], tokens[1:]).backward()

    losses = []
    start = time.perf_counter()
    for step in range(task.steps):
        tokens = torch.tensor(task.tokens(step))
        loss = loss_by(parameters, tokens[:-1], tokens[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = task.learning_rate(step)
        optimizer.step()
        losses.append(loss.item())
    train_s = time.perf_counter() - start
    report(
        "torch compiled" if args.compile else "torch eager",
        train_s,
        losses,
        dtype="float64",
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
