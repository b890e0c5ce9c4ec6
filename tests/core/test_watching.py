"""Watching: which calls are told, with what, and on which thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import nn
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.errors import ShapeError
from tfx.core.fused import composed
from tfx.core.tensor import Tensor
from tfx.core.watching import watched, watchers

Told = list[tuple[str, Sequence[Any], Any]]


def square(backend: Backend, size: int = 4) -> Tensor:
    return tensor(np.random.default_rng(0).normal(size=(size, size)), backend)


@pytest.mark.parametrize("kernels", [True, False])
def test_the_outermost_calls_are_told_in_their_order(backend: Backend, kernels: bool) -> None:
    told: Told = []
    x = square(backend)
    with nullcontext() if kernels else composed(), watched(lambda *call: told.append(call)):
        y = nn.linear(x, x, activation="gelu")  # composed: gelu
        z = nn.attention(y, y, y, 0.5, heads=2)  # composed: attention, softmax
    assert [op for op, _, _ in told] == ["linear", "attention"]
    assert told[0][2] is y
    assert told[1][2] is z


def test_arguments_are_those_of_the_call_also_by_keyword() -> None:
    told: Told = []
    x = square(NumpyBackend())
    rest = tensor(np.ones((4, 4)), x.backend)
    with watched(lambda *call: told.append(call)):
        nn.linear(x, x, residual=rest)
    [(_, args, _)] = told
    assert len(args) == 3
    assert args[0] is x and args[2] is rest


def test_watching_changes_neither_results_nor_who_computes_them() -> None:
    backend, ran = NumpyBackend(), []

    def counted(*args: Any, **params: Any) -> Any:
        ran.append(1)
        return kernel.forward(*args, **params)

    kernel = backend.fused["softmax"]
    backend.fused["softmax"] = replace(kernel, forward=counted)
    x = square(backend).requires_grad_()
    alone = nn.softmax(x)
    with watched(lambda *call: None):
        seen = nn.softmax(x)
    assert len(ran) == 2
    assert seen.node is not None and type(seen.node) is type(alone.node)
    assert seen.tolist() == alone.tolist()


def test_results_of_several_tensors_come_as_they_are() -> None:
    told: Told = []
    x = square(NumpyBackend())
    rates = tensor(np.ones(3), x.backend)
    with watched(lambda *call: told.append(call)):
        found = nn.adamw_step(x, x, x, x * x, rates, beta1=0.9, beta2=0.9, eps=1e-8)
    assert told[0][2] is found and len(found) == 3


def test_what_the_callback_computes_is_not_told() -> None:
    told = []

    def look(op: str, args: Sequence[Any], result: Tensor) -> None:
        told.append(op)
        nn.softmax(result)

    x = square(NumpyBackend())
    with watched(look):
        nn.rms_norm(x)
        nn.rms_norm(x)
    assert told == ["rms_norm", "rms_norm"]


def test_of_two_callbacks_the_inner_one_is_told_then_the_outer_again() -> None:
    outer: Told = []
    inner: Told = []
    x = square(NumpyBackend())
    with watched(lambda *call: outer.append(call)):
        with watched(lambda *call: inner.append(call)):
            nn.rms_norm(x)
        nn.softmax(x)
    nn.gelu(x)
    assert [op for op, *_ in inner] == ["rms_norm"]
    assert [op for op, *_ in outer] == ["softmax"]
    assert not watchers


def test_a_call_that_raises_is_not_told_and_watching_goes_on() -> None:
    told: Told = []
    x = square(NumpyBackend())
    with watched(lambda *call: told.append(call)):
        with pytest.raises(ShapeError):
            nn.linear(x, square(x.backend, 3))
        nn.softmax(x)
    assert [op for op, *_ in told] == ["softmax"]


def test_an_error_of_the_callback_ends_the_call_and_the_watching() -> None:
    def refuse(*_: object) -> None:
        raise ValueError("enough")

    x = square(NumpyBackend())
    with pytest.raises(ValueError, match="enough"), watched(refuse):
        nn.softmax(x)
    assert not watchers
    nn.softmax(x)


def test_other_threads_are_not_watched() -> None:
    told: Told = []
    computed = []
    x = square(NumpyBackend())
    with watched(lambda *call: told.append(call)):
        other = threading.Thread(target=lambda: computed.append(nn.softmax(x)))
        other.start()
        other.join()
        nn.rms_norm(x)
    assert len(computed) == 1
    assert [op for op, *_ in told] == ["rms_norm"]
