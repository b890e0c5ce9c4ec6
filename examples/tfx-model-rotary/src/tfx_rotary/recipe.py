"""`tfx train | run | eval | compare rotary`, and `tfx.load("rotary")`."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfx.core.autograd import value_and_grad
from tfx.core.backend import Backend
from tfx.core.checkpoint import load_checkpoint, save_checkpoint
from tfx.core.errors import NonFiniteError
from tfx.core.generation import GenerationOptions, Token, Turns, check_prompt, generate
from tfx.core.optim import AdamW, TrainState
from tfx.core.pipelines.loadable import Loaded, LoadSettings
from tfx.core.recipe import (
    CompareSettings,
    EvalSettings,
    Example,
    Reporter,
    RunSettings,
    TrainSettings,
    check_autograd,
)
from tfx.core.runs import claim_run_dir, newest_run
from tfx.core.schedules import cosine
from tfx.core.tensor import Tensor
from tfx.core.training import Loop, Metrics
from tfx_rotary.language_model import NAME, LanguageModel
from tfx_rotary.model import Params, loss
from tfx_rotary.training_run import Run, on, read_text

_RUN = {"weights", "dtype", "prompt", "max_new_tokens", "temperature", "top_k", "num_samples"}
_CHOOSING = {"max_new_tokens", "temperature", "top_k", "num_samples", "seed"}


class Rotary:
    """The recipe behind the model name `rotary`."""

    name = NAME

    def train(self, settings: TrainSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Train on a text, or go on with a run, and leave a checkpoint."""
        began = time.perf_counter()
        if settings.resume is None:
            run = Run.begin(settings, backend)
        else:
            run = Run.resume(settings.resume, settings, backend)
        check_autograd(run.options.autograd, backend)
        out = claim_run_dir(NAME, settings.out, run.resumed)
        if settings.out is None:
            report.note(f"run folder: {out}")
        report.result(f"{len(run.ids)} characters, {run.model.vocab_size} different")
        report.result(f"num params: {run.model.params.flat.size}")
        with Metrics(out, run.done, run.resumed and run.resumed.parent) as metrics:
            loop = _loop(run, out, metrics, report)
            state = loop.run(run.state, run.done, run.options.steps)
        return _header(run.model) | {
            "seed": run.options.seed,
            "num_params": run.model.params.flat.size,
            "steps": int(state.step.item()),
            "final_loss": metrics.last_loss,
            "timing": {"train_s": time.perf_counter() - began},
            "out": str(out),
        }

    def run(self, settings: RunSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Print the prompt and what follows it, once or several times."""
        settings.refuse_unsupported(NAME, _RUN | _CHOOSING)
        given = {k: v for k, v in settings.given().items() if k in _CHOOSING}
        defaults = {"max_new_tokens": 200, "temperature": 0.8, "seed": secrets.randbelow(2**32)}
        options = GenerationOptions(**defaults | given, window=True)
        prompt = settings.prompt or "\n"
        model, weights = _load(settings, backend, report)
        ids = model.encode(prompt).tolist()
        check_prompt(model, ids, options)
        if "seed" not in given and options.temperature:
            report.note(f"seed: {options.seed}")
        page = Turns([prompt.lstrip("\n")] * options.num_samples, report.piece)

        def show(token: Token) -> None:
            over = token.finish_reason is not None
            page.add(token.sample, model.decode([token.id]) + "\n" * over, over)

        began = time.perf_counter()
        [texts] = generate(model, [ids], options, model.decode, show)
        return _header(model) | {
            "weights": weights,
            "seed": options.seed,
            "prompt": prompt,
            "samples": [{"text": text.text} for text in texts],
            "timing": {"generate_s": time.perf_counter() - began},
        }

    def evaluate(
        self, settings: EvalSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]:
        """Print the mean loss over a text, read in pieces of the block size."""
        settings.refuse_unsupported(NAME, {"weights", "data", "dtype"})
        began = time.perf_counter()
        _, text = read_text(settings.data)
        model, weights = _load(settings, backend, report)
        ids, size = model.encode(text), model.config.block_size
        total = 0.0
        for start in range(0, len(ids) - 1, size):
            piece = on(backend, ids[None, start : start + size + 1])
            mean = loss(model.params, model.config, model.table, piece[:, :-1], piece[:, 1:])
            total += mean.item() * (piece.size - 1)
        if not math.isfinite(total):
            raise NonFiniteError(
                f"the loss is not finite: the parameters in {weights} are too large"
            )
        mean_loss = total / (len(ids) - 1)
        report.result(f"{len(ids)} characters | loss {mean_loss:.4f}")
        timing = {"eval_s": time.perf_counter() - began}
        return _header(model) | {"weights": weights, "loss": mean_loss, "timing": timing}

    def load(self, settings: LoadSettings, backend: Backend, note: Callable[[str], None]) -> Loaded:
        """The model for Python code: `tfx.load` and `tfx.pipeline`."""
        settings.refuse_unsupported(NAME, {"weights", "dtype"})
        saved = load_checkpoint(settings.weights or newest_run(NAME), NAME)
        if settings.weights is None:
            note(f"weights: {saved.path}")
        model = LanguageModel.of(saved, backend, settings.dtype)
        return Loaded(backend, model.max_positions, causal=model, codec=model)

    def example(
        self,
        settings: CompareSettings,
        backend: Backend,
        note: Callable[[str], None] = lambda line: None,
    ) -> Example:
        """The loss of a prompt, as far as the model reads; by default of all its characters."""
        settings.refuse_unsupported(NAME, {"weights", "prompt", "dtype"})
        saved = load_checkpoint(settings.weights or newest_run(NAME), NAME)
        model = LanguageModel.of(saved, backend, settings.dtype)
        text = "\n" + (settings.prompt or model.characters)
        ids = on(backend, model.encode(text)[None, : model.max_positions + 1])
        read, targets = ids[:, :-1], ids[:, 1:]
        return Example(model.params, lambda p: loss(p, model.config, model.table, read, targets))


def _loop(run: Run, out: Path, metrics: Metrics, report: Reporter) -> Loop:
    model, options = run.model, run.options
    schedule = cosine(options.steps, options.lr, warmup=options.steps // 20)
    optimizer = AdamW(schedule, model.params, beta2=0.99, grad_clip=1.0)

    def mean_loss(p: Params, ids: Tensor, targets: Tensor) -> Tensor:
        return loss(p, model.config, model.table, ids, targets)

    differentiate = value_and_grad(mean_loss, autograd=options.autograd)

    def advance(state: TrainState, step: int) -> tuple[TrainState, Tensor, Tensor]:
        value, grads = differentiate(state.params, *run.batch(step))
        state, norm = optimizer.update(state, value, state.params.flatten(grads))
        return state, value, norm

    def save(state: TrainState, done: int) -> None:
        save_checkpoint(out, run.checkpoint(state, done))

    return Loop(advance, save, metrics, report, schedule, options.save_every)


def _load(
    settings: RunSettings | EvalSettings, backend: Backend, report: Reporter
) -> tuple[LanguageModel, str]:
    """The model that `--weights` names, or that of the latest run; and the checkpoint's path."""
    saved = load_checkpoint(settings.weights or newest_run(NAME), NAME)
    if settings.weights is None:
        report.note(f"weights: {saved.path}")
    return LanguageModel.of(saved, backend, settings.dtype), str(saved.path)


def _header(model: LanguageModel) -> dict[str, Any]:
    return {"model": NAME, "backend": str(model.backend), "dtype": str(model.dtype)}
