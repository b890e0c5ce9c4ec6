"""What can be chosen about a microGPT run, and what the original chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, get_type_hints

from tfx.core.autograd import Autograd
from tfx.core.errors import UsageError
from tfx.core.overrides import no_such_setting, number_set
from tfx.core.recipe import TrainSettings, spelled


@dataclass(frozen=True)
class Options:
    """The defaults are the original's. `FLAGS` have flags of their own, the rest is for `--set`."""

    FLAGS: ClassVar[frozenset[str]]

    dtype: str = "float64"
    autograd: Autograd = "auto"
    steps: int = 1000
    batch_size: int = 1
    grad_accum: int = 1
    lr: float = 0.01
    min_lr: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    grad_clip: float | None = None
    save_every: int = 0
    seed: int = 42
    num_samples: int = 20

    n_layer: int = 1
    n_embd: int = 16
    n_head: int = 4
    block_size: int = 16
    init_std: float = 0.08
    beta1: float = 0.85
    beta2: float = 0.99
    eps: float = 1e-8
    temperature: float = 0.5

    def with_settings(self, settings: TrainSettings) -> Options:
        """These options with what was given by flags and `--set`.

        Raises:
            UsageError: an unknown key, or values that do not go together.
        """
        given = {k: v for k, v in settings.given().items() if k in self.FLAGS}
        if "grad_clip" in given:
            given["grad_clip"] = given["grad_clip"] or None  # 0 is no cap
        chosen = replace(self, **given, **_parsed(settings.overrides))
        chosen.check()
        return chosen

    def check(self) -> None:
        """Raise `UsageError` for values that do not go together."""
        for name in ("n_layer", "n_embd", "n_head", "block_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.n_embd % self.n_head:
            raise UsageError(f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise UsageError("Adam needs 0 <= beta1 < 1, 0 <= beta2 < 1 and eps > 0")
        if self.init_std < 0 or self.temperature < 0:
            raise UsageError("init_std and temperature must not be negative")
        if self.min_lr > self.lr:
            raise UsageError(f"--min-lr {self.min_lr} is above --lr {self.lr}")
        if self.dtype not in ("float32", "float64"):
            flag = spelled("--dtype")
            raise UsageError(f"{flag}: microgpt trains in float64 or float32, not {self.dtype}")


_NAMES = [f.name for f in fields(Options)]
_SETTABLE = _NAMES[_NAMES.index("n_layer") :]
Options.FLAGS = frozenset(_NAMES) - frozenset(_SETTABLE)


def _parsed(overrides: Mapping[str, str]) -> dict[str, Any]:
    kinds = get_type_hints(Options)
    values = {}
    for key, text in overrides.items():
        if key not in _SETTABLE:
            raise no_such_setting("microgpt", key, _SETTABLE, Options.FLAGS)
        values[key] = number_set(key, text, kinds[key])
    return values
