"""Overrides of fused ops: when they run, and that none can lose or bend a gradient unseen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from checks import check_second_derivatives

from tfx.core.autograd import grad, value_and_grad
from tfx.core.backend import Backend, Fused
from tfx.core.creation import tensor
from tfx.core.errors import BackendMismatch, DTypeError, ShapeError, TfxError
from tfx.core.fused import FUSED, composed, fused
from tfx.core.tape import no_grad
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend
from tfx.testing.calling import told
from tfx.testing.composed_table import FUSED_OPS
from tfx.testing.wrong_calls import WRONG_CALLS, ones_on

Kernel = Callable[..., tuple[Any, Any]]


@fused
def triple(
    x: Tensor,
    y: Tensor | None = None,
    scale: Tensor | float = 1.0,
    *,
    power: int = 1,
    shift: float = 0.0,
) -> Tensor:
    """x**power * y * scale + shift, y being 3 if it is not given: what the tests override."""
    return x**power * (3.0 if y is None else y) * scale + shift


@fused
def sum_and_difference(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two results at once."""
    return x + y, x - y


def sevens(B: Backend, x: Any, *rest: Any, **params: Any) -> tuple[Any, None]:
    """A kernel whose result tells that it ran."""
    return B.full(shape=B.shape(x), value=7.0, dtype=B.dtype(x)), None


def eights(
    B: Backend, g: Any, out: Any, saved: Any, x: Any, *rest: Any, **params: Any
) -> tuple[Any, ...]:
    """A derivative that tells that it was asked, by every argument."""
    return (B.mul(g, 8.0),) * 3


@pytest.fixture
def B(backend: Backend) -> Backend:
    """A backend of its own for each test, to put kernels into."""
    return type(backend)()


def vector(B: Backend, *numbers: float) -> Tensor:
    return tensor(np.array(numbers, np.float64), B)


def put(B: Backend, forward: Kernel = sevens, name: str = "triple", **more: Any) -> None:
    B.fused[name] = Fused(name, forward, **more)


# ---- when a kernel runs ------------------------------------------------------------------


def test_a_kernel_runs_where_nothing_is_recorded(B: Backend) -> None:
    put(B)
    x = vector(B, 1, 2)
    assert triple(x).tolist() == [7, 7]
    with no_grad():
        assert triple(x.detach().requires_grad_()).tolist() == [7, 7]
    assert triple(vector(StrictBackend(), 1)).tolist() == [3]


def test_a_kernel_gets_raw_arrays_every_position_and_every_default(B: Backend) -> None:
    calls: list[tuple[Any, ...]] = []

    def spy(B: Backend, *args: Any, **params: Any) -> tuple[Any, None]:
        calls.append((args, params))
        return args[0], None

    put(B, spy)
    x, y = vector(B, 1), vector(B, 2)
    triple(x)
    triple(x, y, 2.0, power=2)
    triple(x, scale=2.0)
    triple(x, scale=y, y=x, shift=1.0)
    triple(x=x, y=None)
    wrongly: Any = triple
    with pytest.raises(TypeError, match="unexpected keyword"):
        wrongly(x, scales=2.0)
    with pytest.raises(TypeError, match="missing"):
        wrongly(y=x)
    assert calls == [
        ((x.data, None, 1.0), {"power": 1, "shift": 0.0}),
        ((x.data, y.data, 2.0), {"power": 2, "shift": 0.0}),
        ((x.data, None, 2.0), {"power": 1, "shift": 0.0}),
        ((x.data, x.data, y.data), {"power": 1, "shift": 1.0}),
        ((x.data, None, 1.0), {"power": 1, "shift": 0.0}),
    ]


def test_what_a_kernel_declines_is_composed(B: Backend) -> None:
    def supports(B: Backend, x: Any, y: Any, scale: Any, *, power: int, shift: float) -> bool:
        assert B.is_array(x)
        return B.shape(x) == (2,) and power == 1

    put(B, supports=supports)
    assert triple(vector(B, 1, 2)).tolist() == [7, 7]
    assert triple(vector(B, 1, 2), power=2).tolist() == [3, 12]
    assert triple(vector(B, 1)).tolist() == [3]


def test_composed_turns_kernels_off_on_this_thread(B: Backend) -> None:
    put(B)
    x = vector(B, 1)
    elsewhere: list[Any] = []
    with suppress(KeyError), composed():
        with composed():
            pass
        assert triple(x).tolist() == [3]
        thread = threading.Thread(target=lambda: elsewhere.append(triple(x).tolist()))
        thread.start()
        thread.join()
        raise KeyError
    assert elsewhere == [[7]] and triple(x).tolist() == [7]


