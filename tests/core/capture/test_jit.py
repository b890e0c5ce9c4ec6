"""What a captured function computes is what it computes: on every backend, with whatever comes."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from tfx.core import nn
from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.capture import Captured, eager, jit
from tfx.core.capture.nearness import Recorded, check_replay
from tfx.core.capture.program import Call, Program, Value
from tfx.core.capture.replay import replay_of
from tfx.core.creation import arange, full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import CaptureError
from tfx.core.fused import composed
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.quantized import Quantized
from tfx.core.schedules import cosine
from tfx.core.tensor import Tensor


def on(backend: Backend, *numbers: float) -> Tensor:
    return tensor(np.array(numbers, np.float32), backend)


class Counted:
    """A function that counts how often Python runs it."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn, self.times = fn, 0

    def __call__(self, *args: Any) -> Any:
        self.times += 1
        return self.fn(*args)


# ---- when it is recorded -------------------------------------------------------------------------


def test_python_runs_once_for_each_kind_of_arguments(backend: Backend) -> None:
    fn = Counted(lambda x, n=1: x * n + 1)
    captured = jit(fn)
    for numbers in ((1.0,), (2.0,), (3.0, 4.0), (5.0, 6.0), (7.0,)):
        assert captured(on(backend, *numbers)).tolist() == [x + 1 for x in numbers]
    assert fn.times == 2
    assert captured(on(backend, 1.0), 3).tolist() == [4.0]
    assert captured(on(backend, 2.0), 3).tolist() == [7.0]
    assert fn.times == 3
    captured(tensor(np.array([1], np.int32), backend))
    assert fn.times == 4


def test_forms_of_nests_are_told_apart(backend: Backend) -> None:
    captured = jit(lambda nest: nest["a"] - nest["b"])
    one, two = on(backend, 1.0), on(backend, 2.0)
    assert captured({"a": one, "b": two}).tolist() == [-1.0]
    assert captured({"b": two, "a": one}).tolist() == [-1.0]
    assert captured({"b": one, "a": two}).tolist() == [1.0]


def test_two_backends_are_two_programs(backend: Backend) -> None:
    from tfx.testing.strict import StrictBackend

    captured = jit(lambda x: x + x)
    other = StrictBackend()
    assert captured(on(backend, 1.0)).backend is backend
    assert captured(on(other, 2.0)).backend is other
    assert captured(on(backend, 4.0)).tolist() == [8.0]


def test_composed_forms_are_captured_by_themselves(backend: Backend) -> None:
    captured = jit(nn.softmax)
    x = on(backend, 1.0, 2.0)
    with composed():
        expected = captured(x).tolist()
    np.testing.assert_allclose(captured(x).tolist(), expected, rtol=1e-6)


@pytest.mark.parametrize("way", ["eager", "tape"])
def test_it_steps_aside(backend: Backend, way: str) -> None:
    fn = Counted(lambda x: (x * x).sum())
    captured = jit(fn)
    x = on(backend, 3.0)
    for _ in range(2):
        if way == "eager":
            with eager():
                assert captured(x).item() == 9.0
        else:
            _, slope = value_and_grad(captured, autograd="core")(x)
            assert slope.tolist() == [6.0]
    assert fn.times == 2
    assert not captured.is_replayed


def test_one_inside_another_is_a_part_of_it(backend: Backend) -> None:
    inner = Counted(lambda x: x * 2)
    captured = jit(inner)
    outer = jit(lambda x: captured(x) + 1)
    assert [outer(on(backend, x)).item() for x in (1.0, 2.0, 3.0)] == [3.0, 5.0, 7.0]
    assert inner.times == 1


