"""Run folders: where a training run goes when nobody says, and which run is meant when nobody says."""

from __future__ import annotations

import time
from pathlib import Path

from tfx.core.checkpoint import find_checkpoint
from tfx.core.errors import CheckpointError

RUNS = Path("runs")


def new_run_dir(model: str) -> Path:
    """`runs/MODEL-TIME`, a name that is not taken."""
    name = f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = RUNS / name
    count = 1
    while taken.exists():
        count += 1
        taken = RUNS / f"{name}-{count}"
    return taken


def newest_run(model: str) -> Path:
    """The latest run folder of a model under `runs/` that holds a checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    runs = sorted(RUNS.glob(f"{model}-*"), key=lambda run: run.stat().st_mtime, reverse=True)
    for run in runs:
        try:
            find_checkpoint(run)
        except CheckpointError:
            continue
        return run
    raise CheckpointError(
        f"no trained {model} in {RUNS}/; run: tfx train {model}, or give a run's folder: --weights DIR"
    )
