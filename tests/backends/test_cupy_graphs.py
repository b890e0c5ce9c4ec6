"""Captured programs on cupy: what is in CUDA graphs, what lies between, and what stays true."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from tfx.core.backend import Backend, Fused
from tfx.core.capture import jit
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.errors import CaptureError
from tfx.core.nn import euclidean_norm, gelu
from tfx.core.tensor import Tensor

pytestmark = pytest.mark.parametrize("backend", ["cupy"], indirect=True)


@pytest.fixture
def B(backend: Backend) -> Any:
    return backend


def numbers(B: Backend, *shape: int, seed: int = 0) -> Tensor:
    return tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32), B)


def bits(x: Tensor) -> bytes:
    return x.numpy().tobytes()


# ---- what is captured ----------------------------------------------------------------------------


def test_what_needs_no_library_is_one_graph(B: Backend) -> None:
    def norm(x: Tensor) -> tuple[Tensor, Tensor]:
        y = (x - x.mean(-1, keepdims=True)).tanh() * 3
        return y.reshape(-1).exp().sum(), y[1:]

    captured = jit(norm)
    for seed in range(3):
        x = numbers(B, 4, 5, seed=seed)
        for found, expected in zip(captured(x), norm(x), strict=True):
            assert bits(found) == bits(expected)
    assert captured.explain().count("one graph of") == 1
    assert "not captured" not in captured.explain()


def test_products_are_borders(B: Backend) -> None:
    w = numbers(B, 5, 5)

    def layers(x: Tensor) -> Tensor:
        for _ in range(3):
            x = ((x + 1) @ w).tanh()
        return x

    captured = jit(layers)
    for seed in range(3):
        x = numbers(B, 4, 5, seed=seed)
        assert bits(captured(x)) == bits(layers(x))
    steps = captured.explain().splitlines()[3:]
    assert [step.partition("(")[0].split(" of ")[0] for step in steps] == [
        *["one graph", "matmul"] * 3,
        "one graph",
    ]
    assert "cuBLAS" in steps[1]


def test_views_alone_are_no_graph(B: Backend) -> None:
    captured = jit(lambda x, y: (x.transpose() @ y.reshape(4, 5)).reshape(-1))
    x, y = numbers(B, 4, 5), numbers(B, 20)
    for _ in range(2):
        assert bits(captured(x, y)) == bits((x.transpose() @ y.reshape(4, 5)).reshape(-1))
    assert "one graph" not in captured.explain()


def test_a_replay_takes_no_memory_and_copies_nothing(B: Backend, cupy: Any) -> None:
    cudasim = pytest.importorskip("cudasim", reason="only a simulated device counts copies")
    captured = jit(lambda s, x: s + (x @ x).exp().sum(), donate_argnums=0)
    state, x = full((3,), 0.0, B), numbers(B, 6, 6)
    for _ in range(2):
        state = captured(state, x)
    taken: list[int] = []
    with cupy.cuda.using_allocator(lambda size: taken.append(size)):
        cudasim.counts(reset=True)
        for _ in range(3):
            state = captured(state, x)
    counts = cudasim.counts()
    assert not taken
    names = "host_to_device", "device_to_host", "syncs", "library_calls", "launches"
    assert [counts[name] for name in names] == [0, 0, 0, 3, 0]
    np.testing.assert_allclose(
        state.numpy(), [5 * float(np.exp(x.numpy() @ x.numpy()).sum())] * 3, rtol=1e-5
    )


def test_memory_is_given_back_with_the_function(B: Backend, cupy: Any) -> None:
    pool = cupy.get_default_memory_pool()
    x = numbers(B, 64, 64)
    x @ x  # makes the library's workspace
    captured: Any = jit(lambda x: ((x + 1) @ x).exp().sum())
    gc.collect()
    before = pool.used_bytes()
    for _ in range(2):
        captured(x)
    assert pool.used_bytes() > before
    del captured
    gc.collect()
    assert pool.used_bytes() == before


def test_a_program_uses_its_memory_again(B: Backend, cupy: Any) -> None:
    def chain(x: Tensor) -> Tensor:
        for _ in range(20):
            x = ((x @ x) * 0.01).tanh()
        return x.sum()

    pool, x = cupy.get_default_memory_pool(), numbers(B, 128, 128)
    chain(x)
    captured = jit(chain)
    gc.collect()
    before = pool.used_bytes()
    assert captured(x).item() == chain(x).item()
    gc.collect()
    assert pool.used_bytes() - before <= 5 * x.numpy().nbytes


def test_homes_of_outputs_that_change_places(B: Backend) -> None:
    def turn(state: tuple[Tensor, ...], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        a, b, c = state
        return (b, c + x, a), a + 0

    captured = jit(turn, donate_argnums=0)
    x = full((4,), 1.0, B)
    state = tuple(full((4,), float(i), B) for i in range(3))
    expected = tuple(np.full(4, i, np.float32) for i in range(3))
    for _ in range(5):
        state, first = captured(state, x)
        a, b, c = expected
        expected = b, c + 1, a
        np.testing.assert_array_equal(first.numpy(), a)
        for found, there in zip(state, expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), there)


def test_a_part_of_a_state_that_stays(B: Backend) -> None:
    captured = jit(lambda state: (state, state[1:]), donate_argnums=0)
    for i in range(3):
        state, part = captured(tensor(np.arange(3.0) + i, B))
        assert (state.tolist(), part.tolist()) == ([i, i + 1, i + 2], [i + 1, i + 2])


def test_replays_on_two_streams_come_one_after_the_other(B: Backend, cupy: Any) -> None:
    captured = jit(lambda s, x: s * 0.5 + (x @ x).sum(), donate_argnums=0)
    x = numbers(B, 8, 8)
    state, expected = full((3,), 0.0, B), 0.0
    total = float((x.numpy() @ x.numpy()).sum())
    state = captured(state, x)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    cupy.cuda.get_current_stream().synchronize()
    for turn in range(5):
        with streams[turn % 2]:
            state = captured(state, x)
    for _ in range(6):
        expected = expected * 0.5 + total
    with streams[0]:
        np.testing.assert_allclose(state.numpy(), [expected] * 3, rtol=1e-5)


def test_memory_for_graphs_is_taken_when_nobody_uses_it_any_more(
    B: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is freed while work on it is under way. The simulated device shows it where it puts work
    off: CUDASIM_DEFER=1."""

    def sevens(x: Any) -> Any:
        out = cupy.full(x.shape, 7, x.dtype)
        stream = cupy.cuda.get_current_stream()
        if stream != cupy.cuda.Stream.null:  # where graphs are made, not the user's
            stream.synchronize()
        return out

    kernel = Fused("gelu", lambda B, x, **_: (sevens(x), None))
    monkeypatch.setitem(B.fused, "gelu", kernel)
    captured = jit(lambda x: gelu(x, approximate="tanh"))
    x = full((5000,), 1.0, B)
    freed = [cupy.arange(5000, dtype="float32") for _ in range(6)]
    cupy.cuda.get_current_stream().synchronize()
    computed = [array + 1 for array in freed]
    del freed
    assert set(captured(x).tolist()) == {7.0}
    for array in computed:
        np.testing.assert_array_equal(array.get(), np.arange(1, 5001))
    assert "gelu(float32[5000]), not captured" in captured.explain()


