"""A plugin for the tests of the command line: a model that learns nothing, and three backends."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfx.core.errors import DataError, NonFiniteError, UsageError
from tfx.core.hookspecs import hookimpl
from tfx.core.specs import BackendSpec, ModelSpec, Probe

if TYPE_CHECKING:
    from tfx.core.backend import Backend
    from tfx.core.recipe import EvalSettings, Reporter, RunSettings, Settings, TrainSettings


@hookimpl
def tfx_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="chip",
            target="tfx_fake:open_chip",
            summary="two chips that compute nothing",
            probe="tfx_fake:probe_chip",
        ),
        BackendSpec(
            name="absent",
            target="tfx_fake:open_chip",
            summary="never installed",
            probe="tfx_fake:probe_absent",
            install_hint="pip install absent",
        ),
        BackendSpec(
            name="dead",
            target="tfx_fake:open_chip",
            summary="never ready",
            probe="tfx_fake:probe_dead",
        ),
    ]


@hookimpl
def tfx_models() -> list[ModelSpec]:
    return [ModelSpec(name="echo", target="tfx_fake:Echo", summary="says what it was given")]


def probe_chip() -> Probe:
    return Probe(ready=True, devices=("0", "1"), version="chipware 7")


def probe_absent() -> Probe:
    return Probe(ready=False, installed=False)


def probe_dead() -> Probe:
    return Probe(ready=False, version="deadware 1", reason="no device found")


def open_chip(device: str | None) -> Backend:
    import numpy as np

    from tfx.core.array_backend import ArrayBackend

    class Chip(ArrayBackend):
        name = "chip"

        def to_numpy(self, x: Any) -> Any:
            return np.array(x)

        def scatter_add(self, x: Any, indices: Any, updates: Any, *, axis: int) -> Any:
            self._missing("scatter_add")

    chip = Chip(np)
    chip.device = device or "0"
    return chip


def stopped() -> BaseException:
    from tfx.core.training import Stopped

    return Stopped(20, Path("runs/my run"))


ENDINGS: dict[str, Callable[[], BaseException]] = {
    "data": lambda: DataError("no data file x.txt; expected a text file"),
    "nonfinite": lambda: NonFiniteError("the loss became nan at step 3"),
    "interrupt": KeyboardInterrupt,
    "stopped": stopped,
    "memory": lambda: MemoryError("Unable to allocate 8 TiB"),
    "disk": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors"),
    "network": lambda: ConnectionError("the other side hung up"),
    "bug": lambda: ZeroDivisionError("division by zero"),
}
"""How `--set end=NAME` makes a training end, and `--set end_early=NAME` at step 3."""


class Echo:
    """Gives back the settings it got."""

    name = "echo"

    def train(self, settings: TrainSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        from tfx.core.runs import new_run_dir

        supported = {field.name for field in fields(settings)} - {"warmup_steps", "overrides"}
        if settings.overrides.keys() <= {"end", "end_early", "pause", "n_layer", "refuse", "by"}:
            supported.add("overrides")
        settings.refuse_unsupported("echo", frozenset(supported))
        if refused := settings.overrides.get("refuse"):
            value = getattr(settings, refused)
            origin = f" of {settings.overrides['by']}" if "by" in settings.overrides else ""
            raise UsageError(f"{settings.flag(refused)} {value}{origin}: echo keeps what it has")
        report.result("num docs: 3")
        report.note("a note")
        out = settings.out or new_run_dir("echo")
        out.mkdir(parents=True, exist_ok=True)
        total = 20 if settings.steps is None else settings.steps
        began = time.monotonic()
        with (out / "metrics.jsonl").open("w") as metrics:
            for step in range(1, total + 1):
                time.sleep(float(settings.overrides.get("pause", 0)))
                report.progress(step, total, 3 / step, time.monotonic() - began)
                if step == 3 and "end_early" in settings.overrides:
                    raise ENDINGS[settings.overrides["end_early"]]()
                print(json.dumps({"step": step, "loss": 3 / step}), file=metrics)
        report.progress_done()
        if "end" in settings.overrides:
            raise ENDINGS[settings.overrides["end"]]()
        report.result("sample  1: ann")
        return self._echo(settings, backend) | {"out": out}

    def run(self, settings: RunSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        report.result(f"prompt: {settings.prompt!r}")
        return self._echo(settings, backend)

    def evaluate(
        self, settings: EvalSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]:
        report.result("loss 2.3644")
        return self._echo(settings, backend)

    def _echo(self, settings: Settings, backend: Backend) -> dict[str, Any]:
        return {"backend": str(backend), "given": settings.given()}
