"""`value_and_grad` and `backward`: nests, nesting, accumulation, errors, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from tfx.core import nn, ops
from tfx.core.autograd import Autograd, grad, value_and_grad
from tfx.core.backend import Array, Backend
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import BackendMismatch, GradientError
from tfx.core.fused import composed
from tfx.core.tape import no_grad, recording
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend

WAYS: list[Autograd] = ["core", "native", "auto"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, backend: Backend) -> Autograd:
    """Every kind of autograd that the backend has."""
    if request.param == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    found: Autograd = request.param
    return found


def vector(backend: Backend, *numbers: float) -> Tensor:
    return tensor(np.array(numbers, np.float64), backend)


def scalar(backend: Backend, number: float) -> Tensor:
    return tensor(np.array(number, np.float64), backend)


# ---- the contract of value_and_grad ------------------------------------------------------


def test_value_and_gradient(backend: Backend, way: Autograd) -> None:
    value, slope = value_and_grad(lambda x: (x * x * x).sum(), autograd=way)(vector(backend, 1, 2))
    assert (value.item(), slope.tolist()) == (9, [3, 12])
    assert value.node is None and slope.node is None
    assert value.backend is slope.backend is backend


class Pair(NamedTuple):
    w: Any
    b: Any


def test_gradients_stand_in_a_nest_like_the_parameters(backend: Backend, way: Autograd) -> None:
    w, b, c = vector(backend, 1, 2), scalar(backend, 3), vector(backend, 5)
    params = {"layer": Pair(w, [b]), "rest": (c, {"w": w})}

    def fn(p: Any, scale: float) -> Any:
        return ((p["layer"].w * p["layer"].b[0] + p["rest"][1]["w"]).sum() * scale) + p["rest"][
            0
        ].sum()

    value, grads = value_and_grad(fn, autograd=way)(params, 10.0)
    assert value.item() == 125
    assert isinstance(grads["layer"], Pair) and isinstance(grads["rest"], tuple)
    assert grads["layer"].w.tolist() == [30, 30]
    assert grads["layer"].b[0].tolist() == 30
    assert grads["rest"][0].tolist() == [1]
    assert grads["rest"][1]["w"].tolist() == [10, 10]  # the same tensor, told apart by its place


def test_what_is_not_used_has_a_gradient_of_zeros(backend: Backend, way: Autograd) -> None:
    used, unused = vector(backend, 1, 2), full((2, 0, 3), 1.0, backend)
    _, grads = value_and_grad(lambda p: p[0].sum(), autograd=way)((used, unused))
    assert grads[0].tolist() == [1, 1]
    assert (grads[1].shape, grads[1].dtype) == ((2, 0, 3), DType.float32)
    _, (first, second) = value_and_grad(lambda p: scalar(backend, 3), autograd=way)([used, used])
    assert first.tolist() == second.tolist() == [0, 0]


def test_a_parameter_used_many_times_adds_up(backend: Backend, way: Autograd) -> None:
    x = vector(backend, 2)
    assert grad(lambda x: sum((x * n for n in range(10)), x).sum(), autograd=way)(x).item() == 46
    assert grad(lambda x: (x * x * x * x).sum(), autograd=way)(x).item() == 32


def test_a_parameter_returned_as_it_is(backend: Backend, way: Autograd) -> None:
    for shape in [(), (1,), (1, 1)]:
        value, slope = value_and_grad(lambda x: x, autograd=way)(full(shape, 3.0, backend))
        assert (value.item(), slope.shape, slope.item()) == (3, shape, 1)


def test_a_diamond_and_a_long_chain(backend: Backend) -> None:
    def diamonds(x: Tensor) -> Tensor:
        for _ in range(30):
            x = x * 0.5 + x * 0.5  # 2**30 paths
        return x.sum()

    def chain(x: Tensor) -> Tensor:
        for _ in range(3000):  # more than Python's recursion would bear
            x = x + 1.0
        return x.sum()

    assert grad(diamonds, autograd="core")(vector(backend, 3)).item() == 1
    assert grad(chain, autograd="core")(vector(backend, 3)).item() == 1


def test_constants_inside(backend: Backend, way: Autograd) -> None:
    x = vector(backend, 3)
    assert grad(lambda x: (x.detach() * x).sum(), autograd=way)(x).item() == 3
    assert grad(lambda x: (x.cast("int64").cast("float64") * x).sum(), autograd=way)(x).item() == 3

    def half(x: Tensor) -> Tensor:
        with no_grad():
            square = x * x
            weights = nn.softmax(x)
        assert square.node is None
        return (square * weights * x).sum()

    assert grad(half, autograd=way)(x).item() == 9


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: x * 2, r"not float64\(2,\)"),
        (lambda x: x.argmax(), r"not int64\(\)"),
        (lambda x: 3.0, "not float"),
        (lambda x: None, "not NoneType"),
    ],
)
def test_what_is_no_single_float(
    fn: Callable[[Tensor], Any], words: str, backend: Backend, way: Autograd
) -> None:
    with pytest.raises(GradientError, match=words):
        value_and_grad(fn, autograd=way)(vector(backend, 1, 2))
    assert (recording.depth, recording.native, recording.paused) == (0, 0, False)


def test_parameters_that_cannot_be(backend: Backend) -> None:
    fn = value_and_grad(lambda p: p[0].sum())
    with pytest.raises(GradientError, match="no parameters"):
        fn([])
    with pytest.raises(GradientError, match="only floats have gradients"):
        fn([tensor([1], backend)])
    with pytest.raises(BackendMismatch, match="strict"):
        fn([vector(backend, 1), vector(StrictBackend(), 1)])
    with pytest.raises(TypeError, match="expected tensors"):
        fn([1.0])
    with pytest.raises(GradientError, match="'auto', 'core' or 'native', not 'Native'"):
        value_and_grad(lambda x: x, autograd="Native")  # type: ignore[arg-type]
    for dtype in backend.storage_dtypes:
        with pytest.raises(GradientError, match=f"a parameter is {dtype}"):
            fn([full((1,), 1.0, backend, dtype)])


def test_an_exception_leaves_no_recording_behind(backend: Backend, way: Autograd) -> None:
    def broken(x: Tensor) -> Tensor:
        with no_grad():
            raise KeyError("mine")

    for paused in (False, True):
        before = recording.paused = paused
        with pytest.raises(KeyError, match="mine"):
            value_and_grad(broken, autograd=way)(vector(backend, 1))
        assert (recording.depth, recording.native, recording.paused) == (0, 0, before)
    recording.paused = False
    assert (vector(backend, 1) * 2).node is None


def test_within_no_grad_the_result_is_a_constant_but_right(backend: Backend, way: Autograd) -> None:
    x = vector(backend, 3)
    with no_grad():
        _, slope = value_and_grad(lambda x: (x * x).sum(), autograd=way)(x)
        assert (slope.node, slope.item()) == (None, 6)

    def outer(x: Tensor) -> Any:
        with no_grad():
            value, slope = value_and_grad(lambda x: (x * x).sum(), autograd="core")(x)
        assert value.node is None and slope.node is None
        return (value * slope * x).sum()

    assert grad(outer, autograd="core")(x).item() == 54


# ---- gradients of gradients --------------------------------------------------------------


@pytest.mark.parametrize("outside", WAYS)
def test_three_derivatives_of_a_power(backend: Backend, outside: Autograd) -> None:
    if outside == "native" and not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    x = scalar(backend, 2)
    first = grad(lambda x: x**5, autograd="auto" if outside == "native" else "core")
    second = grad(first, autograd="core")
    third = grad(lambda x: second(x).sum(), autograd=outside)
    assert [first(x).item(), second(x).item(), third(x).item()] == [80, 160, 240]


def test_a_hessian_times_a_vector(backend: Backend, way: Autograd) -> None:
    rng = np.random.default_rng(0)
    a, at, v = rng.standard_normal((4, 4)), rng.standard_normal(4), rng.standard_normal(4)
    matrix, along = tensor(a, backend), tensor(v, backend)

    def loss(x: Tensor) -> Tensor:
        return ((matrix @ x).tanh() ** 2).sum()

    def slope(x: Tensor) -> Any:
        return (grad(loss)(x) * along).sum()

    found = grad(slope, autograd=way)(tensor(at, backend)).numpy()
    t = np.tanh(a @ at)
    second = (1 - t**2) * (2 - 6 * t**2)  # of tanh squared
    np.testing.assert_allclose(found, a.T @ (second * (a @ v)), rtol=1e-12)


def test_inner_and_outer_variables_are_told_apart(backend: Backend, way: Autograd) -> None:
    """d/dx of x * d/dy (x * y + x * x) at y = x: the inner derivative does not see the outer x."""

    def outer(x: Tensor) -> Any:
        return x * grad(lambda y: x * y + x * x)(x)

    assert grad(outer, autograd=way)(scalar(backend, 3)).item() == 6

    # what the inner function only closes over is seen by the outer derivative
    one = scalar(backend, 5)
    assert grad(lambda x: grad(lambda y: x * y * y)(one), autograd=way)(one).item() == 10

    def inner_value(x: Tensor) -> Tensor:
        return value_and_grad(lambda y: y * y * x)(x)[0]

    assert grad(inner_value, autograd=way)(scalar(backend, 2)).item() == 12


def test_a_penalty_on_the_gradient(backend: Backend, way: Autograd) -> None:
    params = {"w": vector(backend, 1, 2), "b": scalar(backend, 3), "idle": scalar(backend, 0)}

    def loss(p: Any) -> Any:
        return (p["w"] * p["w"]).sum() * p["b"]

    def penalised(p: Any) -> Any:
        value, g = value_and_grad(loss)(p)
        return value + sum(((x * x).sum() for x in g.values()), start=0.0 * value)

    _, found = value_and_grad(penalised, autograd=way)(params)
    # loss = |w|^2 b; its gradient's square = 4 |w|^2 b^2 + |w|^4
    assert found["w"].tolist() == [2 * 3 + 8 * 9 + 4 * 5, 2 * (2 * 3 + 8 * 9 + 4 * 5)]
    assert found["b"].item() == 5 + 8 * 5 * 3
    assert found["idle"].item() == 0


def test_recorded_parameters_are_differentiated_through(backend: Backend) -> None:
    x = scalar(backend, 3).requires_grad_()
    value, slope = value_and_grad(lambda x: x * x * x)(x)
    (value + slope).backward()
    assert x.grad is not None and x.grad.item() == 27 + 18


# ---- native autograd ---------------------------------------------------------------------


def test_native_where_there_is_none(backend: Backend) -> None:
    if backend.native_autograd:
        pytest.skip(f"{backend} has autograd of its own")
    with pytest.raises(GradientError, match="no autograd of its own; use autograd='core'"):
        grad(lambda x: x.sum(), autograd="native")(vector(backend, 1))


def test_native_does_not_nest(backend: Backend) -> None:
    if not backend.native_autograd:
        pytest.skip(f"{backend} has no autograd of its own")
    inner = grad(lambda x: x * x, autograd="native")
    for outside in WAYS:
        with pytest.raises(GradientError, match="cannot be differentiated again"):
            grad(inner, autograd=outside)(scalar(backend, 1))
    with pytest.raises(GradientError, match="cannot be differentiated again"):
        inner(scalar(backend, 1).requires_grad_())


class Forgetful(StrictBackend):
    """Its own autograd finds no gradient at all."""

    native_autograd = True

    def value_and_grad(
        self, fn: Callable[..., Array], arrays: Sequence[Array]
    ) -> tuple[Array, list[Array | None]]:
        return fn(*arrays), [None] * len(arrays)


def test_a_gradient_that_native_autograd_loses_is_an_error() -> None:
    B = Forgetful()
    with pytest.raises(GradientError, match=r"lost the gradient of parameter 1 \(2,\)"):
        grad(lambda p: p[1].sum())([vector(B, 1), vector(B, 1, 2)])
    _, (zeros,) = value_and_grad(lambda p: scalar(B, 1))([vector(B, 1, 2)])
    assert zeros.tolist() == [0, 0]


# ---- backward ----------------------------------------------------------------------------


def test_backward_adds_to_grad(backend: Backend) -> None:
    x, y = vector(backend, 1, 2).requires_grad_(), vector(backend, 3, 4).requires_grad_()
    loss = (x * y).sum()
    loss.backward()
    loss.backward()
    assert x.grad is not None and y.grad is not None
    assert (x.grad.tolist(), y.grad.tolist(), loss.grad) == ([6, 8], [2, 4], None)
    assert x.grad.node is None and x.requires_grad and loss.requires_grad
    x.grad = None
    (x * x).sum().backward()
    assert [g.tolist() for g in (x.grad, y.grad) if g is not None] == [[2, 4], [2, 4]]


def test_backward_of_a_tensor_with_its_gradient(backend: Backend) -> None:
    x = vector(backend, 1, 2).requires_grad_()
    (x * x).backward(vector(backend, 10, 1))
    assert x.grad is not None and x.grad.tolist() == [20, 4]
    one = full((1,), 3.0, backend).requires_grad_()
    one.backward()
    assert one.grad is not None and one.grad.tolist() == [1]


def test_backward_also_within_no_grad_and_through_kernels(backend: Backend) -> None:
    x = vector(backend, 1, 2).requires_grad_()
    loss = (nn.softmax(nn.rms_norm(x)) * x).sum()
    with no_grad():
        loss.backward()
    again = vector(backend, 1, 2).requires_grad_()
    with composed():
        (nn.softmax(nn.rms_norm(again)) * again).sum().backward()
    assert x.grad is not None and again.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), again.grad.numpy(), rtol=1e-12)


def test_what_requires_grad(backend: Backend) -> None:
    x = vector(backend, 1).requires_grad_()
    assert x.requires_grad_() is x and (x * 2).requires_grad and not x.detach().requires_grad
    assert not (x < 2).requires_grad and not x.argmax().requires_grad
    assert not x.cast("int64").requires_grad and x.cast("float32").requires_grad
    with no_grad():
        assert not (x * 2).requires_grad
    assert tensor([1.0], backend, requires_grad=True).requires_grad


# ---- at once -----------------------------------------------------------------------------


def test_threads_do_not_see_each_others_recording(backend: Backend) -> None:
    """Many differentiations at once, beside threads that pause recording or run composed."""
    start = threading.Barrier(4)
    found: dict[int, list[list[float]]] = {}

    def loss(x: Tensor) -> Tensor:
        return (nn.softmax(x) * ops.sigmoid(x) + nn.rms_norm(x)).sum()

    def work(n: int) -> None:
        x = vector(backend, n, 1, 2)
        start.wait()
        for _ in range(20):
            if n % 2:
                found.setdefault(n, []).append(grad(loss, autograd="core")(x).tolist())
            else:
                with no_grad(), composed():
                    found.setdefault(n, []).append(loss(x.requires_grad_()).tolist())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    for n, results in found.items():
        x = vector(backend, n, 1, 2)
        expected = grad(loss, autograd="core")(x) if n % 2 else loss(x)
        assert len(results) == 20
        for result in results:
            np.testing.assert_allclose(result, expected.tolist(), rtol=1e-12)
    assert not recording.paused and recording.depth == 0


def test_a_closure_keeps_its_gradient(backend: Backend, way: Autograd) -> None:
    """What the function closes over has a share in value and gradient; it stays on the tape."""
    w, p = vector(backend, 2).requires_grad_(), vector(backend, 3)
    call = value_and_grad(lambda p: (p * w).sum(), autograd=way)
    if way == "native":
        with pytest.raises(GradientError, match="closes over"):
            call(p)
        return
    value, slope = call(p)
    (value + w.sum() + slope.sum()).backward()
    assert w.grad is not None
    assert (value.item(), slope.tolist(), w.grad.tolist()) == (6, [2], [3 + 1 + 1])
