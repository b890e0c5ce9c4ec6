"""`tfx train gpt2 --task ...`: a head learns, with the trunk below it."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfx.core.backend import Backend, HostArray
from tfx.core.checkpoint import save_checkpoint
from tfx.core.evaluation import Evaluation
from tfx.core.optim import TrainState
from tfx.core.recipe import Reporter, TrainSettings
from tfx.core.runs import BEST, claim_run_dir, run_folder
from tfx.core.schedules import Table, cosine
from tfx.core.tensor import Tensor
from tfx.core.training import Loop, Metrics
from tfx.models.gpt2.model import Params
from tfx.models.gpt2.options import Options
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.presets import Preset
from tfx.models.gpt2.resumption import run_to_resume, take_best_along
from tfx.models.gpt2.stepping import Advance, stepping
from tfx.models.gpt2.tasks.examples import Batches
from tfx.models.gpt2.tasks.judging import Judge, weights_on
from tfx.models.gpt2.tasks.run import TaskRun
from tfx.models.gpt2.tasks.task import Weighing

_SETTINGS = (Options.FLAGS - {"num_samples"}) | {
    *("task", "class_weights", "data", "tokenizer", "weights", "out", "resume", "overrides")
}


def train(
    preset: Preset, settings: TrainSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Train a head and the trunk, tell how good they are on what was held out, and leave
    checkpoints.

    Returns:
        What `--json` prints. `val` and `best_val` are the figures of the last evaluation and of the
        best; `most_frequent` those of who always answers what is most frequent.

    Raises:
        TfxError: something that was asked for cannot be.
    """
    settings.refuse_unsupported(preset.name, _SETTINGS)
    began = time.perf_counter()
    saved = run_to_resume(settings, backend)
    if saved is None:
        run = TaskRun.begin(preset, settings, backend, report.note)
    else:
        run = TaskRun.resume(saved, settings, backend, report.note)
    out = claim_run_dir(preset.name, settings.out, run.resumed)
    take_best_along(run.resumed, run.done, run.evaluations.best_step, out)
    if settings.out is None:
        report.note(f"run folder: {out}")
    usual = _tell_of(run, report)
    loaded = time.perf_counter()
    with Metrics(out, run.done, run.resumed and run_folder(run.resumed)) as metrics:
        state = _loop(run, out, metrics, report).run(run.state, run.done, run.options.steps)
    seconds = time.perf_counter() - loaded
    steps = int(state.step.item())
    past, head = run.evaluations, run.task.head
    if past.best:
        report.result(f"held out, best at step {past.best_step}: {_in_line(past.best)}")
    again = shlex.join(["tfx", "run", preset.name, "--task", head.task, "--weights", str(out)])
    report.note(f"saved: {out}; to use it: {again}")
    return {
        "model": preset.name,
        "task": head.task,
        "backend": str(backend),
        "dtype": str(state.params.flat.dtype),
        "seed": run.options.seed,
        "train_examples": len(run.examples.train),
        "val_examples": len(run.examples.val),
        "labels": list(head.labels) if "classification" in head.task else None,
        "num_params": state.params.flat.size,
        "steps": steps,
        "final_loss": metrics.last_loss,
        "val": past.latest or None,
        "best_val": past.best or None,
        "best_step": past.best_step if past.best else None,
        "most_frequent": usual,
        "timing": {"load_s": loaded - began, "train_s": seconds},
        "out": str(out),
    }


def _tell_of(run: TaskRun, report: Reporter) -> dict[str, float] | None:
    """Say what is learnt from; the figures of the most frequent answer."""
    train, val, head = run.examples.train, run.examples.val, run.task.head
    report.result(f"examples: {len(train)} to train on, {len(val)} held out")
    if "classification" in head.task:
        report.result(f"labels: {', '.join(head.labels)}")
    report.result(f"num params: {run.state.params.flat.size}")
    usual = run.task.most_frequent(train, run.judged) if val else None
    if usual:
        report.result(f"most frequent, held out: {_in_line(usual)}")
    return usual


def _in_line(figures: dict[str, float]) -> str:
    named = ((name.removeprefix("val_").replace("_", " "), x) for name, x in figures.items())
    return " | ".join(f"{name} {value:.4f}" for name, value in named)


# ---- steps ---------------------------------------------------------------------------------------


def _loop(run: TaskRun, out: Path, metrics: Metrics, report: Reporter) -> Loop:
    options = run.options
    schedule = cosine(options.steps, options.lr, options.min_lr, options.warmup_steps)

    def save(state: TrainState, done: int) -> None:
        save_checkpoint(out, run.checkpoint(state, done))

    advance, evaluation = _step_of(run, schedule), _evaluation(run, out, report)
    return Loop(advance, save, metrics, report, schedule, options.save_every, evaluation)


def _step_of(run: TaskRun, schedule: Table) -> Advance:
    options, task = run.options, run.task
    batches = Batches(run.examples.train, options.batch_size, options.seed)
    params = run.state.params
    weighing = Weighing(next_token=run.own.lm_weight)
    if run.class_weights is not None:
        classes = weights_on(params, run.class_weights, params.flat.dtype)
        weighing = replace(weighing, classes=classes)

    def batch_of(number: int) -> tuple[HostArray, ...]:
        return task.batch(batches[number])

    def loss(p: Params, through: Pass, *batch: Tensor) -> Tensor:
        return task.loss(p, replace(through, visible=batch[1]), weighing, *batch)

    return stepping(run.state, options, schedule, batch_of, loss)


def _evaluation(run: TaskRun, out: Path, report: Reporter) -> Evaluation | None:
    """Loss and figures of what was held out, without dropout."""
    options = run.options
    if not (options.eval_every and run.examples.val):
        if options.eval_every:
            report.note("nothing is evaluated: nothing is held out")
        return None
    judge = Judge(run.task, options.batch_size)

    def measure(state: TrainState) -> dict[str, float]:
        figures = judge.judged(state.params, run.judged)
        return {f"val_{name}": value for name, value in figures.items()}

    def keep(state: TrainState, done: int) -> None:
        save_checkpoint(out / BEST, run.checkpoint(state, done), alone=True)

    return Evaluation(options.eval_every, measure, keep, run.evaluations, options.patience)
