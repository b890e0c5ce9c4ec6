"""Two runs held against each other: every row against torch's autograd, and planted faults found.

The model here is two blocks of attention and a perceptron, so that a fault in the second can be
told from one in the first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import nn
from tfx.core.backend import Array, Backend, HostArray
from tfx.core.comparison import Comparison, compare
from tfx.core.creation import tensor
from tfx.core.dtypes import DType
from tfx.core.errors import GradientError, TfxError
from tfx.core.fused import composed
from tfx.core.recipe import Example
from tfx.core.tensor import Tensor
from tfx.testing import StrictBackend

IDS = np.array([[3, 1, 4, 1, 5]])
TARGETS = np.array([[1, 4, 1, 5, 0]])
SHAPES: dict[str, tuple[int, ...]] = {"wte": (6, 8), "head.weight": (8, 6)}
for _i in range(2):
    SHAPES |= {f"h.{_i}.norm.gain": (8,), f"h.{_i}.qkv.weight": (8, 24), f"h.{_i}.qkv.bias": (24,)}
    SHAPES |= {f"h.{_i}.mlp.weight": (8, 8), f"h.{_i}.mlp.bias": (8,)}

FORWARD = [
    "wte embedding",
    *(
        f"h.{i}{name}"
        for i in range(2)
        for name in (".norm.gain rms_norm", ".qkv linear", " attention", ".mlp linear")
    ),
    "head linear",
    "cross_entropy",
]


def weights(seed: int = 0, change: float = 0.0) -> dict[str, HostArray]:
    rng, more = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    return {
        name: rng.normal(0, 0.5, shape) + change * more.normal(size=shape)
        for name, shape in SHAPES.items()
    }


def loss(p: Mapping[str, Tensor]) -> Tensor:
    backend = p["wte"].backend
    ids, targets = (tensor(x, backend, backend.index_dtype) for x in (IDS, TARGETS))
    x = nn.embedding(p["wte"], ids)
    for i in range(2):
        y = nn.rms_norm(x, p[f"h.{i}.norm.gain"])
        y = nn.linear(y, p[f"h.{i}.qkv.weight"], p[f"h.{i}.qkv.bias"])
        y = nn.attention(y[..., :8], y[..., 8:16], y[..., 16:], 0.5, heads=2)
        x = nn.linear(y, p[f"h.{i}.mlp.weight"], p[f"h.{i}.mlp.bias"], x, activation="gelu_new")
    return nn.cross_entropy(nn.linear(x, p["head.weight"]), targets).mean()


def example(
    backend: Backend,
    host: Mapping[str, HostArray] | None = None,
    dtype: DType = DType.float64,
    of: Callable[[Mapping[str, Tensor]], Tensor] = loss,
) -> Example:
    arrays = weights() if host is None else host
    return Example({name: tensor(x, backend, dtype) for name, x in arrays.items()}, of)


# ---- the numbers ---------------------------------------------------------------------------------


def in_torch(host: Mapping[str, HostArray]) -> dict[tuple[str, str], HostArray]:
    """The same model written in torch: what each row is of."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    p = {name: torch.tensor(x, requires_grad=True) for name, x in host.items()}
    made = []

    def keep(x: Any) -> Any:
        x.retain_grad()
        made.append(x)
        return x

    x = keep(p["wte"][torch.tensor(IDS)])
    for i in range(2):
        y = keep(F.rms_norm(x, (8,), p[f"h.{i}.norm.gain"], 1e-5))
        y = keep(y @ p[f"h.{i}.qkv.weight"] + p[f"h.{i}.qkv.bias"])
        q, k, v = (t.reshape(1, 5, 2, 4).transpose(1, 2) for t in y.split(8, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        y = keep(y.transpose(1, 2).reshape(1, 5, 8))
        y = y @ p[f"h.{i}.mlp.weight"] + p[f"h.{i}.mlp.bias"]
        x = keep(x + F.gelu(y, approximate="tanh"))
    scores = keep(x @ p["head.weight"])
    losses = keep(F.cross_entropy(scores[0], torch.tensor(TARGETS[0]), reduction="none")[None])
    total = losses.mean()
    total.backward()
    found = {("forward", "loss"): total.detach().numpy()}
    for name, value in zip(FORWARD, made, strict=True):
        found["forward", name] = value.detach().numpy()
        found["backward", name] = value.grad.numpy()
    return found | {("parameter", name): x.grad.numpy() for name, x in p.items()}


def test_every_row_is_what_torch_computes() -> None:
    """Two sets of parameters instead of two backends: differences that are not rounding."""
    first, second = weights(), weights(change=0.01)
    a, b = in_torch(first), in_torch(second)
    found = compare(example(NumpyBackend(), first), example(NumpyBackend(), second))
    assert {(row.phase, row.name) for row in found.rows} == a.keys()
    for row in found.rows:
        x, y = a[row.phase, row.name], b[row.phase, row.name]
        assert row.shape == x.shape
        assert row.magnitude == pytest.approx(np.abs(x).max(), rel=1e-9)
        assert row.difference == pytest.approx(np.abs(x - y).max(), rel=1e-7)
        assert row.relative == row.difference / row.magnitude
        assert row.apart == (row.relative > found.tolerance)
    assert found.losses == pytest.approx([float(x["forward", "loss"]) for x in (a, b)])


def test_rows_stand_in_the_order_of_the_computation() -> None:
    found = compare(example(NumpyBackend()), example(NumpyBackend()))
    names = {phase: [r.name for r in found.rows if r.phase == phase] for phase in PHASES}
    assert [row.phase for row in found.rows] == sorted(
        (row.phase for row in found.rows), key=PHASES.index
    )
    assert names["forward"] == [*FORWARD, "loss"]
    assert names["backward"] == FORWARD[::-1]
    last_first = ["head.weight", "h.1.mlp.weight", "h.1.mlp.bias", "h.1.qkv.weight", "h.1.qkv.bias"]
    assert names["parameter"][:5] == last_first
    assert names["parameter"][-1] == "wte"


PHASES = ("forward", "backward", "parameter")


@pytest.mark.parametrize("dtype", [DType.float64, DType.float32, DType.float16])
def test_sound_backends_agree(backend: Backend, dtype: DType) -> None:
    host = weights()
    found = compare(example(NumpyBackend(), host, dtype), example(backend, host, dtype))
    assert found.first_apart is None, found.verdict
    assert found.backends == ("numpy", str(backend))
    assert found.verdict.startswith(f"numpy and {backend} agree within {found.tolerance:g} ")


# ---- faults --------------------------------------------------------------------------------------


class LateExp(NumpyBackend):
    """Without kernels; its `exp` is off by a factor once it was called often enough."""

    def __init__(self, good: int, factor: float) -> None:
        super().__init__()
        self.fused.clear()
        self._left, self._factor = good, factor

    def exp(self, x: Array) -> Array:
        self._left -= 1
        return super().exp(x) * (1.0 if self._left >= 0 else self._factor)


@pytest.mark.parametrize(
    ("good", "factor", "where"),
    [
        (0, math.nan, "h.0 attention"),
        (1, math.nan, "h.1 attention"),
        (2, 1.001, "cross_entropy"),
        (0, 1.001, "cross_entropy"),  # softmax forgives a factor
    ],
)
def test_a_wrong_primitive_is_found_at_the_op_that_called_it(
    good: int, factor: float, where: str
) -> None:
    found = compare(example(NumpyBackend()), example(LateExp(good, factor)))
    first = found.first_apart
    assert first is not None
    assert (first.phase, first.name) == ("forward", where)
    assert found.verdict.startswith(f"numpy and numpy part first at {where} (forward): ")


def with_vjp(name: str, turn: int, change: Callable[[Sequence[Any]], Sequence[Any]]) -> Backend:
    """NumPy with a kernel whose derivative is changed in the call number `turn` of the way back."""
    backend, calls = NumpyBackend(), iter(range(99))
    kernel = backend.fused[name]

    def vjp(*args: Any, **params: Any) -> Sequence[Any]:
        assert kernel.vjp is not None
        found = kernel.vjp(*args, **params)
        return change(found) if next(calls) == turn else found

    backend.fused[name] = replace(kernel, vjp=vjp)
    return backend


@pytest.mark.parametrize(
    ("name", "turn", "where"),
    [
        ("rms_norm", 0, "h.0.mlp linear"),
        ("rms_norm", 1, "wte embedding"),
        ("attention", 0, "h.1.qkv linear"),
        ("cross_entropy", 0, "head linear"),
    ],
)
def test_a_wrong_gradient_is_found_at_what_it_is_by(name: str, turn: int, where: str) -> None:
    wrong = with_vjp(name, turn, lambda found: [found[0] * 1.001, *found[1:]])
    first = compare(example(NumpyBackend()), example(wrong)).first_apart
    assert first is not None
    assert (first.phase, first.name) == ("backward", where)
    assert not math.isinf(first.relative)


@pytest.mark.parametrize("lost", [0.0, 1.001])
def test_a_wrong_gradient_by_a_parameter_alone_is_found_there(lost: float) -> None:
    wrong = with_vjp("linear", 1, lambda found: [found[0], found[1] * lost, *found[2:]])
    found = compare(example(NumpyBackend()), example(wrong))
    assert [(row.phase, row.name) for row in found.rows if row.apart] == [
        ("parameter", "h.1.mlp.weight")
    ]
    assert found.largest is found.first_apart


def test_composed_forms_are_compared_where_they_are_asked_for() -> None:
    wrong = NumpyBackend()
    kernel = wrong.fused["rms_norm"]

    def forward(*args: Any, **params: Any) -> Any:
        out, saved = kernel.forward(*args, **params)
        return out * 2, saved

    wrong.fused["rms_norm"] = replace(kernel, forward=forward)
    assert compare(example(NumpyBackend()), example(wrong)).first_apart is not None
    with composed():
        assert compare(example(NumpyBackend()), example(wrong)).first_apart is None


# ---- numbers that are none -----------------------------------------------------------------------


def of_table(table: Sequence[float], backend: Backend) -> Example:
    def read(p: Mapping[str, Tensor]) -> Tensor:
        ids = tensor([0, 1], p["w"].backend, p["w"].backend.index_dtype)
        return nn.embedding(p["w"], ids).sum()

    return Example({"w": tensor(np.array(table).reshape(-1, 1), backend, DType.float64)}, read)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_on_one_side_only_differs_infinitely(odd: float) -> None:
    for pair in (([1.0, odd], [1.0, 2.0]), ([1.0, 2.0], [1.0, odd])):
        found = compare(*(of_table(table, NumpyBackend()) for table in pair))
        first = found.first_apart
        assert first is not None
        assert (first.name, first.difference, first.relative) == (
            "w embedding",
            math.inf,
            math.inf,
        )
        described = json.loads(json.dumps(found.as_json(), allow_nan=False))
        assert described["first_apart"]["difference"] is None
        assert None in described["losses"] and described["agree"] is False
    same = compare(*(of_table([1.0, odd], NumpyBackend()) for _ in range(2)))
    assert same.first_apart is None


def test_infinities_of_two_signs_differ() -> None:
    found = compare(*(of_table([1.0, s * math.inf], NumpyBackend()) for s in (1, -1)))
    assert found.rows[0].difference == math.inf


def test_a_difference_from_nothing_but_zeros_is_beyond_any_tolerance() -> None:
    found = compare(
        *(of_table(x, NumpyBackend()) for x in ([0.0, 0.0], [0.0, 1e-30])), tolerance=1.0
    )
    assert found.rows[0].difference == 1e-30 and found.rows[0].relative == math.inf
    assert found.rows[0].apart


# ---- the tolerance -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(DType.float64, 1e-11), (DType.float32, 3e-5), (DType.float16, 6e-3)],
)
def test_the_dtype_says_how_near_is_near_enough(dtype: DType, tolerance: float) -> None:
    both = [example(NumpyBackend(), dtype=dtype) for _ in range(2)]
    assert compare(*both).tolerance == tolerance
    assert compare(*both, tolerance=0.25).tolerance == 0.25


def test_zero_asks_for_the_same_bits() -> None:
    both = [of_table([1.0, 2.0], NumpyBackend()) for _ in range(2)]
    assert compare(*both, tolerance=0.0).first_apart is None
    nearly = of_table([1.0, 2.0 + 2**-50], NumpyBackend())
    assert compare(both[0], nearly, tolerance=0.0).first_apart is not None


# ---- whose gradients -----------------------------------------------------------------------------


def test_a_library_s_own_gradients_are_held_against_the_tape() -> None:
    pytest.importorskip("torch")
    from tfx.backends.torch.backend import TorchBackend

    class Doubled(TorchBackend):
        def value_and_grad(self, *args: Any) -> Any:
            value, found = super().value_and_grad(*args)
            return value, [None if g is None else g * 2 for g in found]

    def with_autograd(autograd: Any) -> Comparison:
        return compare(example(NumpyBackend()), example(Doubled()), None, autograd)

    auto = with_autograd("auto")
    assert auto.autograd == ("core", "native")
    assert {row.phase for row in auto.rows if row.apart} == {"parameter"}
    core = with_autograd("core")
    assert core.autograd == ("core", "core")
    assert core.first_apart is None
    with pytest.raises(GradientError, match="numpy has no autograd of its own"):
        with_autograd("native")


# ---- what cannot be compared ---------------------------------------------------------------------


def test_a_parameter_without_influence_has_gradient_zero() -> None:
    host = weights() | {"unused": np.ones(2)}
    found = compare(example(NumpyBackend(), host), example(StrictBackend(), host))
    [row] = [row for row in found.rows if row.name == "unused"]
    assert (row.phase, row.difference, row.magnitude, row.apart) == ("parameter", 0.0, 0.0, False)


def test_other_parameters_are_refused() -> None:
    full, host = example(NumpyBackend()), weights()
    other = {"wte": host["wte"]}
    for wrong in (
        example(NumpyBackend(), other),
        example(NumpyBackend(), dtype=DType.float32),
        example(NumpyBackend(), host | {"wte": np.ones((7, 8))}),
    ):
        with pytest.raises(TfxError, match="parameters of other names, shapes or dtypes"):
            compare(full, wrong)
    with pytest.raises(TfxError, match="nothing to compare"):
        compare(Example({}, loss), Example({}, loss))


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (lambda p: nn.softmax(p["w"]).sum(), "gelu (3,) (forward) where numpy has w softmax (3,)"),
        (lambda p: p["w"].sum(), "gelu (3,) (forward) where numpy has loss () (forward)"),
        (lambda p: nn.gelu(nn.gelu(p["w"])).sum(), "loss () (forward) where numpy has gelu (3,)"),
    ],
)
def test_other_steps_are_refused(other: Callable[..., Tensor], where: str) -> None:
    host = {"w": np.ones(3)}
    one = example(NumpyBackend(), host, of=lambda p: nn.gelu(p["w"]).sum())
    with pytest.raises(TfxError, match="do not compute in the same steps") as caught:
        compare(one, example(NumpyBackend(), host, of=other))
    assert where in str(caught.value)


def test_a_loss_that_is_no_number_or_depends_on_nothing_is_refused() -> None:
    host = {"w": np.ones(3)}
    many = example(NumpyBackend(), host, of=lambda p: nn.gelu(p["w"]))
    with pytest.raises(GradientError, match="only a single number has a gradient"):
        compare(many, many)
    constant = example(NumpyBackend(), host, of=lambda p: p["w"].detach().sum())
    with pytest.raises(GradientError, match="does not depend on its parameters"):
        compare(constant, constant)
