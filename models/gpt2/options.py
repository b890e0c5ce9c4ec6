"""What can be chosen about the training of a GPT-2, and what holds where nothing is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, get_type_hints

from tfx.core.autograd import Autograd
from tfx.core.errors import CheckpointError, UsageError
from tfx.core.overrides import no_such_setting, number_set
from tfx.core.recipe import TrainSettings, spelled
from tfx.models.gpt2.config import config_from, config_json
from tfx.models.gpt2.model import Config

FINE_TUNING_LR = 5e-5
"""The peak learning rate where the weights are there already."""

CHANGEABLE = {
    *("steps", "save_every", "eval_every", "patience", "num_samples", "autograd"),
    "checkpoint_activations",
}
"""What a resumed run may have otherwise than before."""

NEW_ATTN_PDROP = 0.0
"""The dropout of attention's weights in a new model. With the presets' 0.1, as GPT-2 itself was
trained, each layer needs a factor (batch, heads, T, T) at every step, and no kernel of attention
that does without such matrices can serve."""

DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


@dataclass(frozen=True)
class Options:
    """How a GPT-2 is trained. `FLAGS` have flags of their own, the rest is for `--set`.

    `--set` also changes the configuration, `Config`: of a model that is not there yet all of it, of
    one that is only the dropouts. A new model has those of its preset but for attention's
    (`attn_pdrop`), which is 0 unless `--set` says otherwise; weights keep those of their
    configuration. What was trained with is in the configuration of the checkpoint.

    Attributes:
        checkpoint_activations: whether a step computes each block twice, to keep less in memory.
        min_lr: by default a tenth of `lr`.
        warmup_steps: by default 100, or a tenth of the steps where that is less.
        weight_decay: of matrices, the two embeddings among them; not of biases and layer norms.
        grad_clip: cap of the gradient's global norm; 0: none.
        block_size: tokens in a sequence; by default as many as the model has positions.
        val_fraction: share of the data kept for validation where no file of its own is.
        eval_batches: an evaluation takes at most so many batches, spread over the validation data.
        patience: the run ends after so many evaluations without a better one; 0: never.
        beta1, beta2, eps: of AdamW.
    """

    FLAGS: ClassVar[frozenset[str]]

    dtype: str = "float32"
    autograd: Autograd = "auto"
    checkpoint_activations: bool = False
    steps: int = 1000
    batch_size: int = 16
    grad_accum: int = 1
    lr: float = 6e-4
    min_lr: float = 6e-5
    warmup_steps: int = 100
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    eval_every: int = 250
    save_every: int = 250
    seed: int = 42
    num_samples: int = 1

    block_size: int = 1024
    val_fraction: float = 0.1
    eval_batches: int = 200
    patience: int = 0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8

    @classmethod
    def chosen(cls, settings: TrainSettings, config: Config, fine_tuning: bool) -> Options:
        """The options of a new run.

        Raises:
            UsageError: values that do not go together.
        """
        given = _given(settings)
        lr = given.get("lr", FINE_TUNING_LR if fine_tuning else cls.lr)
        steps = given.get("steps", cls.steps)
        derived = {
            "lr": lr,
            "min_lr": lr / 10,
            "warmup_steps": min(cls.warmup_steps, steps // 10),
            "block_size": config.n_positions,
        }
        options = cls(**derived | given)
        options.check(config)
        return options

    def with_settings(self, settings: TrainSettings, config: Config) -> Options:
        """These options, of a run that is resumed, with what was given by flags and `--set`.

        Raises:
            UsageError: values that do not go together.
        """
        options = replace(self, **_given(settings))
        options.check(config)
        return options

    def check(self, config: Config) -> None:
        """Raise `UsageError` for values that do not go together, or not with the model."""
        if not 1 <= self.block_size <= config.n_positions:
            raise UsageError(
                f"block_size={self.block_size}: expected 1 to {config.n_positions}, "
                "the positions of the model (n_positions)"
            )
        if not 0 <= self.val_fraction < 1:
            raise UsageError(f"val_fraction={self.val_fraction}: expected a share from 0 to 1")
        if self.eval_batches < 1 or self.patience < 0:
            raise UsageError("eval_batches must be at least 1 and patience at least 0")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise UsageError("AdamW needs 0 <= beta1 < 1, 0 <= beta2 < 1 and eps > 0")
        if self.min_lr > self.lr:
            raise UsageError(f"--min-lr {self.min_lr} is above --lr {self.lr}")
        if self.dtype == "float16":
            raise UsageError(
                f"{spelled('--dtype')} float16: gradients are too small for it; "
                "choose float32, float64 or bfloat16"
            )


_NAMES = [f.name for f in fields(Options)]
_SETTABLE = _NAMES[_NAMES.index("block_size") :]
Options.FLAGS = frozenset(_NAMES) - frozenset(_SETTABLE)
_OF_CONFIG = [f.name for f in fields(Config)]


def _given(settings: TrainSettings) -> dict[str, Any]:
    """What was given of the options, by flags and `--set`."""
    kinds = get_type_hints(Options)
    given = {name: value for name, value in settings.given().items() if name in Options.FLAGS}
    for key, text in settings.overrides.items():
        if key in _SETTABLE:
            given[key] = number_set(key, text, kinds[key])
        elif key not in (*_OF_CONFIG, "dropout"):
            known = ["dropout", *_SETTABLE, *_OF_CONFIG]
            raise no_such_setting("gpt2", key, known, Options.FLAGS)
    return given


def configured(base: Config, overrides: Mapping[str, str]) -> Config:
    """A configuration with those of its values that `--set` gives; `dropout` is all three.

    Raises:
        UsageError: a value that cannot be.
    """
    changes: dict[str, Any] = {}
    for key, text in overrides.items():
        if key == "dropout":
            changes |= dict.fromkeys(DROPOUTS, number_set(key, text, float))
        elif key in _OF_CONFIG:
            changes[key] = _json_or_text(text)
    try:
        config, _ = config_from({**config_json(base), **changes}, "--set")
    except CheckpointError as fault:
        raise UsageError(str(fault)) from None
    for name in overrides.keys() & {"bos_token_id", "eos_token_id"}:
        ids = getattr(config, name)
        if max(ids if isinstance(ids, tuple) else (ids or 0,), default=0) >= config.vocab_size:
            raise UsageError(
                f"--set {name}={overrides[name]}: the model knows the tokens 0 to "
                f"{config.vocab_size - 1} (vocab_size)"
            )
    return config


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
