"""`tfx train gpt2`: what a step does, how the model is judged, and what it writes at the end."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.capture import jit
from tfx.core.checkpoint import save_checkpoint
from tfx.core.evaluation import Evaluation
from tfx.core.generation import GenerationOptions, decoder, generate, room_after
from tfx.core.optim import TrainState
from tfx.core.recipe import Reporter, TrainSettings
from tfx.core.runs import BEST, claim_run_dir, run_folder
from tfx.core.schedules import Table, cosine
from tfx.core.tensor import Tensor
from tfx.core.tokenizer import ByteLevelBPE
from tfx.core.training import Loop, Metrics
from tfx.models.gpt2.data import Batches, Ids, characters, windows
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.model import Params, loss
from tfx.models.gpt2.options import Options
from tfx.models.gpt2.passing import Pass
from tfx.models.gpt2.presets import Preset
from tfx.models.gpt2.resumption import run_to_resume
from tfx.models.gpt2.stepping import Advance, placed, stepping
from tfx.models.gpt2.training_run import Run

_SETTINGS = Options.FLAGS | {"data", "tokenizer", "weights", "out", "resume", "overrides"}
_SAMPLE_TOKENS = 200


def train(
    preset: Preset, settings: TrainSettings, backend: Backend, report: Reporter
) -> dict[str, Any]:
    """Train a GPT-2, print what it writes then, and leave checkpoints.

    Returns:
        What `--json` prints. Losses are in nats per token, those `per_char` in nats per character
        of the validation text; None where there was no evaluation, or the data is not text.

    Raises:
        TfxError: something that was asked for cannot be.
    """
    settings.refuse_unsupported(preset.name, _SETTINGS)
    clock = [time.perf_counter()]
    saved = run_to_resume(settings, backend)
    if saved is None:
        run = Run.begin(preset, settings, backend, report.note)
    else:
        run = Run.resume(saved, settings, backend, report.note)
    out = claim_run_dir(preset.name, settings.out, run.resumed)
    run.take_best_along(out)
    if settings.out is None:
        report.note(f"run folder: {out}")
    report.result(f"tokens: {len(run.corpus.train)} to train on, {len(run.corpus.val)} to validate")
    report.result(f"vocab size: {run.config.vocab_size}")
    report.result(f"num params: {run.state.params.flat.size}")
    evaluation = _evaluation(run, out, report)
    clock.append(time.perf_counter())
    with Metrics(out, run.done, run.resumed and run_folder(run.resumed)) as metrics:
        state = _loop(run, out, metrics, evaluation, report).run(
            run.state, run.done, run.options.steps
        )
    clock.append(time.perf_counter())
    steps = int(state.step.item())
    again = shlex.join(["tfx", "run", preset.name, "--weights", str(out)])
    report.note(f"saved: {out}; to use it: {again}")
    samples = _samples(run, state.params, report)
    clock.append(time.perf_counter())
    load_s, train_s, sample_s = np.diff(clock).tolist()
    eval_s = evaluation.seconds if evaluation else 0.0
    learnt = (steps - run.done) * run.tokens_a_step
    return {
        "model": preset.name,
        "backend": str(backend),
        "dtype": str(state.params.flat.dtype),
        "seed": run.options.seed,
        "train_tokens": len(run.corpus.train),
        "val_tokens": len(run.corpus.val),
        "vocab_size": run.config.vocab_size,
        "num_params": state.params.flat.size,
        "steps": steps,
        "final_loss": metrics.last_loss,
        **_judged(run),
        "samples": samples,
        "tokens_per_s": learnt / (train_s - eval_s),
        "timing": {"load_s": load_s, "train_s": train_s, "eval_s": eval_s, "sample_s": sample_s},
        "out": str(out),
    }


# ---- steps ---------------------------------------------------------------------------------------


def _loop(
    run: Run, out: Path, metrics: Metrics, evaluation: Evaluation | None, report: Reporter
) -> Loop:
    options = run.options
    schedule = cosine(options.steps, options.lr, options.min_lr, options.warmup_steps)

    def save(state: TrainState, done: int) -> None:
        save_checkpoint(out, run.checkpoint(state, done))

    advance = step_of(run, schedule)
    return Loop(advance, save, metrics, report, schedule, options.save_every, evaluation)


def step_of(run: Run, schedule: Table) -> Advance:
    """One training step, as `Loop.advance` wants it."""
    options, config = run.options, run.config
    batches = Batches(run.corpus.train, options.block_size, options.batch_size, options.seed)

    def mean_loss(p: Params, through: Pass, ids: Tensor, targets: Tensor) -> Tensor:
        return loss(p, config, ids, targets, through)

    return stepping(run.state, options, schedule, batches.__getitem__, mean_loss)


# ---- evaluation ----------------------------------------------------------------------------------


def _evaluation(run: Run, out: Path, report: Reporter) -> Evaluation | None:
    """The mean loss over the validation data, without dropout; for text also per character."""
    options, tokenizer = run.options, run.tokenizer
    if not (options.eval_every and len(run.corpus.val)):
        if options.eval_every:
            report.note("nothing is evaluated: there is no validation data")
        return None
    batches = windows(run.corpus.val, options.block_size, options.batch_size, options.eval_batches)
    tokens = sum(targets.size for _, targets in batches)
    dtype = run.state.params.flat.dtype
    chars = tokenizer and sum(characters(targets, tokenizer) for _, targets in batches)

    @jit
    def mean_loss(state: TrainState, ids: Tensor, targets: Tensor) -> Tensor:
        return loss(state.params, run.config, ids, targets)

    def judged(state: TrainState, batch: tuple[Ids, Ids]) -> float:
        return float(mean_loss(state, *placed(batch, state.step.backend, dtype)).item())

    def measure(state: TrainState) -> dict[str, float]:
        total = sum(judged(state, batch) * batch[0].size for batch in batches)
        per_char = {"val_loss_per_char": total / chars} if chars else {}
        return {"val_loss": total / tokens, **per_char}

    def keep(state: TrainState, done: int) -> None:
        save_checkpoint(out / BEST, run.checkpoint(state, done), alone=True)

    return Evaluation(options.eval_every, measure, keep, run.evaluations, options.patience)


def _judged(run: Run) -> dict[str, Any]:
    """What the evaluations have shown, for `--json`."""
    past = run.evaluations
    return {
        "val_loss": past.latest.get("val_loss"),
        "val_loss_per_char": past.latest.get("val_loss_per_char"),
        "best_val_loss": past.best.get("val_loss"),
        "best_val_loss_per_char": past.best.get("val_loss_per_char"),
        "best_step": past.best_step if past.best else None,
    }


# ---- samples -------------------------------------------------------------------------------------


def _samples(run: Run, params: Params, report: Reporter) -> list[str]:
    """Texts that the model writes from nothing, printed; none where its tokens are no text."""
    count, tokenizer = run.options.num_samples, run.tokenizer
    if tokenizer is None or not count:
        return []
    model = LanguageModel(run.config, params, tokenizer)
    prompt, end = _beginning(run, tokenizer), tokenizer.eos_id
    how = GenerationOptions(
        max_new_tokens=min(_SAMPLE_TOKENS, room_after(model, len(prompt))),
        temperature=0.8,
        top_k=min(50, model.vocab_size),
        num_samples=count,
        eos_ids=() if end is None else (end,),
        seed=run.options.seed,
    )
    (texts,) = generate(model, [prompt], how, decoder(tokenizer))
    written = [text.text or "" for text in texts]
    for number, text in enumerate(written, 1):
        report.result(f"--- sample {number} ---")
        report.result(text)
    return written


def _beginning(run: Run, tokenizer: ByteLevelBPE) -> list[int]:
    """What a text begins after: the token that ends the one before where the data has such, else
    the end of a line."""
    end = tokenizer.eos_id
    if end is not None and run.corpus.has(end):
        return [end]
    return tokenizer.encode("\n", add_prefix_space=False)
