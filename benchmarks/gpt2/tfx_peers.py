"""The peers that are tfx: NumPy alone, with Numba's kernels, torch; whole or quantized weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import Peer
from random_gpt2 import SIZES, random_weights

ALONE = {"TFX_DISABLE_PLUGINS": "numba"}
"""What leaves tfx without Numba's kernels."""

KERNELS = "tfx numpy + numba"


def model(backend: str, size: str, spread: float, quantize: str | None = None) -> Any:
    """A random GPT-2 that is ready to use."""
    import tfx
    from tfx.core.dtypes import DType
    from tfx.core.parameters import borrowed
    from tfx.core.weights import StoredTensor
    from tfx.models.gpt2.language_model import LanguageModel
    from tfx.models.gpt2.model import Config
    from tfx.models.gpt2.weights import write_pretrained

    weights, config = random_weights(size, spread), Config(**SIZES[size], eos_token_id=None)
    if quantize is None:
        return LanguageModel(config, borrowed(weights, tfx.backend(backend), DType.float32))
    stored = {name: StoredTensor(DType.float32, array) for name, array in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_pretrained(path, config, stored, {})
        return loaded(path, backend, quantize)


def trained(backend: str) -> Any:
    """The GPT-2 that comes with tfx, ready to use."""
    from tfx.models.gpt2.presets import BUNDLED

    return loaded(BUNDLED, backend)


def loaded(path: Path, backend: str, quantize: str | None = None) -> Any:
    """As `tfx run --weights PATH --quantize ...` loads it."""
    import tfx
    from tfx.core.storage import Storage
    from tfx.models.gpt2.language_model import LanguageModel

    load: Any = LanguageModel.load
    if quantize is None:
        return load(path, tfx.backend(backend), ignore)
    embeddings = "int8" if quantize == "int4" else quantize
    return load(path, tfx.backend(backend), ignore, storage=Storage(quantize, embeddings))


def ignore(line: str) -> None:
    pass


def peer(
    prepare: Callable[..., Any], backend: str, *, kernels: bool = False, exact: bool = True
) -> Peer:
    """A peer that calls `prepare(backend, args)`, with Numba's kernels or surely without."""

    def ready(args: Any) -> Any:
        return prepare(backend, args)

    needs = ("tfx-lm", backend, *(("numba",) if kernels else ()))
    return Peer(ready, needs, {} if kernels else ALONE, exact)
