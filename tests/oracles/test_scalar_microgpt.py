"""The oracle itself: its slopes against finite differences, its run against the reference's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scalar_microgpt import ScalarMicroGPT, Tape

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "microgpt_losses.json").read_text())

FIRST_LOSSES = "3.3660 3.4243 3.1778 3.0664 3.2209 2.9452 3.2894 3.3245 2.8990 3.2229"
NAMES = (
    "kamon ann karai jaire vialan karia yeran anna areli kaina "
    "konna keylen liole alerin earan lenne kana lara alela anton"
)

FORMULAS: dict[str, Callable[[Tape, int, int], int]] = {
    "add": lambda t, x, y: t.add(x, y),
    "mul": lambda t, x, y: t.mul(x, y),
    "square": lambda t, x, y: t.mul(x, x),
    "affine": lambda t, x, y: t.affine(x, -2.5, 0.75),
    "total": lambda t, x, y: t.total([x, y, x]),
    "dot": lambda t, x, y: t.dot([x, y, y], [y, x, y]),
    "power": lambda t, x, y: t.power(x, -0.5),
    "exp": lambda t, x, y: t.exp(x),
    "log": lambda t, x, y: t.log(x),
    "relu of a positive": lambda t, x, y: t.relu(x),
    "relu of a negative": lambda t, x, y: t.relu(y),
    "a chain": lambda t, x, y: t.log(t.add(t.exp(t.mul(x, y)), t.power(x, 2.0))),
}


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
def test_slopes_of_every_operation(formula: Callable[[Tape, int, int], int]) -> None:
    def value(x: float, y: float) -> float:
        tape = Tape()
        return tape.values[formula(tape, tape.put(x), tape.put(y))]

    tape = Tape()
    x, y, h = 0.7, -1.3, 1e-6
    grads = tape.gradients(formula(tape, tape.put(x), tape.put(y)))
    assert grads[0] == pytest.approx((value(x + h, y) - value(x - h, y)) / (2 * h), abs=1e-8)
    assert grads[1] == pytest.approx((value(x, y + h) - value(x, y - h)) / (2 * h), abs=1e-8)


def small_model() -> ScalarMicroGPT:
    """Two layers, two heads, documents longer than a block, and weights of weight."""
    model = ScalarMicroGPT(["abcabc"] * 2, n_layer=2, n_embd=4, n_head=2, block_size=4)
    model.tape.values[:] = [6.0 * value for value in model.tape.values]
    return model


def test_gradients_of_the_model() -> None:
    model, h = small_model(), 1e-5
    values, doc = model.tape.values, model.docs[0]
    slopes: list[float] = []
    for place in range(model.num_params):
        middle = values[place]
        values[place] = middle + h
        above = model.loss(doc)
        values[place] = middle - h
        below = model.loss(doc)
        values[place] = middle
        slopes.append((above - below) / (2 * h))

    model.step()
    assert {name.split(".")[-1] for name in model.gradients} == {
        "wte", "wpe", "lm_head", "attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2"
    }  # fmt: skip
    in_order: Iterator[float] = iter(slopes)
    for name, rows in model.gradients.items():
        assert max(abs(grad) for row in rows for grad in row) > 1e-3, name
        for row in rows:
            assert row == pytest.approx([next(in_order) for _ in row], rel=1e-5, abs=1e-8), name


def test_loss_and_sample_leave_the_model_as_it_was() -> None:
    model, untouched = small_model(), small_model()
    assert model.loss("abc") == model.loss("abc")
    assert len(model.sample()) <= model.block_size
    assert model.tape.values == untouched.tape.values
    assert model.step() == untouched.step()


def test_the_recorded_run_is_the_references() -> None:
    losses = RECORDED["losses"]
    assert len(losses) == 1000
    assert " ".join(f"{loss:.4f}" for loss in losses[:10]) == FIRST_LOSSES
    assert losses[-1] == pytest.approx(2.6496944697, abs=1e-10)
    assert RECORDED["samples"] == NAMES.split()
    assert f"{RECORDED['eval_1000_6000']:.4f}" == "2.3644"


@pytest.fixture
def reference(shared_data: Path) -> ScalarMicroGPT:
    return ScalarMicroGPT((shared_data / "names.txt").read_text().split("\n"))


def test_the_first_steps(reference: ScalarMicroGPT) -> None:
    assert (len(reference.docs), reference.vocab_size, reference.num_params) == (32033, 27, 4192)
    for _ in range(10):
        reference.step()
    assert reference.losses == pytest.approx(RECORDED["losses"][:10], abs=1e-12)


@pytest.mark.slow
def test_the_whole_run(reference: ScalarMicroGPT) -> None:
    for _ in range(1000):
        reference.step()
    assert reference.losses == pytest.approx(RECORDED["losses"], abs=1e-9)
    assert [reference.sample() for _ in range(20)] == NAMES.split()
