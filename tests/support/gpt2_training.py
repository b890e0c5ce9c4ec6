"""Training small GPT-2s in a test: a text, its tokenizer, a listener, and what is left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import Backend
from tfx.core.checkpoint import find_checkpoint
from tfx.core.recipe import TrainSettings
from tfx.core.tokenizer import ByteLevelBPE
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.tokenizer.files import END_OF_TEXT
from tfx.core.tokenizer.save import save_tokenizer
from tfx.core.weights import open_weights
from tfx.models.gpt2 import training
from tfx.models.gpt2.presets import PRESETS

TEXT = "".join(
    f"{one} the {two}, said {three} to the {four}.\n"
    for one in ("Früh", "Late", "When")
    for two in ("moon", "sun", "star", "wind")
    for three in ("he", "she", "they")
    for four in ("wall", "hill", "sea", "grass")
)
"""A small text with a letter of two bytes, which no token of `tokenizer` joins."""

SMALL = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 12}


def tokenizer() -> ByteLevelBPE:
    """The bytes, a few merges, and the end of a text."""
    vocab = {spelled: byte for byte, spelled in enumerate(ALPHABET)}
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("s", "a")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    vocab[END_OF_TEXT] = len(vocab)
    return ByteLevelBPE(vocab, merges, special_tokens=[END_OF_TEXT], eos_token=END_OF_TEXT)


@dataclass
class Listener:
    """A reporter that remembers."""

    results: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def result(self, line: str) -> None:
        self.results.append(line)

    def note(self, line: str) -> None:
        self.notes.append(line)

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        self.steps.append(step)

    def progress_done(self, *, is_result: bool = True) -> None:
        pass

    def piece(self, text: str) -> None:
        raise AssertionError("training shows whole lines")


class Place:
    """A folder with a text and a tokenizer, where runs are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "text.txt"
        self.data.write_text(TEXT, encoding="utf-8")
        self.tokenizer = folder / "tokenizer"
        save_tokenizer(tokenizer(), self.tokenizer)
        self.listener = Listener()

    def train(self, backend: Backend, out: str, **how: Any) -> dict[str, Any]:
        """Train: flags by their names, and the rest as by `--set`. `dropout=None` says nothing of
        it; else it is 0.1."""
        flags = {"data": self.data, "tokenizer": self.tokenizer, "num_samples": 0, "batch_size": 2}
        dropout = how.pop("dropout", 0.1)
        dropouts = {} if dropout is None else {"dropout": dropout}
        return self._train(backend, out, flags, {**SMALL, **dropouts}, how)

    def resume(self, backend: Backend, run: Path, out: str | None = None, **how: Any) -> Any:
        return self._train(backend, out, {"resume": run}, {}, how)

    def fine_tune(self, backend: Backend, weights: Path, out: str, **how: Any) -> Any:
        flags = {"data": self.data, "weights": weights, "num_samples": 0, "batch_size": 2}
        return self._train(backend, out, flags, {}, how)

    def _train(
        self,
        backend: Backend,
        out: str | None,
        flags: dict[str, Any],
        overrides: dict[str, Any],
        how: dict[str, Any],
    ) -> dict[str, Any]:
        known = TrainSettings.__dataclass_fields__.keys()
        flags = flags | {name: value for name, value in how.items() if name in known}
        overrides = overrides | {name: v for name, v in how.items() if name not in known}
        settings = TrainSettings(
            **{name: value for name, value in flags.items() if value is not None},
            out=None if out is None else self.folder / out,
            overrides={
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in overrides.items()
            },
        )
        with np.errstate(all="ignore"):
            return training.train(PRESETS["gpt2-tiny"], settings, backend, self.listener)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run)]


def weights(folder: Path, which: str = "model") -> dict[str, Any]:
    """The arrays of a checkpoint, or of a run's newest."""
    stored = open_weights(find_checkpoint(folder) / f"{which}.safetensors")
    return {name: tensor.array for name, tensor in stored.items()}


def kept(run: Path) -> dict[str, Any]:
    """All that a run left behind, but for the time that it took."""
    newest, best = find_checkpoint(run), find_checkpoint(run / "best")
    files = {
        f"{folder.name} {file.name}": file.read_bytes()
        for folder in (newest, best)
        for file in sorted(folder.iterdir())
    }
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in metrics(run)]
    return {**files, "metrics": lines}
