"""microGPT's training step written by hand for NumPy: forward, backward and Adam.

All positions of a document at once, no autograd, no preallocated buffers: what a careful
person writes first. The parameters are views into one vector, so that Adam is one update.
"""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
from task import (
    ADAM_EPSILON,
    BETA1,
    BETA2,
    BLOCK_SIZE,
    EPSILON,
    HEAD_SIZE,
    N_EMBD,
    N_HEAD,
    Task,
    arguments,
    report,
)

Array = npt.NDArray[np.float64]
Parameters = dict[str, Array]

SCALE = 1 / math.sqrt(HEAD_SIZE)
FUTURE = np.triu(np.full((BLOCK_SIZE, BLOCK_SIZE), -np.inf), k=1)


def views(flat: Array, task: Task) -> Parameters:
    """The parameters by name, each a view into `flat`."""
    parameters, start = {}, 0
    for name, rows in task.parameters.items():
        shape = len(rows), len(rows[0])
        parameters[name] = flat[start : start + shape[0] * shape[1]].reshape(shape)
        start += shape[0] * shape[1]
    return parameters


def rms_norm(x: Array) -> tuple[Array, Array]:
    scale = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON)
    return x * scale, scale


def rms_norm_backward(dy: Array, y: Array, scale: Array) -> Array:
    dx: Array = (dy - y * (dy * y).mean(axis=-1, keepdims=True)) * scale
    return dx


def split_heads(x: Array) -> Array:
    return x.reshape(-1, N_HEAD, HEAD_SIZE).transpose(1, 0, 2)


def merge_heads(x: Array) -> Array:
    return x.transpose(1, 0, 2).reshape(-1, N_EMBD)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = e / e.sum(axis=-1, keepdims=True)
    return shares


def loss_and_gradients(p: Parameters, g: Parameters, tokens: list[int]) -> float:
    """The mean loss over the positions; fills `g`."""
    inputs, targets = tokens[:-1], tokens[1:]
    n = len(inputs)
    every = np.arange(n)

    embedded = p["wte"][inputs] + p["wpe"][:n]
    x0, scale0 = rms_norm(embedded)
    x1, scale1 = rms_norm(x0)
    q = split_heads(x1 @ p["attn_wq"].T)
    k = split_heads(x1 @ p["attn_wk"].T)
    v = split_heads(x1 @ p["attn_wv"].T)
    shares = softmax(q @ k.transpose(0, 2, 1) * SCALE + FUTURE[:n, :n])
    mixed = merge_heads(shares @ v)
    x2 = mixed @ p["attn_wo"].T + x0
    x3, scale3 = rms_norm(x2)
    hidden = np.maximum(x3 @ p["mlp_fc1"].T, 0)
    x4 = hidden @ p["mlp_fc2"].T + x2
    probabilities = softmax(x4 @ p["lm_head"].T)
    loss = -np.log(probabilities[every, targets]).mean()

    dlogits = probabilities
    dlogits[every, targets] -= 1
    dlogits /= n
    g["lm_head"][:] = dlogits.T @ x4
    dx4 = dlogits @ p["lm_head"]
    g["mlp_fc2"][:] = dx4.T @ hidden
    dhidden = (dx4 @ p["mlp_fc2"]) * (hidden > 0)
    g["mlp_fc1"][:] = dhidden.T @ x3
    dx2 = dx4 + rms_norm_backward(dhidden @ p["mlp_fc1"], x3, scale3)
    g["attn_wo"][:] = dx2.T @ mixed
    dmixed = split_heads(dx2 @ p["attn_wo"])
    dv = merge_heads(shares.transpose(0, 2, 1) @ dmixed)
    dshares = dmixed @ v.transpose(0, 2, 1)
    dscores = shares * (dshares - (dshares * shares).sum(axis=-1, keepdims=True)) * SCALE
    dq = merge_heads(dscores @ k)
    dk = merge_heads(dscores.transpose(0, 2, 1) @ q)
    g["attn_wq"][:] = dq.T @ x1
    g["attn_wk"][:] = dk.T @ x1
    g["attn_wv"][:] = dv.T @ x1
    dx1 = dq @ p["attn_wq"] + dk @ p["attn_wk"] + dv @ p["attn_wv"]
    dx0 = dx2 + rms_norm_backward(dx1, x1, scale1)
    dembedded = rms_norm_backward(dx0, x0, scale0)
    g["wte"][:] = 0
    np.add.at(g["wte"], inputs, dembedded)
    g["wpe"][:n] = dembedded
    g["wpe"][n:] = 0
    return float(loss)


def main() -> None:
    args = arguments(__doc__).parse_args()
    task = Task(args.data, args.steps)
    flat = np.concatenate([np.ravel(rows) for rows in task.parameters.values()])
    grads, m, v = np.zeros_like(flat), np.zeros_like(flat), np.zeros_like(flat)
    parameters, gradients = views(flat, task), views(grads, task)

    losses = []
    start = time.perf_counter()
    for step in range(task.steps):
        losses.append(loss_and_gradients(parameters, gradients, task.tokens(step)))
        m = BETA1 * m + (1 - BETA1) * grads
        v = BETA2 * v + (1 - BETA2) * grads * grads
        m_hat = m / (1 - BETA1 ** (step + 1))
        v_hat = v / (1 - BETA2 ** (step + 1))
        flat -= task.learning_rate(step) * m_hat / (np.sqrt(v_hat) + ADAM_EPSILON)
    train_s = time.perf_counter() - start
    report("hand-written NumPy", train_s, losses, dtype="float64")


if __name__ == "__main__":
    main()
