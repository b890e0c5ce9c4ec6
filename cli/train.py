"""`tfx train MODEL`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tfx.cli import options
from tfx.cli.config import use_config
from tfx.cli.options import above_0, at_least_0
from tfx.cli.plot import (
    IN_RUN_FOLDER,
    SUFFIXES,
    PlotCommand,
    check_drawable,
    draw_losses,
    picture_name,
)
from tfx.cli.report import reporter
from tfx.cli.start import computing, open_loggers, start
from tfx.cli.stats import memory_line
from tfx.core.errors import TfxError
from tfx.core.files import shown

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=PlotCommand)
def train(
    context: typer.Context,
    model: options.ModelName,
    backend: options.BackendName = None,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="PATH",
            help="Text to learn from; some models take folders of texts, and token files. With "
            "--task, records: .jsonl or .csv.",
        ),
    ] = None,
    task: options.Task = None,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|NAME=X,...",
            help="With --task, how much each class counts: by numbers, also as JSON, or balanced, "
            "for rare ones to count as much as others.",
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.ElementType = None,
    autograd: Annotated[
        options.Autograd | None,
        typer.Option(help="Who differentiates: tfx (core), the library (native), or the best."),
    ] = None,
    checkpoint_activations: Annotated[
        bool | None,
        typer.Option(
            "--checkpoint-activations/--no-checkpoint-activations",
            help="Compute each block twice, to keep less of it in memory.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="INT", min=0, help="Optimizer steps in all.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Documents or sequences a batch.")
    ] = None,
    grad_accum: Annotated[
        int | None, typer.Option(metavar="INT", min=1, help="Batches a step.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="FLOAT", parser=above_0, help="Peak learning rate.")
    ] = None,
    min_lr: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", parser=at_least_0, help="Learning rate at the end."),
    ] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(metavar="INT", min=0, help="Steps up to the peak learning rate.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="FLOAT", parser=at_least_0, help="AdamW's decay.")
    ] = None,
    grad_clip: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT", parser=at_least_0, help="Cap of the gradient's norm; 0: none."
        ),
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(metavar="INT", min=0, help="Steps between evaluations; 0: never.")
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            min=0,
            help="Steps between checkpoints; 0: only at the end, which always has one.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=options.path, metavar="DIR", help="Of the run; by default runs/MODEL-TIME."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(parser=options.path, metavar="DIR", help="Go on with the run kept there."),
    ] = None,
    weights: options.Weights = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="PATH",
            help="Folder or file of the tokenizer, for a model that has one.",
        ),
    ] = None,
    seed: options.Seed = None,
    num_samples: Annotated[
        int | None, typer.Option(metavar="INT", min=0, help="Samples to print at the end.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="FILE",
            help="Options in TOML or JSON; flags and environment come first.",
            callback=use_config,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the model; repeatable."),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="NAME",
            help="Keep the metrics in another form than `metrics.jsonl`, too: csv, tensorboard, or "
            "a plugin's; repeatable.",
            autocompletion=options.complete_logger,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            help="Draw the loss curve, also on the way: "
            f"{' '.join(SUFFIXES)}; by default {IN_RUN_FOLDER} in --out.",
            parser=picture_name,
        ),
    ] = None,
    no_jit: options.NoJit = False,
    as_json: options.AsJson = False,
) -> None:
    from tfx.core.recipe import TrainSettings

    settings = TrainSettings(
        data=data,
        task=task,
        class_weights=class_weights,
        dtype=dtype,
        autograd=autograd,
        checkpoint_activations=checkpoint_activations,
        steps=steps,
        batch_size=batch_size,
        grad_accum=grad_accum,
        lr=lr,
        min_lr=min_lr,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        grad_clip=grad_clip,
        eval_every=eval_every,
        save_every=save_every,
        out=out,
        resume=resume,
        weights=weights,
        tokenizer=tokenizer,
        seed=seed,
        num_samples=num_samples,
        overrides=options.pairs((context.default_map or {}).get("set_", ()))
        | options.pairs(set_ or ()),
    )
    if plot is not None:
        check_drawable(plot, out or resume)
    with reporter(as_json) as report:
        loggers = open_loggers(log or ())
        recipe, library = start(model, backend, device, report)
        from tfx.cli.live_picture import Attendance, LivePicture
        from tfx.core.callbacks import listening
        from tfx.core.memory import peak_memory
        from tfx.core.runs import METRICS, newest_in
        from tfx.core.training import Stopped

        title = f"{model} on {library}"
        attendance = Attendance()
        picture = [LivePicture(plot, title)] if plot is not None else []
        try:
            with computing(library, no_jit=no_jit), listening(*loggers, attendance, *picture):
                result = recipe.train(settings, library, report)
        except Stopped as stop:
            if newest_in(stop.folder):
                again = shlex.join(["tfx", "train", model, "--resume", str(stop.folder)])
                report.note(f"step {stop.step} is saved; to go on: {again}")
            else:  # saved as the model has it, without a checkpoint to go on from
                report.note(f"step {stop.step} is saved in {shown(stop.folder)}")
            raise
        result["memory"] = peak_memory(library)
        report.note(memory_line(result["memory"]))
    try:
        if loggers and not attendance.began:
            raise TfxError(
                f"--log {' '.join(log or ())}: {model} does not train by the loop of tfx, and has "
                "told no logger anything"
            )
        if plot is not None:
            folder = Path(result["out"])
            drawn = Path(plot) if plot else folder / IN_RUN_FOLDER
            draw_losses(folder / METRICS, drawn, title)
            report.note(f"loss curve: {drawn}")
            result["plot"] = drawn
    finally:  # a picture that fails takes nothing with it
        report.finish(result)
