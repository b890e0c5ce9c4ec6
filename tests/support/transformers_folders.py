"""Small random checkpoints that transformers writes, with a tokenizer that knows every byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt2_checkpoints import END, TOKENS, write_tokenizer
from optional import torch

SIZES = {"vocab_size": len(TOKENS), "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 2}
ENDS = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, "initializer_range": 0.4}


def write_transformers(folder: Path, kind: str, **options: Any) -> Path:
    """One with that class of transformers; options are those of its configuration."""
    import transformers

    torch.manual_seed(7)
    config = transformers.GPT2Config(**(SIZES | ENDS | options))
    getattr(transformers, kind)(config).eval().save_pretrained(folder)
    write_tokenizer(folder)
    about = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder
