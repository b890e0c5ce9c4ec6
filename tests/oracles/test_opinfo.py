"""torch's samples of its operations on every backend, and the list of what stays unmapped."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from foreign_cases import assert_listed, pinned, summary

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import vjps
from tfx.core.backend import Array, Backend

torch: Any = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's testing modules import it
adapter: Any = import_module("opinfo_adapter")


@pytest.mark.parametrize("name", adapter.OPERATIONS)
@pytest.mark.filterwarnings("ignore:var.*degrees of freedom:UserWarning")
def test_samples(name: str, backend: Backend) -> None:
    score = adapter.score(name, backend)
    assert not score.failed, "\n".join(score.failed)
    assert score.passed or score.left_out


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom:UserWarning")
def test_what_is_unmapped_is_listed(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    unmapped = adapter.unmapped(backend)
    scores = [adapter.score(name, backend) for name in adapter.OPERATIONS]
    others = len(adapter.infos()) - len(scores)
    with capsys.disabled():
        print(f"\nOpInfo samples on {backend}: {summary(scores)}; {others} operations unmapped")
    if torch.__version__.partition("+")[0] != adapter.VERSION:
        pytest.skip(f"the list is of torch {adapter.VERSION}; here is {torch.__version__}")
    assert_listed(unmapped, adapter.FILE, "opinfo_adapter.py")


def test_the_list_is_of_the_version_that_is_tested() -> None:
    assert adapter.VERSION == pinned("torch"), "list anew: python tests/oracles/opinfo_adapter.py"


class Inexact(NumpyBackend):
    """A thousandth too much in every exponential."""

    def exp(self, x: Array) -> Array:
        return self.mul(super().exp(x), 1.001)


def test_a_value_slightly_off_is_noticed() -> None:
    score = adapter.score("exp", Inexact())
    assert (score.passed, len(score.failed)) == (2, 4)  # two samples are empty


def test_a_wrong_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vjps._RULES, "tanh", (lambda B, g, out, x: B.mul(g, 1.001),))
    score = adapter.score("tanh", NumpyBackend())
    assert [fault.partition(":")[0] for fault in score.failed] == ["tanh float64 0"]
    assert score.passed == 1  # float32, of values alone
