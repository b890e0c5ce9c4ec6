"""Attention's kernels on a CUDA device, real or simulated, against torch in float64."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tfx.core.autograd import value_and_grad
from tfx.core.cache import KVCache
from tfx.core.creation import full, tensor
from tfx.core.dtypes import DType
from tfx.core.fused import composed
from tfx.core.nn import attention
from tfx.core.ops import split
from tfx.core.tensor import Tensor

torch = pytest.importorskip("torch")

TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-11}


@contextmanager
def asked(launches: int) -> Iterator[None]:
    """Inside, so many kernels are launched, and nothing crosses between host and device."""
    cudasim = pytest.importorskip("cudasim", reason="only a simulated device counts launches")
    cudasim.counts(reset=True)
    yield
    counts = cudasim.counts()
    names = "launches", "host_to_device", "device_to_host", "device_to_device", "syncs"
    assert {name: counts[name] for name in names} == dict.fromkeys(names, 0) | {
        "launches": launches
    }


# ---- against torch -------------------------------------------------------------------------------


class Case(NamedTuple):
    """Sizes of a call, and which of its arguments there are."""

    queries: int
    keys: int
    width: int
    value_width: int
    offset: int | None = None
    causal: bool = True
    masked: bool = False
    dropped: bool = False
    texts: int = 2
    heads: int = 2
    scale: float = 0.3


MANY = [
    Case(70, 70, 64, 64),
    Case(67, 67, 5, 5, masked=True),
    Case(33, 100, 80, 80, offset=67),
    Case(20, 20, 128, 128, dropped=True),
    Case(41, 67, 200, 130, causal=False, texts=1),
    Case(35, 90, 64, 7, causal=False, masked=True, dropped=True),
    Case(30, 40, 64, 64, offset=-3, masked=True),
    Case(66, 40, 3, 3, offset=200, scale=-0.5),
]
FEW = [
    Case(1, 1, 64, 64),
    Case(1, 100, 64, 64, offset=57),
    Case(3, 50, 5, 9, offset=40, masked=True),
    Case(8, 8, 80, 80, dropped=True),
    Case(2, 30, 200, 130, offset=-1),
    Case(12, 40, 64, 64, offset=21),
    Case(1, 1300, 64, 64, offset=1100, masked=True, dropped=True),
    Case(1, 2100, 128, 80, causal=False, texts=1),
    Case(2, 1600, 200, 200, offset=700, texts=1, heads=1),
    Case(1, 1300, 64, 64, offset=-1),
    Case(1, 1300, 64, 64, offset=0),
]


def drawn(case: Case) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Queries, keys and values; masks; and the gradient by the result: on the host, in float64."""
    rng = np.random.default_rng(sum(case[:4]))
    normal = rng.standard_normal
    arrays = {
        "q": normal((case.texts, case.queries, case.heads * case.width)),
        "k": normal((case.texts, case.keys, case.heads * case.width)),
        "v": normal((case.texts, case.keys, case.heads * case.value_width)),
    }
    masks: dict[str, Any] = {"visible": None, "factor": None}
    if case.masked:
        masks["visible"] = rng.random((case.texts, 1, 1, case.keys)) < 0.7
    if case.dropped:
        masks["factor"] = (rng.random((case.heads, case.queries, case.keys)) < 0.8) / 0.8
    return arrays, masks, normal((case.texts, case.queries, case.heads * case.value_width))


def by_torch(case: Case, arrays: dict[str, Any], masks: dict[str, Any], g: Any) -> list[Any]:
    """The result and the gradients by q, k and v, in float64."""
    leaves = [torch.tensor(x, requires_grad=True) for x in arrays.values()]
    q, k, v = (x.unflatten(-1, (case.heads, -1)).transpose(1, 2) for x in leaves)
    seen = torch.ones(case.texts, case.heads, case.queries, case.keys, dtype=torch.bool)
    if case.causal:
        seen = seen.tril(case.offset or 0)
    if masks["visible"] is not None:
        seen = seen & torch.tensor(masks["visible"])
    scores = (case.scale * q @ k.mT).masked_fill(~seen, -torch.inf)
    weights = scores.softmax(-1).where(seen.any(-1, keepdim=True), 0.0)
    if masks["factor"] is not None:
        weights = weights * torch.tensor(masks["factor"])
    out = (weights @ v).transpose(1, 2).flatten(2)
    out.backward(torch.tensor(g))
    return [x.detach().numpy() for x in (out, *(leaf.grad.nan_to_num() for leaf in leaves))]


