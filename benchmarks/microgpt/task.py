"""What every program here does: the same documents, first parameters and settings.

Importing this costs no array library, so that each program pays for its own alone.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

N_EMBD, N_HEAD, BLOCK_SIZE = 16, 4, 16
HEAD_SIZE = N_EMBD // N_HEAD
EPSILON = 1e-5
LEARNING_RATE, BETA1, BETA2, ADAM_EPSILON = 0.01, 0.85, 0.99, 1e-8

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "models" / "microgpt" / "names.txt"


class Task:
    """The training run: which documents, how many steps, from which parameters.

    Attributes:
        steps: how many; the learning rate falls to zero over them.
        parameters: by name, as rows of Python floats.
        vocab_size: the characters and, last, the token that begins and ends a document.
    """

    def __init__(self, data: Path, steps: int) -> None:
        stream = random.Random(42)
        self.steps = steps
        self.docs = [line.strip() for line in data.read_text().split("\n") if line.strip()]
        stream.shuffle(self.docs)
        self._ids = {char: i for i, char in enumerate(sorted(set("".join(self.docs))))}
        self.vocab_size = len(self._ids) + 1
        shapes = {
            "wte": (self.vocab_size, N_EMBD),
            "wpe": (BLOCK_SIZE, N_EMBD),
            "lm_head": (self.vocab_size, N_EMBD),
            "attn_wq": (N_EMBD, N_EMBD),
            "attn_wk": (N_EMBD, N_EMBD),
            "attn_wv": (N_EMBD, N_EMBD),
            "attn_wo": (N_EMBD, N_EMBD),
            "mlp_fc1": (4 * N_EMBD, N_EMBD),
            "mlp_fc2": (N_EMBD, 4 * N_EMBD),
        }
        self.parameters = {
            name: [[stream.gauss(0, 0.08) for _ in range(columns)] for _ in range(rows)]
            for name, (rows, columns) in shapes.items()
        }

    def tokens(self, step: int) -> list[int]:
        """Inputs and targets of a step in one list: the inputs are all but the last token."""
        edge = self.vocab_size - 1
        doc = self.docs[step % len(self.docs)]
        return [edge, *(self._ids[char] for char in doc), edge][: BLOCK_SIZE + 1]

    def learning_rate(self, step: int) -> float:
        return LEARNING_RATE * (1 - step / self.steps)


def arguments(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="one document a line")
    parser.add_argument("--steps", type=int, default=1000)
    return parser


def report(name: str, train_s: float, losses: list[float], **more: float | int | str) -> None:
    """The one line that a program prints."""
    found = {"name": name, "train_s": train_s, "final_loss": losses[-1], "steps": len(losses)}
    print(json.dumps({**found, **more}))
