"""microGPT in JAX: one jitted function a step, documents padded so that it compiles once.

The parameters are one vector and no loss is read before the end, which is what JAX likes best.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
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

jax.config.update("jax_enable_x64", True)

Parameters = dict[str, jax.Array]
State = tuple[jax.Array, jax.Array, jax.Array]  # parameters and Adam's two moments, each flat
CAUSAL = np.tril(np.ones((BLOCK_SIZE, BLOCK_SIZE), bool))


def rms_norm(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON)


def split_heads(x: jax.Array) -> jax.Array:
    return x.reshape(BLOCK_SIZE, N_HEAD, HEAD_SIZE).transpose(1, 0, 2)


def loss_of(p: Parameters, inputs: jax.Array, targets: jax.Array, n: int) -> jax.Array:
    """The mean loss over the first `n` positions; causality hides the padding from them."""
    x = rms_norm(p["wte"][inputs] + p["wpe"])
    normed = rms_norm(x)
    q, k, v = (split_heads(normed @ p[name].T) for name in ("attn_wq", "attn_wk", "attn_wv"))
    scores = q @ k.transpose(0, 2, 1) / HEAD_SIZE**0.5
    shares = jax.nn.softmax(jnp.where(CAUSAL, scores, -jnp.inf))
    x = (shares @ v).transpose(1, 0, 2).reshape(BLOCK_SIZE, N_EMBD) @ p["attn_wo"].T + x
    x = jax.nn.relu(rms_norm(x) @ p["mlp_fc1"].T) @ p["mlp_fc2"].T + x
    surprise = -jax.nn.log_softmax(x @ p["lm_head"].T)[jnp.arange(BLOCK_SIZE), targets]
    return jnp.where(jnp.arange(BLOCK_SIZE) < n, surprise, 0).sum() / n


def training_step(task: Task, unravel: Callable[[jax.Array], Parameters]) -> Any:
    """The jitted step: (state, padded tokens, positions, step) to (state, loss)."""

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: State, tokens: jax.Array, n: int, step: int) -> tuple[State, jax.Array]:
        flat, m, v = state
        loss, grads = jax.value_and_grad(
            lambda flat: loss_of(unravel(flat), tokens[:-1], tokens[1:], n)
        )(flat)
        m = BETA1 * m + (1 - BETA1) * grads
        v = BETA2 * v + (1 - BETA2) * grads * grads
        m_hat = m / (1 - BETA1 ** (step + 1.0))
        v_hat = v / (1 - BETA2 ** (step + 1.0))
        flat = flat - task.learning_rate(step) * m_hat / (jnp.sqrt(v_hat) + ADAM_EPSILON)
        return (flat, m, v), loss

    return train_step


def padded(task: Task, step: int) -> tuple[np.ndarray[Any, Any], int]:
    tokens = task.tokens(step)
    return np.array(tokens + [0] * (BLOCK_SIZE + 1 - len(tokens))), len(tokens) - 1


def main() -> None:
    args = arguments(__doc__).parse_args()
    task = Task(args.data, args.steps)
    first, unravel = ravel_pytree({name: jnp.array(x) for name, x in task.parameters.items()})
    train_step = training_step(task, unravel)

    def new_state() -> State:
        return jnp.copy(first), jnp.zeros_like(first), jnp.zeros_like(first)

    start = time.perf_counter()
    jax.block_until_ready(train_step(new_state(), *padded(task, 0), 0))
    compile_s = time.perf_counter() - start

    state, losses = new_state(), []
    start = time.perf_counter()
    for step in range(task.steps):
        state, loss = train_step(state, *padded(task, step), step)
        losses.append(loss)
    final = [float(loss) for loss in jax.device_get(losses)]
    train_s = time.perf_counter() - start
    report("JAX jit", train_s, final, dtype="float64", compile_s=compile_s)


if __name__ == "__main__":
    main()
