"""What a model plugin does for the command line: train and run, and what else it can.

A `Recipe` gets validated settings, a backend and a reporter, and returns the JSON object
of its command. It never prints: stdout belongs to the reporter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from tfx.core.dtypes import FLOATS, DType, as_dtype
from tfx.core.errors import UsageError

if TYPE_CHECKING:
    from tfx.core.backend import Backend
    from tfx.core.explanation import Explanation
    from tfx.core.resonance import Bounds, Resonance
    from tfx.core.tensor import Tensor


Theta: TypeAlias = float | Sequence[float] | Sequence[Sequence[float]]
"""What attention is scaled by: one number, one for each layer, or one for each head of each."""

_VARIABLES = {"--dtype": "TFX_DTYPE", "--seed": "TFX_SEED"}


def spelled(flag: str) -> str:
    """A flag, and the environment variable that speaks for it where that is set."""
    variable = _VARIABLES.get(flag, "")
    return f"{flag} or {variable}" if os.environ.get(variable) else flag


def computable(
    model: str,
    name: str,
    backend: Backend,
    never: Set[DType] = frozenset(),
    flag: str = "--dtype",
) -> DType:
    """The dtype called `name`, for a model to compute in; `flag` is what asks for it.

    Raises:
        UsageError: it is not of floats that `backend` computes with. Those that the model never
            computes in are not proposed.
    """
    dtype, floats = as_dtype(name), FLOATS & backend.dtypes
    if dtype not in floats:
        known = ", ".join(sorted(floats - never))
        raise UsageError(
            f"{model} cannot compute in {dtype} on {backend}; choose {spelled(flag)} {known}"
        )
    return dtype


def check_autograd(autograd: str | None, backend: Backend) -> None:
    """Raise `UsageError` where native autograd is asked for and `backend` has none."""
    if autograd == "native" and not backend.native_autograd:
        raise UsageError(f"--autograd native: backend {backend} has no autograd of its own")


@dataclass
class Settings:
    """Settings of one command. None means: not given, the recipe's default holds."""

    def given(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in pairs if value not in (None, {}, ())}

    def flag(self, name: str) -> str:
        """How the setting `name` is spelled on the command line."""
        (metadata,) = (f.metadata for f in fields(self) if f.name == name)
        return str(metadata.get("flag", f"--{name.replace('_', '-')}"))

    def refuse_unsupported(self, model: str, supported: Set[str]) -> None:
        """Raise `UsageError` for a setting the model has no use for."""
        for name in self.given():
            if name not in supported:
                raise UsageError(f"{model} has no use for {self.flag(name)}; leave it out")


@dataclass
class TrainSettings(Settings):
    """The flags of `tfx train` (names as on the command line)."""

    data: Path | None = None
    task: str | None = None
    class_weights: str | None = None
    dtype: str | None = None
    autograd: str | None = None  # auto | core | native
    checkpoint_activations: bool | None = None
    steps: int | None = None
    batch_size: int | None = None
    grad_accum: int | None = None
    lr: float | None = None
    min_lr: float | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    grad_clip: float | None = None
    eval_every: int | None = None
    save_every: int | None = None
    out: Path | None = None
    resume: Path | None = None
    weights: Path | None = None
    tokenizer: Path | None = None
    seed: int | None = None
    num_samples: int | None = None
    overrides: Mapping[str, str] = field(default_factory=dict, metadata={"flag": "--set"})


@dataclass
class RunSettings(Settings):
    """The flags of `tfx run`, at most one of `prompt`, `prompt_ids`, `prompts` and, for a task,
    `records` among them."""

    task: str | None = None
    context: str | None = None
    choices: tuple[str, ...] = field(default=(), metadata={"flag": "--choice"})
    records: tuple[Mapping[str, Any], ...] | None = field(
        default=None, metadata={"flag": "--jsonl"}
    )
    weights: Path | None = None
    dtype: str | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    prompts: tuple[str | tuple[int, ...], ...] | None = field(
        default=None, metadata={"flag": "--jsonl"}
    )
    batch_size: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_samples: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    window: bool | None = None
    quantize: str | None = None
    quantize_embeddings: str | None = None
    group_size: int | None = None
    kv_dtype: str | None = None
    theta: Theta | None = None
    prompt_lookup: bool | None = None
    draft: str | None = None
    num_draft_tokens: int | None = None


