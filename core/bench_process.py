"""A backend in a process of its own, which times a model's work when it is told to."""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

from tfx.core.benchmark import Prepared
from tfx.core.capture import eager
from tfx.core.errors import NonFiniteError, TfxError, UsageError
from tfx.core.memory import memory_watched, peak_memory, peak_resident
from tfx.core.recipe import Benchable, BenchSettings, Part, Work

ROUND_SECONDS = 0.1
"""A round takes at least so long: shorter work is done several times, and the mean counts."""

MOST_RUNS = 10_000


class Stopwatch:
    """Times one piece of work.

    Args:
        work: what to time.
        clock: gives seconds.
    """

    def __init__(self, work: Work, clock: Callable[[], float] = perf_counter) -> None:
        self._work, self._clock = work, clock
        self._runs = 1

    def warm_up(self, times: int) -> float:
        """Work for nothing, at least once, and settle how many runs make a round by the last of
        them; the seconds that the first one took."""
        seconds = [self._run() for _ in range(times)]
        needed = math.ceil(ROUND_SECONDS / max(seconds[-1], ROUND_SECONDS / MOST_RUNS))
        self._runs = max(1, needed)
        return seconds[0]

    def round(self) -> float:
        """The seconds that a step took, on average over a round."""
        return sum(self._run() for _ in range(self._runs)) / (self._runs * self._work.steps)

    def _run(self) -> float:
        prepared = self._work.prepare()
        began = self._clock()
        self._work.run(prepared)
        return self._clock() - began


# ---- the process ---------------------------------------------------------------------------------


class Worker:
    """What the process is: a backend, and the work it was last told to prepare."""

    def __init__(self, model: str, backend: str | None) -> None:
        from tfx.core.plugins import PluginHost
        from tfx.core.resolve import open_backend, open_model

        host = PluginHost()
        recipe = open_model(host, model)
        if not isinstance(recipe, Benchable):
            raise UsageError(f"{model} has nothing that could be timed")
        opened = open_backend(host, backend)
        self._recipe, self._backend = recipe, opened.backend
        self._notes = list(opened.notes)
        self._idle = peak_resident()

    def name(self) -> str:
        return str(self._backend)

    def prepare(self, part: Part, settings: BenchSettings) -> Prepared:
        with memory_watched(self._backend):
            work = self._recipe.work(part, settings, self._backend, self._notes.append)
        self._stopwatch = Stopwatch(work)
        return Prepared(work.what, work.dtype, work.tokens / work.steps, tuple(self._notes))

    def warm_up(self, times: int) -> float:
        with memory_watched(self._backend):
            return self._stopwatch.warm_up(times)

    def round(self) -> float:
        with memory_watched(self._backend):
            return self._stopwatch.round()

    def memory(self) -> Mapping[str, int | None]:
        return {"idle_host_bytes": self._idle, **peak_memory(self._backend)}


def _serve(pipe: Connection, model: str, backend: str | None, capture: bool) -> None:
    """Answer each (method of `Worker`, arguments) with (True, result) or (False, a failure)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us hears of it, and ends us
    with nullcontext() if capture else eager():
        _answer(pipe, model, backend)


def _answer(pipe: Connection, model: str, backend: str | None) -> None:
    worker: Worker | None = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            worker = worker or Worker(model, backend)
            pipe.send((True, getattr(worker, method)(*args)))
        except TfxError as error:
            notes = getattr(error, "__notes__", ())
            pipe.send((False, (error.exit_code, str(error), notes)))


class Remote:
    """A `Contender` in a process of its own. Use it as a context, and the process ends with it.

    Args:
        model: its name.
        backend: with the device, where it matters; None: the best that is ready.
        capture: whether what is done over and over is captured, as it is by default.

    Raises:
        TfxError: of every method, what the process could not do; or it has died.
    """

    def __init__(self, model: str, backend: str | None, capture: bool = True) -> None:
        self.backend = backend or "the best backend"
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        served = theirs, model, backend, capture
        self._process = spawning.Process(target=_serve, args=served, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Remote:
        self.backend = self._ask("name")
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def prepare(self, part: Part, settings: BenchSettings) -> Prepared:
        found: Prepared = self._ask("prepare", part, settings)
        return found

    def warm_up(self, times: int) -> float:
        return float(self._ask("warm_up", times))

    def round(self) -> float:
        return float(self._ask("round"))

    def memory(self) -> Mapping[str, int | None]:
        found: Mapping[str, int | None] = self._ask("memory")
        return found

    def _ask(self, method: str, *args: object) -> Any:
        try:
            self._pipe.send((method, args))
            done, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise TfxError(
                f"the process of {self.backend} ended with code {self._process.exitcode} "
                f"({method.replace('_', ' ')}); memory may have run out"
            ) from None
        if not done:
            raise _error(*answer)
        return answer


def _error(exit_code: int, message: str, notes: tuple[str, ...]) -> TfxError:
    """The failure of a process, as this one raises it."""
    (kind,) = (k for k in (TfxError, UsageError, NonFiniteError) if k.exit_code == exit_code)
    error = kind(message)
    for line in notes:
        error.add_note(line)
    return error
