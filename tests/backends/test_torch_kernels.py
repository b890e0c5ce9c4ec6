"""The torch backend's kernels against the composed forms they replace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import full, tensor
from tfx.core.dtypes import FLOATS, DType
from tfx.core.errors import DTypeError, ShapeError
from tfx.core.fused import composed
from tfx.core.tensor import Tensor


@pytest.fixture(scope="module")
def B() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    from tfx.backends.torch.backend import TorchBackend

    return TorchBackend()


CALLS: dict[str, Any] = {
    "layer_norm": lambda x: nn.layer_norm(x, x[0, 0], x[0, 1]),
    "linear": lambda x: nn.linear(x, x[0], x[0, 0, :4], x[..., :4], outputs_first=True),
    "gelu": lambda x: nn.gelu(x),
    "gelu tanh": lambda x: nn.gelu(x, approximate="tanh"),
    "attention": lambda x: nn.attention(x, x, x, 0.3),
    "attention of few": lambda x: nn.attention(x[:, :2], x, x, 0.3),
    "attention of many": lambda x: nn.attention(x, x[:, :2], x[:, 1:3, :3], 0.3),
    "attention of all": lambda x: nn.attention(x, x, x, 1, causal=False),
    "attention of one": lambda x: nn.attention(x[0], x[1], x[0], 0.3),
    "attention at 2": lambda x: nn.attention(x[:, :2], x, x, 0.3, full((), 2, x.backend, "int64")),
    "attention at -2": lambda x: nn.attention(x, x, x, 0.3, full((), -2, x.backend, "int64")),
    "embedding": lambda x: nn.embedding(x[0], tensor([[3, 0], [3, 3]], x.backend)),
    "embedding 32": lambda x: nn.embedding(x[0], tensor(2, x.backend, "int32")),
    "cross_entropy": lambda x: nn.cross_entropy(x, tensor([[0, 5, 1, 2]] * 3, x.backend)),
    "cross_entropy 32": lambda x: nn.cross_entropy(x[0], tensor([5, 1, 0, 0], x.backend, "int32")),
}


@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_runs_and_equals_the_composed_form(
    B: Backend, monkeypatch: pytest.MonkeyPatch, name: str, dtype: DType
) -> None:
    call = CALLS[name]
    x = tensor(np.random.default_rng(1).standard_normal((3, 4, 6)), B, dtype)
    w = tensor(np.random.default_rng(2).standard_normal((3, 4, 6)), B, dtype)

    def loss(x: Tensor) -> Tensor:
        y = call(x)
        return (y * w.reshape(-1)[: y.size].reshape(y.shape)).sum()

    with composed():
        expected = call(x), *value_and_grad(loss, autograd="core")(x)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the composed form ran")

    for primitive in ("exp", "tanh", "max", "pow", "take", "matmul"):
        monkeypatch.setattr(B, primitive, refuse)
    found = call(x), *value_and_grad(loss, autograd="native")(x)
    tolerance = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype is dtype
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance)


def test_what_the_composed_form_refuses_is_refused(B: Backend) -> None:
    """Though torch would take most of it, and read past the end of the values."""
    x = tensor(np.ones((2, 3, 3), np.float32), B)
    other, half = x.cast("float64"), x.cast("bfloat16")
    ids = tensor([[0, 1, 2]] * 2, B)
    with pytest.raises(DTypeError):
        nn.layer_norm(half, x[0, 0], x[0, 0])
    with pytest.raises(DTypeError):
        nn.attention(x, x, other, 0.5)
    with pytest.raises(ShapeError):
        nn.attention(x, x, x[:, :2], 0.5)
    with pytest.raises(ShapeError):
        nn.attention(x, x[:, :0], x[:, :0], 0.5)
    with pytest.raises(DTypeError):
        nn.attention(x, x, x, 0.5, full((), 0, B, "int32"))
    with pytest.raises(ShapeError):
        nn.cross_entropy(x, ids.T)
    with pytest.raises(DTypeError):
        nn.cross_entropy(x, ids.cast("float32"))
    with pytest.raises(DTypeError):
        nn.embedding(x[0], ids.cast("uint8"))
    with pytest.raises(DTypeError):
        nn.adamw_step(x, other, x, x, x[0, 0], beta1=0.9, beta2=0.9, eps=1e-8)
    with pytest.raises(DTypeError):
        nn.adamw_step(ids, ids, ids, ids, ids[0], beta1=0.9, beta2=0.9, eps=1e-8)


def test_what_kernels_do_not_know_is_composed(B: Backend) -> None:
    x = tensor(np.random.default_rng(0).standard_normal((2, 3, 3)), B)
    rates = tensor([0.1, 1.0, 1.0], B, "float64")
    betas = {"beta1": 0.9, "beta2": 0.9, "eps": 1e-8}
    for call in (
        lambda: nn.layer_norm(x, x[0, 0, :1], x[0]),
        lambda: nn.embedding(x, tensor([1, 0], B)),
        lambda: nn.attention(x, x, x, tensor(0.5, B, "float64")),
        lambda: nn.attention(x, x, x, -0.5),
        lambda: nn.attention(x[:1], x, x, 0.5),
        lambda: nn.attention(x, x[0], x[0], 0.5),
        lambda: nn.adamw_step(x, x, x, x * x, rates, x[0], **betas)[0],
        lambda: nn.adamw_step(x[0], x, x[0], x[0] * x[0], rates, **betas)[0],
    ):
        found = call()
        with composed():
            expected = call()
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
