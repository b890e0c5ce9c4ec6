"""GPT-2 in a loop of NumPy calls and nothing else, and the rate at which NumPy reads a matrix."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

Array = Any


def norm(x: Array, gain: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * gain + bias


def gelu(x: Array) -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + np.tanh(inner))


def tokens(p: dict[str, Array], heads: int, prompt: list[int], count: int) -> Iterator[int]:
    """The likeliest tokens after a prompt, float32 throughout."""
    layers = sum(name.endswith("ln_1.weight") for name in p)
    width, room = p["wte.weight"].shape[1], len(prompt) + count
    size = width // heads
    keys = np.empty((layers, heads, room, size), np.float32)
    values = np.empty_like(keys)
    done, ids = 0, np.array(prompt)
    for _ in range(count):
        new, end = len(ids), done + len(ids)
        x = p["wte.weight"][ids] + p["wpe.weight"][done:end]
        future = np.arange(end) > np.arange(done, end)[:, None]
        for i in range(layers):
            h = f"h.{i}."
            y = norm(x, p[h + "ln_1.weight"], p[h + "ln_1.bias"])
            y = y @ p[h + "attn.c_attn.weight"] + p[h + "attn.c_attn.bias"]
            q, k, v = y.reshape(new, 3, heads, size).transpose(1, 2, 0, 3)
            keys[i, :, done:end], values[i, :, done:end] = k, v
            scores = q @ keys[i, :, :end].transpose(0, 2, 1) / np.float32(math.sqrt(size))
            scores = np.where(future, np.float32(-np.inf), scores)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            y = (shares @ values[i, :, :end]).transpose(1, 0, 2).reshape(new, width)
            x = x + y @ p[h + "attn.c_proj.weight"] + p[h + "attn.c_proj.bias"]
            y = norm(x, p[h + "ln_2.weight"], p[h + "ln_2.bias"])
            y = gelu(y @ p[h + "mlp.c_fc.weight"] + p[h + "mlp.c_fc.bias"])
            x = x + y @ p[h + "mlp.c_proj.weight"] + p[h + "mlp.c_proj.bias"]
        last = norm(x[-1], p["ln_f.weight"], p["ln_f.bias"])
        token = int((p["wte.weight"] @ last).argmax())
        yield token
        done, ids = end, np.array([token])


def bandwidth(read: int) -> Any:
    """A round that gives how often a second `read` bytes pass through `np.dot` of a row and a
    matrix that no cache holds, stored the faster way round."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((50304, 768), np.float32)
    wide = np.ascontiguousarray(matrix.T)
    row, column = rng.standard_normal(768, np.float32), np.empty(50304, np.float32)
    repeats = 10

    def seconds(left: Array, right: Array) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            np.dot(left, right, column)
        return (time.perf_counter() - start) / repeats

    def go() -> tuple[float, list[float]]:
        return matrix.nbytes / min(seconds(matrix, row), seconds(row, wide)) / read, []

    return go
