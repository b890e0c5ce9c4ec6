"""Writes the tables of docs/gpu.md: what a decoded token of each GPT-2 costs on a GPU.

    python docs/make_gpu.py                  # bytes and the roofline, from the configurations
    python -m cudasim docs/make_gpu.py       # launches, too: counted on a simulated device

Everything between the page's marks is written by this program. Without a simulated device the
counted table stays as it is.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfx.models.gpt2.model import Config

PAGE = Path(__file__).with_name("gpu.md")

SIZES = {
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12},
    "gpt2-medium": {"n_layer": 24, "n_embd": 1024, "n_head": 16},
    "gpt2-large": {"n_layer": 36, "n_embd": 1280, "n_head": 20},
    "gpt2-xl": {"n_layer": 48, "n_embd": 1600, "n_head": 25},
}

KEPT = {"float32": 4.0, "float16": 2.0, "int8": 1 + 2 / 64, "int4": 0.5 + 2 / 64}
"""Bytes of a number of a matrix, with a float16 scale for every 64 of whole numbers; what is no
matrix stays float32. The embedding, which is the head, is kept in int8 with int4."""

BANDWIDTH = 1000
"""GB a second: rates are proportional to it."""

POSITIONS = 512
"""Positions in the cache while the token is computed."""


def bytes_per_token(config: Config, kept: str) -> int:
    """What must be read from the device's memory for one token of one text, each number once.

    All weights but the position embedding, of which one row is; the token embedding once, since it
    is the head; and the float32 keys and values of `POSITIONS` positions in every layer.
    """
    total = 2.0 * config.n_layer * POSITIONS * config.n_embd * 4
    for name, shape in config.shapes().items():
        if name == "wpe.weight":
            total += config.n_embd * 4
        elif len(shape) == 2:
            embedding = kept == "int4" and name == "wte.weight"
            total += math.prod(shape) * KEPT["int8" if embedding else kept]
        else:
            total += math.prod(shape) * 4
    return round(total)


def rooflines() -> Iterator[str]:
    """The table of bytes, and of tokens a second at the bandwidth."""
    yield "| model | parameters | " + " | ".join(f"{kept}: MB, tokens/s" for kept in KEPT) + " |"
    yield "|---|---|" + "---|" * len(KEPT)
    for name, sizes in SIZES.items():
        config = Config(**sizes)
        count = sum(map(math.prod, config.shapes().values()))
        cells = []
        for kept in KEPT:
            size = bytes_per_token(config, kept)
            cells.append(f"{size / 1e6:,.0f}, {BANDWIDTH * 1e9 / size:,.0f}")
        yield f"| {name} | {count / 1e6:,.0f} M | {' | '.join(cells)} |"


# ---- counted on a simulated device ---------------------------------------------------------------

CARRIED_OUT = ("launches", "library_calls")
ASKED = ("launches", "device_to_host", "host_to_device", "syncs")


def per_token(n_layer: int, *, graphs: bool) -> dict[str, float]:
    """What the device is asked to do for a token of greedy text, past the first ones; what is in a
    graph is not counted when that is launched."""
    import cudasim
    import numpy as np

    import tfx
    from tfx.core.dtypes import DType
    from tfx.core.generation import GenerationOptions, stream
    from tfx.core.parameters import borrowed
    from tfx.models.gpt2.language_model import LanguageModel

    config = Config(
        n_layer=n_layer, n_embd=64, n_head=4, vocab_size=256, n_positions=128, eos_token_id=None
    )
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.2, s).astype("f4") for name, s in config.shapes().items()}
    backend: Any = tfx.backend("cupy")
    if not graphs:
        backend.replayer = lambda: None
    model: Any = LanguageModel(config, borrowed(weights, backend, DType.float32))
    tokens = stream(model, [[1, 2, 3]], GenerationOptions(max_new_tokens=32))
    seen = [cudasim.counts() for _ in tokens]
    first, last = seen[15], seen[31]
    return {name: (last[name] - first[name]) / 16 for name in last}


def counted() -> Iterator[str]:
    """The table of counts: measured for 2 and for 4 layers, and so known for each."""
    yield (
        "| model | layers | kernels | cuBLAS | kernels outside the graph | copies to the host "
        "| copies from it | waits |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    counts = {layers: _numbers(layers) for layers in (2, 4)}
    for name, sizes in SIZES.items():
        layers = sizes["n_layer"]
        cells = [
            f"{few + (layers - 2) * (more - few) / 2:g}"
            for few, more in zip(counts[2], counts[4], strict=True)
        ]
        yield f"| {name} | {layers} | {' | '.join(cells)} |"


def _numbers(n_layer: int) -> list[float]:
    one_by_one, by_graphs = (per_token(n_layer, graphs=graphs) for graphs in (False, True))
    return [one_by_one[n] for n in CARRIED_OUT] + [by_graphs[n] for n in ASKED]


def between(text: str, mark: str, table: Callable[[], Iterator[str]]) -> str:
    """The page with a table between the marks of that name."""
    found = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end of {mark} -->)", re.DOTALL)
    lines = "\n".join(table())
    return found.sub(lambda _: f"\n{lines}\n\n", text)


def main() -> None:
    text = between(PAGE.read_text(), "bytes", rooflines)
    if "cudasim" in sys.modules:
        text = between(text, "launches", counted)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
