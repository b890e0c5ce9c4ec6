"""Calls of the fused ops that have to be refused: shapes and dtypes that do not go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfx.core import nn, quantized
from tfx.core.backend import Backend
from tfx.core.creation import full
from tfx.core.dropout import dropout_factor
from tfx.core.dtypes import DType
from tfx.core.generation.sampling import sample_token
from tfx.core.tensor import Tensor

F32 = DType.float32

Ones = Callable[..., Tensor]
"""`ones(2, 3, dtype="float64")`: a tensor of ones; of float32, unless it says otherwise."""


def ones_on(B: Backend) -> Ones:
    def ones(*shape: int, dtype: str = "float32") -> Tensor:
        return full(shape, True if dtype == "bool" else 1, B, dtype)

    return ones


def _adamw(*args: Any) -> Any:
    return nn.adamw_step(*args, beta1=0.9, beta2=0.99, eps=1e-8)


def _factor(step: Tensor, dtype: DType) -> Any:
    return dropout_factor(step, key=(1, 2), shape=(3,), rate=0.5, dtype=dtype)


WRONG_CALLS: dict[str, list[Callable[[Ones], Any]]] = {
    "linear": [
        lambda f: nn.linear(f(2, 3), f(2, 3)),
        lambda f: nn.linear(f(2, 3), f(3, 4), f(3)),
        lambda f: nn.linear(f(2, 3), f(3, 4), f(4), f(3, 4)),
        lambda f: nn.linear(f(2, 3), f(3, 4, dtype="float64")),
        lambda f: nn.linear(f(), f(3, 4)),
    ],
    "gelu": [lambda f: nn.gelu(f(2, dtype="int64"))],
    "rms_norm": [
        lambda f: nn.rms_norm(f()),
        lambda f: nn.rms_norm(f(2, dtype="int64")),
        lambda f: nn.rms_norm(f(2, 3), f(2)),
        lambda f: nn.rms_norm(f(2, 3), f(3, dtype="float64")),
        lambda f: nn.rms_norm(f(2, 3), f(3, dtype="int64")),
    ],
    "layer_norm": [
        lambda f: nn.layer_norm(f(2, 3), f(2), f(3)),
        lambda f: nn.layer_norm(f(2, 3), f(3), f(2)),
        lambda f: nn.layer_norm(f(2, 3), f(3), f(3, dtype="float64")),
        lambda f: nn.layer_norm(f(2, 3, dtype="int64"), f(3), f(3)),
        lambda f: nn.layer_norm(f(), f(1), f(1)),
    ],
    "softmax": [
        lambda f: nn.softmax(f()),
        lambda f: nn.softmax(f(2, 0)),
        lambda f: nn.softmax(f(2, dtype="int64")),
        lambda f: nn.softmax(f(2, dtype="bool")),
    ],
    "attention": [
        lambda f: nn.attention(f(2, 3), f(2, 4), f(2, 4), 0.5),
        lambda f: nn.attention(f(2, 3), f(2, 3), f(3, 3), 0.5),
        lambda f: nn.attention(f(3, 2, 3), f(2, 2, 3), f(2, 2, 3), 0.5),
        lambda f: nn.attention(f(2, 3), f(2, 3, dtype="float64"), f(2, 3), 0.5),
        lambda f: nn.attention(f(2, 3), f(2, 3), f(2, 3, dtype="float64"), 0.5),
        lambda f: nn.attention(f(2, 3), f(2, 3), f(2, 3), 0.5, f(dtype="float32")),
        lambda f: nn.attention(f(2, 3), f(0, 3), f(0, 3), 0.5),
        lambda f: nn.attention(*(f(2, 3, dtype="int64"),) * 3, 1),
        lambda f: nn.attention(f(3), f(3), f(3), 0.5),
    ],
    "cross_entropy": [
        lambda f: nn.cross_entropy(f(2, 3), f(3, dtype="int64")),
        lambda f: nn.cross_entropy(f(2, 3), f(2)),
        lambda f: nn.cross_entropy(f(2, 3), f(2, dtype="bool")),
        lambda f: nn.cross_entropy(f(2, 3), f(2, dtype="uint8")),
        lambda f: nn.cross_entropy(f(2, 0), f(2, dtype="int64")),
        lambda f: nn.cross_entropy(f(2, 3, dtype="int64"), f(2, dtype="int64")),
        lambda f: nn.cross_entropy(f(), f(dtype="int64")),
    ],
    "embedding": [
        lambda f: nn.embedding(f(2, 3), f(2)),
        lambda f: nn.embedding(f(), f(2, dtype="int64")),
    ],
    "linear_q8": [
        lambda f: quantized.linear_q8(f(2, 4), f(3, 6, dtype="int8"), f(3, 2)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(3, 4)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(2, 2)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(3, 0)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(3)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="uint8"), f(3, 2)),
        lambda f: quantized.linear_q8(f(2, 12), f(3, 6, dtype="uint8"), f(3, 2)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6), f(3, 2)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(3, 2, dtype="int64")),
        lambda f: quantized.linear_q8(f(2, 6, dtype="int64"), f(3, 6, dtype="int8"), f(3, 2)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(3, 2), f(2)),
        lambda f: quantized.linear_q8(f(2, 6), f(3, 6, dtype="int8"), f(3, 2), f(3), f(3, 3)),
        lambda f: quantized.linear_q8(f(2, 6), f(2, 3, 6, dtype="int8"), f(2, 3, 2)),
    ],
    "linear_q4": [
        lambda f: quantized.linear_q4(f(2, 3), f(3, 3, dtype="uint8"), f(3, 3)),
        lambda f: quantized.linear_q4(f(2, 6), f(3, 3, dtype="uint8"), f(3, 2)),
        lambda f: quantized.linear_q4(f(2, 6), f(3, 3, dtype="int8"), f(3, 3)),
        lambda f: quantized.linear_q4(f(2, 3), f(3, 3, dtype="int8"), f(3, 3)),
        lambda f: quantized.linear_q4(f(2, 6), f(3, 3, dtype="uint8"), f(4, 3)),
        lambda f: quantized.linear_q4(f(2, 6), f(3, 3, dtype="uint8"), f(3, 3), f(6)),
    ],
    "linear_half": [
        lambda f: quantized.linear_half(f(2, 3), f(3, 4)),
        lambda f: quantized.linear_half(f(2, 3), f(2, 3, dtype="float16")),
        lambda f: quantized.linear_half(f(2, 3), f(3, 4, dtype="float16"), f(4, dtype="float64")),
        lambda f: quantized.linear_half(f(2, 3, dtype="int64"), f(3, 4, dtype="float16")),
    ],
    "embedding_q8": [
        lambda f: quantized.embedding_q8(f(3, 6, dtype="int8"), f(3, 2), f(2), dtype=F32),
        lambda f: quantized.embedding_q8(
            f(3, 6, dtype="int8"), f(3, 4), f(2, dtype="int64"), dtype=F32
        ),
        lambda f: quantized.embedding_q8(f(3, 6), f(3, 2), f(2, dtype="int64"), dtype=F32),
    ],
    "embedding_q4": [
        lambda f: quantized.embedding_q4(
            f(3, 3, dtype="uint8"), f(3, 2), f(2, dtype="int64"), dtype=F32
        ),
    ],
    "embedding_half": [
        lambda f: quantized.embedding_half(f(3, 3), f(2, dtype="int64"), dtype=F32),
        lambda f: quantized.embedding_half(f(3, 3, dtype="float16"), f(2), dtype=F32),
    ],
    "sample_token": [
        lambda f: sample_token(f(3)),
        lambda f: sample_token(f(2, 0)),
        lambda f: sample_token(f(2, 3, dtype="int64")),
        lambda f: sample_token(f(2, 3), f(3), temperature=1.0),
        lambda f: sample_token(f(2, 3), f(2, dtype="int64"), temperature=1.0),
    ],
    "dropout_factor": [
        lambda f: _factor(f(dtype="float32"), F32),
        lambda f: _factor(f(2, dtype="int64"), F32),
        lambda f: _factor(f(dtype="int64"), DType.int64),
    ],
    "euclidean_norm": [lambda f: nn.euclidean_norm(f(2, dtype="int64"))],
    "adamw_step": [
        lambda f: _adamw(f(2), f(3), f(2), f(2), f(3)),
        lambda f: _adamw(f(2), f(2, dtype="float64"), f(2), f(2), f(3)),
        lambda f: _adamw(f(2), f(2), f(2), f(2, dtype="float64"), f(3)),
        lambda f: _adamw(f(2), f(2), f(2), f(2), f(3, dtype="float64")),
        lambda f: _adamw(f(2), f(2), f(2), f(2), f(3), f(3)),
        lambda f: _adamw(f(2), f(2), f(2), f(2), f(3), None, None, f(dtype="float64")),
        lambda f: _adamw(*(f(2, dtype="int64"),) * 4, f(3, dtype="int64")),
    ],
}
"""Of each fused op, by its name."""