def test_no_more_programs_than_there_is_room_for(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfx.core.capture.captured.PROGRAMS", 2)
    monkeypatch.setattr("tfx.core.capture.captured.PATIENCE", 3)
    fn = Counted(lambda x: x + 1)
    captured = jit(fn)
    for count in (1, 2, 3, 3, 3, 3, 3, 2, 1):
        assert captured(full((count,), 1.0, backend)).tolist() == [2.0] * count
    # 1 and 2 at once; 3 twice computed, then in the place of 1, which was used longest ago;
    # 2 still replays, 1 is computed.
    assert fn.times == 2 + 3 + 1


# ---- what it may not do --------------------------------------------------------------------------


def test_reading_a_value_is_refused_in_one_line(backend: Backend) -> None:
    captured = jit(lambda x: x * x.sum().item())
    with pytest.raises(CaptureError, match=r"reads a value on the host") as caught:
        captured(on(backend, 1.0))
    assert "\n" not in str(caught.value)
    assert on(backend, 2.0).item() == 2.0  # the backend is as it was


def test_a_replay_that_differs_is_refused(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_one_call_more(program: Program, *rest: Any) -> Any:
        (output,) = program.outputs
        spoiled = Value(output.shape, output.dtype)
        program.calls.append(Call("add", (output, 1), {}, (spoiled,)))
        program.outputs = [spoiled]
        return replay_of(program, *rest)

    monkeypatch.setattr("tfx.core.capture.captured.replay_of", with_one_call_more)
    captured = jit(lambda x: x + 1)
    with pytest.raises(CaptureError, match=r"output 0 of '<lambda>', float32\(1,\), is another"):
        captured(on(backend, 1.0))


def test_native_autograd_is_left_to_the_library() -> None:
    pytest.importorskip("torch")
    from tfx.backends.torch.backend import TorchBackend

    backend = TorchBackend()
    captured = jit(lambda x: value_and_grad(lambda y: (y * y).sum())(x)[1])
    assert [captured(on(backend, x)).item() for x in (1.0, 2.0)] == [2.0, 4.0]
    assert not captured.is_replayed
    assert "own autograd" in captured.explain()


# ---- memory --------------------------------------------------------------------------------------


def test_outputs_stay_what_they_are(backend: Backend) -> None:
    captured = jit(lambda x: (x + 1, x, full((1,), 7.0, x.backend)))
    first = captured(on(backend, 1.0))
    second = captured(on(backend, 2.0))
    assert [x.item() for x in first] == [2.0, 1.0, 7.0]
    assert [x.item() for x in second] == [3.0, 2.0, 7.0]


def test_arguments_stay_what_they_are(backend: Backend) -> None:
    captured = jit(lambda x, y: (x * y).exp() + x)
    x, y = on(backend, 1.0), on(backend, 0.0)
    for _ in range(3):
        captured(x, y)
    assert (x.item(), y.item()) == (1.0, 0.0)


def test_the_same_tensor_twice(backend: Backend) -> None:
    captured = jit(lambda x, y: x - y)
    x = on(backend, 1.0)
    assert captured(x, x).item() == 0.0
    assert captured(x, on(backend, 3.0)).item() == -2.0


def test_large_arguments_from_elsewhere_each_time(backend: Backend) -> None:
    captured = jit(lambda x: x.reshape(512, -1).sum(1))
    for i in range(3):
        assert captured(full((1 << 19,), float(i), backend)).tolist() == [1024.0 * i] * 512


def state_step(backend: Backend, clip: float | None = 0.5) -> tuple[Any, Any]:
    """A small training step, and the state it begins with."""
    rng = np.random.default_rng(0)
    host = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "unused": rng.normal(size=2)}
    params = Parameters.from_host(host, backend, DType.float32)
    optimizer = AdamW(cosine(20, 0.1), params, decay=0.01, grad_clip=clip)
    differentiate = value_and_grad(
        lambda p, x, y: nn.cross_entropy(nn.linear(x, p["w"], p["b"], activation="gelu"), y).mean(),
        autograd="core",
    )

    def step(state: TrainState, x: Tensor, y: Tensor) -> tuple[TrainState, Tensor, Tensor]:
        loss, grads = differentiate(state.params, x, y)
        state, norm = optimizer.update(state, loss, state.params.flatten(grads))
        return state, loss, norm

    return TrainState.start(params), step


def batches(backend: Backend, *counts: int) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(1)
    for n in counts:
        x = tensor(rng.normal(size=(n, 3)).astype(np.float32), backend)
        yield x, tensor(rng.integers(0, 4, n), backend, backend.index_dtype)


def trained(step: Any, state: TrainState, backend: Backend, *counts: int) -> list[Any]:
    losses = []
    for batch in batches(backend, *counts):
        state, loss, norm = step(state, *batch)
        losses.append((loss.item(), norm.item()))
    return [np.array(losses), state.params.flat.numpy(), state.m.numpy(), int(state.step.item())]


@pytest.mark.parametrize("donated", [(), (0,)])
def test_a_training_step_with_batches_of_many_sizes(
    backend: Backend, donated: tuple[int, ...]
) -> None:
    counts = (2, 3, 2, 2, 5, 3, 3, 2, 5, 5)
    state, step = state_step(backend)
    expected = trained(step, state, backend, *counts)
    state, step = state_step(backend)
    captured = jit(step, donate_argnums=donated)
    found = trained(captured, state, backend, *counts)
    assert captured.is_replayed
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-6)


