"""The fused ops in their composed form against NumPy, torch and finite differences.

Overrides of them are held against the same tables in `test_fused`.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from checks import check_second_derivatives

from tfx.core import nn, ops
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import ShapeError, UsageError
from tfx.core.fused import composed
from tfx.core.tensor import Tensor
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.records import Op

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DIFFERENTIABLE = [op for op in FUSED_OPS if op.differentiable]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)
def test_second_derivatives(op: Op, backend: Backend) -> None:
    with composed():
        check_second_derivatives(op, backend)


# ---- rows with nothing to see, and numbers too large -------------------------------------


@pytest.mark.parametrize("form", [composed, nullcontext])
@pytest.mark.parametrize("dtype", [DType.float64, DType.float32])
def test_a_softmax_row_of_nothing_gives_zeros_and_no_gradient(
    form: Any, backend: Backend, dtype: DType
) -> None:
    x = tensor([[-math.inf] * 3, [-math.inf, 1.0, 1.0]], backend, dtype)
    weights = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]], backend, dtype)
    with form():
        value, slope = value_and_grad(lambda x: (nn.softmax(x) * weights).sum(), autograd="core")(x)
        assert nn.softmax(x).tolist() == [[0, 0, 0], [0, 0.5, 0.5]]
    assert value.item() == 6
    assert slope.tolist() == [[0, 0, 0], [0, -0.5, 0.5]]


@pytest.mark.parametrize("form", [composed, nullcontext])
def test_softmax_and_its_kin_of_large_numbers(form: Any, backend: Backend) -> None:
    for big in (1e4, -1e4, 3e38):
        x = tensor(np.array([[big, big]]), backend, "float32")
        with form():
            assert nn.softmax(x).tolist() == [[0.5, 0.5]]
            np.testing.assert_allclose(
                nn.cross_entropy(x, tensor([0], backend)).item(), math.log(2), 1e-6
            )
    x = tensor(np.array([[0.0, 1e4]]), backend)
    with form():
        assert nn.cross_entropy(x, tensor([0], backend)).item() == 1e4
        assert nn.cross_entropy(x, tensor([1], backend)).item() == 0


@pytest.mark.parametrize("form", [composed, nullcontext])
def test_attention_sees_no_later_key(form: Any, backend: Backend) -> None:
    """What comes later changes nothing, nor has a gradient."""

    def seen(p: list[Tensor], rows: int) -> Tensor:
        return nn.attention(p[0], p[1], p[2], 0.5)[:, :rows]

    qkv = np.random.default_rng(0).standard_normal((3, 2, 4, 3))
    with form():
        first = seen([tensor(x, backend) for x in qkv], 3).numpy()
        _, grads = value_and_grad(lambda p: seen(p, 2).sum(), autograd="core")(
            [tensor(x, backend) for x in qkv]
        )
        qkv[1, :, 3], qkv[2, :, 3] = 1e6, -1e6
        again = seen([tensor(x, backend) for x in qkv], 3).numpy()
        np.testing.assert_array_equal(first, again)
        for g in grads:
            assert (g.numpy()[:, 2:] == 0).all() and (g.numpy()[:, :2] != 0).any()


def test_attention_before_the_first_key_sees_nothing(backend: Backend) -> None:
    q = tensor(np.ones((2, 3)), backend)
    out = nn.attention(q, q, q, 1.0, tensor(-1, backend))
    assert out.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_an_unknown_activation_is_named(backend: Backend) -> None:
    x = tensor(np.ones((2, 2)), backend)
    with pytest.raises(UsageError, match="no activation named 'swish'; there are gelu_new"):
        nn.linear(x, x, activation="swish")  # type: ignore[arg-type]


def test_narrow_floats(backend: Backend) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    for dtype, bound in [(DType.float16, 6e-3), (DType.bfloat16, 5e-2)]:
        if dtype not in backend.dtypes:
            continue
        for f in (
            nn.softmax,
            nn.gelu,
            nn.rms_norm,
            lambda x: nn.gelu(x, approximate="tanh"),
            lambda x: nn.layer_norm(x, x[0], x[1]),
            lambda x: nn.attention(x, x, x, 0.5),
            lambda x: nn.linear(x, x.T, activation="gelu_new"),
            lambda x: nn.cross_entropy(x, tensor([0, 3, 1], x.backend)),
        ):
            found = f(tensor(x, backend, dtype))
            assert found.dtype is dtype
            np.testing.assert_allclose(
                found.numpy(), f(tensor(x, backend)).numpy(), rtol=bound, atol=bound
            )


@pytest.mark.parametrize("dtype", [DType.float16, DType.bfloat16])
def test_norms_of_halves_do_not_overflow(backend: Backend, dtype: DType) -> None:
    """768 squares of 30 sum to ten times what float16 can hold."""
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} does not compute with {dtype}")
    x = tensor(np.tile([30.0, -30.0], (2, 384)), backend, dtype)
    one, zero = full((768,), 1, backend, dtype), full((768,), 0, backend, dtype)
    signs = np.sign(x.numpy())
    np.testing.assert_allclose(nn.rms_norm(x).numpy(), signs, rtol=1e-2)
    np.testing.assert_allclose(nn.layer_norm(x, one, zero).numpy(), signs, rtol=1e-2)
    assert full((1000,), 100, backend, dtype).mean().item() == 100
    assert ops.var(x).item() == pytest.approx(900, rel=1e-2)


def test_cross_entropy_of_more_logits_than_int32_counts(backend: Backend) -> None:
    """Targets of either index dtype pick the same, whatever rows times vocabulary comes to."""
    logits = np.random.default_rng(1).standard_normal((5, 7))
    expected = np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), [0, 6, 3, 3, 1]]
    for ids in ("int32", "int64"):
        targets = tensor(np.array([0, 6, 3, 3, 1]), backend, ids)
        found = nn.cross_entropy(tensor(logits, backend), targets)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_an_unknown_gelu_is_named(backend: Backend) -> None:
    with pytest.raises(UsageError, match="approximate is 'none' or 'tanh', not 'tahn'"):
        nn.gelu(tensor([1.0], backend), approximate="tahn")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [nullcontext, composed])
def test_adamw_moves_nothing_without_health(form: Any, backend: Backend) -> None:
    p, g, m, v = (tensor(np.full(3, x), backend) for x in (1.0, math.nan, 0.5, 0.25))
    rates = tensor(np.array([0.1, 2.0, 3.0]), backend)

    def step(g: Tensor, healthy: Tensor | None) -> list[Any]:
        with form():
            new = nn.adamw_step(p, g, m, v, rates, None, healthy, beta1=0.9, beta2=0.9, eps=1e-8)
        return [x.tolist() for x in new]

    assert step(g, tensor(False, backend)) == [x.tolist() for x in (p, m, v)]
    assert step(v, tensor(True, backend)) == step(v, None) != step(v, tensor(False, backend))


def test_heads_are_equal_parts(backend: Backend) -> None:
    x = tensor(np.ones((2, 6)), backend)
    with pytest.raises(ShapeError, match=r"\(2, 6\) cannot be split into 4 heads"):
        nn.attention(x, x, x, 0.5, heads=4)
