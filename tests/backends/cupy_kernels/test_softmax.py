"""`softmax` and `cross_entropy` on cupy, against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.creation import tensor
from tfx.core.fused import composed
from tfx.testing.calling import LAYOUTS, put

DTYPES = ["float16", "float32", "float64"]
SHAPES = [(1,), (2, 3), (3, 1), (2, 2, 259), (2, 5000)]


def _normals(dtype: str, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(0, 4, shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(run: Any, near: Any, shape: tuple[int, ...], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x, g = _normals(dtype, shape, shape)
    wide = torch.tensor(x.astype("float64"), requires_grad=True)
    expected = wide.softmax(-1)
    expected.backward(torch.tensor(g.astype("float64")))
    for layout in LAYOUTS[:3]:
        y, (g_x,) = run("softmax", x, g=g, layout=layout)
        near([y, g_x], [expected.detach().numpy(), wide.grad.numpy()])
        assert y.dtype == g_x.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_finite(B: Any, dtype: str) -> None:
    inf, nan = np.inf, np.nan
    rows = [[-inf] * 3, [-inf, 0, 5], [nan, 1, 2], [1, 2, nan], [inf, 0, 1], [6e4, 5.9e4, -6e4]]
    x = tensor(np.array(rows, dtype), B)
    with composed():
        expected = nn.softmax(x).numpy()
    np.testing.assert_allclose(nn.softmax(x).numpy(), expected, rtol=1e-3)
    assert expected[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ids", ["int32", "int64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(run: Any, near: Any, shape: tuple[int, ...], dtype: str, ids: str) -> None:
    torch = pytest.importorskip("torch")
    logits, g = _normals(dtype, shape, shape[:-1])
    targets = np.asarray(np.random.default_rng(1).integers(0, shape[-1], shape[:-1])).astype(ids)
    wide = torch.tensor(logits.astype("float64"), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        wide.reshape(-1, shape[-1]), torch.tensor(targets.reshape(-1)).long(), reduction="none"
    ).reshape(shape[:-1])
    expected.backward(torch.tensor(g.astype("float64")))
    for layout in LAYOUTS[:3]:
        losses, (g_logits, none) = run("cross_entropy", logits, targets, g=g, layout=layout)
        near([losses, g_logits], [expected.detach().numpy(), wide.grad.numpy()])
        assert none is None and losses.dtype == g_logits.dtype == dtype


def test_a_small_loss_beside_large_logits_has_its_digits(run: Any) -> None:
    """log(sum) + top as one number would have lost it."""
    logits = np.array([[1e6, 1e6 - 8]], np.float32)
    losses = run("cross_entropy", logits, np.array([0]))
    assert losses[0] == pytest.approx(np.log1p(np.exp(-8.0)), rel=1e-3, abs=0)


def test_the_gradient_of_a_mean(B: Any, near: Any) -> None:
    """Whose `g` is one number, repeated without memory of its own."""
    torch = pytest.importorskip("torch")
    (logits,) = _normals("float32", (6, 9))
    targets = np.arange(6)
    loss, grad = value_and_grad(lambda x: nn.cross_entropy(x, tensor(targets, B)).mean())(
        tensor(logits, B)
    )
    wide = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(wide, torch.tensor(targets))
    expected.backward()
    near([loss.numpy(), grad.numpy()], [expected.detach().numpy(), wide.grad.numpy()])


def test_probabilities_are_never_in_memory(B: Any, cupy: Any) -> None:
    kernel, pool = B.fused["cross_entropy"], cupy.get_default_memory_pool()
    x = put(B, np.zeros((64, 5000), np.float32))
    targets = put(B, np.zeros(64, np.int64))
    pool.free_all_blocks()
    before, whole = pool.total_bytes(), x.nbytes
    losses, saved = kernel.forward(B, x, targets)
    assert pool.total_bytes() - before < whole / 100
    grads = kernel.vjp(B, losses, losses, saved, x, targets)
    assert pool.total_bytes() - before < whole * 1.1
    assert grads[0].shape == x.shape


def test_one_launch_each(B: Any, launches: Any) -> None:
    x, ids = put(B, np.ones((3, 5), np.float32)), put(B, np.ones(3, np.int64))
    for name, args in (("softmax", (x,)), ("cross_entropy", (x, ids))):
        kernel = B.fused[name]
        out, saved = kernel.forward(B, *args)
        assert launches(lambda k=kernel, a=args: k.forward(B, *a)) == 1
        pull = (out, out, saved, *args)
        assert launches(lambda k=kernel, p=pull: k.vjp(B, *p)) == 1


def test_what_they_leave_to_the_composed_form(B: Any) -> None:
    x, nothing = (put(B, np.ones(s, np.float32)) for s in ((3, 5), (0, 5)))
    three, two, bytes_ = (
        put(B, np.ones(n, d)) for n, d in ((3, "int32"), (2, "int32"), (3, "int8"))
    )
    supports = B.fused["cross_entropy"].supports
    assert supports(B, x, three)
    assert not any(supports(B, x, ids) for ids in (two, bytes_, x[:, 0]))
    assert not supports(B, nothing, put(B, np.ones(0, "int32")))
    assert not B.fused["softmax"].supports(B, nothing)
