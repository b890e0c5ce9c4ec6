"""A kernel of the cupy backend as these tests call it, and what the device had to do for it.

Skipped where there is no CUDA device, real or simulated; only a simulated one, `cudasim`, counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tfx.core.tolerances import TOLERANCES
from tfx.testing.calling import put


@pytest.fixture(autouse=True)
def bounds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger blocks than usual are promised to the compiler, which else may give each thread more
    registers than there are for all of them."""
    cuda = sys.modules.get("tfx.backends.cupy.kernels.cuda")
    if cuda is None:  # where there is no device
        return
    usual, launch = cuda.THREADS, cuda.Program.launch

    def watched(self: Any, name: str, blocks: Any, threads: int, *args: Any, **rest: Any) -> None:
        promised = re.search(rf"__launch_bounds__\([^)]+\)\s+{name}\(", self._source)
        assert threads <= usual or promised, f"{name} is launched with {threads} threads"
        launch(self, name, blocks, threads, *args, **rest)

    monkeypatch.setattr(cuda.Program, "launch", watched)


@pytest.fixture
def run(B: Any) -> Callable[..., Any]:
    """A kernel forward and, with `g`, backward, from host arrays to host arrays: its result, or a
    tuple of them, and the gradients by all arguments."""

    def call(name: str, *args: Any, g: Any = None, layout: str = "plain", **params: Any) -> Any:
        kernel = B.fused[name]
        raw = [put(B, x, layout) if isinstance(x, np.ndarray) else x for x in args]
        assert kernel.supports(B, *raw, **params)
        out, saved = kernel.forward(B, *raw, **params)
        several = isinstance(out, tuple)
        values = tuple(map(B.to_numpy, out)) if several else B.to_numpy(out)
        if g is None:
            return values
        found = kernel.vjp(B, put(B, g, layout), out, saved, *raw, **params)
        return values, [x if x is None else B.to_numpy(x) for x in found]

    return call


@pytest.fixture
def counts(B: Any) -> Callable[[Callable[[], Any]], dict[str, int]]:
    """What the second call of something asks of the device: it may neither copy to or from the
    host, nor wait for the device."""
    cudasim = pytest.importorskip("cudasim", reason="only a simulated device counts launches")

    def count(call: Callable[[], Any]) -> dict[str, int]:
        call()
        cudasim.counts(reset=True)
        call()
        found: dict[str, int] = cudasim.counts()
        for crossing in ("host_to_device", "device_to_host", "syncs"):
            assert found[crossing] == 0, crossing
        return found

    return count


@pytest.fixture
def launches(counts: Callable[[Callable[[], Any]], dict[str, int]]) -> Callable[..., int]:
    """Launches of the second call of something, likewise."""
    return lambda call: counts(call)["launches"]


@pytest.fixture
def near() -> Callable[..., None]:
    """Asserts that results are, within the tolerance of their dtype, what they should be."""

    def check(found: Any, expected: Any, share: float = 1.0) -> None:
        if isinstance(found, Sequence):
            assert len(found) == len(expected)
            for x, y in zip(found, expected, strict=True):
                check(x, y, share)
            return
        expected = np.asarray(expected, np.float64)
        assert found.shape == expected.shape
        bound = TOLERANCES[found.dtype.name].bound * share
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound * scale)

    return check
