"""numexpr's gelu against the formula, and when it runs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numexpr
import numpy as np
import pytest
from tfx_numexpr.kernels import GELU

import tfx
from tfx.core.backend import Backend
from tfx.testing import Level, Subject, run

NUMBERS = np.concatenate([np.linspace(-9, 9, 5001), [0.0, 1e-30, -1e-30, 39.0, -39.0, 1e30, -1e30]])
TOLERANCE = {"float32": 3e-7, "float64": 1e-15}


@pytest.fixture(scope="module")
def backend() -> Backend:
    return tfx.backend("numpy")


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of each result that numexpr gave."""
    shapes = []
    evaluate = numexpr.evaluate

    def counted(*args: Any) -> Any:
        out = evaluate(*args)
        shapes.append(out.shape)
        return out

    monkeypatch.setattr(numexpr, "evaluate", counted)
    return shapes


def test_the_conformance_kit_finds_it_right(evaluated: list[tuple[int, ...]]) -> None:
    result = run(Subject.open("numpy"), [Level.KERNELS], "gelu")
    assert result.failures == [] and evaluated
    said = {outcome.name: outcome.status for outcome in result.outcomes}
    assert said["gelu float32 kernel core"] == said["gelu float64 kernel core"] == "passed"


def by_hand(x: float) -> float:
    """x times the normal distribution function."""
    return x * math.erfc(-x * math.sqrt(0.5)) / 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_the_formula(
    backend: Backend, evaluated: list[tuple[int, ...]], dtype: str
) -> None:
    x = tfx.tensor(NUMBERS.astype(dtype), backend)
    y = tfx.gelu(x)
    assert y.dtype == dtype and evaluated == [x.shape]
    expected = [by_hand(number) for number in x.tolist()]
    error = np.abs(y.numpy() - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_those_of_finite_differences(
    backend: Backend, evaluated: list[tuple[int, ...]], dtype: str
) -> None:
    x = tfx.tensor(NUMBERS[np.abs(NUMBERS) < 10].astype(dtype), backend)
    factor = tfx.tensor(np.cos(x.numpy()), backend)
    slopes = tfx.grad(lambda x: (tfx.gelu(x) * factor).sum(), autograd="core")(x)
    assert slopes.dtype == dtype and evaluated == [x.shape, x.shape]
    step = 1e-5
    expected = [
        (by_hand(number + step) - by_hand(number - step)) / (2 * step) * math.cos(number)
        for number in x.tolist()
    ]
    np.testing.assert_allclose(slopes.numpy(), expected, atol=max(1e-9, TOLERANCE[dtype]))


@pytest.mark.parametrize(
    "x",
    [
        np.array(0.5),
        np.zeros((0, 3)),
        NUMBERS[:12].reshape(3, 4).T,
        NUMBERS[::-3],
        np.broadcast_to(NUMBERS[:4], (3, 4)),
        np.resize(NUMBERS, (40, 3072)),  # enough for several threads
    ],
    ids=["0-d", "empty", "transposed", "strided", "repeated", "large"],
)
def test_arrays_of_every_layout(backend: Backend, x: Any) -> None:
    before = x.copy()
    out, _ = GELU.forward(backend, x, approximate="none")
    assert type(out) is np.ndarray and (out.shape, out.dtype) == (x.shape, x.dtype)
    np.testing.assert_allclose(out, np.vectorize(by_hand, otypes="d")(x), atol=1e-15, rtol=1e-15)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("dtype", "approximate"), [("float16", "none"), ("float64", "tanh")])
def test_what_it_declines_is_composed(
    backend: Backend, evaluated: list[tuple[int, ...]], dtype: str, approximate: Any
) -> None:
    x = tfx.tensor(NUMBERS[:5000].astype(dtype), backend)
    with tfx.composed():
        expected = tfx.gelu(x, approximate=approximate).tolist()
    assert tfx.gelu(x, approximate=approximate).tolist() == expected and not evaluated


def test_it_can_be_switched_off(backend: Backend, evaluated: list[tuple[int, ...]]) -> None:
    x = tfx.tensor(NUMBERS, backend)
    with tfx.composed():
        tfx.gelu(x)
    assert not evaluated
    code = """if True:
        import numexpr, tfx
        calls, evaluate = [], numexpr.evaluate
        numexpr.evaluate = lambda *args: calls.append(1) or evaluate(*args)
        tfx.gelu(tfx.tensor([1.0], tfx.backend("numpy")))
        print(len(calls))
    """
    counts = {
        value: subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"TFX_FUSED": value},
        ).stdout.strip()
        for value in ("0", "1")
    }
    assert counts == {"0": "0", "1": "1"}


def test_many_threads_may_use_it(backend: Backend) -> None:
    arrays = [np.resize(np.roll(NUMBERS, i), size) for i in range(20) for size in (500, 40_000)]
    expected = [GELU.forward(backend, x, approximate="none")[0] for x in arrays]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda x: GELU.forward(backend, x, approximate="none")[0], arrays)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_users_number_of_threads_stays(backend: Backend) -> None:
    before = numexpr.set_num_threads(1)
    try:
        GELU.forward(backend, np.resize(NUMBERS, 100_000), approximate="none")
        assert numexpr.get_num_threads() == 1
    finally:
        numexpr.set_num_threads(before)


def test_the_list_of_backends_shows_it_and_imports_no_numexpr() -> None:
    code = (
        "import sys; sys.argv = ['tfx', 'backends']; from tfx.cli.main import main\n"
        "try: main()\n"
        "finally: print('numexpr' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *table, imported = done.stdout.splitlines()
    (line,) = (line for line in table if line.startswith("numpy:gelu"))
    assert "tfx-numexpr" in line and "on several threads" in line and imported == "False"
