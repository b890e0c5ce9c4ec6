"""`tfx bench MODEL`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfx.cli import options
from tfx.cli.output import emit, emit_table
from tfx.cli.plot import SUFFIXES, PlotCommand, check_drawable, keep, picture_name
from tfx.cli.report import reporter
from tfx.core.errors import UsageError

if TYPE_CHECKING:
    from tfx.core.bench_process import Remote
    from tfx.core.benchmark import Benchmark, Contender, Measured
    from tfx.core.recipe import Benchable, BenchSettings, Part

PICTURE = "bench.png"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=PlotCommand)
def bench(
    model: options.ModelName,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            "-b",
            metavar="NAME[:DEVICE]",
            envvar="TFX_BACKEND",
            help="To time; repeatable, and the others are compared with the first. By default the "
            "best that is ready.",
            autocompletion=options.complete_backend,
        ),
    ] = None,
    dtype: options.ElementType = None,
    weights: options.Weights = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="load, prefill (reading a prompt), decode (writing token by token) or train; "
            "repeatable. By default all.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Tokens in a prompt.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", "-n", metavar="INT", min=1, help="To write.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Prompts, or sequences a step.")
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Tokens in a sequence of a step.")
    ] = None,
    quantize: options.Quantize = None,
    quantize_embeddings: options.QuantizeEmbeddings = None,
    group_size: options.GroupSize = None,
    no_jit: options.NoJit = False,
    repeats: Annotated[
        int, typer.Option(metavar="INT", min=1, help="Rounds around the backends.")
    ] = 5,
    warm_up: Annotated[
        int, typer.Option("--warmup", metavar="INT", min=1, help="Runs before that do not count.")
    ] = 1,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            help=f"Draw the results: {' '.join(SUFFIXES)}; by default {PICTURE}.",
            parser=picture_name,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """For each part of the work and each backend: milliseconds a step, the median over the rounds
    and the quartiles; tokens a second; how many times as fast as the first backend; the most
    memory of the host that it had. Each is timed in a process of its own."""
    parts = _parts(only or [])
    if plot is not None:
        plot = plot or PICTURE
        check_drawable(plot, None)
    from tfx.core.bench_process import Remote
    from tfx.core.recipe import BenchSettings

    settings = BenchSettings(
        weights=weights,
        dtype=dtype,
        prompt_tokens=prompt_tokens,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        block_size=block_size,
        quantize=quantize,
        quantize_embeddings=quantize_embeddings,
        group_size=group_size,
    )
    with reporter(as_json) as report:
        names: list[str | None] = [*backend] if backend else [None]
        contenders = [partial(Remote, model, name, not no_jit) for name in names]
        found = _found(model, contenders, settings, parts, repeats, warm_up, report.note)
        if not as_json:
            _print(found)
        result = found.as_json()
        try:
            if plot is not None:
                draw(found, Path(plot))
                report.note(f"picture: {plot}")
                result["plot"] = plot
        finally:  # a picture that fails takes nothing with it
            report.finish(result)


def _parts(asked: list[str]) -> list[Part]:
    """What `--only` names, in the order of the work."""
    from tfx.core.benchmark import PARTS

    for name in asked:
        if name not in PARTS:
            raise UsageError(f"--only {name}: expected one of {', '.join(PARTS)}")
    return [part for part in PARTS if part in asked or not asked]


def _found(
    model: str,
    contenders: Sequence[Callable[[], Remote]],
    settings: BenchSettings,
    parts: Sequence[Part],
    repeats: int,
    warm_up: int,
    note: Callable[[str], None],
) -> Benchmark:
    from tfx.core import benchmark

    recipe = _recipe(model)

    def open_all(stack: ExitStack) -> list[Contender]:
        return [stack.enter_context(contender()) for contender in contenders]

    def weights(folder: Path) -> Path:
        return recipe.weights_to_bench(settings, folder, note)

    return benchmark.bench(model, open_all, weights, settings, parts, repeats, warm_up, note)


def _recipe(model: str) -> Benchable:
    from tfx.core.plugins import PluginHost
    from tfx.core.recipe import Benchable
    from tfx.core.resolve import open_model

    recipe = open_model(PluginHost(), model)
    if not isinstance(recipe, Benchable):
        raise UsageError(f"{model} has nothing that could be timed")
    return recipe


# ---- the table -----------------------------------------------------------------------------------


def _print(found: Benchmark) -> None:
    head = (
        "part",
        "step",
        "dtype",
        "backend",
        "ms/step",
        "quartiles",
        "tokens/s",
        "speed",
        "peak MB",
    )
    emit_table(head, (_cells(row, found.reference(row)) for row in found.rows))
    emit(f"{found.model}: medians of {found.repeats} rounds, after {found.warm_up} to warm up")


def _cells(row: Measured, reference: Measured) -> tuple[str | None, ...]:
    from tfx.core.benchmark import Spread

    ms, rates = Spread.of([1e3 * s for s in row.seconds]), row.rates()
    peak = row.memory["peak_host_bytes"]
    return (
        row.part,
        row.what,
        row.dtype,
        row.backend,
        shown(ms.median),
        f"{shown(ms.lower)}-{shown(ms.upper)}",
        shown(Spread.of(rates).median) if rates else None,
        f"{Spread.of(row.speeds(reference)).median:.2f}x",
        None if peak is None else f"{peak / 1e6:.0f}",
    )


def shown(number: float) -> str:
    """Three digits, or all those before the point.

    >>> shown(0.012345), shown(12.345), shown(1234.5)
    ('0.0123', '12.3', '1234')
    """
    return f"{number:.0f}" if number >= 99.95 else f"{number:#.3g}"


# ---- the picture ---------------------------------------------------------------------------------


def draw(found: Benchmark, picture: Path) -> None:
    """Draw a panel for each part, and in it a bar for each backend: the median of its tokens a
    second, or milliseconds where nobody counts in tokens, with a whisker between the quartiles."""
    from matplotlib.figure import Figure

    parts = list(dict.fromkeys(row.part for row in found.rows))
    of_part = {part: [row for row in found.rows if row.part == part] for part in parts}
    height = 0.9 + 0.3 * max(map(len, of_part.values()))
    figure = Figure(figsize=(8, height * len(parts)), layout="constrained")
    figure.suptitle(f"{found.model}, {found.rows[0].dtype}")
    for axes, rows in zip(
        figure.subplots(len(parts), squeeze=False).flat, of_part.values(), strict=True
    ):
        _draw_part(axes, rows)
    keep(figure, picture)


def _draw_part(axes: Any, rows: list[Measured]) -> None:
    from tfx.core.benchmark import Spread

    spreads = [Spread.of(row.rates() or [1e3 * s for s in row.seconds]) for row in rows]
    medians = [spread.median for spread in spreads]
    below = [spread.median - spread.lower for spread in spreads]
    above = [spread.upper - spread.median for spread in spreads]
    places = range(len(rows))
    axes.barh(places, medians, xerr=(below, above), color="tab:blue", height=0.6, capsize=3)
    axes.set_yticks(list(places), [row.backend for row in rows])
    axes.invert_yaxis()
    axes.set_title(f"{rows[0].part}: {rows[0].what}", fontsize=9, loc="left")
    axes.set_xlabel("tokens/s (more is better)" if rows[0].tokens else "ms (less is better)")
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
