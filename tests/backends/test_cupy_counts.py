"""What a step asks of the device, as the simulated device counts it, and what memory it keeps."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.capture import eager, jit
from tfx.core.creation import tensor
from tfx.core.dropout import Dropout
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.generation.generate import stream
from tfx.core.generation.options import GenerationOptions
from tfx.core.optim import AdamW, TrainState
from tfx.core.parameters import Parameters
from tfx.core.schedules import cosine
from tfx.core.tensor import Tensor
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Config, Params, loss
from tfx.models.gpt2.options import Options
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.stepping import stepping

pytestmark = pytest.mark.parametrize("backend", ["cupy"], indirect=True)

CONFIG = Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2)
BOUND = 9 * CONFIG.n_layer + 12
"""Launches and library calls of one decoded token, at most."""

Counts = dict[str, float]


@pytest.fixture
def B(backend: Backend) -> Any:
    return backend


@pytest.fixture
def cudasim() -> Any:
    return pytest.importorskip("cudasim", reason="only a simulated device counts")


@contextmanager
def one_by_one(B: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, what is captured makes its calls by themselves: in a graph, they are not counted."""
    with monkeypatch.context() as patch:
        patch.setattr(B, "replayer", lambda: None, raising=False)
        yield


# ---- a decoded token -----------------------------------------------------------------------------


def gpt2(B: Backend) -> LanguageModel:
    rng = np.random.default_rng(0)
    host = {name: rng.normal(0, 0.2, shape) for name, shape in CONFIG.shapes().items()}
    return LanguageModel(CONFIG, Parameters.from_host(host, B, DType.float32))


def decoded(B: Backend, count: int, **options: Any) -> Iterator[int]:
    """The tokens that follow a prompt, one by one."""
    chosen = GenerationOptions(max_new_tokens=count, **options)
    return (token.id for token in stream(gpt2(B), [[1, 2, 3]], chosen))


def per_token(B: Backend, cudasim: Any, count: int = 5, **options: Any) -> Counts:
    """The counts of a token, when all is compiled and captured."""
    tokens = decoded(B, count + 3, **options)
    for _ in range(3):
        next(tokens)
    cudasim.counts(reset=True)
    for _ in range(count):
        next(tokens)
    return {name: value / count for name, value in cudasim.counts().items()}


CHOSEN: Any = pytest.mark.parametrize(
    "given",
    [{}, {"temperature": 0.8}, {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "min_p": 0.01}],
    ids=["greedy", "drawn", "filtered"],
)
"""How tokens are chosen."""


