"""The time of numexpr's gelu as a share of that of NumPy's own kernel: python compare.py"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numexpr
import numpy as np
from tfx_numexpr.kernels import GELU, Array

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Fused

ROUNDS = 15
BACKEND = NumpyBackend()
OWN = BACKEND.fused["gelu"]


def value(kernel: Fused, g: Array, x: Array) -> object:
    return kernel.forward(BACKEND, x, approximate="none")


def gradient(kernel: Fused, g: Array, x: Array) -> object:
    assert kernel.vjp is not None
    return kernel.vjp(BACKEND, g, None, None, x, approximate="none")


def share(work: Callable[[Fused, Array, Array], object], g: Array, x: Array) -> float:
    """Of the shortest rounds of both kernels, which take turns."""
    best = {GELU: float("inf"), OWN: float("inf")}
    for _ in range(ROUNDS):
        for kernel in best:
            began = perf_counter()
            for _ in range(1 + 200_000 // x.size):
                work(kernel, g, x)
            best[kernel] = min(best[kernel], perf_counter() - began)
    return best[GELU] / best[OWN]


print(f"numexpr {numexpr.__version__}, {numexpr.get_num_threads()} threads; NumPy {np.__version__}")
for dtype in (np.float32, np.float64):
    for shape in (1, 64), (1, 3072), (512, 3072):
        g, x = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
        found = f"value {share(value, g, x):.2f}  gradient {share(gradient, g, x):.2f}"
        print(f"{dtype.__name__} {shape!s:12} {found}")
