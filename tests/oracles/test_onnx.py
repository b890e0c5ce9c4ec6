"""ONNX's node tests on every backend, and the list of those that stay unmapped."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
from foreign_cases import assert_listed, pinned, summary

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Array, Backend

pytest.importorskip("onnx")
adapter: Any = import_module("onnx_adapter")


@pytest.mark.parametrize("operator", adapter.OPERATIONS)
def test_cases(operator: str, backend: Backend) -> None:
    score = adapter.score(operator, backend)
    assert score.passed and not score.failed, "\n".join(score.failed)


def test_what_is_unmapped_is_listed(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    unmapped = adapter.unmapped(backend)
    scores = [adapter.score(name, backend) for name in adapter.OPERATIONS]
    others = sum(unmapped.values()) - sum(score.unmapped.total() for score in scores)
    with capsys.disabled():
        print(f"\nONNX node tests on {backend}: {summary(scores)}; {others} of other operators")
    if version("onnx") != adapter.VERSION:
        pytest.skip(f"the list is of onnx {adapter.VERSION}; here is {version('onnx')}")
    assert_listed(unmapped, adapter.FILE, "onnx_adapter.py")


def test_the_list_is_of_the_version_that_is_tested() -> None:
    assert adapter.VERSION == pinned("onnx"), "list anew: python tests/oracles/onnx_adapter.py"


class Inexact(NumpyBackend):
    """A thousandth too much in every exponential."""

    def exp(self, x: Array) -> Array:
        return self.mul(super().exp(x), 1.001)


def test_a_value_slightly_off_is_noticed() -> None:
    score = adapter.score("Exp", Inexact())
    assert (score.passed, len(score.failed)) == (0, 2)
    assert "test_exp_example: AssertionError" in score.failed[0]


def test_a_lost_operator_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    if version("onnx") != adapter.VERSION:
        pytest.skip(f"the list is of onnx {adapter.VERSION}; here is {version('onnx')}")
    monkeypatch.delitem(adapter.OPERATIONS, "Exp")
    with pytest.raises(AssertionError, match="Exp: 2 cases: no direct counterpart"):
        assert_listed(adapter.unmapped(NumpyBackend()), adapter.FILE, "onnx_adapter.py")
