"""`layer_norm` and `rms_norm` on cupy, against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfx.testing.calling import LAYOUTS, put

SHAPES = [(1, 1), (4,), (3, 7), (2, 3, 768), (3, 2600), (600, 5)]
"""Of one number; of rows whose sums fit into shared memory in all dtypes and in some; of more rows
than there are blocks."""


def _layer_norm(torch: Any, x: Any, gain: Any, bias: Any, eps: float) -> Any:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, bias, eps)


def _rms_norm(torch: Any, x: Any, gain: Any = None, *, eps: float) -> Any:
    return torch.nn.functional.rms_norm(x, x.shape[-1:], gain, eps)


def _reference(form: Any, g: Any, *arrays: Any, **params: Any) -> tuple[Any, list[Any]]:
    torch = pytest.importorskip("torch")
    wide = [torch.tensor(x.astype("float64"), requires_grad=True) for x in arrays]
    y = form(torch, *wide, **params)
    y.backward(torch.tensor(g.astype("float64")))
    return y.detach().numpy(), [x.grad.numpy() for x in wide]


def _normals(dtype: str, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(0.5, 2, shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_layer_norm(run: Any, near: Any, shape: tuple[int, ...], dtype: str) -> None:
    x, g, gain, bias = _normals(dtype, shape, shape, shape[-1:], shape[-1:])
    expected, slopes = _reference(_layer_norm, g, x, gain, bias, eps=0.1)
    y, found = run("layer_norm", x, gain, bias, g=g, eps=0.1)
    near([y, *found], [expected, *slopes])
    assert {part.dtype.name for part in (y, *found)} == {dtype}


@pytest.mark.parametrize("with_gain", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rms_norm(run: Any, near: Any, shape: tuple[int, ...], dtype: str, with_gain: bool) -> None:
    x, g, gain = _normals(dtype, shape, shape, shape[-1:])
    gains = [gain] if with_gain else []
    expected, slopes = _reference(_rms_norm, g, x, *gains, eps=0.1)
    y, found = run("rms_norm", x, gain if with_gain else None, g=g, eps=0.1)
    near([y, *found[: len(slopes)]], [expected, *slopes])
    assert with_gain or found[1] is None


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_any_layout(run: Any, layout: str) -> None:
    x, g, gain, bias = _normals("float32", (4, 7), (4, 7), (7,), (7,))
    if layout == "repeated":
        x, g, gain, bias = (np.broadcast_to(a[:1], a.shape) for a in (x, g, gain, bias))
    plain, slopes = run("layer_norm", x, gain, bias, g=g, eps=1e-5)
    y, found = run("layer_norm", x, gain, bias, g=g, eps=1e-5, layout=layout)
    for a, b in zip((y, *found), (plain, *slopes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_mean_far_from_zero_costs_no_digits(run: Any, near: Any) -> None:
    """A variance as mean(x**2) - mean(x)**2 would be nothing but rounding here."""
    rng = np.random.default_rng(0)
    x = (10_000 + rng.standard_normal((4, 768))).astype(np.float32)
    gain, bias = np.ones(768, np.float32), np.zeros(768, np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    near(run("layer_norm", x, gain, bias, eps=0.0), expected, share=100)


def test_a_row_of_equal_numbers_gives_the_bias(run: Any) -> None:
    x, gain, bias = np.full((2, 300), 0.1, np.float32), *_normals("float32", (300,), (300,))
    np.testing.assert_array_equal(run("layer_norm", x, gain, bias, eps=1e-5), [bias, bias])


def test_launches(B: Any, launches: Any) -> None:
    x, row = put(B, np.ones((3, 5), np.float32)), put(B, np.ones(5, np.float32))
    for name, rows, steps in (
        ("layer_norm", (row, row), 2),
        ("rms_norm", (row,), 2),
        ("rms_norm", (None,), 1),
    ):
        kernel = B.fused[name]
        y, saved = kernel.forward(B, x, *rows, eps=1e-5)
        assert launches(lambda k=kernel, r=rows: k.forward(B, x, *r, eps=1e-5)) == 1
        pull = (x, y, saved, x, *rows)
        assert launches(lambda k=kernel, p=pull: k.vjp(B, *p, eps=1e-5)) == steps


def test_what_they_leave_to_the_composed_form(B: Any) -> None:
    supports = B.fused["layer_norm"].supports
    x, row, other = (put(B, np.ones(s, np.float32)) for s in ((2, 3), (3,), (1,)))
    nothing, wide = put(B, np.ones((0, 3), np.float32)), put(B, np.ones(3))
    assert supports(B, x, row, row, eps=0.0)
    for args in ((nothing, row, row), (x, other, row), (x, row, wide), (wide[0], row, row)):
        assert not supports(B, *args, eps=0.0)
    assert not B.fused["rms_norm"].supports(B, x, other, eps=0.0)