@pytest.mark.parametrize(("setting", "expected"), [("0", "3.0"), ("1", "7.0"), ("", "7.0")])
def test_the_environment_turns_kernels_off(setting: str, expected: str) -> None:
    program = """
from tfx.core.backend import Fused
from tfx.core.fused import fused
from tfx.core.creation import full
from tfx.testing import StrictBackend
B = StrictBackend()
B.fused["op"] = Fused("op", lambda B, x: (B.full(shape=(), value=7.0, dtype=B.dtype(x)), None))
@fused
def op(x):
    return x * 3.0
print(op(full((), 1.0, B)).item())
"""
    environ = os.environ | {"TFX_FUSED": setting}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_tensors_of_two_backends_do_not_reach_a_kernel(B: Backend) -> None:
    put(B)
    mine, other = vector(B, 1), vector(StrictBackend(), 1)
    calls: list[list[Any]] = [[mine, other], [mine, None, other], [other, mine]]
    for args in calls:
        with pytest.raises(BackendMismatch):
            triple(*args)


def test_a_fused_op_without_a_tensor_says_so(B: Backend) -> None:
    wrongly: Any = triple
    for odd in (np.ones(2), 1.0, None):
        with pytest.raises(TypeError, match="triple takes tensors, not"):
            wrongly(odd)
    with pytest.raises(TypeError, match="missing"):
        wrongly()


# ---- gradients ---------------------------------------------------------------------------


def test_without_a_derivative_the_composed_form_is_recorded(B: Backend) -> None:
    put(B)
    value, slope = value_and_grad(lambda x: triple(x, power=2).sum(), autograd="core")(
        vector(B, 1, 2)
    )
    assert (value.item(), slope.tolist()) == (15, [6, 12])
    x = vector(B, 1, 2).requires_grad_()
    triple(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 3]
    y = vector(B, 1, 2)
    assert grad(lambda x: triple(y, x).sum(), autograd="core")(x.detach()).tolist() == [1, 2]


