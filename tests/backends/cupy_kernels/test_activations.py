"""`gelu` on cupy, against torch in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tfx.core.dtypes import DType
from tfx.testing.calling import LAYOUTS, put

KINDS = ["none", "tanh"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_value_and_gradient(run: Any, near: Any, kind: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (3, 5), (2, 259)):
        x, g = (np.asarray(rng.normal(0, 2, shape)).astype(dtype) for _ in range(2))
        wide = torch.tensor(x.astype("float64"), requires_grad=True)
        expected = torch.nn.functional.gelu(wide, approximate=kind)
        expected.backward(torch.tensor(g.astype("float64")))
        for layout in LAYOUTS[:3]:
            y, (g_x,) = run("gelu", x, g=g, layout=layout, approximate=kind)
            near([y, g_x], [expected.detach().numpy(), wide.grad.numpy()])
            assert y.dtype == g_x.dtype == dtype


def test_small_values_on_the_left_have_all_their_digits(run: Any) -> None:
    y = run("gelu", np.array([-10.0]), approximate="none")
    assert y[0] == pytest.approx(-10 * math.erfc(10 / math.sqrt(2)) / 2, rel=1e-12, abs=0)


@pytest.mark.parametrize("kind", KINDS)
def test_far_out_it_is_zero_or_x(run: Any, kind: str) -> None:
    x = np.array([-60, 60, np.nan], np.float32)
    y, (g_x,) = run("gelu", x, g=np.ones_like(x), approximate=kind)
    np.testing.assert_array_equal(y, [0, 60, np.nan])
    np.testing.assert_array_equal(g_x, [0, 1, np.nan])


def test_one_launch_each(B: Any, launches: Any) -> None:
    kernel = B.fused["gelu"]
    x = put(B, np.ones((3, 5), np.float32))
    assert launches(lambda: kernel.forward(B, x, approximate="tanh")) == 1
    assert launches(lambda: kernel.vjp(B, x, x, None, x, approximate="tanh")) == 1


def test_what_it_leaves_to_the_composed_form(B: Any) -> None:
    supports = B.fused["gelu"].supports
    assert not supports(B, put(B, np.ones((0, 3), np.float32)), approximate="tanh")
    assert not supports(B, put(B, np.ones(3, np.int32)), approximate="tanh")
    assert not supports(B, B.full(shape=(3,), value=1, dtype=DType.bfloat16), approximate="none")
    assert not supports(B, put(B, np.ones(3, np.float32)), approximate="both")
