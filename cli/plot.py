"""`--plot`: the loss curve of a run, drawn from its `metrics.jsonl` with matplotlib."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import typer

from tfx.cli.destination import PICTURE, check_destination
from tfx.cli.environment import ModelCommand
from tfx.core.errors import DataError, TfxError

SUFFIXES = PICTURE.suffixes
IN_RUN_FOLDER = "loss.png"
ENOUGH_TO_SMOOTH = 50


class PlotCommand(ModelCommand):
    """A command whose `--plot` may stand alone or before the name of a picture."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_plot_value(args))


def picture_name(text: str) -> str | None:
    """Check the value of `--plot`: a file name, or nothing for the default.

    A configuration file may also say true or false.
    """
    if text in ("true", "false"):
        return "" if text == "true" else None
    if text and not PICTURE.has(Path(text)):
        raise typer.BadParameter(f"{PICTURE.wanted}, got {text!r}")
    return text


def with_plot_value(arguments: list[str]) -> list[str]:
    """The arguments with an empty value behind each `--plot` that no file's name follows.

    A file's name is one with a suffix, be it that of a picture or not.

    >>> with_plot_value(["--plot", "microgpt"]), with_plot_value(["--plot", "loss.svg"])
    (['--plot=', 'microgpt'], ['--plot', 'loss.svg'])
    """
    following = [*arguments, ""][1:]
    return [
        "--plot=" if here == "--plot" and not re.match(r"\.[A-Za-z]", Path(after).suffix) else here
        for here, after in zip(arguments, following, strict=True)
    ]


def check_drawable(picture: str, run_folder: Path | None) -> None:
    """Find out before the training, not after it, that no picture can be drawn.

    An empty `picture` is the default one in `run_folder`, which need not be there yet.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise TfxError("--plot needs matplotlib: pip install 'tfx-lm[plot]'")
    if picture:
        check_destination("--plot", Path(picture), PICTURE)
    elif run_folder is not None and run_folder.is_dir():
        check_destination("--plot", run_folder / IN_RUN_FOLDER, PICTURE)


def draw_losses(metrics: Path, picture: Path, title: str) -> None:
    """Draw the loss at each step of `metrics`, the course it takes, and what was measured on
    validation data, into `picture`."""
    draw_points(_read(metrics), picture, title)


def draw_points(points: Sequence[dict[str, Any]], picture: Path, title: str) -> None:
    """The same from the lines of such a file. Who looks meanwhile finds a whole picture."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps, losses = [p["step"] for p in points], [p["loss"] for p in points]
    judged = [(p["step"], p["val_loss"]) for p in points if "val_loss" in p]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if len(losses) < ENOUGH_TO_SMOOTH:
        axes.plot(
            steps,
            losses,
            color="tab:blue",
            linewidth=1.5,
            marker="o",
            markersize=3,
            label="each step",
        )
    else:
        axes.plot(steps, losses, color="tab:blue", linewidth=0.8, alpha=0.3, label="each step")
        axes.plot(steps, smoothed(losses), color="tab:blue", linewidth=2, label="smoothed")
    if judged:
        axes.plot(*zip(*judged, strict=True), color="tab:orange", marker="o", label="validation")
    if judged or len(losses) >= ENOUGH_TO_SMOOTH:
        axes.legend(frameon=False)
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    keep(figure, picture)


def draw_thetas(curves: Sequence[tuple[str, str, Sequence[float]]], picture: Path) -> None:
    """Draw the course of theta, token by token, of experiences: a prompt, a status and the thetas
    of each. Who looks meanwhile finds a whole picture."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    colors = {"accepted": "tab:green", "rejected": "tab:red", "unvalidated": "tab:gray"}
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for prompt, status, thetas in curves:
        name = f"{prompt[:30]!r} ({status})".replace("$", r"\$")
        axes.plot(thetas, color=colors[status], marker="o", markersize=3, alpha=0.7, label=name)
    if 0 < len(curves) <= 8:
        axes.legend(frameon=False, fontsize="small")
    axes.set(title="theta", xlabel="tokens", ylabel="theta", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    keep(figure, picture)


def keep(figure: Any, picture: Path) -> None:
    """Write a figure. Who looks meanwhile finds a whole picture."""
    unfinished = picture.with_name(f".{picture.name}.tmp")
    try:
        figure.savefig(unfinished, dpi=150, format=picture.suffix[1:].lower())
        os.replace(unfinished, picture)
    finally:
        unfinished.unlink(missing_ok=True)


def smoothed(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and its neighbours, a fiftieth of the curve on either side.

    >>> smoothed([4.0, 2.0])
    [4.0, 2.0]
    """
    reach = len(losses) // 50
    sums = list(accumulate(losses, initial=0.0))
    spans = ((max(0, i - reach), min(len(losses), i + reach + 1)) for i in range(len(losses)))
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in spans]


def _read(metrics: Path) -> list[dict[str, Any]]:
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
        points: list[dict[str, Any]] = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot draw the loss curve from {metrics}: {error}") from None
    return [point for point in points if "loss" in point]
