"""Small random GPT-2s on disk, as Hugging Face folders, with a tokenizer or without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfx.core.backend import HostArray
from tfx.core.tokenizer.byte_pairs import ALPHABET
from tfx.core.weights import write_weights
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.model import Config

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("e", "r"), ("Ġ", "a")]
TOKENS = [*ALPHABET, *("".join(pair) for pair in MERGES), "<|endoftext|>"]
END = len(TOKENS) - 1

SIZES = {"vocab_size": len(TOKENS), "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
ENDS = {"bos_token_id": END, "eos_token_id": END}


def random_weights(config: Config, seed: int = 0, spread: float = 0.3) -> dict[str, HostArray]:
    """Tensors so far apart that positions and every part of the cache matter."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in config.shapes().items():
        array = rng.normal(0, spread, shape).astype(np.float32)
        if name.endswith("ln_f.bias"):
            array *= 0.1  # which would say the same everywhere
        is_gain = len(shape) == 1 and name.endswith("weight")
        weights[name] = array + np.float32(is_gain)
    return weights


def write_gpt2(
    folder: Path, *, tokenizer: bool = True, seed: int = 0, spread: float = 0.3, **config: Any
) -> Path:
    """A folder with `config.json`, `model.safetensors` and, if asked for, the tokenizer's files."""
    folder.mkdir(parents=True)
    made = Config(**(SIZES | ENDS | config))
    (folder / "config.json").write_text(json.dumps(config_json(made)))
    write_weights(folder / "model.safetensors", random_weights(made, seed, spread))
    if tokenizer:
        write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """One that knows every byte, a few merges, and `<|endoftext|>`."""
    vocab = {token: i for i, token in enumerate(TOKENS)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in MERGES))
