"""One example on two backends, held against each other step by step, forward and back.

What is compared is what every fused op of the pass gave, the gradient of the loss by each of these
results, and by each parameter. Small differences are rounding; the first large one in the order of
the computation is where to look for the fault.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import numpy as np

from tfx.core.autograd import Autograd, value_and_grad
from tfx.core.backend import HostArray
from tfx.core.dtypes import DType
from tfx.core.errors import GradientError, TfxError
from tfx.core.recipe import Example
from tfx.core.tape import Leaf
from tfx.core.tensor import Tensor, gradients
from tfx.core.tolerances import TOLERANCES, gaps
from tfx.core.watching import watched

Phase = Literal["forward", "backward", "parameter"]
"""A result, the loss's gradient by a result, or its gradient by a parameter."""


# ---- what comes out ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One array of the first backend, the reference, beside the same of the second.

    Attributes:
        phase: of which part of the work it is.
        name: where in the model: that of the nearest parameters, and the fused op.
        shape: of the array.
        difference: the largest between two elements; infinite where NaN or infinity stands on one
            side only.
        magnitude: the largest finite one of the reference.
        relative: difference / magnitude; infinite for a difference from nothing but zeros.
        apart: whether `relative` is beyond the tolerance.
    """

    phase: Phase
    name: str
    shape: tuple[int, ...]
    difference: float
    magnitude: float
    relative: float
    apart: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.phase})"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        backends: the reference and the other.
        autograd: where the gradients by parameters are from, on either: "core" or "native".
        dtype: what the parameters are of.
        tolerance: what `Row.relative` is held against.
        losses: on either.
        rows: in the order of the computation: forward, then backward from the last result to the
            first, then the parameters from the last used to the first.
    """

    backends: tuple[str, str]
    autograd: tuple[str, str]
    dtype: str
    tolerance: float
    losses: tuple[float, float]
    rows: tuple[Row, ...]

    @property
    def first_apart(self) -> Row | None:
        """Where the two part: the first row beyond the tolerance."""
        return next((row for row in self.rows if row.apart), None)

    @property
    def largest(self) -> Row:
        """The row of the largest relative difference."""
        return max(self.rows, key=lambda row: row.relative)

    @property
    def verdict(self) -> str:
        """All of it in a line."""
        who, first, most = " and ".join(self.backends), self.first_apart, self.largest
        worst = f"largest difference {most.relative:.1e}, at {most}"
        if first is None:
            return f"{who} agree within {self.tolerance:g} everywhere; {worst}"
        beyond = f"{first.relative:.1e}, tolerance {self.tolerance:g}"
        return f"{who} part first at {first}: {beyond}; {worst}"

    def as_json(self) -> dict[str, Any]:
        """For JSON; None for what is not finite."""

        def described(row: Row) -> dict[str, Any]:
            return {name: _finite(value) for name, value in asdict(row).items()}

        first = self.first_apart
        return asdict(self) | {
            "losses": [_finite(loss) for loss in self.losses],
            "agree": first is None,
            "first_apart": first and described(first),
            "largest": described(self.largest),
            "rows": [described(row) for row in self.rows],
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- comparing -----------------------------------------------------------------------------------


def compare(
    reference: Example,
    other: Example,
    tolerance: float | None = None,
    autograd: Autograd = "auto",
) -> Comparison:
    """Hold an example on one backend against the same on another.

    Both run as they are, with whatever kernels they have; inside `tfx.composed()` without.
    Gradients by results are always the tape's; those by parameters come from `autograd`, so that
    "auto" holds a library's own against the tape of a backend without. Differences are computed on
    the host, in float64.

    Args:
        tolerance: a share of each row's largest number; by default `tfx.core.tolerances` has it.

    Raises:
        TfxError: the two do not compute the same: other parameters, or other steps.
        GradientError: `autograd` is "native" for a backend without one, or a loss is no number, or
            does not depend on the parameters.

    >>> from tfx.backends.numpy.backend import NumpyBackend
    >>> from tfx.core.creation import tensor
    >>> def example(backend):
    ...     return Example({"w": tensor([1.0, 2.0], backend)}, lambda p: (p["w"] * p["w"]).sum())
    >>> print(compare(example(NumpyBackend()), example(NumpyBackend())).verdict)
    numpy and numpy agree within 3e-05 everywhere; largest difference 0.0e+00, at loss (forward)
    """
    kinds = _described(reference.params)
    if kinds != _described(other.params):
        raise TfxError("the two examples have parameters of other names, shapes or dtypes")
    if tolerance is None:
        tolerance = max(TOLERANCES[dtype].bound for _, dtype in kinds.values())
    bound, rows, expected = tolerance, [], deque[_Value]()
    backends = _backend_of(reference), _backend_of(other)

    def hold(value: _Value) -> None:
        same = expected.popleft()  # never empty: both runs end with the same parameters
        if same.what != value.what:
            first, second = backends
            raise TfxError(
                f"the two do not compute in the same steps: {first} has {same} where "
                f"{second} has {value}"
            )
        rows.append(_row(same, value, bound))

    with np.errstate(all="ignore"):  # what overflows is in the rows
        way, loss = _run(reference, autograd, expected.append)
        other_way, other_loss = _run(other, autograd, hold)
    dtypes = " ".join(sorted({dtype for _, dtype in kinds.values()}))
    return Comparison(
        backends, (way, other_way), dtypes, tolerance, (loss, other_loss), tuple(rows)
    )


def _described(params: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], DType]]:
    if not params:
        raise TfxError("there is nothing to compare: the example has no parameters")
    return {name: (x.shape, x.dtype) for name, x in params.items()}


