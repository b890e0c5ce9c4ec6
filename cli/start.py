"""What `train`, `run` and `eval` begin with: the model and the backend that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from tfx.cli.report import TextReporter

if TYPE_CHECKING:
    from tfx.core.backend import Backend
    from tfx.core.recipe import Recipe


def start(
    model: str, backend: str | None, device: str | None, report: TextReporter
) -> tuple[Recipe, Backend]:
    """The recipe called `model`, and a backend; a note says which was picked unasked, and why."""
    from tfx.core.plugins import PluginHost
    from tfx.core.resolve import open_backend, open_model

    host = PluginHost()
    recipe = open_model(host, model)
    opened = open_backend(host, backend, device)
    for line in opened.notes:
        report.note(line)
    return recipe, opened.backend


def open_loggers(names: Iterable[str]) -> list[object]:
    """The loggers called so, each once."""
    from tfx.core.plugins import PluginHost
    from tfx.core.resolve import open_logger

    host = PluginHost()
    return [open_logger(host, name) for name in dict.fromkeys(names)]


@contextmanager
def computing(backend: Backend, *, no_jit: bool = False) -> Iterator[None]:
    """Where a model computes: what it does over and over is captured, unless `no_jit` says not to,
    and where there is no room for an array, a line tells how much there is."""
    from tfx.core.capture import eager
    from tfx.core.memory import memory_watched

    with memory_watched(backend), eager() if no_jit else nullcontext():
        yield
