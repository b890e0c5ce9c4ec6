"""torch's own samples of its operations on tfx: values, and gradients in float64.

`opinfo_operations` says what tfx has for each operation. To list anew what stays unmapped:

    python tests/oracles/opinfo_adapter.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from foreign_cases import (
    Listing,
    Score,
    assert_same,
    call,
    imported,
    judge,
    known,
    told,
)
from opinfo_operations import OPERATIONS

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import Backend
from tfx.core.tensor import Tensor

FILE = Path(__file__).with_name("opinfo_unmapped.txt")
VERSION = "2.13.0"
"""The version of torch that the file was written with."""

DTYPES = (torch.float64, torch.float32, torch.int64, torch.bool)

# ---- cases ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SampleCase:
    """One sample of an operation, and what torch makes of it.

    Attributes:
        name: the operation, the dtype, and which of its samples.
        args, kwargs: of the call, with torch's tensors.
        results: torch's.
        weights: what each result is multiplied by before all are summed up; None where no gradient
            goes through a result.
        gradients: of that sum, by every argument that asks for one.
    """

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    results: Sequence[torch.Tensor]
    weights: Sequence[torch.Tensor | None]
    gradients: Sequence[torch.Tensor]

    @property
    def dtypes(self) -> Iterator[str]:
        return map(_dtype, (*_tensors((self.args, self.kwargs)), *self.results))

    def check(self, backend: Backend) -> None:
        for dtype in self.dtypes:
            known(dtype)
        found = self._call([_imported(x, backend) for x in _tensors((self.args, self.kwargs))])
        for x, expected in zip(found, self.results, strict=True):
            _assert_same(x, expected)
        if self.gradients:
            self._check_gradients(backend, "core")
            if backend.native_autograd:
                self._check_gradients(backend, "native")

    def _check_gradients(self, backend: Backend, autograd: Autograd) -> None:
        given = list(_tensors((self.args, self.kwargs)))
        weights = [w if w is None else _imported(w, backend) for w in self.weights]

        def weighted(params: Sequence[Tensor]) -> Tensor:
            variables = iter(params)
            found = self._call(
                [next(variables) if x.requires_grad else _imported(x, backend) for x in given]
            )
            pairs = zip(found, weights, strict=True)
            first, *others = [(x * w).sum() for x, w in pairs if w is not None]
            return sum(others, start=first)

        params = [_imported(x, backend) for x in given if x.requires_grad]
        _, found = value_and_grad(weighted, autograd=autograd)(params)
        for x, expected in zip(found, self.gradients, strict=True):
            _assert_same(x, expected)

    def _call(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results for these tensors in place of torch's."""
        args, kwargs = _replaced((self.args, self.kwargs), iter(tensors))
        return _sequence(call(OPERATIONS[self.name.partition(" ")[0]], args, kwargs))


def _tensors(nest: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    if isinstance(nest, torch.Tensor):
        yield nest
    elif isinstance(nest, list | tuple | dict):
        for x in nest.values() if isinstance(nest, dict) else nest:
            yield from _tensors(x)


def _replaced(nest: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nest with other tensors in place of its own."""
    if isinstance(nest, torch.Tensor):
        return next(tensors)
    if isinstance(nest, dict):
        return {key: _replaced(x, tensors) for key, x in nest.items()}
    if isinstance(nest, list | tuple):
        replaced = [_replaced(x, tensors) for x in nest]
        return replaced if isinstance(nest, list) else tuple(replaced)
    return nest


def _sequence(results: Any) -> Sequence[Any]:
    return results if isinstance(results, list | tuple) else (results,)


def _dtype(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _imported(x: torch.Tensor, backend: Backend) -> Tensor:
    return imported(_host(x), _dtype(x), backend)


def _assert_same(found: Tensor, expected: torch.Tensor) -> None:
    assert_same(found, _host(expected), _dtype(expected))


def _host(x: torch.Tensor) -> Any:
    x = x.detach().resolve_conj().resolve_neg()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


@cache
def infos() -> dict[str, Any]:
    """What torch tells of each operation, by name and variant."""
    with patch("torch.backends.disable_global_flags"):  # it would hold for the rest of the process
        from torch.testing._internal.common_methods_invocations import op_db
    return {info.full_name: info for info in op_db}


@cache
def cases(name: str) -> list[SampleCase]:
    """The samples of an operation in all dtypes, from numbers drawn with a fixed seed."""
    info = infos()[name]
    made = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for dtype in [dtype for dtype in DTYPES if dtype in info.dtypes]:
            differentiated = dtype == torch.float64 and info.supports_autograd
            # sample_inputs() itself, which asks for the call stack each time, is slow below pytest
            samples = info.sample_inputs_func(info, "cpu", dtype, requires_grad=differentiated)
            for i, sample in enumerate(samples):
                made.append(_case(f"{name} {str(dtype)[6:]} {i}", info, sample))
    return made


def _case(name: str, info: Any, sample: Any) -> SampleCase:
    args, kwargs = (sample.input, *sample.args), sample.kwargs
    results = _sequence(info(*args, **kwargs))
    weights = [torch.randn_like(x) if x.requires_grad else None for x in results]
    variables = [x for x in _tensors((args, kwargs)) if x.requires_grad]
    pairs = zip(results, weights, strict=True)
    outputs = [(x, w) for x, w in pairs if w is not None]
    gradients: Sequence[torch.Tensor] = ()
    if outputs:
        values, seeds = zip(*outputs, strict=True)
        gradients = torch.autograd.grad(values, variables, seeds, materialize_grads=True)
    return SampleCase(name, args, kwargs, results, weights, gradients)


# ---- what they come to ---------------------------------------------------------------------------


@cache
def score(name: str, backend: Backend) -> Score:
    """What the samples of an operation came to."""
    return judge(cases(name), backend)


def unmapped(backend: Backend) -> Listing:
    """What stays unmapped, as this backend tells it; an operation counts once, without samples."""
    listing: Listing = Counter()
    for name in infos():
        if name in OPERATIONS:
            for reason, count in score(name, backend).unmapped.items():
                listing[name, reason] = count
        else:
            listing[name, "no direct counterpart"] = 1
    return listing


if __name__ == "__main__":
    FILE.write_text(told(unmapped(NumpyBackend())), "utf-8")
