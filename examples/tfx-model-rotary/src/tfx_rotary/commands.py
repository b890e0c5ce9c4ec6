"""`tfx rotary-next`: a command that comes with the model.

A command is a function. What it takes becomes arguments and options, its docstring the help; a
`TfxError` ends it with one line and an exit code.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tfx.core.checkpoint import load_checkpoint
from tfx.core.creation import tensor
from tfx.core.errors import UsageError
from tfx.core.nn import softmax
from tfx.core.plugins import PluginHost
from tfx.core.resolve import open_backend
from tfx.core.runs import newest_run
from tfx_rotary.language_model import NAME, LanguageModel


def next_characters(
    text: str, weights: Path | None = None, backend: str = "auto", top: int = 5
) -> None:
    """Show which characters are likeliest after TEXT, and how likely.

    The model is that of WEIGHTS, a run or a checkpoint, or of the latest run.
    """
    if top < 1:
        raise UsageError(f"--top {top} shows nothing; expected at least 1")
    saved = load_checkpoint(weights or newest_run(NAME), NAME)
    opened = open_backend(PluginHost(), backend)
    for line in opened.notes:
        print(line, file=sys.stderr)
    model = LanguageModel.of(saved, opened.backend)
    ids = model.encode(text)[-model.max_positions :]
    if not len(ids):
        raise UsageError("there is no text to go on from; expected at least one character")
    library = model.backend
    scores = model.logits(tensor(ids[None], library, library.index_dtype), model.start(1, len(ids)))
    shares = softmax(scores).numpy()[0]
    for i in np.argsort(-shares, kind="stable")[:top]:
        print(f"{shares[i]:6.1%}  {model.characters[i]!r}")