@CHOSEN
@pytest.mark.parametrize("way", ["graphs", "one by one", "eager"])
def test_a_decoded_token_costs_one_copy(
    B: Backend, cudasim: Any, way: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its id, to the host; the next pass reads it where it is."""
    around = {
        "graphs": nullcontext(),
        "one by one": one_by_one(B, monkeypatch),
        "eager": eager(),
    }[way]
    with around:
        counts = per_token(B, cudasim, **given)
    assert counts["device_to_host"] + counts["host_to_device"] <= 1
    assert counts["device_to_host_bytes"] + counts["host_to_device_bytes"] <= 8
    assert counts["syncs"] <= 1


def test_a_token_of_the_composed_form_is_chosen_on_the_host(B: Backend, cudasim: Any) -> None:
    """Its logits come in one copy and one wait; what goes back is its id."""
    with composed():
        counts = per_token(B, cudasim)
    assert counts["device_to_host"] <= 1
    assert counts["host_to_device"] <= 1 and counts["host_to_device_bytes"] <= 8
    assert counts["syncs"] <= 1


@CHOSEN
def test_launches_of_a_decoded_token(
    B: Backend,
    cudasim: Any,
    given: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Kernels and library calls; those in a graph count one by one."""
    found = {}
    for form, around in (("fused", nullcontext()), ("composed", composed())):
        with around:
            with one_by_one(B, monkeypatch):
                counts = per_token(B, cudasim, **given)
            issued = per_token(B, cudasim, **given)
        found[form] = counts["launches"] + counts["library_calls"]
        with capsys.disabled():
            print(
                f"\na decoded token of {CONFIG.n_layer} layers, {form}: {counts['launches']:.0f} "
                f"launches + {counts['library_calls']:.0f} library calls; with graphs, the host "
                f"issues {issued['launches']:.0f} + {issued['library_calls']:.0f} of them"
            )
    assert found["fused"] <= BOUND < found["composed"]


def test_tokens_by_graphs_are_those_without(B: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a full cache's size too, where another program takes over."""
    expected = list(decoded(B, 30, temperature=0.8, seed=3))
    with eager():
        assert list(decoded(B, 30, temperature=0.8, seed=3)) == expected
    with one_by_one(B, monkeypatch):
        assert list(decoded(B, 30, temperature=0.8, seed=3)) == expected


def test_without_the_library_s_products_a_token_is_one_graph(
    B: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the products are made then, as by kernels for few rows."""

    def product(x: Any, y: Any) -> Any:
        return (x[..., :, :, None] * y[..., None, :, :]).sum(-2)

    monkeypatch.setattr(B, "matmul", product, raising=False)
    model = gpt2(B)
    chosen = GenerationOptions(max_new_tokens=10)
    tokens = [token.id for token in stream(model, [[1, 2, 3]], chosen)]
    for program in model._reading.explain().split("\n\n")[1:]:
        assert program.count("one graph of") == 1 and "not captured" not in program
    with eager():
        assert [token.id for token in stream(model, [[1, 2, 3]], chosen)] == tokens


# ---- a training step -----------------------------------------------------------------------------


Step = Callable[[TrainState, Tensor, Tensor], tuple[TrainState, Tensor]]


def training(B: Backend) -> tuple[TrainState, Step, tuple[Tensor, Tensor]]:
    """A state, a step with dropout, and a batch."""
    rng = np.random.default_rng(0)
    host = {name: rng.normal(0, 0.1, shape) for name, shape in CONFIG.shapes().items()}
    params = Parameters.from_host(host, B, DType.float32)
    optimizer = AdamW(cosine(300, 1e-2), params, decay=0.1, grad_clip=1.0)

    def mean_loss(p: Params, ids: Tensor, targets: Tensor, draw: Tensor) -> Tensor:
        return loss(p, CONFIG, ids, targets, Pass(dropout=Dropout((1, 2), draw)))

    differentiate = value_and_grad(mean_loss, autograd="core")

    def step(state: TrainState, ids: Tensor, targets: Tensor) -> tuple[TrainState, Tensor]:
        value, grads = differentiate(state.params, ids, targets, state.step)
        state, _ = optimizer.update(state, value, state.params.flatten(grads))
        return state, value

    ids = rng.integers(0, CONFIG.vocab_size, (2, 9))
    batch = (tensor(x, B, B.index_dtype) for x in (ids[:, :-1], ids[:, 1:]))
    return TrainState.start(params), step, tuple(batch)  # type: ignore[return-value]


def test_a_training_step_by_graphs_is_the_step(B: Backend) -> None:
    """To the last bit, masks of dropout included, and without any copy to or from the host."""
    cudasim = sys.modules.get("cudasim")
    traces = []
    for captured in (True, False):
        state, step, batch = training(B)
        if captured:
            step = jit(step, donate_argnums=0)
        losses = []
        for i in range(3):
            if i == 2 and cudasim is not None:
                cudasim.counts(reset=True)
            state, value = step(state, *batch)
            losses.append(value)
        if cudasim is not None:
            counts = cudasim.counts()
            crossings = ("host_to_device", "device_to_host", "syncs")
            assert [counts[name] for name in crossings] == [0, 0, 0]
        traces.append(([x.item() for x in losses], state.params.flat.numpy(), state.v.numpy()))
    (found, *arrays), (expected, *others) = traces
    assert found == expected and len(set(found)) == 3
    for here, there in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(here, there)


def test_the_steps_of_a_run_copy_batches_in_and_losses_out(B: Backend, cudasim: Any) -> None:
    """And nothing else, as `tfx train` takes them; nor does any but reading a loss wait."""
    rng = np.random.default_rng(0)
    host = {name: rng.normal(0, 0.1, shape) for name, shape in CONFIG.shapes().items()}
    state = TrainState.start(Parameters.from_host(host, B, DType.float32))
    texts = rng.integers(0, CONFIG.vocab_size, (6, 2, 9))

    def mean_loss(p: Params, through: Pass, ids: Tensor, targets: Tensor) -> Tensor:
        return loss(p, CONFIG, ids, targets, through)

    options = Options(batch_size=2, block_size=8)
    batches = [(x[:, :-1], x[:, 1:]) for x in texts]
    advance = stepping(state, options, cosine(10, 1e-2), batches.__getitem__, mean_loss)
    for i in range(3):
        state, value, _ = advance(state, i)
    B.synchronize()
    cudasim.counts(reset=True)
    losses = []
    for i in range(3, 6):
        state, value, _ = advance(state, i)
        losses.append(value)
    assert cudasim.counts()["syncs"] == 0
    B.synchronize()  # what is put off is not counted yet
    counts = cudasim.counts()
    assert (counts["host_to_device"], counts["host_to_device_bytes"]) == (3 * 2, 3 * 2 * 16 * 8)
    assert counts["device_to_host"] == 0
    assert all(np.isfinite(x.item()) for x in losses)
    counts = cudasim.counts()
    assert (counts["device_to_host"], counts["device_to_host_bytes"]) == (3, 3 * 4)


# ---- memory --------------------------------------------------------------------------------------


def memory(test: Any) -> Any:
    """Slow, and of another order where each launch opens and closes all memory."""
    protected = os.environ.get("CUDASIM_PROTECT") == "1"
    return pytest.mark.slow(pytest.mark.skipif(protected, reason="CUDASIM_PROTECT is set")(test))


def held() -> tuple[int, int]:
    gc.collect()  # tapes go in cycles
    pool = sys.modules["cupy"].get_default_memory_pool()
    return pool.used_bytes(), pool.total_bytes()


@memory
@pytest.mark.parametrize("way", ["graphs", "eager"])
def test_memory_does_not_grow_over_1000_tokens(B: Backend, way: str) -> None:
    """In a window that moves on, so that every kind of pass has been made several times."""
    with eager() if way == "eager" else nullcontext():
        tokens = decoded(B, 1000, window=True)
        seen = []
        for i, _ in enumerate(tokens, 1):
            if i in (200, 1000):
                seen.append(held())
    assert seen[1] == seen[0]


@memory
@pytest.mark.parametrize("way", ["graphs", "eager"])
def test_memory_does_not_grow_over_200_steps(B: Backend, way: str) -> None:
    state, step, batch = training(B)
    if way == "graphs":
        step = jit(step, donate_argnums=0)
    for i in range(200):
        state, value = step(state, *batch)
        if i == 5:
            before = held()
    assert held() == before
    assert value.item() < 3.0