def test_with_a_derivative_the_kernel_is_recorded(B: Backend) -> None:
    put(B, vjp=eights)
    value, (dx, dy) = value_and_grad(lambda p: triple(*p).sum(), autograd="core")(
        [vector(B, 1, 2), vector(B, 3)]
    )
    assert (value.item(), dx.tolist(), dy.tolist()) == (
        14,
        [8, 8],
        [16],
    )  # dy summed as it was spread
    x = vector(B, 1, 2).requires_grad_()
    triple(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [8, 8]


def test_a_derivative_may_see_what_the_forward_saved(B: Backend) -> None:
    def forward(B: Backend, x: Any, *rest: Any, **params: Any) -> tuple[Any, Any]:
        return B.mul(x, 3.0), {"kept": B.mul(x, 0.5)}

    def vjp(
        B: Backend, g: Any, out: Any, saved: Any, x: Any, *rest: Any, **params: Any
    ) -> list[Any]:
        assert (len(rest), params) == (2, {"power": 1, "shift": 2.0})
        return [B.mul(g, B.add(B.add(saved["kept"], out), x)), None, None]

    put(B, forward, vjp=vjp)
    found = grad(lambda x: triple(x, shift=2.0).sum(), autograd="core")(vector(B, 1, 2))
    assert found.tolist() == [4.5, 9]


def test_what_a_derivative_leaves_out_the_composed_form_answers(B: Backend) -> None:
    def by_x_alone(
        B: Backend, g: Any, out: Any, saved: Any, x: Any, y: Any, *rest: Any, **params: Any
    ) -> list[Any]:
        return [B.mul(g, y), None, None]

    def forward(B: Backend, x: Any, y: Any, *rest: Any, **params: Any) -> tuple[Any, Any]:
        return B.mul(x, y), None

    put(B, forward, vjp=by_x_alone)
    params = [vector(B, 1, 2), vector(B, 5)]
    _, (dx, dy) = value_and_grad(lambda p: triple(*p).sum(), autograd="core")(params)
    assert (dx.tolist(), dy.tolist()) == ([5, 5], [3])
    with no_grad():
        _, (dx, dy) = value_and_grad(lambda p: triple(*p).sum(), autograd="core")(params)
    assert (dx.tolist(), dy.tolist()) == ([5, 5], [3])


def test_a_gradient_of_a_gradient_is_that_of_the_composed_form(B: Backend) -> None:
    put(B, vjp=eights)
    x = vector(B, 1, 2)
    inner = value_and_grad(lambda x: triple(x, power=3).sum(), autograd="core")
    assert inner(x)[0].item() == 14

    def outer(x: Tensor) -> Any:
        value, slope = inner(x)
        assert value.item() == 27
        return slope.sum()

    assert grad(outer, autograd="core")(x).tolist() == [18, 36]
    # ... also where the outer derivative is taken by backward
    x.requires_grad_()
    outer = grad(lambda x: triple(x, power=3).sum(), autograd="core")
    outer(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [18, 36]


def test_several_results(B: Backend) -> None:
    def forward(B: Backend, x: Any, y: Any) -> tuple[Any, Any]:
        return (sevens(B, x)[0], B.mul(x, y)), None

    for vjp in (None, eights):
        put(B, forward, "sum_and_difference", vjp=vjp)
        x, y = vector(B, 2), vector(B, 3)
        total, difference = sum_and_difference(x, y)
        assert (total.tolist(), difference.tolist()) == ([7], [6])
        with no_grad():
            total, _ = sum_and_difference(x.detach().requires_grad_(), y)
        assert total.tolist() == [7] and total.node is None

        def product(p: list[Tensor]) -> Tensor:
            total, difference = sum_and_difference(*p)
            return (total * difference).sum()

        value, (dx, dy) = value_and_grad(product, autograd="core")([x, y])
        assert (value.item(), dx.tolist(), dy.tolist()) == (-5, [4], [-6])


# ---- under native autograd ---------------------------------------------------------------


@pytest.fixture
def native(B: Backend) -> Backend:
    if not B.native_autograd:
        pytest.skip(f"{B} has no autograd of its own")
    return B


@pytest.mark.parametrize("vjp", [None, eights])
def test_a_kernel_the_library_cannot_differentiate_is_composed(native: Backend, vjp: Any) -> None:
    put(native, vjp=vjp)
    x = vector(native, 1, 2)
    value, slope = value_and_grad(lambda x: triple(x).sum(), autograd="native")(x)
    assert (value.item(), slope.tolist()) == (9, [3, 3])

    def beside(x: Tensor) -> Tensor:  # a constant's kernel, and one of what was detached, may run
        with no_grad():
            sevens = triple(x)
        return (sevens * triple(vector(native, 1)) * triple(x.detach()) * x).sum()

    value, slope = value_and_grad(beside, autograd="native")(x)
    assert (value.item(), slope.tolist()) == (7**3 * 3, [7**3, 7**3])


def test_a_kernel_the_library_can_differentiate_runs(native: Backend) -> None:
    put(native, lambda B, x, *rest, **params: (B.mul(x, 11.0), None), native=True)
    value, slope = value_and_grad(lambda x: triple(x).sum(), autograd="native")(
        vector(native, 1, 2)
    )
    assert (value.item(), slope.tolist()) == (33, [11, 11])


def test_a_kernel_that_only_says_so_does_not_count(native: Backend) -> None:
    """A kernel out of sight of the library's autograd is left for the composed form."""
    put(native, native=True)
    both = grad(lambda x: triple(x).sum() + x.sum(), autograd="native")(vector(native, 1, 2))
    assert both.tolist() == [4, 4]


# ---- the kernels that backends bring -----------------------------------------------------


@pytest.fixture(params=FUSED)
def name(request: pytest.FixtureRequest, B: Backend) -> str:
    """Every op that the backend overrides."""
    if request.param not in B.fused:
        pytest.skip(f"{B} has no kernel for {request.param}")
    found: str = request.param
    return found


def test_every_record_has_the_name_of_an_op(B: Backend) -> None:
    for name, override in B.fused.items():
        assert name == override.name and name in FUSED


def test_second_derivatives_of_a_kernel(name: str, B: Backend) -> None:
    for op in FUSED_OPS:
        if op.name.split()[0] == name and op.differentiable:
            check_second_derivatives(op, B)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", FUSED.keys() - {"triple", "sum_and_difference"})
def test_wrong_input_is_the_composed_forms_to_refuse(op: str, B: Backend) -> None:
    for n, call in enumerate(WRONG_CALLS[op]):
        refusals = []
        for form in (composed, no_grad):
            with told(n, form.__name__), form(), pytest.raises(TfxError) as caught:
                call(ones_on(B))
            refusals.append((caught.type, str(caught.value)))
            assert caught.type in (ShapeError, DTypeError) and "\n" not in str(caught.value)
        assert refusals[0] == refusals[1]
