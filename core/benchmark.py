"""How long a model's work takes on several backends, side by side.

Each part of the work on each backend has a process of its own (`tfx.core.bench_process`), so that
no library's threads or memory stand in another's way. Rounds go around the backends in turn: a slow
minute of the machine hits all alike, and what is compared are times of the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, get_args

from tfx.core.recipe import BenchSettings, Part

PARTS: tuple[Part, ...] = get_args(Part)

Note = Callable[[str], None]


# ---- numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Where numbers lie: half of them between `lower` and `upper`, the quartiles.

    >>> Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, lower=2.0, upper=4.0, least=1.0, most=5.0, mean=3.0)
    """

    median: float
    lower: float
    upper: float
    least: float
    most: float
    mean: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Of at least one number. Quartiles are interpolated between the numbers."""
        if len(numbers) == 1:
            numbers = [*numbers, *numbers]
        lower, median, upper = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(median, lower, upper, min(numbers), max(numbers), statistics.fmean(numbers))


@dataclass(frozen=True)
class Measured:
    """What one backend took for one part of the work.

    Attributes:
        part: of the work.
        backend: its name, with the device where it has several.
        what: what a step is, in a few words.
        dtype: what was computed in.
        tokens: how many are read or written in a step, on average; 0: nobody counts in tokens.
        seconds: for a step, in each round.
        warm_up_s: what the first run of all took, compilation and the like included.
        memory: in bytes, by name: the host's before there was a model (`idle_host_bytes`) and
            at most (`peak_host_bytes`), the device's at most (`peak_device_bytes`); None where
            nobody knows.
    """

    part: Part
    backend: str
    what: str
    dtype: str
    tokens: float
    seconds: tuple[float, ...]
    warm_up_s: float
    memory: Mapping[str, int | None]

    def rates(self) -> list[float] | None:
        """Tokens a second, in each round."""
        return [self.tokens / s for s in self.seconds] if self.tokens else None

    def speeds(self, reference: Measured) -> list[float]:
        """How many times as fast as `reference` it was, in each round."""
        pairs = zip(reference.seconds, self.seconds, strict=True)
        return [theirs / ours for theirs, ours in pairs]


@dataclass(frozen=True)
class Benchmark:
    """What `bench` found: a part after the other, and in each the backends as they were asked for.

    Attributes:
        model: its name.
        repeats: how many rounds were counted.
        warm_up: how many runs before them were not.
        rows: what was measured.
    """

    model: str
    repeats: int
    warm_up: int
    rows: tuple[Measured, ...]

    def reference(self, row: Measured) -> Measured:
        """The row of the first backend in the same part."""
        return next(other for other in self.rows if other.part == row.part)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the spread of times, rates and speeds."""
        described = []
        for row in self.rows:
            rates = row.rates()
            described.append(
                {
                    **asdict(row),
                    "ms": asdict(Spread.of([1e3 * s for s in row.seconds])),
                    "tokens_per_s": asdict(Spread.of(rates)) if rates else None,
                    "speed": asdict(Spread.of(row.speeds(self.reference(row)))),
                }
            )
        counts = {"repeats": self.repeats, "warm_up": self.warm_up}
        return {"model": self.model, **counts, "rows": described}


# ---- measuring -----------------------------------------------------------------------------------


class Contender(Protocol):
    """One backend with a model on it, ready to work; `Remote` is one."""

    backend: str

    def prepare(self, part: Part, settings: BenchSettings) -> Prepared:
        """Make the model ready for a part of its work."""

    def warm_up(self, times: int) -> float:
        """Work for nothing; the seconds that the first time took."""

    def round(self) -> float:
        """Work; the seconds for a step."""

    def memory(self) -> Mapping[str, int | None]:
        """As in `Measured`, until now."""


@dataclass(frozen=True)
class Prepared:
    """What a contender says of the work it has made ready; the first three as in `Measured`."""

    what: str
    dtype: str
    tokens: float
    notes: tuple[str, ...]


Open = Callable[[ExitStack], Sequence[Contender]]
"""Opens the backends that were asked for; what is to be closed again goes onto the stack."""


def bench(
    model: str,
    open_all: Open,
    weights: Callable[[Path], Path],
    settings: BenchSettings,
    parts: Sequence[Part],
    repeats: int,
    warm_up: int,
    note: Note,
) -> Benchmark:
    """Time parts of a model's work.

    Args:
        model: its name, for the result.
        open_all: opens the backends anew for each part.
        weights: finds or makes the weights; see `Benchable.weights_to_bench`.
        settings: of the work.
        parts: which, in order.
        repeats: rounds that count, at least 1.
        warm_up: runs before them that do not, at least 1.
        note: takes what the user should know, and is told the same but once.

    Raises:
        TfxError: a backend cannot be opened, or the work cannot be done on it as asked.
    """
    once = _once(note)
    rows: list[Measured] = []
    with _weights(weights) as found:
        for part in parts:
            with ExitStack() as stack:
                contenders = open_all(stack)
                ready = settings if part == "train" else replace(settings, weights=found())
                rows += _timed(part, contenders, ready, repeats, warm_up, once)
    return Benchmark(model, repeats, warm_up, tuple(rows))


def _timed(
    part: Part,
    contenders: Sequence[Contender],
    settings: BenchSettings,
    repeats: int,
    warm_up: int,
    note: Note,
) -> Iterator[Measured]:
    prepared = [contender.prepare(part, settings) for contender in contenders]
    for line in (line for one in prepared for line in one.notes):
        note(line)
    note(f"{part}: {repeats} rounds")
    first = [contender.warm_up(warm_up) for contender in contenders]
    rounds = [[contender.round() for contender in contenders] for _ in range(repeats)]
    for i, contender in enumerate(contenders):
        yield Measured(
            part,
            contender.backend,
            prepared[i].what,
            prepared[i].dtype,
            prepared[i].tokens,
            tuple(times[i] for times in rounds),
            first[i],
            contender.memory(),
        )


@contextmanager
def _weights(find: Callable[[Path], Path]) -> Iterator[Callable[[], Path]]:
    """What gives the weights when they are first asked for, and the same ones ever after."""
    with TemporaryDirectory(prefix="tfx-bench-") as folder:
        found: list[Path] = []

        def ask() -> Path:
            if not found:
                found.append(find(Path(folder) / "weights"))
            return found[0]

        yield ask


def _once(note: Note) -> Note:
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            note(line)

    return say
