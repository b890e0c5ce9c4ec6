"""`tfx train | run | eval | compare | bench microgpt`, and what `tfx.load` gives."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.capture import jit
from tfx.core.checkpoint import SavedCheckpoint, load_checkpoint, restore_random, save_checkpoint
from tfx.core.errors import NonFiniteError, UsageError
from tfx.core.optim import TrainState
from tfx.core.pipelines.loadable import Loaded, LoadSettings
from tfx.core.recipe import (
    BenchSettings,
    CompareSettings,
    EvalSettings,
    Example,
    Part,
    Reporter,
    RunSettings,
    TrainSettings,
    Work,
    check_autograd,
    spelled,
)
from tfx.core.runs import claim_run_dir, newest_run
from tfx.core.schedules import linear
from tfx.core.training import Loop, Metrics
from tfx.models.microgpt import bench, example, loading
from tfx.models.microgpt.model import loss
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import NAME, Model, Run, options_of, shuffled, state_of, trained_on
from tfx.models.microgpt.sampling import Sampler
from tfx.models.microgpt.training import step_of

_TRAIN = Options.FLAGS | {"data", "out", "resume", "overrides"}
# What a resumed run may have otherwise than before.
_CHANGEABLE = {"steps", "save_every", "num_samples", "temperature", "autograd"}
_RUN = {"weights", "dtype", "prompt", "max_new_tokens", "temperature", "num_samples", "seed"}
_EVAL = {"weights", "data", "dtype", "docs"}

# NumPy would warn of overflows on stderr; what comes of them is found out and is an error.
_quiet = np.errstate(all="ignore")


class MicroGPT:
    """The recipe behind the model name `microgpt`."""

    name = NAME

    @_quiet
    def train(self, settings: TrainSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Train as the original does, print what it prints, and leave a checkpoint."""
        settings.refuse_unsupported(NAME, _TRAIN)
        clock = [time.perf_counter()]
        run = _begin_or_resume(settings, backend, report)
        check_autograd(run.options.autograd, backend)
        out = claim_run_dir(NAME, settings.out, run.resumed)
        if settings.out is None:
            report.note(f"run folder: {out}")
        model, options = run.model, run.options
        report.result(f"num docs: {len(run.documents)}")
        report.result(f"vocab size: {model.config.vocab_size}")
        report.result(f"num params: {model.params.flat.size}")
        clock.append(time.perf_counter())
        with Metrics(out, run.done, run.resumed and run.resumed.parent) as metrics:
            loop = _loop(run, out, metrics, report)
            state = loop.run(run.state, run.done, options.steps)
        model.params = state.params
        clock.append(time.perf_counter())
        if options.num_samples:
            report.result("--- inference (new, hallucinated names) ---")
        names = _print_samples(
            model, run.rng, options.num_samples, report, temperature=options.temperature
        )
        clock.append(time.perf_counter())
        load_s, train_s, sample_s = np.diff(clock).tolist()
        return {
            **_header(model),
            "seed": options.seed,
            "num_docs": len(run.documents),
            "vocab_size": model.config.vocab_size,
            "num_params": model.params.flat.size,
            "steps": int(state.step.item()),
            "final_loss": metrics.last_loss,
            "samples": names,
            "timing": {"load_s": load_s, "train_s": train_s, "sample_s": sample_s},
            "out": str(out),
        }

    @_quiet
    def run(self, settings: RunSettings, backend: Backend, report: Reporter) -> dict[str, Any]:
        """Print new names from a checkpoint; without a seed, those that training would print."""
        settings.refuse_unsupported(NAME, _RUN)
        clock = [time.perf_counter()]
        saved = _load(settings.weights, report.note)
        model = Model.of(saved, backend, settings.dtype)
        rng = random.Random(settings.seed)
        if settings.seed is None:
            restore_random(rng, state_of(saved, "random"))
        temperature = settings.temperature
        if temperature is None:
            temperature = options_of(saved).temperature
        prompt = settings.prompt or ""
        if len(model.vocabulary.ids(prompt)) >= model.config.block_size:
            raise UsageError(
                f"the prompt has {len(prompt)} characters; this model takes at most "
                f"{model.config.block_size - 1}"
            )
        clock.append(time.perf_counter())
        names = _print_samples(
            model,
            rng,
            Options.num_samples if settings.num_samples is None else settings.num_samples,
            report,
            temperature=temperature,
            prompt=prompt,
            max_new_tokens=settings.max_new_tokens,
        )
        clock.append(time.perf_counter())
        load_s, sample_s = np.diff(clock).tolist()
        return {
            **_header(model),
            "weights": str(saved.path),
            "seed": settings.seed,
            "prompt": prompt,
            "temperature": temperature,
            "samples": [{"text": name} for name in names],
            "timing": {"load_s": load_s, "sample_s": sample_s},
        }

    @_quiet
    def evaluate(
        self, settings: EvalSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]:
        """Print the mean over documents of each document's mean loss."""
        settings.refuse_unsupported(NAME, _EVAL)
        saved = _load(settings.weights, report.note)
        model = Model.of(saved, backend, settings.dtype)
        if settings.data is None:
            documents, _ = trained_on(saved, None, report.note)
        else:
            documents, _ = shuffled(settings.data, options_of(saved).seed, report.note)
        first, last = settings.docs or (0, len(documents))
        if not 0 <= first < last <= len(documents):
            raise UsageError(
                f"--docs {first}:{last}: there are documents 0:{len(documents)}, end exclusive"
            )
        began = time.perf_counter()
        judged = jit(lambda *window: loss(model.params, model.config, *window))
        losses = [judged(*model.windows(text)).item() for text in documents[first:last]]
        mean = float(np.mean(losses))
        if not math.isfinite(mean):
            raise NonFiniteError(
                f"the loss on docs {first}:{last} is not finite: the parameters in {saved.path} "
                f"are too large for {model.params.flat.dtype}"
            )
        report.result(f"docs {first}:{last} | loss {mean:.4f}")
        return {
            **_header(model),
            "weights": str(saved.path),
            "docs": [first, last],
            "loss": mean,
            "timing": {"eval_s": time.perf_counter() - began},
        }

    @_quiet
    def load(self, settings: LoadSettings, backend: Backend, note: Callable[[str], None]) -> Loaded:
        """The model of a checkpoint for Python code."""
        saved = _load(settings.weights, note, "load a run's folder: tfx.load('DIR')")
        return loading.loaded(settings, saved, backend)

    def example(
        self,
        settings: CompareSettings,
        backend: Backend,
        note: Callable[[str], None] = lambda line: None,
    ) -> Example:
        """The loss of the first document."""
        return example.example(settings, backend, note)

    def weights_to_bench(
        self, settings: BenchSettings, folder: Path, note: Callable[[str], None]
    ) -> Path:
        """The weights to time: random ones unless others are asked for."""
        return bench.weights_to_bench(settings, folder, note)

    @_quiet
    def work(
        self,
        part: Part,
        settings: BenchSettings,
        backend: Backend,
        note: Callable[[str], None] = lambda line: None,
    ) -> Work:
        """Opening the weights, reading a prompt, writing names, or training."""
        return bench.work(part, settings, backend, note)


