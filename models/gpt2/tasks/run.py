"""The training run of a head: begun on a trunk that is there, kept, and taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend, HostArray
from tfx.core.checkpoint import Checkpoint, SavedCheckpoint
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, TokenizerError, UsageError
from tfx.core.evaluation import Evaluations
from tfx.core.files import shown
from tfx.core.optim import TrainState
from tfx.core.parameters import Parameters
from tfx.core.recipe import TrainSettings, computable
from tfx.core.seeds import host_generator
from tfx.core.tokenizer import ByteLevelBPE, load_tokenizer
from tfx.core.tokenizer.save import tokenizer_files
from tfx.core.weights import StoredTensor
from tfx.models.gpt2.heads import Head, Problem
from tfx.models.gpt2.language_model import tokenizer_of
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.options import Options
from tfx.models.gpt2.presets import Preset, find_weights
from tfx.models.gpt2.resumption import noted, restored, restored_state, resumed_options
from tfx.models.gpt2.tasks.examples import Examples, Records
from tfx.models.gpt2.tasks.kinds import task_named
from tfx.models.gpt2.tasks.labels import UnknownLabel
from tfx.models.gpt2.tasks.options import EPOCHS, TaskOptions, without_own
from tfx.models.gpt2.tasks.task import Example, Task
from tfx.models.gpt2.training_run import config_of, refuse_other_tokenizer, refuse_vain_patience
from tfx.models.gpt2.weights import (
    NAME,
    Pretrained,
    about_model,
    headed_in,
    read_headed,
    their_name,
)

Note = Callable[[str], None]

_NEW_HEAD = "--set head=new begins a new head on these weights"


@dataclass
class TaskRun:
    """A training run.

    Attributes:
        options, own: what was chosen.
        task: with the head, the configuration and the tokenizer.
        data: where the data is from.
        examples: what is in there.
        state: parameters and optimizer as far as the run is.
        class_weights: of each class, by number; None for all alike.
        evaluations: what the evaluations have shown so far.
        done: how many steps that is.
        resumed: the checkpoint it goes on from.
    """

    options: Options
    own: TaskOptions
    task: Task
    data: Path
    examples: Examples
    state: TrainState
    class_weights: HostArray | None = None
    evaluations: Evaluations = field(default_factory=Evaluations)
    done: int = 0
    resumed: Path | None = None

    @classmethod
    def begin(
        cls, preset: Preset, settings: TrainSettings, backend: Backend, note: Note
    ) -> TaskRun:
        """A new run, from `--weights` or those of the preset. A head of the same task that is on
        them is trained on, unless a new one is asked for; any other is left off."""
        data = settings.data
        if data is None:
            raise UsageError(
                f"{preset.name} has nothing to learn from; give --data: a file of records "
                "(.jsonl, .csv), or a folder with train and val"
            )
        kind = task_named(settings.task or "")
        own, settings = TaskOptions.chosen(settings), without_own(settings)
        found = read_headed(find_weights(preset, settings.weights, note), note)
        tokenizer = _tokenizer(found, settings.tokenizer, preset, note)
        config = config_of(found, settings.overrides)
        options = Options.chosen(settings, config, fine_tuning=True)
        dtype = computable(NAME, options.dtype, backend, never={DType.float16})
        records = Records.read(data, options.val_fraction, options.seed)
        everything = records.train + records.val
        if settings.steps is None:
            options = _of_epochs(settings, config, options, len(records.train))
        kept = found.head is not None and found.head.task == kind.name and own.head != "new"
        if found.head is not None and kept:
            head = _of_problem(found.head, own.problem_type, found.path)
        else:
            head = kind.head_for(everything, tokenizer.eos_id, own.for_head)
        if not head.has_next_token:
            config = replace(config, tie_word_embeddings=True)
        task = kind(head, config, tokenizer, options.block_size)
        try:
            examples = Examples.of(records, task, note)
        except UnknownLabel as error:
            raise UnknownLabel(f"{error}; {_NEW_HEAD}") from None
        class_weights = task.weights_of(own.class_weights, examples.train)
        refuse_vain_patience(options, len(examples.val) > 0)
        note(f"weights: {shown(found.path)}")
        weights = _weights(found, config, head, options.seed, kept)
        state = TrainState.start(Parameters.from_host(weights, backend, dtype))
        return cls(options, own, task, data, examples, state, class_weights)

    @classmethod
    def resume(
        cls, saved: SavedCheckpoint, settings: TrainSettings, backend: Backend, note: Note
    ) -> TaskRun:
        """Take up a saved run where it stopped, bit for bit."""
        found, kind = headed_in(saved, note), task_named(settings.task or "")
        if found.head is None or found.head.task != kind.name:
            has = f"a head for {found.head.task}" if found.head else "no head"
            raise UsageError(f"--task {kind.name}: {shown(saved.path)} has {has}")
        own = restored(TaskOptions, saved, "task_options")
        _refuse_other(own, settings)
        settings, tokenizer = without_own(settings), tokenizer_of(found)
        if tokenizer is None:
            raise TokenizerError(f"{shown(saved.path)} has no tokenizer")
        options = resumed_options(saved, found.config, settings, note)
        data = settings.data or Path(noted(saved, "data"))
        task = kind(found.head, found.config, tokenizer, options.block_size)
        records = Records.read(data, options.val_fraction, options.seed)
        examples = Examples.of(records, task, note)
        if examples.fingerprint() != noted(saved, "records"):
            raise CheckpointError(
                f"{shown(data)} is not what {shown(saved.path)} was trained on; "
                "say with --data where that is"
            )
        refuse_vain_patience(options, len(examples.val) > 0)
        return cls(
            options,
            own,
            task,
            data,
            examples,
            state=restored_state(saved, found.tensors, options, backend),
            class_weights=task.weights_of(own.class_weights, examples.train),
            evaluations=restored(Evaluations, saved, "evaluations"),
            done=saved.step,
            resumed=saved.path,
        )

    @cached_property
    def judged(self) -> list[Example]:
        """Those held out that evaluations look at, spread over all."""
        most = self.options.eval_batches * self.options.batch_size
        count = len(self.examples.val)
        places = np.linspace(0, count - 1, min(most, count)).round().astype(int)
        return [self.examples.val[i] for i in places]

    def checkpoint(self, state: TrainState, done: int) -> Checkpoint:
        """All that `resume` needs, after `done` steps; transformers can load it too."""
        return Checkpoint(
            model=NAME,
            step=done,
            config=about_model(self.task.config, self.task.head),
            weights={their_name(name): x for name, x in state.params.to_host().items()},
            optimizer=state.moments(),
            state={
                "options": asdict(self.options),
                "task_options": asdict(self.own),
                "data": str(self.data.absolute()),
                "records": self._fingerprint,
                "evaluations": asdict(self.evaluations),
            },
            files=self._files,
        )

    @cached_property
    def _fingerprint(self) -> str:
        return self.examples.fingerprint()

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return tokenizer_files(self.task.tokenizer)


def _tokenizer(found: Pretrained, asked: Path | None, preset: Preset, note: Note) -> ByteLevelBPE:
    own = tokenizer_of(found)
    if asked is None and own is not None:
        return own
    if asked is None:
        raise TokenizerError(f"{shown(found.path)} has no tokenizer; give one with --tokenizer")
    given = load_tokenizer(find_weights(preset, asked, note))
    if given.vocab_size > found.config.vocab_size:
        raise TokenizerError(
            f"the tokenizer has {given.vocab_size} tokens and the model "
            f"{found.config.vocab_size} (vocab_size): they do not go together"
        )
    refuse_other_tokenizer(given, asked, found)
    return given


def _of_problem(head: Head, asked: Problem | None, path: Path) -> Head:
    """A head that was found, for labels of the kind that is asked for."""
    if asked not in (None, head.named_problem or asked):
        raise UsageError(
            f"--set problem_type={asked}: the head of {shown(path)} is for {head.named_problem}; "
            f"{_NEW_HEAD}"
        )
    return replace(head, problem_type=asked or head.problem_type)


def _of_epochs(settings: TrainSettings, config: Config, options: Options, examples: int) -> Options:
    """The options with as many steps as `EPOCHS` take."""
    steps = max(1, math.ceil(EPOCHS * examples / (options.batch_size * options.grad_accum)))
    return Options.chosen(replace(settings, steps=steps), config, fine_tuning=True)


def _weights(
    found: Pretrained, config: Config, head: Head, seed: int, kept: bool
) -> dict[str, StoredTensor | HostArray]:
    """The trunk that was found, and the head on it, where that is kept, or a new one."""
    stored = found.floats("training")
    weights: dict[str, Any] = {name: stored[name] for name in config.shapes()}
    rng = host_generator(seed, "head")
    for name, shape in head.shapes(config).items():
        if kept:
            weights[name] = stored[name]
        elif name.endswith(".bias"):
            weights[name] = np.zeros(shape, np.float32)
        else:
            drawn = rng.standard_normal(shape) * config.initializer_range
            weights[name] = drawn.astype(np.float32)
    return weights


def _refuse_other(own: TaskOptions, settings: TrainSettings) -> None:
    asked = TaskOptions.chosen(settings)
    for name, value in asdict(asked).items():
        before = getattr(own, name)
        given = name in settings.overrides or name in settings.given()
        if given and value != before:
            flag = "--class-weights" if name == "class_weights" else f"--set {name}"
            raise UsageError(f"{flag} {value}: the run that --resume continues keeps its {before}")
