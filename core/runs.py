"""Run folders: which one a training run writes to, and which run is meant when nobody says."""

from __future__ import annotations

import json
import time
from itertools import chain, count
from pathlib import Path
from typing import Any

from tfx.core.checkpoint import find_checkpoint, prepare_run_dir
from tfx.core.errors import CheckpointError
from tfx.core.files import make_folder, reason, shown

RUNS = Path("runs")

METRICS = "metrics.jsonl"
"""The file, in the folder of a run, with a line for each step."""

BEST = "best"
"""The folder, in that of a run, of its best checkpoint alone."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; an empty list where there is no such file.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not JSON.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def claim_run_dir(model: str, out: Path | None = None, resumed: Path | None = None) -> Path:
    """The folder that a training run writes to: `out`, else that of the run it resumes, else a new
    one; made, and proved to be writable.

    Args:
        model: the model's name.
        out: the folder asked for.
        resumed: the checkpoint that the run goes on from.

    Raises:
        CheckpointError: it cannot be written, is itself a checkpoint or kept for a run's best, or
            holds the checkpoints of another run, or later ones of this: who looks for this run's
            newest or best would find those.
    """
    if out is not None:
        folder = out
    elif resumed is not None:
        folder = resumed.parent
    else:
        folder = new_run_dir(model)
    _refuse_other_run(folder, resumed)
    return prepare_run_dir(folder)


def _refuse_other_run(folder: Path, resumed: Path | None) -> None:
    if _keeps_best(folder):
        raise CheckpointError(
            f"{shown(folder)} holds the best checkpoint of a run, and no other; "
            "choose another folder with --out"
        )
    if newest := newest_in(folder):
        if newest.samefile(folder):
            raise CheckpointError(
                f"{shown(folder)} is a checkpoint, not the folder of a run; "
                "choose another with --out"
            )
        again = f"--resume {shown(folder)}"
    elif newest := newest_in(folder / BEST):
        again = f"--resume {shown(folder / BEST)} --out {shown(folder)}"
    else:
        return
    if resumed is None or not newest.samefile(resumed):
        raise CheckpointError(
            f"{shown(newest)} is in the way of this run; "
            f"go on from it with {again}, or choose another folder with --out"
        )


def _keeps_best(folder: Path) -> bool:
    folder = folder.resolve()
    return folder.name == BEST and (folder.parent / METRICS).exists()


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, be it the best or one of the others."""
    folder = checkpoint.parent
    return folder.resolve().parent if _keeps_best(folder) else folder


def newest_in(folder: Path) -> Path | None:
    """What `find_checkpoint` finds; None where there is nothing."""
    try:
        return find_checkpoint(folder)
    except CheckpointError:
        return None


def new_run_dir(model: str) -> Path:
    """Make `runs/MODEL-TIME`, or `runs/MODEL-TIME-2` where another run began in this second.

    Raises:
        CheckpointError: it cannot be made.
    """
    stamped = RUNS / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    numbered = (stamped.with_name(f"{stamped.name}-{n}") for n in count(2))
    try:
        make_folder(RUNS)
        return next(folder for folder in chain([stamped], numbered) if _made(folder))
    except OSError as error:
        raise CheckpointError(
            f"cannot make the run folder {shown(stamped)}: {reason(error)}; choose one with --out"
        ) from error


def _made(folder: Path) -> bool:
    """Make a folder; False where somebody was faster."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def newest_run(model: str, instead: str = "name a run's folder with --weights") -> Path:
    """The latest run folder of a model under `runs/` that holds a checkpoint; the error says what
    can be done `instead`.

    Raises:
        CheckpointError: there is none.
    """
    stamped = f"{model}-{'[0-9]' * 8}-*"
    runs = [folder for folder in RUNS.glob(stamped) if folder.is_dir()]
    for run in sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True):
        if newest_in(run):
            return run
    raise CheckpointError(
        f"no trained {model} in {RUNS}/; train one with: tfx train {model}, or {instead}"
    )