@dataclass
class EvalSettings(Settings):
    """The flags of `tfx eval`."""

    task: str | None = None
    weights: Path | None = None
    data: Path | None = None
    dtype: str | None = None
    docs: tuple[int, int] | None = None  # half open
    stride: int | None = None
    batch_size: int | None = None
    quantize: str | None = None
    quantize_embeddings: str | None = None
    group_size: int | None = None
    theta: Theta | None = None


@dataclass
class ConvertSettings(Settings):
    """The flags of `tfx convert`."""

    weights: Path | None
    out: Path
    dtype: str | None = None


@dataclass
class QuantizeSettings(Settings):
    """The flags of `tfx quantize`."""

    weights: Path | None
    out: Path
    quantize: str | None = None
    quantize_embeddings: str | None = None
    group_size: int | None = None
    scale_dtype: str | None = None
    data: Path | None = None


@dataclass
class PruneSettings(Settings):
    """The flags of `tfx prune`; one of `keep` and `heads` is given, and `data` with `keep`."""

    weights: Path | None
    out: Path
    data: Path | None = None
    keep: float | None = None
    heads: Mapping[int, Collection[int]] | None = None
    task: str | None = None


@dataclass
class ResonateSettings(Settings):
    """The flags of `tfx resonate` that are the model's business; `theta` is what to begin with."""

    prompt: str
    theta: float
    bounds: Bounds
    weights: Path | None = None
    dtype: str | None = None
    max_new_tokens: int | None = None


@dataclass
class ExplainSettings(Settings):
    """The flags of `tfx explain` that are the model's business; at most one of `prompt` and
    `prompt_ids`. `layers` and `heads` are those whose attention is to be shown."""

    weights: Path | None = None
    dtype: str | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    theta: Theta | None = None
    top_k: int | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None


@dataclass
class CompareSettings(Settings):
    """What an `Example` is of; the flags of `tfx compare` that are the model's business."""

    weights: Path | None = None
    prompt: str | None = None
    dtype: str | None = None
    seed: int | None = None


Part = Literal["load", "prefill", "decode", "train"]
"""Of a model's work: getting ready, reading a prompt, writing token by token, a training step."""


@dataclass
class BenchSettings(Settings):
    """The flags of `tfx bench` that are the model's business."""

    weights: Path | None = None
    dtype: str | None = None
    prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    batch_size: int | None = None
    block_size: int | None = None
    quantize: str | None = None
    quantize_embeddings: str | None = None
    group_size: int | None = None


class Reporter(Protocol):
    """Where a recipe's words go. The command line's writes text, or nothing under `--json`."""

    def result(self, line: str) -> None:
        """A line of the result: stdout."""

    def piece(self, text: str) -> None:
        """A part of the result that makes no line yet: stdout, at once."""

    def note(self, line: str) -> None:
        """A remark: stderr."""

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        """The work reached `step` of `total`, `seconds` after it began or was resumed.

        Called for every step, when its loss is read, which may be for several at a time.
        """

    def progress_done(self, *, is_result: bool = True) -> None:
        """No more progress: a bar, if there is one, is closed.

        With `is_result`, how far it came is a line of the result, unless a bar has shown it.
        """


class Recipe(Protocol):
    """A model that the command line can train and run; it may be `Evaluable` and more.

    Each method raises `TfxError` for what the user can mend, and returns the object that
    `--json` prints: JSON types and paths, every number finite. That of `train` names under
    `"out"` the folder of the run, where `metrics.jsonl` holds one object a line with at least
    `"step"` (from 1) and `"loss"`. That of `run` may say under `"timing"` how long things took, by
    names in `_s` and `_tokens_per_s`, and what came of guesses, by names in `_tokens`, `_rate` and
    `_per_pass`; `--stats` shows them. To both, the command line adds `"memory"`:
    `tfx.core.memory.peak_memory`.
    """

    name: str

    def train(
        self, settings: TrainSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]: ...

    def run(self, settings: RunSettings, backend: Backend, report: Reporter) -> dict[str, Any]: ...


