"""The composed operations against NumPy, torch and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import check_second_derivatives

from tfx.core import ops
from tfx.core.autograd import grad
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.dtypes import FLOATS, DType
from tfx.core.tensor import Tensor
from tfx.testing.composed_table import OPS
from tfx.testing.records import Op

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DIFFERENTIABLE = [op for op in OPS if op.differentiable]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)
def test_second_derivatives(op: Op, backend: Backend) -> None:
    check_second_derivatives(op, backend)


# ---- what tables do not say --------------------------------------------------------------


def test_erf_to_the_last_places(backend: Backend) -> None:
    x = np.concatenate([np.linspace(-7, 7, 4001), [0.46875, 0.5, -0.46875, 1e-300, -1e-9, 6.0]])
    exact = np.array([math.erf(v) for v in x])
    for dtype, bound in [(DType.float64, 1e-15), (DType.float32, 2.5e-7)]:
        found = ops.erf(tensor(x, backend, dtype)).numpy()
        assert np.abs(found - exact).max() < bound
    if DType.float16 in backend.dtypes:
        half = ops.erf(tensor(x, backend, "float16"))
        assert half.dtype is DType.float16 and np.abs(half.numpy() - exact).max() < 1e-3


def test_the_derivative_of_erf(backend: Backend) -> None:
    x = np.array(
        [0.0, -0.0, 1e-160, -1e-9, 0.3, -0.46874, 0.46876, -0.5, 0.5, 2.0, -3.5, 7.0, -40.0]
    )
    found = grad(lambda x: ops.erf(x).sum(), autograd="core")(tensor(x, backend)).numpy()
    np.testing.assert_allclose(found, 2 / np.sqrt(np.pi) * np.exp(-(x**2)), rtol=1e-12, atol=1e-15)


def test_gradients_at_kinks(backend: Backend) -> None:
    x = tensor(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), backend)
    expected = {
        ops.relu: [0, 0, 0, 1, 1],
        ops.absolute: [-1, -1, 0, 1, 1],
        (lambda x: ops.clip(x, -1, 1)): [0, 0.5, 1, 0.5, 0],
        (lambda x: ops.minimum(x, 0)): [1, 1, 0.5, 0, 0],
        (lambda x: ops.where(x < 0, x * 2, x * 3)): [2, 2, 3, 3, 3],
    }
    for f, slope in expected.items():
        assert grad(lambda x, f=f: f(x).sum(), autograd="core")(x).tolist() == slope


def test_causal_mask(backend: Backend) -> None:
    for queries, keys, offset in [(3, 3, 0), (2, 5, 3), (1, 4, 2), (4, 2, 0), (0, 3, 0), (2, 3, 7)]:
        found = ops.causal_mask(queries, keys, tensor(offset, backend)).tolist()
        assert found == [[k <= offset + q for k in range(keys)] for q in range(queries)]


def test_sigmoid_overflows_nowhere(backend: Backend) -> None:
    x = tensor(np.array([-1e4, -800.0, 800.0, 1e4, -math.inf, math.inf]), backend)
    assert ops.sigmoid(x).tolist() == [0, 0, 1, 1, 0, 1]
    assert grad(lambda x: ops.sigmoid(x).sum(), autograd="core")(x).tolist() == [0] * 6


def test_finite_max_is_finite_and_constant(backend: Backend) -> None:
    for dtype in sorted(FLOATS & backend.dtypes):
        x = tensor([[-math.inf, -math.inf], [1.0, 2.0]], backend, dtype)
        top = ops.finite_max(x.requires_grad_(), -1)
        assert top.node is None and top.shape == (2, 1) and top.dtype is dtype
        low = top[0].item()
        assert math.isfinite(low) and low == ops.lowest(dtype)
        assert tensor(low * 1.01, backend, "float64").cast(dtype).item() in (-math.inf, low)


def test_half_precision_follows_float64(backend: Backend) -> None:
    """Composed operations in the narrow dtypes: their dtype, and near the truth."""
    x = np.linspace(-3, 3, 13)
    for dtype, bound in [(DType.float16, 4e-3), (DType.bfloat16, 3e-2)]:
        if dtype not in backend.dtypes:
            continue
        for f in (ops.sigmoid, ops.silu, ops.erf, ops.relu, ops.log_softmax, ops.var, Tensor.mean):
            found = f(tensor(x, backend, dtype))
            exact = f(tensor(x, backend)).numpy()
            assert found.dtype is dtype
            np.testing.assert_allclose(found.numpy(), exact, rtol=bound, atol=bound)
