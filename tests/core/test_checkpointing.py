"""`checkpointed`: the same bits, each inside computed twice and kept by nobody in between."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from tfx.core import nn
from tfx.core.autograd import Autograd, grad, value_and_grad
from tfx.core.backend import Backend
from tfx.core.checkpointing import checkpointed, once
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.errors import GradientError
from tfx.core.fused import composed
from tfx.core.tape import no_grad
from tfx.core.tensor import Tensor
from tfx.core.threefry import key_from_seed
from tfx.testing import StrictBackend

WAYS: list[Autograd] = ["core", "native", "auto"]
LAYERS = 3


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, backend: Backend) -> Autograd:
    """Every kind of autograd that the backend has."""
    if request.param == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    found: Autograd = request.param
    return found


def parameters(backend: Backend) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 8), "b": (8,), "gain": (8,), "bias": (8,)}
    return {
        f"{i}.{name}": tensor(rng.normal(size=shape), backend)
        for i in range(LAYERS)
        for name, shape in shapes.items()
    }


def layer(p: Any, i: int, x: Tensor, dropout: Dropout) -> Tensor:
    y = nn.layer_norm(x, p[f"{i}.gain"], p[f"{i}.bias"])
    y = nn.attention(y, y, y, 0.3, heads=2)
    y = nn.linear(y, p[f"{i}.w"], p[f"{i}.b"], activation="gelu_new")
    return x + dropout(y, 0.4)


def network(backend: Backend, wrap: Callable[[Any], Any]) -> Callable[[Any], Tensor]:
    x0 = tensor(np.random.default_rng(1).normal(size=(2, 5, 8)), backend)

    def loss(p: Any) -> Tensor:
        x, dropout = x0, Dropout(key_from_seed(3), tensor(7, backend))
        for i in range(LAYERS):
            x = wrap(layer)(p, i, x, dropout)
        return (dropout(x, 0.2) * x).sum()

    return loss


def assert_same(found: Any, expected: Any) -> None:
    """Bit for bit, where the same input twice gives the same bits."""
    exact = found[0].backend.deterministic
    for name, g in [("value", expected[0]), *expected[1].items()]:
        other = found[0] if name == "value" else found[1][name]
        scale = np.abs(g.numpy()).max()
        np.testing.assert_allclose(
            other.numpy(), g.numpy(), rtol=0, atol=0 if exact else 1e-12 * scale, err_msg=name
        )


# ---- the same, bit for bit -----------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [True, False])
def test_value_and_gradients_with_dropout(backend: Backend, way: Autograd, kernels: bool) -> None:
    p = parameters(backend)
    found, expected = network(backend, checkpointed), network(backend, lambda fn: fn)
    if kernels:
        assert_same(
            value_and_grad(found, autograd=way)(p), value_and_grad(expected, autograd=way)(p)
        )
    else:
        with composed():
            assert_same(
                value_and_grad(found, autograd=way)(p), value_and_grad(expected, autograd=way)(p)
            )


def test_one_within_another(backend: Backend, way: Autograd) -> None:
    def all_of_it(wrap: Any) -> Callable[[Any], Tensor]:
        inner = network(backend, wrap)
        x = tensor([1.0], backend)
        return lambda p: wrap(lambda x: inner(p))(x)

    p = parameters(backend)
    assert_same(
        value_and_grad(all_of_it(checkpointed), autograd=way)(p),
        value_and_grad(all_of_it(lambda fn: fn), autograd=way)(p),
    )


def test_backward_and_what_it_closes_over(backend: Backend) -> None:
    w = tensor([2.0, 3.0], backend).requires_grad_()
    x = tensor([5.0, 7.0], backend).requires_grad_()
    y = w * x  # older than the checkpoint, and from the same leaf
    checkpointed(lambda x: x * w * y)(x).sum().backward()  # (w x)**2
    assert w.grad is not None and x.grad is not None
    assert w.grad.tolist() == [2 * 2 * 25, 2 * 3 * 49]
    assert x.grad.tolist() == [2 * 4 * 5, 2 * 9 * 7]


def test_the_gradient_of_a_gradient(backend: Backend) -> None:
    """The slope of x**4 is 4 x**3, that of its norm 12 x**2 where the weight is 1."""
    fourth = checkpointed(lambda x: (x * x) * (x * x))
    slope = grad(lambda x: fourth(x).sum())
    x = tensor([1.0, 2.0], backend)
    assert grad(lambda x: slope(x).sum(), autograd="core")(x).tolist() == [12, 48]
    whole = checkpointed(lambda x: slope(x))  # a derivative taken inside
    assert grad(lambda x: whole(x).sum(), autograd="core")(x).tolist() == [12, 48]


# ---- less memory, for a second run ---------------------------------------------------------------


def test_the_inside_is_gone_until_it_is_computed_again(backend: Backend, way: Autograd) -> None:
    alive: list[Any] = []

    def inside(x: Tensor) -> Tensor:
        y = x.exp()
        array = y.data.values if isinstance(backend, StrictBackend) else y.data
        alive.append(weakref.ref(array))
        return y.exp()

    seen: list[int] = []

    def loss(x: Tensor) -> Tensor:
        for _ in range(3):
            x = checkpointed(inside)(x * 0.1)
        seen.append(sum(ref() is not None for ref in alive))
        return x.sum()

    value_and_grad(loss, autograd=way)(tensor([1.0, 2.0], backend))
    assert seen == [0]
    assert len(alive) == 6
    assert not any(ref() is not None for ref in alive)


def test_nothing_runs_twice_that_nobody_differentiates(backend: Backend) -> None:
    runs = count()

    def fn(x: Tensor) -> Tensor:
        next(runs)
        return x * 2

    x = tensor([1.0], backend)
    assert checkpointed(fn)(x).node is None
    with no_grad():
        assert checkpointed(fn)(x.requires_grad_()).node is None
    assert checkpointed(lambda x: x)(x) is x
    assert next(runs) == 2


# ---- what is drawn -------------------------------------------------------------------------------


def test_what_was_drawn_once_is_not_drawn_again(backend: Backend, way: Autograd) -> None:
    numbers = count(2)

    def fn(x: Tensor) -> Tensor:
        return x * x * float(once(numbers.__next__)) * float(once(numbers.__next__))

    def loss(x: Tensor) -> Tensor:
        return (checkpointed(fn)(x) + checkpointed(checkpointed(fn))(x)).sum()

    _, slope = value_and_grad(loss, autograd=way)(tensor([1.0], backend))
    assert slope.tolist() == [2 * (2 * 3 + 4 * 5)]
    assert once(numbers.__next__) == 6


# ---- what is refused -----------------------------------------------------------------------------


def test_a_function_that_does_otherwise_the_second_time() -> None:
    backend = StrictBackend()
    x, z = tensor([1.0], backend).requires_grad_(), tensor([2.0], backend)
    runs = count(1)
    drawing = checkpointed(lambda x: x * sum(once(int) for _ in range(next(runs))) * 1.0)
    with pytest.raises(GradientError, match="drew more when it was run again"):
        drawing(x).sum().backward()
    for other in (z, tensor([3.0], backend).requires_grad_()):
        used = iter([x, other])
        using = checkpointed(lambda _, used=used: next(used) * 2)
        with pytest.raises(GradientError, match="used other tensors when it was run again"):
            using(x).sum().backward()


def test_what_it_takes_and_returns(backend: Backend, way: Autograd) -> None:
    x = tensor([1.0], backend)
    differentiate = value_and_grad(lambda x: checkpointed(lambda x: (x, x))(x), autograd=way)  # type: ignore
    with pytest.raises(GradientError, match="must return one tensor, not tuple"):
        differentiate(x)
    with pytest.raises(GradientError, match="takes at least one tensor"):
        value_and_grad(lambda x: checkpointed(lambda: x.sum())(), autograd=way)(x)


def test_a_library_without_checkpointing_leaves_it_to_the_tape() -> None:
    torch = pytest.importorskip("tfx.backends.torch.backend")

    class Without(torch.TorchBackend):  # type: ignore[misc, name-defined]
        checkpoint = Backend.checkpoint

    x = tensor([3.0], Without())
    loss = lambda x: checkpointed(lambda x: x * x)(x).sum()  # noqa: E731
    assert grad(loss)(x).tolist() == [6]
    with pytest.raises(GradientError, match=r"torch has no checkpointing .* autograd='core'"):
        grad(loss, autograd="native")(x)
