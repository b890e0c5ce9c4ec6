"""What the adapters of foreign test suites share: what each case came to, and what stays unmapped.

A case is mapped where tfx has a direct counterpart of what it asks for, and must then pass. It is
unmapped where an adapter knows of none, or where tfx refuses the call in words of its own
(`DTypeError`, `ShapeError`); the reasons are listed in a file beside the adapter, so that a refusal
too many is noticed.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import DTypeError, ShapeError, TfxError
from tfx.core.tensor import Tensor

TOLERANCE = {"float64": 1e-12, "float32": 3e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Of the largest number in a result, or of 1. In halves, which both sides round once at the end,
two units of the last place. Hundreds of them in the others: what is left of a sum is no more exact
than its terms, products in the samples go up to a hundred, and each side adds in its own order.
"""

Listing = Counter[tuple[str, str]]
"""How many cases, by the operation's name and the reason that they are unmapped."""


class Unmapped(Exception):
    """A case asks for what tfx does not have; the message says what."""


class Case(Protocol):
    """One case of a foreign suite."""

    @property
    def name(self) -> str: ...

    @property
    def dtypes(self) -> Iterable[str]:
        """The names of the dtypes that it computes with."""

    def check(self, backend: Backend) -> None:
        """Hold tfx against the suite's own results.

        Raises:
            AssertionError: tfx differs.
            Unmapped, DTypeError, ShapeError: tfx has no counterpart of what the case asks for.
        """


@dataclass
class Score:
    """What the cases of an operation came to on one backend.

    Attributes:
        passed: how many did.
        failed: each with its name and what went wrong.
        left_out: how many need a dtype that tfx has, and this backend does not compute with.
        unmapped: how many for each reason.
    """

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    left_out: int = 0
    unmapped: Counter[str] = field(default_factory=Counter)


def summary(scores: Iterable[Score]) -> str:
    """All of them in a few words."""
    scores = list(scores)
    return (
        f"{sum(s.passed for s in scores)} passed, {sum(len(s.failed) for s in scores)} failed, "
        f"{sum(s.unmapped.total() for s in scores)} unmapped, "
        f"{sum(s.left_out for s in scores)} left out for their dtype"
    )


def judge(cases: Iterable[Case], backend: Backend) -> Score:
    """Every case on `backend`."""
    score = Score()
    for case in cases:
        try:
            with np.errstate(all="ignore"):
                case.check(backend)
        except Unmapped as lack:
            score.unmapped[str(lack)] += 1
        except TfxError as refusal:
            if not {DType(name) for name in case.dtypes} <= backend.dtypes:
                score.left_out += 1
            elif isinstance(refusal, DTypeError | ShapeError):
                reason = str(refusal).replace(f"backend {backend}", "the backend")
                score.unmapped[f"refused: {reason}"] += 1
            else:
                score.failed.append(f"{case.name}: {type(refusal).__name__}: {refusal}")
        except Exception as fault:  # whatever it is, the other cases are run and this one is named
            score.failed.append(f"{case.name}: {type(fault).__name__}: {fault}")
        else:
            score.passed += 1
    return score


# ---- between the suite's arrays and tensors ------------------------------------------------------


def imported(values: HostArray, dtype: str, backend: Backend) -> Tensor:
    """A tensor of these numbers, given in `dtype` or in one that holds it."""
    return tensor(values, backend, known(dtype))


def known(dtype: str) -> DType:
    """The dtype of that name; unmapped where tfx has none."""
    if dtype not in set(DType):
        raise Unmapped(f"dtype {dtype}")
    return DType(dtype)


def assert_same(found: Tensor, expected: HostArray, dtype: str) -> None:
    """The dtype, the shape, and the numbers: floats within `TOLERANCE`, all else exactly."""
    promised, given = f"{dtype}{expected.shape}", f"{found.dtype}{found.shape}"
    assert given == promised, f"{given}, not {promised}"
    if dtype not in TOLERANCE:
        np.testing.assert_array_equal(found.numpy(), expected)
        return
    wide = expected.astype(np.float64)
    bound = TOLERANCE[dtype] * np.abs(wide).max(initial=1, where=np.isfinite(wide))
    np.testing.assert_allclose(found.numpy().astype(np.float64), wide, rtol=0, atol=bound)


# ---- what is written more than once in tables ----------------------------------------------------


def call(function: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
    """`function` on these; unmapped where it has no such parameter."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as misfit:
        raise Unmapped(str(misfit).replace("got an unexpected keyword", "no")) from misfit
    return function(*bound.args, **bound.kwargs)


def only(holds: bool, otherwise: str) -> None:
    """The case is unmapped, `otherwise` being the reason, unless the condition holds."""
    if not holds:
        raise Unmapped(otherwise)


def along(x: Tensor, axis: int, key: Any) -> Tensor:
    """x[..., key, ...], the key at `axis`."""
    return x[(*(slice(None),) * (axis % x.ndim), key)]


def unsqueezed(x: Tensor, axes: int | tuple[int, ...]) -> Tensor:
    """`x` with axes of length 1 at these places of the result."""
    return x.reshape(np.expand_dims(np.empty(x.shape), axes).shape)


def squeezed(x: Tensor, axes: int | tuple[int, ...] | None) -> Tensor:
    """`x` without these axes; unmapped where one is longer than 1."""
    try:
        return x.reshape(np.squeeze(np.empty(x.shape), axes).shape)
    except np.exceptions.AxisError as misfit:
        raise Unmapped(str(misfit)) from misfit
    except ValueError as misfit:
        raise Unmapped("an axis longer than 1, and left") from misfit


# ---- the file of what is unmapped ----------------------------------------------------------------


def told(listing: Listing) -> str:
    """As the file has it, sorted, a name and a reason a line."""
    lines = [
        f"{name}: {reason}\n" if count == 1 else f"{name}: {count} cases: {reason}\n"
        for (name, reason), count in sorted(listing.items())
    ]
    return "".join(lines)


def read(file: Path) -> Listing:
    """What `told` wrote."""
    lines = file.read_text("utf-8").splitlines()
    matches = [re.fullmatch(r"(\S+): (?:(\d+) cases: )?(.*)", line) for line in lines]
    return Counter({(m[1], m[3]): int(m[2] or 1) for m in matches if m})


def pinned(package: str) -> str:
    """The version of a package that `constraints.txt` says the tests are run with."""
    constraints = Path(__file__).parents[2] / "constraints.txt"
    lines = constraints.read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)[package]


def assert_listed(listing: Listing, file: Path, adapter: str) -> None:
    """The file says what is unmapped today: no more, which is a loss, and no less, which is old."""
    listed = read(file)
    new, old = told(listing - listed), told(listed - listing)
    again = f"if it is meant: python tests/oracles/{adapter}"
    assert not new, f"unmapped, and not in {file.name}; {again}\n{new}"
    assert not old, f"in {file.name}, but mapped by now; {again}\n{old}"