def test_a_step_without_health_changes_nothing(backend: Backend) -> None:
    state, step = state_step(backend)
    captured = jit(step, donate_argnums=(0,))
    (good,) = batches(backend, 2)
    state, _, _ = captured(state, *good)
    before = state.params.flat.numpy(), state.m.numpy(), state.v.numpy(), state.step.item()
    bad = tensor(np.full((2, 3), np.nan, np.float32), backend)
    with np.errstate(all="ignore"):
        state, loss, _ = captured(state, bad, good[1])
    assert np.isnan(loss.item()) and not state.healthy.item()
    after = state.params.flat.numpy(), state.m.numpy(), state.v.numpy(), state.step.item()
    for here, there in zip(after, before, strict=True):
        np.testing.assert_array_equal(here, there)


def test_two_states_in_turn_do_not_disturb_each_other(backend: Backend) -> None:
    (batch,) = batches(backend, 3)
    state, step = state_step(backend)
    captured = jit(step, donate_argnums=(0,))
    alone = trained(captured, state, backend, 3, 3, 3)[1]
    one, _ = state_step(backend)
    two, _ = state_step(backend)
    kept: list[Any] = []
    for data in batches(backend, 3, 3, 3):
        one, _, _ = captured(one, *data)
        two, _, _ = captured(two, *batch)
        kept.append(two)
    np.testing.assert_allclose(one.params.flat.numpy(), alone, rtol=1e-5)
    assert not np.allclose(two.params.flat.numpy(), alone)


def test_a_state_that_is_let_go_makes_room(backend: Backend) -> None:
    state, step = state_step(backend)
    captured = jit(step, donate_argnums=(0,))
    first = trained(captured, state, backend, 2, 2)
    again, _ = state_step(backend)
    second = trained(captured, again, backend, 2, 2)
    np.testing.assert_array_equal(first[1], second[1])


def test_what_is_captured_goes_with_the_function(backend: Backend) -> None:
    held = Counted(lambda x: x + 1)
    captured: Captured[Any] | None = jit(held)
    assert captured is not None
    captured(on(backend, 1.0))
    gone = weakref.ref(held)
    del held, captured
    gc.collect()
    assert gone() is None


def test_threads_take_turns(backend: Backend) -> None:
    captured = jit(lambda x: (x * 2).exp().sum())
    found: dict[int, float] = {}

    def work(i: int) -> None:
        x = full((8,), i / 10, backend)
        for _ in range(20):
            found[i] = captured(x).item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert found[i] == pytest.approx(8 * np.exp(i / 5), rel=1e-5)


# ---- what is easily mistaken ---------------------------------------------------------------------


def test_what_it_closes_over_is_a_constant_even_where_it_is_an_argument(backend: Backend) -> None:
    w = on(backend, 1.0, 2.0)
    captured = jit(lambda x: x + w)
    assert captured(w).tolist() == [2.0, 4.0]
    assert captured(on(backend, 10.0, 10.0)).tolist() == [11.0, 12.0]


def test_constants_are_not_written_to(backend: Backend) -> None:
    captured = jit(lambda slab, at: full((3,), 0.0, backend).write(slab, at))
    slab = on(backend, 5.0)
    for i in (0, 2, 1):
        at = tensor(i, backend, backend.index_dtype)
        assert captured(slab, at).tolist() == [5.0 * (i == j) for j in range(3)]