def found(B: Any, case: Case, dtype: str, arrays: Any, masks: Any, g: Any) -> list[Any]:
    """What a device makes of the same numbers."""
    offset = None if case.offset is None else tensor(case.offset, B)
    visible = None if masks["visible"] is None else tensor(masks["visible"], B)
    factor = None if masks["factor"] is None else tensor(masks["factor"], B, dtype)
    slope = tensor(g, B, dtype)
    outs = []

    def loss(params: dict[str, Tensor]) -> Tensor:
        out = attention(
            *params.values(),
            case.scale,
            offset,
            visible,
            factor,
            causal=case.causal,
            heads=case.heads,
        )
        outs.append(out.numpy())
        return (out * slope).sum()

    params = {name: tensor(x, B, dtype) for name, x in arrays.items()}
    _, grads = value_and_grad(loss)(params)
    return [*outs, *(grads[name].numpy() for name in params)]


def check(B: Any, case: Case, dtype: str) -> None:
    arrays, masks, g = drawn(case)
    rounded = {name: x.astype(dtype).astype("float64") for name, x in arrays.items()}
    expected = by_torch(case, rounded, masks, g.astype(dtype).astype("float64"))
    runs: list[None] = []
    kernel = B.fused["attention"]

    def counted(*args: Any, **params: Any) -> Any:
        runs.append(None)
        return kernel.vjp(*args, **params)

    B.fused["attention"] = replace(kernel, vjp=counted)
    try:
        results = found(B, case, dtype, arrays, masks, g)
    finally:
        B.fused["attention"] = kernel
    assert runs, "the composed form ran"
    for name, x, y in zip(("out", "q", "k", "v"), results, expected, strict=True):
        assert x.dtype == dtype
        error = np.abs(x - y).max() / max(1.0, np.abs(y).max())
        assert error < TOLERANCE[dtype], f"{name} is off by {error}"


@pytest.mark.parametrize("case", MANY, ids=str)
def test_many_queries_and_their_gradients(B: Any, case: Case) -> None:
    check(B, case, "float32")