def test_graphs_run_on_the_device_of_their_backend(B: Any, cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one CUDA device; this takes two")
    second = type(B)("1")
    captured = jit(lambda s, x: (s + ((x + 1) @ x).exp().sum(), x * 2), donate_argnums=0)
    x, state = numbers(second, 3, 3), full((2,), 0.0, second)
    for _ in range(3):
        state, twice = captured(state, x)
        assert second.is_array(state.data) and second.is_array(twice.data)
        assert cupy.cuda.runtime.getDevice() == 0
    host = x.numpy()
    np.testing.assert_allclose(state.numpy(), 3 * np.exp((host + 1) @ host).sum(), rtol=1e-5)


# ---- what cannot be captured ---------------------------------------------------------------------


@pytest.fixture
def with_kernel(B: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts a kernel in place of the Euclidean norm, and gives what uses it."""

    def put(forward: Any) -> Any:
        kernel = Fused("euclidean_norm", lambda B, x: (forward(x), None))
        monkeypatch.setitem(B.fused, "euclidean_norm", kernel)
        return jit(lambda x: euclidean_norm(x + 1) * 2)

    return put


def lengths(captured: Any, B: Backend) -> None:
    for seed in range(3):
        x = numbers(B, 7, seed=seed)
        expected = 2 * np.linalg.norm(x.numpy() + 1)
        assert captured(x).item() == pytest.approx(expected, rel=1e-6)


def test_a_kernel_that_reads_on_the_host_is_a_border(B: Any, cupy: Any, with_kernel: Any) -> None:
    def waits(x: Any) -> Any:
        return cupy.full((), float(cupy.sqrt((x * x).sum()).get()), x.dtype)

    captured = with_kernel(waits)
    lengths(captured, B)
    assert captured.explain().count("one graph of") == 2
    assert "euclidean_norm(float32[7]), not captured: " in captured.explain()
    assert not captured._memory.replayer(B)._stream.is_capturing()


def test_a_kernel_whose_memory_differs_from_call_to_call(
    B: Any, cupy: Any, with_kernel: Any
) -> None:
    """Its program is replayed call by call, and says so."""
    sizes = iter(range(1000, 100000, 1000))

    def unsteady(x: Any) -> Any:
        cupy.empty(next(sizes))
        return cupy.sqrt((x.reshape(-1, 1) @ x.reshape(1, -1)).diagonal().sum())

    captured = with_kernel(unsteady)
    lengths(captured, B)
    assert "no graphs: " in captured.explain() and "bytes" in captured.explain()


def test_a_call_that_changes_its_ways_is_found_out(B: Any, cupy: Any, with_kernel: Any) -> None:
    more: list[int] = []

    def unsteady(x: Any) -> Any:
        [cupy.empty(size) for size in more]
        return cupy.sqrt((x.reshape(-1, 1) @ x.reshape(1, -1)).diagonal().sum())

    captured = with_kernel(unsteady)
    lengths(captured, B)
    more.append(64)
    with pytest.raises(CaptureError, match="a replay does not do what it did: a call asks for"):
        captured(numbers(B, 7))


@pytest.mark.parametrize("fault", ["begin", "end", "memory"])
def test_where_the_device_gives_no_graph_calls_are_made_again(
    B: Any, cupy: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfx.backends.cupy import graphs

    def refuse(*_: Any) -> Any:
        raise {
            "begin": cupy.cuda.runtime.CUDARuntimeError(801),
            "end": cupy.cuda.runtime.CUDARuntimeError(901),
            "memory": MemoryError("none left"),
        }[fault]

    class Faulty(cupy.cuda.Stream):  # type: ignore[misc, name-defined]
        begin_capture = refuse if fault == "begin" else cupy.cuda.Stream.begin_capture

        def end_capture(self) -> Any:
            graph = super().end_capture()
            return refuse() if fault == "end" else graph

    monkeypatch.setattr(cupy.cuda, "Stream", Faulty)
    if fault == "memory":
        monkeypatch.setattr(graphs.Cutting, "_settled", refuse)
    captured = jit(lambda s, x: (s + x).exp(), donate_argnums=0)
    for value in (0.0, 1.0, 2.0):
        found = captured(full((3,), value, B), full((3,), 1.0, B))
        np.testing.assert_allclose(found.numpy(), np.exp([value + 1] * 3), rtol=1e-6)
    assert captured.is_replayed
    assert "\nno graphs: " in captured.explain()
    assert not captured._memory.replayer(B)._stream.is_capturing()


def test_without_room_for_graphs_they_are_tried_again(
    B: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one call, then two, then four. What they had borrowed is given back until then, and
    another program of the function, whose graphs looked there, is cut anew."""
    from tfx.backends.cupy import graphs

    errors = iter([
        lambda: MemoryError("none left"),
        lambda: cupy.cuda.memory.OutOfMemoryError(2, 1),
        lambda: cupy.cuda.runtime.CUDARuntimeError(2),
    ])  # fmt: skip
    calls, tries = 0, []
    settled = graphs.Cutting._settled

    def short(cutting: Any) -> bool:
        if cutting._places[0].size > 3:
            tries.append(calls)
            if error := next(errors, None):
                raise error()
        return settled(cutting)

    captured: Any = jit(lambda s, x: s + ((s + x) @ x).exp(), donate_argnums=0)

    def advanced(state: Tensor) -> Tensor:
        before = state.numpy()
        found: Tensor = captured(state, full((1, 1), -0.5, B))
        expected = before + np.exp(-0.5 * (before - 0.5))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
        return found

    monkeypatch.setattr(graphs.Cutting, "_settled", short)
    small = advanced(full((3, 1), 0.0, B))
    pool, used = cupy.get_default_memory_pool(), []
    for calls in range(9):
        advanced(full((1 << 16, 1), 0.1 * calls, B))
        gc.collect()
        used.append(pool.used_bytes())
        others = [full((3, 1), 5.0, B) for _ in range(20)]  # where graphs were, perhaps
        small = advanced(small)
        assert {float(x.numpy().sum()) for x in others} == {15.0}
    assert tries == [0, 1, 3, 7]
    assert used[6] == used[5] == used[4] <= used[8] - 4 * (1 << 16)
    assert captured.explain().count("one graph of") >= 2 and "no graphs" not in captured.explain()


def test_a_cache_that_cannot_be_written_to_in_a_graph(
    B: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = B.write

    def waiting(*args: Any, **params: Any) -> Any:
        cupy.cuda.get_current_stream().synchronize()
        return original(*args, **params)

    monkeypatch.setattr(B, "write", waiting, raising=False)
    captured = jit(lambda cache, slab, at: (cache * 2).write(slab, at), donate_argnums=0)
    cache = full((4,), 1.0, B)
    for at in range(3):
        cache = captured(cache, full((1,), 9.0, B), tensor(at, B, DType.int64))
    assert cache.tolist() == [36.0, 18.0, 9.0, 8.0]
    assert "no graphs: Uncapturable: write cannot be captured" in captured.explain()