def test_equal_calls_whose_results_are_written_to_stay_apart(backend: Backend) -> None:
    captured = jit(lambda x, s: ((x * 0).write(s, 0), (x * 0).write(s + 1, 1)))
    for x, s in ((1.0, 7.0), (2.0, 3.0)):
        first, second = captured(on(backend, x, x), on(backend, s))
        assert (first.tolist(), second.tolist()) == ([s, 0.0], [0.0, s + 1])


def test_of_a_large_output_a_part_is_compared(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third number, as that is the next odd step."""
    monkeypatch.setattr("tfx.core.capture.nearness.SAMPLED", 20)
    for place, is_seen in ((3, True), (39, True), (38, False)):
        recorded = on(backend, *range(40))
        was = Recorded.of(backend, recorded.data)
        assert was.sample.size == 14
        other = (recorded + 0).write(on(backend, 1e6), tensor(place, backend, backend.index_dtype))
        with pytest.raises(CaptureError, match="is another") if is_seen else nullcontext():
            check_replay("it", backend, [was], [other.data])


def test_what_was_refused_is_not_kept(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise CaptureError("another")

    captured = jit(lambda x: x + 1)
    with monkeypatch.context() as patch:
        patch.setattr("tfx.core.capture.captured.check_replay", refuse)
        with pytest.raises(CaptureError):
            captured(on(backend, 1.0))
    assert not captured.is_replayed


def test_outputs_lie_apart(backend: Backend) -> None:
    captured = jit(lambda x: (x + 1, x + 1, full((1,), 0.0, backend)))
    for _ in range(2):
        one, two, zeros = captured(on(backend, 1.0))
        one.write(on(backend, 9.0), 0)
        zeros.write(on(backend, 9.0), 0)
        assert two.item() == 2.0
    assert captured(on(backend, 1.0))[2].item() == 0.0


def test_a_part_of_a_state_keeps_others_out_of_its_home(backend: Backend) -> None:
    captured = jit(lambda s: s + 1, donate_argnums=0)
    state = captured(on(backend, 0.0, 0.0))
    part = state[0:1]
    del state
    assert captured(on(backend, 50.0, 50.0)).tolist() == [51.0, 51.0]
    assert part.item() == 1.0


def test_two_functions_share_the_home_of_what_goes_to_and_fro(backend: Backend) -> None:
    """A newcomer to the one does not move in where the other has a guest."""
    once = jit(lambda s: s + 1, donate_argnums=0)
    twice = jit(lambda s: s + 2, donate_argnums=0)
    state = twice(once(on(backend, 0.0, 0.0)))
    assert once(on(backend, 50.0, 50.0)).tolist() == [51.0, 51.0]
    assert state.tolist() == [3.0, 3.0]
    for _ in range(2):
        state = twice(once(state))
    assert state.tolist() == [9.0, 9.0]


def test_sums_that_begin_anew_each_time(backend: Backend) -> None:
    add = jit(lambda s, x: s + x, donate_argnums=0)
    apply = jit(lambda state, s: (state + s, s.sum()), donate_argnums=0)
    state, losses = on(backend, 0.0, 0.0), []
    for step in range(3):
        total = on(backend, 0.0, 0.0)
        for turn in range(2):
            total = add(total, on(backend, float(step), float(turn)))
        state, loss = apply(state, total)
        losses.append(loss)
    assert [x.item() for x in losses] == [1.0, 3.0, 5.0]
    assert state.tolist() == [6.0, 3.0]


def test_one_tensor_given_up_twice(backend: Backend) -> None:
    captured = jit(lambda a, b: (a + 1, b + 2), donate_argnums=(0, 1))
    captured(on(backend, 1.0), on(backend, 2.0))
    both = on(backend, 4.0)
    assert [x.item() for x in captured(both, both)] == [5.0, 6.0]


def test_outputs_may_change_places_with_what_is_given_up(backend: Backend) -> None:
    captured = jit(lambda a, b: (b, a), donate_argnums=(0, 1))
    a, b = on(backend, 1.0), on(backend, 2.0)
    for expected in ([2.0, 1.0], [1.0, 2.0], [2.0, 1.0]):
        a, b = captured(a, b)
        assert [a.item(), b.item()] == expected


def test_states_of_other_shapes_within_are_told_apart(backend: Backend) -> None:
    captured = jit(lambda state: state.params["a"].sum(0))
    numbers = np.arange(6, dtype=np.float32)
    for shape in ((2, 3), (3, 2)):
        named = {"a": numbers.reshape(shape)}
        state = TrainState.start(Parameters.from_host(named, backend, DType.float32))
        assert captured(state).tolist() == numbers.reshape(shape).sum(0).tolist()


def test_a_quantized_weight_is_an_argument_like_others(backend: Backend) -> None:
    """And one that stands for the transpose is of another kind, square or not."""
    fn = Counted(lambda x, w: nn.linear(x, w, outputs_first=True))
    captured = jit(fn)
    scales = full((2, 1), 0.5, backend)
    x = on(backend, 1.0, 10.0)
    for numbers, inputs_first, expected in (
        ([[1, 2], [3, 4]], False, [10.5, 21.5]),
        ([[2, 2], [0, 4]], False, [11.0, 20.0]),
        ([[1, 2], [3, 4]], True, [15.5, 21.0]),
    ):
        q = tensor(np.array(numbers, np.int8), backend)
        w = Quantized(q, scales, DType.float32, inputs_first=inputs_first)
        np.testing.assert_allclose(captured(x, w).tolist(), expected, rtol=2e-2)
    assert fn.times == 2


@pytest.mark.parametrize("numbers", [(2, 2.0, True), (0.0, -0.0), (1.0, 1)])
def test_numbers_that_are_equal_are_not_the_same(backend: Backend, numbers: Any) -> None:
    fn = Counted(lambda x, n: x * n)
    captured = jit(fn)
    for n in numbers:
        captured(on(backend, 1.0), n)
    assert fn.times == len(numbers)


def test_a_derivative_that_is_taken_twice(backend: Backend) -> None:
    def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = Tensor(x.data, x.backend).requires_grad_()
        y = nn.gelu(leaf)
        y.backward(x)
        first = leaf.grad
        leaf.grad = None
        y.backward(x * 2)
        return first, leaf.grad  # type: ignore[return-value]

    captured = jit(slopes)
    for numbers in ((1.0, 2.0), (0.5, -1.0)):
        once, twice = captured(on(backend, *numbers))
        np.testing.assert_allclose(twice.numpy(), once.numpy() * 2, rtol=1e-5)


def test_a_native_derivative_behind_a_write(backend: Backend) -> None:
    if not backend.native_autograd:
        pytest.skip("no autograd of its own")
    slab = on(backend, 1.0)

    def step(buffer: Tensor) -> tuple[Tensor, Tensor]:
        seen = buffer[0:1] + 1
        buffer = buffer.write(seen, 0)
        return buffer, value_and_grad(lambda x: (x * x).sum())(slab)[1]

    assert jit(step)(on(backend, 0.0, 0.0))[0].tolist() == [1.0, 0.0]


def test_large_arguments_from_elsewhere_are_not_laid_out_for_ever(backend: Backend) -> None:
    captured = jit(lambda x: x.reshape(512, -1).sum(1))
    for i in range(4):
        x = full((1 << 19,), float(i), backend)
        assert captured(x).tolist() == [1024.0 * i] * 512


def test_a_value_that_cannot_be_hashed_is_refused_in_one_line(backend: Backend) -> None:
    captured = jit(lambda x, names: x)
    with pytest.raises(CaptureError, match="values that can be hashed: unhashable type: 'set'"):
        captured(on(backend, 1.0), {"a"})


def test_the_backend_is_as_before_whatever_happens(backend: Backend) -> None:
    before = dict(vars(backend))
    captured = jit(lambda x: x + on(backend, 1.0, 2.0, 3.0))
    with pytest.raises(Exception, match="add"):
        captured(on(backend, 1.0, 2.0))
    assert vars(backend) == before


# ---- what it says --------------------------------------------------------------------------------


def test_explain_shows_the_plan(backend: Backend) -> None:
    captured = jit(lambda x: ((x + 1) * (x + 1), x.exp())[0] + arange(2, x.backend).cast("float32"))
    assert captured.explain() == "<lambda>: nothing captured yet"
    captured(on(backend, 1.0, 2.0))
    text = captured.explain()
    assert "(float32[2]) -> (float32[2])" in text
    assert "1 shared" in text and "1 dead" in text and "1 folded" in text
