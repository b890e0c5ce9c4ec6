"""What tfx sets out to show: contests, and the ratios that are to come of them."""

from __future__ import annotations

from dataclasses import dataclass

NUMPY, KERNELS, TORCH = "tfx numpy", "tfx numpy + numba", "tfx torch"

TRANSFORMERS = ("transformers generate", "transformers forward loop")
TRAINERS = ("plain torch, fused AdamW", NUMPY, KERNELS, TORCH)
"""Not all there are: each keeps some gigabytes while the others work."""

READERS = ("transformers generate", "transformers forward")


@dataclass(frozen=True)
class Contest:
    """A program that times peers side by side, and writes what it found by `--json`.

    Attributes:
        name: for `run_all.py --only`.
        program: in this folder.
        arguments: besides those that are passed on.
        takes: which options of `run_all.py` are passed on.
        rounds: how its number of rounds is called.
    """

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    rounds: str | None = "--rounds"


@dataclass(frozen=True)
class Target:
    """A ratio of two peers in one contest, and what it should be.

    Attributes:
        work: the row of the table.
        contest: by name.
        ours: a peer.
        theirs: another one, the faster of several, or nobody: then the number itself is judged.
        at_least, at_most: the target; where there is neither, the ratio is shown and not judged.
        measure: what is divided: "rate", "time" (its inverse), or another list of the JSON.
        unit: of a number that is judged by itself.
        scale: from the JSON's unit to that.
    """

    work: str
    contest: str
    ours: str
    theirs: str | tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    measure: str = "rate"
    unit: str = ""
    scale: float = 1.0


CONTESTS = (
    Contest("microgpt", "microgpt/run.py", takes=("jax_python", "port"), rounds="--repeats"),
    Contest("decode", "gpt2/decode.py", takes=("python", "size")),
    Contest("quality", "gpt2/quality.py", takes=("data",), rounds=None),
    Contest("rows", "gpt2/rows.py", takes=("size",)),
    Contest("lookup", "gpt2/lookup.py"),
    Contest("prefill", "gpt2/prefill.py", takes=("python", "size")),
    Contest("training", "gpt2/training.py", ("--only", *TRAINERS), takes=("size",)),
    Contest("tiny", "gpt2/decode.py", ("--size", "tiny"), takes=("python",)),
    Contest("opening", "gpt2/opening.py", takes=("size",)),
    Contest("help", "cli_help.py", rounds="--repeats"),
)

MICROGPT = "microGPT, 1000 steps"
DECODE = "decode 124M"
PREFILL = "prefill 512, float32"
OPENING = "opening 498 MB, before first use"
TRAINING = "training step, 124M, 4 x 256"

TARGETS = (
    Target(f"{MICROGPT}, numpy", "microgpt", NUMPY, "JAX jit", 1.7),
    Target(f"{MICROGPT}, numpy", "microgpt", NUMPY, "hand-written NumPy", 2.5),
    Target(f"{MICROGPT}, numpy", "microgpt", NUMPY, ("torch eager", "torch eager, 1 thread"), 10),
    Target(f"{MICROGPT}, numpy", "microgpt", NUMPY, "Rust port", 30),
    Target(f"{MICROGPT}, numpy", "microgpt", NUMPY, "C port"),
    Target(f"{MICROGPT}, numba", "microgpt", KERNELS, "JAX jit", 4),
    Target(f"{MICROGPT}, numba", "microgpt", KERNELS, "hand-written NumPy", 7),
    Target(f"{DECODE}, float32, numpy", "decode", NUMPY, TRANSFORMERS, 2.2),
    Target(f"{DECODE}, float32, numpy", "decode", NUMPY, "llama.cpp F32", 1.0),
    Target(f"{DECODE}, float32, numpy", "decode", NUMPY, "gemv bandwidth", 0.85),
    Target(f"{DECODE}, float32, numpy", "decode", NUMPY, "bare NumPy loop"),
    Target(f"{DECODE}, float32, numba", "decode", KERNELS, "gemv bandwidth"),
    Target(f"{DECODE}, int8, numba", "decode", f"{KERNELS} int8", TRANSFORMERS, 9),
    Target(f"{DECODE}, int8, numba", "decode", f"{KERNELS} int8", "llama.cpp Q8_0", 1.4),
    Target(f"{DECODE}, int4, numba", "decode", f"{KERNELS} int4", "llama.cpp Q4_0", 1.3),
    Target("perplexity, gpt2-tiny", "quality", "int8", "float32", None, 1.005, "perplexity"),
    Target("perplexity, gpt2-tiny", "quality", "int4", "float32", None, 1.05, "perplexity"),
    Target(
        "8 rows against 1, float32, numba",
        "rows",
        f"{KERNELS}, 8 rows",
        f"{KERNELS}, 1 row",
        None,
        2.0,
        "time",
    ),
    Target(
        "8 rows against 1, int8, numba",
        "rows",
        f"{KERNELS} int8, 8 rows",
        f"{KERNELS} int8, 1 row",
        None,
        2.3,
        "time",
    ),
    Target(
        "8 rows against 1, float32, numpy",
        "rows",
        f"{NUMPY}, 8 rows",
        f"{NUMPY}, 1 row",
        measure="time",
    ),
    Target("prompt lookup, text that repeats", "lookup", f"{KERNELS}, lookup", KERNELS, 1.8),
    Target("prompt lookup, text that repeats", "lookup", f"{NUMPY}, lookup", NUMPY, 1.8),
    Target(f"{PREFILL}, numpy", "prefill", NUMPY, READERS, 1.6),
    Target(f"{PREFILL}, numpy", "prefill", NUMPY, "llama.cpp F32", 1.3),
    Target(f"{PREFILL}, numba", "prefill", KERNELS, READERS, 1.8),
    Target(f"{PREFILL}, numba", "prefill", KERNELS, "llama.cpp F32", 1.5),
    Target(f"{TRAINING}, numba", "training", KERNELS, "plain torch, fused AdamW", 1.8),
    Target(
        f"{TRAINING}, numba: peak memory",
        "training",
        KERNELS,
        "plain torch, fused AdamW",
        None,
        1.2,
        "peak_bytes",
    ),
    Target(f"{TRAINING}, numpy", "training", NUMPY, "plain torch, fused AdamW"),
    Target("decode gpt2-tiny", "tiny", NUMPY, TRANSFORMERS, 8),
    Target("decode gpt2-tiny, numba", "tiny", KERNELS, TRANSFORMERS, 8),
    Target("torch backend, decode 124M", "decode", TORCH, "plain torch", 0.97),
    Target(f"torch backend, {TRAINING}", "training", TORCH, "plain torch, fused AdamW", 0.97),
    Target(OPENING, "opening", NUMPY, (), None, 5, "time", "ms", 1e3),
    Target(OPENING, "opening", NUMPY, (), None, 10, "grown_bytes", "MB", 1e-6),
    Target("tfx --help", "help", "tfx --help", "empty Typer app, plain help", None, 1.3, "time"),
)
