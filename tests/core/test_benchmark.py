"""Timing work: what is inside the clock, whose turn it is, and what is made of the times."""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core.bench_process import ROUND_SECONDS, Remote, Stopwatch
from tfx.core.benchmark import Benchmark, Measured, Prepared, Spread, bench
from tfx.core.errors import TfxError, UsageError
from tfx.core.recipe import BenchSettings, Part, Work


class Clock:
    """Time passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("count", [2, 3, 5, 8, 20])
def test_a_spread_is_that_of_numpy_and_statistics(count: int) -> None:
    numbers = np.random.default_rng(count).exponential(size=count).tolist()
    found = Spread.of(numbers)
    assert found.median == pytest.approx(statistics.median(numbers), rel=1e-12)
    quartiles = np.percentile(numbers, [25, 75])
    assert [found.lower, found.upper] == pytest.approx(quartiles.tolist(), rel=1e-12)
    assert (found.least, found.most) == (min(numbers), max(numbers))
    assert found.mean == pytest.approx(float(np.mean(numbers)), rel=1e-12)


def test_one_number_has_no_spread() -> None:
    assert Spread.of([2.5]) == Spread(2.5, 2.5, 2.5, 2.5, 2.5, 2.5)


# ---- the stopwatch -------------------------------------------------------------------------------


def test_preparing_is_not_timed_and_what_it_gave_is_handed_on() -> None:
    clock, seen = Clock(), []

    def prepare() -> str:
        clock.pass_by(1000)
        return "ready"

    def run(prepared: str) -> None:
        seen.append(prepared)
        clock.pass_by(6.0)

    watch = Stopwatch(Work("", "float32", run, prepare, steps=3), clock)
    assert watch.warm_up(1) == 6.0
    assert watch.round() == 2.0  # of three steps
    assert seen == ["ready"] * 2


def test_short_work_is_repeated_within_a_round_and_its_mean_counts() -> None:
    clock, taken = Clock(), []
    durations = iter([5.0, ROUND_SECONDS / 3.9, *[1.0, 2.0, 3.0, 4.0]])

    def run(_: Any) -> None:
        taken.append(next(durations))
        clock.pass_by(taken[-1])

    watch = Stopwatch(Work("", "float32", run), clock)
    assert watch.warm_up(2) == 5.0  # the first, compilation and all
    assert watch.round() == pytest.approx(2.5)  # the last of the warm-up said: four runs a round
    assert len(taken) == 6


def test_work_too_short_for_the_clock_ends() -> None:
    watch = Stopwatch(Work("", "float32", lambda _: None), Clock())
    watch.warm_up(1)
    assert watch.round() == 0


# ---- rounds --------------------------------------------------------------------------------------


class Fake:
    """A contender whose every step takes as long as it is told, and who notes what it is asked."""

    def __init__(self, backend: str, seconds: Sequence[float], log: list[str]) -> None:
        self.backend, self._log = backend, log
        self._seconds = iter(seconds)
        self.asked: list[tuple[Part, BenchSettings]] = []

    def prepare(self, part: Part, settings: BenchSettings) -> Prepared:
        self.asked.append((part, settings))
        return Prepared("a token", "float32", 4.0, ("both say so", f"said by {self.backend}"))

    def warm_up(self, times: int) -> float:
        self._log.append(f"{self.backend} warms up {times} times")
        return 9.0

    def round(self) -> float:
        self._log.append(self.backend)
        return next(self._seconds)

    def memory(self) -> Mapping[str, int | None]:
        return {"idle_host_bytes": 1, "peak_host_bytes": 2, "peak_device_bytes": None}


def timed(parts: Sequence[Part] = ("decode",), **more: Any) -> tuple[Benchmark, list[str], Any]:
    log: list[str] = []
    contenders = [Fake("one", [2.0, 4.0, 6.0] * 9, log), Fake("two", [1.0, 1.0, 12.0] * 9, log)]
    chosen = {"weights": lambda folder: folder, "note": lambda line: None, **more}
    settings = BenchSettings(dtype="float32")
    weights, note = chosen["weights"], chosen["note"]
    found = bench("acme", lambda stack: contenders, weights, settings, parts, 3, 2, note)
    return found, log, contenders


def test_rounds_go_around_the_backends() -> None:
    _, log, _ = timed()
    assert log == ["one warms up 2 times", "two warms up 2 times", *["one", "two"] * 3]


def test_speed_is_of_times_of_the_same_round() -> None:
    found, _, _ = timed()
    one, two = found.rows
    assert found.reference(two) is one
    assert one.speeds(one) == [1.0, 1.0, 1.0]
    assert two.speeds(one) == [2.0, 4.0, 0.5]  # medians of times alone would say 4
    assert one.rates() == [2.0, 1.0, 4.0 / 6]


def test_notes_are_passed_on_once() -> None:
    notes: list[str] = []
    timed(note=notes.append)
    assert notes == ["both say so", "said by one", "said by two", "decode: 3 rounds"]


def test_weights_are_made_once_and_not_for_training() -> None:
    made: list[Path] = []

    def weights(folder: Path) -> Path:
        made.append(folder)
        return folder

    _, _, (one, two) = timed(("train",), weights=weights)
    assert (made, one.asked[0][1].weights) == ([], None)
    _, _, (one, two) = timed(("load", "prefill", "train", "decode"), weights=weights)
    assert len(made) == 1
    given = [settings.weights for _, settings in (*one.asked, *two.asked)]
    assert given == [made[0], made[0], None, made[0]] * 2
    assert not made[0].parent.exists()  # nothing is left behind


def test_json_has_every_time_and_what_was_made_of_them() -> None:
    found, _, _ = timed()
    described = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert (described["model"], described["repeats"], described["warm_up"]) == ("acme", 3, 2)
    _, two = described["rows"]
    assert two["seconds"] == [1.0, 1.0, 12.0]
    assert (two["ms"]["median"], two["ms"]["most"]) == (1000.0, 12000.0)
    assert two["tokens_per_s"]["median"] == 4.0
    assert two["speed"]["median"] == 2.0
    assert two["memory"]["peak_host_bytes"] == 2
    assert two["warm_up_s"] == 9.0


def test_what_is_not_counted_in_tokens_has_no_rate() -> None:
    row = Measured("load", "one", "open", "float32", 0.0, (1.0,), 1.0, {})
    assert row.rates() is None
    assert Benchmark("acme", 1, 1, (row,)).as_json()["rows"][0]["tokens_per_s"] is None


# ---- processes -----------------------------------------------------------------------------------


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_what_a_process_cannot_do_is_said_here(stack: ExitStack) -> None:
    with pytest.raises(UsageError, match=r"no backend named 'nupmy'. Did you mean 'numpy'\?"):
        stack.enter_context(Remote("microgpt", "nupmy"))
    numpy = stack.enter_context(Remote("microgpt", "numpy"))
    with pytest.raises(UsageError, match="microgpt has no use for --block-size"):
        numpy.prepare("train", BenchSettings(block_size=8))


def test_a_process_that_dies_is_named(stack: ExitStack) -> None:
    numpy = stack.enter_context(Remote("microgpt", "numpy"))
    assert numpy._process.pid is not None
    os.kill(numpy._process.pid, signal.SIGKILL)
    with pytest.raises(TfxError, match=r"^the process of numpy ended with code -9"):
        numpy.round()
