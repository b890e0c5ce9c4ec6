"""L5: how a backend behaves around its results: transfers, repeats, threads, chance, capture."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.dtypes import INDICES, DType
from tfx.core.fused import composed
from tfx.core.tensor import apply
from tfx.core.threefry import threefry2x32
from tfx.core.tolerances import TOLERANCES
from tfx.testing.calling import aligned, fetch, told
from tfx.testing.contract import require
from tfx.testing.kit import Checks, Level, Skipped, Subject
from tfx.testing.levels import capture
from tfx.testing.levels.gradients import WAYS, check_way
from tfx.testing.levels.values import same
from tfx.testing.nearness import Mismatch
from tfx.testing.network import Network
from tfx.testing.primitive_table import PRIMITIVE_OPS
from tfx.testing.records import Sample
from tfx.testing.trials import Trial

CHECKS = Checks(Level.BEHAVIOUR)
CHECKS += capture.CHECKS


def forms(B: Backend) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """How fused ops run: where there are kernels, they may keep primitives from being called."""
    yield "a pass with kernels", nullcontext()
    if B.fused:
        yield "a pass without kernels", composed()


# ---- transfers ---------------------------------------------------------------------------


@contextmanager
def transfers(B: Backend) -> Iterator[list[str]]:
    """Inside, each copy between host and device adds a line to the list: by whom, and which."""
    seen: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(B, name)

        def method(*args: Any, **statics: Any) -> Any:
            seen.append(f"{sys._getframe(1).f_code.co_name} called {name}")
            return original(*args, **statics)

        return method

    names = ("asarray", "borrow", "to_numpy")
    own = vars(B)
    before = {name: own[name] for name in names if name in own}
    own.update({name: counted(name) for name in names})
    try:
        yield seen
    finally:
        for name in names:
            del own[name]
        own.update(before)


def no_transfers_in_a_training_step(subject: Subject, way: Any) -> None:
    check_way(subject, way)
    B = subject.fresh()
    for form, switched in forms(B):
        network = Network(B, way, dropout=0.1 if B.device_random else 0.0)
        with switched, told(form):
            network.train_step()
            with transfers(B) as seen:
                network.train_step()
            require(not seen, f"between host and device: {', '.join(sorted(set(seen)))}")


for _way in WAYS:
    CHECKS.add(f"no transfers in a training step {_way}", no_transfers_in_a_training_step, _way)


@CHECKS.check
def no_transfers_in_a_decoded_token(subject: Subject) -> None:
    B = subject.fresh()
    for form, switched in forms(B):
        network = Network(B)
        with switched, told(form):
            ids = network.decode_step(network.first_ids())
            with transfers(B) as seen:
                network.decode_step(ids)
            require(not seen, f"between host and device: {', '.join(sorted(set(seen)))}")


# ---- the same again ----------------------------------------------------------------------


def work(B: Backend, way: Any = "auto", seed: int = 0) -> Iterator[HostArray]:
    """Loss and norm of four steps, twelve decoded tokens of three texts, and the parameters."""
    network = Network(B, way, dropout=0.1, seed=seed)
    for _ in range(4):
        for x in network.train_step():
            yield x.numpy()
    ids = network.first_ids()
    for _ in range(12):
        ids = network.decode_step(ids)
        yield ids.numpy()
    yield network.state.params.flat.numpy()


def trained(B: Backend, way: Any = "auto") -> list[HostArray]:
    """All of the work at once."""
    return list(work(B, way))


def alike(found: list[HostArray], expected: list[HostArray], B: Backend, what: str) -> None:
    """The same bits, or the same within the tolerance where those are not promised."""
    for x, y in zip(found, expected, strict=True):
        if B.deterministic:
            equal = np.array_equal(x, y, equal_nan=True)
        else:
            equal = np.allclose(x, y, rtol=0, atol=TOLERANCES[DType.float32].bound * 10)
        if not equal:
            at = tuple(map(int, np.argwhere(x != y)[0]))
            raise Mismatch(f"{what}: {x[at]} and {y[at]} at {at} are not the same")


@CHECKS.check
def the_same_input_gives_the_same_bits(subject: Subject) -> None:
    B = subject.backend
    if not B.deterministic:
        raise Skipped("deterministic is False")
    rng = np.random.default_rng(0)
    x, y = (B.asarray(rng.standard_normal((64, 64)), dtype=DType.float32) for _ in range(2))
    where = B.asarray(rng.integers(0, 8, 64), dtype=B.index_dtype)
    few = B.slice(y, starts=(0, 0), stops=(8, 64), steps=(1, 1))
    calls: dict[str, Callable[[], Any]] = {
        "matmul": lambda: B.matmul(x, y),
        "sum": lambda: B.sum(x, axis=(0, 1), keepdims=False),
        "exp": lambda: B.exp(x),
        "scatter_add": lambda: B.scatter_add(few, where, x, axis=0),
    }
    for name, make in calls.items():
        first = B.to_numpy(make())
        for _ in range(3):
            same(B.to_numpy(make()), first, name)
    alike(trained(B), trained(B), B, "two trainings from one start")


@CHECKS.check
def two_instances_do_not_meet(subject: Subject) -> None:
    """Each gives what it gives alone while the other is at work between its steps."""
    alone = trained(subject.fresh())
    B = subject.fresh()
    pairs = zip(work(B), work(subject.fresh(), seed=1), strict=True)
    alike([x for x, _ in pairs], alone, B, "beside another instance")


@CHECKS.check
def threads_do_not_meet(subject: Subject) -> None:
    B = subject.backend
    alone = trained(B)
    with ThreadPoolExecutor(3) as threads, told("three threads"):
        for found in threads.map(lambda _: trained(B), range(3)):
            alike(found, alone, B, "beside the others and alone")


@CHECKS.check
def threads_do_not_meet_in_a_primitive(subject: Subject) -> None:
    """Each gives what it gives alone while two others are inside, with other numbers."""
    B = subject.backend
    with ThreadPoolExecutor(3, initializer=give_way) as threads:
        for op in PRIMITIVE_OPS.values():
            largest = max(op.samples, key=Sample.size)
            trials = [Trial(op, largest, DType.float32).rolled(i) for i in range(3)]
            expected = [_results(trial, B) for trial in trials]
            with told(op, "three threads"):
                found = threads.map(_results, trials, [B] * 3)
                for some, others in zip(found, expected, strict=True):
                    alike(some, others, B, "beside the others and alone")


def _results(trial: Trial, B: Backend) -> list[HostArray]:
    """Of the same call a few times, fetched when all are made."""
    calls = [trial.raw(B) for _ in range(3)]
    made = [getattr(B, trial.op.name)(*args, **trial.sample.statics) for args in calls]
    return [fetch(B, x) for x in made]


def give_way() -> None:
    """From now on, this thread lets the others go on whenever it calls a function."""

    def profile(frame: object, event: str, arg: object) -> None:
        if event in ("call", "c_call"):
            time.sleep(0)

    sys.setprofile(profile)


@CHECKS.check
def both_autograds_learn_the_same(subject: Subject) -> None:
    check_way(subject, "native")
    tape, native = (trained(subject.backend, way) for way in WAYS)
    for x, y in zip(native, tape, strict=True):
        if not np.allclose(x, y, rtol=1e-3, atol=1e-4):
            raise Mismatch(f"native {x.reshape(-1)[:3]}, the tape {y.reshape(-1)[:3]}")


# ---- memory ------------------------------------------------------------------------------


@CHECKS.check
def a_step_leaves_its_input_as_it_was(subject: Subject) -> None:
    network = Network(subject.backend)
    state = network.state
    before = [x.numpy() for x in (state.params.flat, state.m, state.v)]
    network.train_step()
    for x, kept in zip((state.params.flat, state.m, state.v), before, strict=True):
        same(x.numpy(), kept, "the state before the step")


@CHECKS.check
def write_in_a_row(subject: Subject) -> None:
    """A buffer filled slab by slab, its old contents never used again."""
    B = subject.backend
    expected = np.zeros((2, 6), np.float32)
    buffer = B.full(shape=(2, 6), value=0.0, dtype=DType.float32)
    untouched = B.full(shape=(2, 6), value=0.0, dtype=DType.float32)
    for i in range(6):
        slab = np.full((2, 1), i + 1, np.float32)
        at = B.asarray(np.array(i), dtype=B.index_dtype)
        buffer = B.write(buffer, B.asarray(slab, dtype=DType.float32), at, axis=1)
        expected[:, i : i + 1] = slab
        same(B.to_numpy(buffer), expected, f"after slab {i}")
    same(B.to_numpy(untouched), np.zeros((2, 6)), "another buffer of zeros")


@CHECKS.check
def write_leaves_the_host_and_borrowed_arrays(subject: Subject) -> None:
    B = subject.backend
    for give in (B.asarray, B.borrow):
        host = aligned(np.zeros(4, np.float32))
        slab = B.asarray(np.ones(2, np.float32), dtype=DType.float32)
        out = B.write(give(host, dtype=DType.float32), slab, 1, axis=0)
        same(B.to_numpy(out), np.array([0, 1, 1, 0]), give.__name__)
        same(host, np.zeros(4), f"the host array behind {give.__name__}")


# ---- random bits -------------------------------------------------------------------------

PUBLISHED = [
    ((0, 0), 0, (0x6B200159, 0x99BA4EFE)),
]
"""Key, counter and first two words of Threefry-2x32-20, as Random123 publishes them: the vector
whose counter `random_bits` can have."""


@CHECKS.check
def random_bits_are_the_published_ones(subject: Subject) -> None:
    B = subject.backend
    for key, counter, words in PUBLISHED:
        at = B.asarray(np.array(counter), dtype=B.index_dtype)
        found = B.to_numpy(B.random_bits(at, key=key, shape=(2,), bits=32))
        same(found.view(np.uint32), np.array(words, np.uint32), f"key {key}, counter {counter}")


@CHECKS.check
def random_bits_are_the_same_everywhere(subject: Subject) -> None:
    """Against Python's integers, word by word: shapes, counters, numbers of bits, index dtypes."""
    B = subject.backend
    key = (0x13198A2E, 0xFFFFFFFE)
    for counter, bits, shape in [
        (0, 32, (7,)),
        (1, 24, (3, 5)),
        (2**31 - 1, 31, (2, 1, 4)),
        (12345, 1, ()),
        (7, 8, (0,)),
    ]:
        count = int(np.prod(shape))
        words = [threefry2x32(key, i // 2, counter)[i % 2] >> (32 - bits) for i in range(count)]
        expected = np.array(words, np.uint32).view(np.int32).reshape(shape)
        for index in sorted(INDICES & B.dtypes):
            with told(f"counter {counter} as {index}, {bits} bits, shape {shape}"):
                at = B.asarray(np.array(counter), dtype=index)
                same(B.to_numpy(B.random_bits(at, key=key, shape=shape, bits=bits)), expected)


@CHECKS.check
def a_counter_on_the_device_draws_anew(subject: Subject) -> None:
    B = subject.backend
    counter = tensor(5, B, B.index_dtype)
    first, again, next_one = (
        apply("random_bits", c, key=(3, 4), shape=(8,), bits=16)
        for c in (counter, counter, counter + 1)
    )
    require(first.tolist() == again.tolist(), "the same counter gave other bits")
    require(first.tolist() != next_one.tolist(), "the next counter gave the same bits")