@runtime_checkable
class Evaluable(Protocol):
    """A recipe that can judge its model by a text. As in `Recipe`, for `tfx eval`."""

    def evaluate(
        self, settings: EvalSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]: ...


@runtime_checkable
class Convertible(Protocol):
    """A recipe whose checkpoints can be written as other programs read them. It needs no backend.

    Raises `TfxError` for what the user can mend, and returns the object that `--json` prints.
    """

    def convert(self, settings: ConvertSettings, report: Reporter) -> dict[str, Any]: ...


@runtime_checkable
class Quantizable(Protocol):
    """A recipe whose weights can be written in fewer bits, for `run` and `evaluate` to read.

    With `settings.data`, both are held against each other on that text, on `backend`. Raises
    `TfxError` for what the user can mend, and returns the object that `--json` prints.
    """

    def quantize(
        self, settings: QuantizeSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]: ...


@runtime_checkable
class Prunable(Protocol):
    """A recipe that can write its model without the parts that matter least to a text.

    Raises `TfxError` for what the user can mend, and returns the object that `--json` prints.
    """

    def prune(
        self, settings: PruneSettings, backend: Backend, report: Reporter
    ) -> dict[str, Any]: ...


@runtime_checkable
class Resonant(Protocol):
    """A recipe whose model heeds theta, and can be steered by it token by token.

    Raises `TfxError` for what the user can mend.
    """

    def resonance(
        self, settings: ResonateSettings, backend: Backend, report: Reporter
    ) -> Resonance: ...


@runtime_checkable
class Explainable(Protocol):
    """A recipe that can tell what its model makes of a text, place by place.

    Raises `TfxError` for what the user can mend. The command line shows the explanation, as text,
    as JSON or as a page, and knows nothing else of the model.
    """

    def explain(
        self, settings: ExplainSettings, backend: Backend, report: Reporter
    ) -> Explanation: ...


@dataclass(frozen=True, eq=False)
class Example:
    """A small piece of a model's work, the same on every backend.

    Attributes:
        params: the parameters by their names in a checkpoint, on one backend.
        loss: one number, from parameters of these names, shapes and dtypes; no chance in it.
    """

    params: Mapping[str, Tensor]
    loss: Callable[[Mapping[str, Tensor]], Tensor]


@runtime_checkable
class Comparable(Protocol):
    """A recipe with an example on which backends can be held against each other.

    The settings that are not given have defaults, with which nothing is fetched for a model whose
    weights are here. `note` is called with a line that the user should know. Raises `TfxError` for
    what the user can mend.
    """

    def example(
        self,
        settings: CompareSettings,
        backend: Backend,
        note: Callable[[str], None] = ...,
    ) -> Example: ...


@dataclass(frozen=True, eq=False)
class Work:
    """A piece of a model's work, to be done again and again by the clock.

    Attributes:
        what: what a step is, in a few words.
        dtype: what is computed in.
        run: takes what `prepare` gave, and does all steps to the end: no result is still under way
            on a device when it returns.
        prepare: what comes before, and is not timed.
        steps: how many like steps there are in a run.
        tokens: how many are read or written in a run; 0 where nobody counts in tokens.
    """

    what: str
    dtype: str
    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    steps: int = 1
    tokens: int = 0


@runtime_checkable
class Benchable(Protocol):
    """A recipe whose work can be timed. The settings that are not given have defaults.

    Both methods raise `TfxError` for what the user can mend; `note` is called with a line that the
    user should know.
    """

    def weights_to_bench(
        self, settings: BenchSettings, folder: Path, note: Callable[[str], None]
    ) -> Path:
        """Where the weights are that `load`, `prefill` and `decode` take: those that were asked
        for, else the model's own if they are here, else random ones, written into the empty
        `folder`. Nothing is fetched."""

    def work(
        self,
        part: Part,
        settings: BenchSettings,
        backend: Backend,
        note: Callable[[str], None] = ...,
    ) -> Work:
        """One part of the work. `settings.weights` is given but for `train`, which makes a new
        model where it is not."""