@pytest.mark.parametrize("case", FEW, ids=str)
def test_few_queries_and_their_gradients(B: Any, case: Case) -> None:
    check(B, case, "float32")


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("case", [MANY[0], MANY[4], FEW[2], FEW[5]], ids=str)
def test_other_dtypes(B: Any, case: Case, dtype: str) -> None:
    check(B, case, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", [*MANY, *FEW], ids=str)
def test_every_case_in_every_dtype(B: Any, case: Case, dtype: str) -> None:
    check(B, case, dtype)


def test_heads_on_an_axis_of_their_own(B: Any) -> None:
    """(..., T, d) without `heads`, transposed in memory, as torch's own function has them."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 70, 3, 6)).astype("float32") for _ in "qkv")
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(x).transpose(1, 2) for x in (q, k, v)), is_causal=True, scale=0.4
    )
    on_device = [tensor(x, B).swapaxes(1, 2) for x in (q, k, v)]
    attention(*on_device, 0.4)
    with asked(launches=1):
        out = attention(*on_device, 0.4)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (1, 0, 2, 3), (0, 1, 3, 2), (2, 0, 1, 3)], ids=str)
def test_arrays_in_every_order_in_memory(B: Any, axes: tuple[int, ...], heads: int | None) -> None:
    """Those that no steps lead through are copied; two axes of texts may have one step, or not."""
    rng = np.random.default_rng(4)
    shape = (2, 3, 20, 4)
    q, k, v = (
        tensor(rng.standard_normal([shape[i] for i in axes]), B).transpose(*np.argsort(axes))
        for _ in "qkv"
    )
    out = attention(q, k, v, 0.5, heads=heads)
    with composed():
        expected = attention(q, k, v, 0.5, heads=heads)
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


# ---- rows that see nothing, positions that nobody may read ---------------------------------------


@pytest.mark.parametrize("queries", [1, 20])
def test_a_query_that_sees_nothing_gives_zeros(B: Any, queries: int) -> None:
    q, k = full((2, queries, 8), 1.0, B), full((2, 30, 8), 1.0, B)
    visible = tensor(np.array([True, False])[:, None, None, None], B)
    out = attention(q, k, k, 0.5, None, visible, causal=False, heads=2).numpy()
    np.testing.assert_allclose(out[0], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(out[1], 0.0)


@pytest.mark.parametrize("capacity", [64, 1100])
@pytest.mark.parametrize("queries", [2, 20])
def test_what_lies_behind_the_last_query_is_not_read(B: Any, queries: int, capacity: int) -> None:
    rng = np.random.default_rng(1)
    k = np.full((1, capacity, 8), np.nan)
    k[:, : 7 + queries] = rng.standard_normal((1, 7 + queries, 8))
    q = tensor(rng.standard_normal((1, queries, 8)), B)
    out = attention(q, tensor(k, B), tensor(k, B), 0.5, tensor(7, B), heads=2).numpy()
    short = tensor(k[:, : 7 + queries], B)
    with composed():
        expected = attention(q, short, short, 0.5, tensor(7, B), heads=2).numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize("queries", [2, 20])
def test_nan_is_not_swallowed(B: Any, queries: int) -> None:
    q = np.ones((queries, 4))
    q[1, 0] = np.nan
    k = np.ones((queries, 4))
    out = attention(*(tensor(x, B) for x in (q, k, k)), 0.5).numpy()
    assert np.isnan(out[1]).all()
    np.testing.assert_allclose(out[0], 1.0)


# ---- launches ------------------------------------------------------------------------------------


def test_parts_of_one_product_are_read_where_they_lie(B: Any) -> None:
    """One launch for the result, two for the gradients, and no copy of a strided argument."""
    joint = tensor(np.random.default_rng(2).standard_normal((2, 40, 3 * 12)), B, "float32")
    q, k, v = (x.data for x in split(joint, 3))
    kernel = B.fused["attention"]
    args, how = (q, k, v, 0.5, None, None, None), {"causal": True, "heads": 3}
    out, saved = kernel.forward(B, *args, **how)
    kernel.vjp(B, out, out, saved, *args, **how)
    with asked(launches=1):
        out, saved = kernel.forward(B, *args, **how)
    with asked(launches=2):
        kernel.vjp(B, out, out, saved, *args, **how)


@pytest.mark.parametrize(("capacity", "launches"), [(64, 1), (1024, 1), (1025, 2)])
def test_a_token_over_the_cache(B: Any, capacity: int, launches: int) -> None:
    cache = KVCache(1, (1, capacity, 8), B, DType.float32)
    q = full((1, 1, 8), 1.0, B)
    k, v, position = cache.extend(0, q, q)
    attention(q, k, v, 0.5, position, heads=2)
    with asked(launches=launches):
        attention(q, k, v, 0.5, position, heads=2)


@pytest.mark.parametrize("capacity", [64, 1100])
def test_a_captured_graph_reads_the_position_anew(B: Any, capacity: int) -> None:
    cupy = sys.modules["cupy"]
    rng = np.random.default_rng(3)
    q = tensor(rng.standard_normal((1, 1, 8)), B)
    k = tensor(rng.standard_normal((1, capacity, 8)), B)
    position = full((), 0, B, B.index_dtype)
    attention(q, k, k, 0.5, position, heads=2)
    stream = cupy.cuda.Stream(non_blocking=True)
    B.synchronize()
    with stream:
        stream.begin_capture()
        out = attention(q, k, k, 0.5, position, heads=2)
        graph = stream.end_capture()
        for at in (0, 5, capacity - 1):
            position.data[...] = at
            graph.launch(stream)
            with composed():
                expected = attention(q, k, k, 0.5, tensor(at, B), heads=2).numpy()
            np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


# ---- what else it promises -----------------------------------------------------------------------


@pytest.mark.parametrize("case", [MANY[3], FEW[5]], ids=str)
def test_the_same_input_twice_gives_the_same_bits(B: Any, case: Case) -> None:
    numbers = drawn(case)
    once, again = (found(B, case, "float32", *numbers) for _ in range(2))
    for x, y in zip(once, again, strict=True):
        np.testing.assert_array_equal(x, y)


def test_what_no_kernel_takes_is_composed(B: Any) -> None:
    fits = B.fused["attention"].supports
    how: dict[str, Any] = {"causal": True, "heads": None}

    def takes(*args: Any, **more: Any) -> bool:
        raw = [x.data if isinstance(x, Tensor) else x for x in args]
        return bool(fits(B, *raw, *[None] * (7 - len(raw)), **(how | more)))

    x, wide = full((3, 4), 1.0, B), full((3, 257), 1.0, B)
    assert takes(x, x, x, 0.5)
    assert takes(x, x, x, 2)
    assert not takes(x, x, x, full((), 0.5, B))
    assert not takes(wide, wide, x, 0.5)
    assert not takes(x, x, wide, 0.5)
    assert not takes(x, x, x, 0.5, full((), 1.0, B))
    assert not takes(x, x, x, 0.5, None, full((), 1.0, B))
    assert not takes(x, x, x, 0.5, None, None, full((), 1.0, B, "float64"))
    assert not takes(x, x.cast("float64"), x, 0.5)
    assert not takes(x, full((0, 4), 1.0, B), full((0, 4), 1.0, B), 0.5)
    assert not takes(x, x, x, 0.5, heads=3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_variant_compiles(B: Any, dtype: str) -> None:
    """By NVIDIA's compiler too, where the simulated device is asked for that."""
    from tfx.backends.cupy.kernels.attention_call import WIDTHS
    from tfx.backends.cupy.kernels.attention_pull import PULL, pull_names
    from tfx.backends.cupy.kernels.attention_rows import ROWS, row_names
    from tfx.backends.cupy.kernels.attention_tiles import ATTEND, tile_names

    ways: list[Any] = [
        (ROWS, row_names, ["attend_rows", "join_parts"]),
        (ATTEND, tile_names, ["attend"]),
        (PULL, pull_names, ["pull_queries", "pull_keys"]),
    ]
    for width in WIDTHS:
        for program, names_of, kernels in ways:
            for kernel in kernels:
                found = program.kernel(kernel, **names_of(np.dtype(dtype), width))
                assert found.num_regs >= 0
