"""What `train`, `run` and `eval` begin with: the model and the backend that were asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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


def capturing(off: bool) -> AbstractContextManager[None]:
    """Where a model computes: with what it does over and over captured, unless that is `off`."""
    from tfx.core.capture import eager

    return eager() if off else nullcontext()