def _begin_or_resume(settings: TrainSettings, backend: Backend, report: Reporter) -> Run:
    if settings.resume is None:
        options = Options().with_settings(settings)
        return Run.begin(options, settings.data, backend, report.note)
    saved = load_checkpoint(settings.resume, NAME)
    before = options_of(saved)
    options = before.with_settings(settings)
    for name, value in asdict(before).items():
        asked = getattr(options, name)
        if asked != value and name not in _CHANGEABLE:
            overridden = name in settings.overrides
            flag = f"--set {name}" if overridden else spelled(settings.flag(name))
            raise UsageError(f"{flag} {asked}: the run that --resume continues keeps its {value}")
    if saved.step > options.steps:
        raise UsageError(f"--steps {options.steps}: {saved.path} has taken {saved.step} already")
    run = Run.resume(saved, options, settings.data, backend, report.note)
    if options.steps != before.steps:
        report.note(
            f"--steps {options.steps} instead of {before.steps}: "
            "the learning rate follows the new schedule"
        )
    if run.done == options.steps:
        report.note(f"{saved.path} has taken all {run.done} steps; --steps adds more")
    return run


def _loop(run: Run, out: Path, metrics: Metrics, report: Reporter) -> Loop:
    options = run.options
    schedule = linear(options.steps, options.lr, options.min_lr, options.warmup_steps)

    def save(state: TrainState, done: int) -> None:
        save_checkpoint(out, run.checkpoint(state, done))

    return Loop(step_of(run, schedule), save, metrics, report, schedule, options.save_every)


def _print_samples(
    model: Model, rng: random.Random, count: int, report: Reporter, **how: Any
) -> list[str]:
    names = []
    sampler = Sampler(model.params, model.config, model.vocabulary)
    for i in range(count):
        names.append(sampler.sample(rng, **how))
        report.result(f"sample {i + 1:2d}: {names[-1]}")
    return names


def _load(weights: Path | None, note: Callable[[str], None], *instead: str) -> SavedCheckpoint:
    saved = load_checkpoint(weights or newest_run(NAME, *instead), NAME)
    if weights is None:
        note(f"weights: {saved.path}")
    return saved


def _header(model: Model) -> dict[str, Any]:
    flat = model.params.flat
    return {"model": NAME, "backend": str(flat.backend), "dtype": str(flat.dtype)}