def _backend_of(example: Example) -> str:
    return str(next(iter(example.params.values())).backend)


class _Value(NamedTuple):
    """One array of a run, on the host."""

    phase: Phase
    name: str
    array: HostArray

    @property
    def what(self) -> tuple[Phase, str, tuple[int, ...]]:
        return self.phase, self.name, self.array.shape

    def __str__(self) -> str:
        return f"{self.name} {self.array.shape} ({self.phase})"


def _row(reference: _Value, other: _Value, tolerance: float) -> Row:
    x, y = reference.array.astype(np.float64), other.array.astype(np.float64)
    difference = float(gaps(x, y).max(initial=0.0))
    magnitude = float(np.abs(x).max(initial=0.0, where=np.isfinite(x)))
    relative = difference / magnitude if magnitude else math.inf if difference else 0.0
    return Row(*reference.what, difference, magnitude, relative, relative > tolerance)


# ---- one run -------------------------------------------------------------------------------------

_See = Callable[[_Value], None]


def _run(example: Example, autograd: Autograd, see: _See) -> tuple[str, float]:
    """Show every array of a run to `see`; where the parameters' gradients were from, and the loss.

    Arrays go to the host one by one. On the device is what the tape holds, and its gradients.
    """
    backend = next(iter(example.params.values())).backend
    native = autograd == "native" or (autograd == "auto" and backend.native_autograd)
    loss, uses, found = _on_tape(example, see, with_parameters=not native)
    if native:
        _, found = value_and_grad(example.loss, autograd="native")(dict(example.params))
    for name in sorted(example.params, key=lambda name: uses.get(name, -1), reverse=True):
        see(_Value("parameter", name, _on_host(found.pop(name, None), example.params[name])))
    return ("native" if native else "core"), loss


def _on_tape(
    example: Example, see: _See, with_parameters: bool
) -> tuple[float, dict[str, int], dict[str, Tensor | None]]:
    """Show results and the gradients by them; the loss, when each parameter was first used by a
    fused op, and, if wanted, the gradients by parameters."""
    leaves = {name: Tensor(x.data, x.backend, Leaf()) for name, x in example.params.items()}
    labels = _Labels(leaves)
    made: list[tuple[str, Tensor]] = []

    def note(op: str, args: Sequence[Any], result: Any) -> None:
        several = isinstance(result, tuple)
        label = labels.of(op, args)
        for i, x in enumerate(result if several else (result,)):
            name = f"{label} [{i}]" if several else label
            see(_Value("forward", name, _on_host(x, x)))
            made.append((name, x))

    with watched(note):
        loss = example.loss(leaves)
    see(_Value("forward", "loss", _on_host(loss, loss)))
    if loss.node is None:
        raise GradientError("the loss of the example does not depend on its parameters")
    steps = [(name, x, x.node) for name, x in reversed(made) if x.node is not None]
    asked = leaves if with_parameters else {}
    targets = [node for _, _, node in steps] + [x.node for x in asked.values() if x.node]
    found = deque(gradients(loss, targets))
    for name, x, _ in steps:
        see(_Value("backward", name, _on_host(found.popleft(), x)))
    return float(loss.item()), labels.uses, dict(zip(asked, found, strict=True))


def _on_host(x: Tensor | None, like: Tensor) -> HostArray:
    """A copy; of no gradient, zeros."""
    return np.zeros(like.shape) if x is None else x.detach().numpy()


class _Labels:
    """What to call a fused op: its parameters' place in the model and its own name.

    An op without parameters stands beside the last that had some.

    Attributes:
        uses: how many ops had passed when a parameter was first used, by its name.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.uses: dict[str, int] = {}
        self._names = {id(x): name for name, x in params.items()}
        self._last: tuple[str, ...] = ()
        self._given = Counter[str]()

    def of(self, op: str, args: Sequence[Any]) -> str:
        names = [self._names[id(x)] for x in args if id(x) in self._names]
        for name in names:
            self.uses.setdefault(name, self._given.total())
        if names:
            self._last = _place(names)
        place = self._last if names else self._last[:-1]
        label = f"{'.'.join(place)} {op}".lstrip()
        self._given[label] += 1
        count = self._given[label]
        return label if count == 1 else f"{label} #{count}"


def _place(names: Sequence[str]) -> tuple[str, ...]:
    """What the dotted names of a layer's parameters have in common.

    >>> _place(["h.0.mlp.weight", "h.0.mlp.bias"]), _place(["wte.weight"]), _place(["layer0.wq"])
    (('h', '0', 'mlp'), ('wte',), ('layer0', 'wq'))
    """
    parts = [name.split(".") for name in names]
    if len(parts) == 1 and parts[0][-1] in ("weight", "bias"):
        return tuple(parts[0][:-1])
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return tuple(level[0] for level in levels) or tuple(parts[0])
