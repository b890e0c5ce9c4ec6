"""GPT-2 on a GPU, side by side: tfx on CuPy and torch, transformers, torch eager, torch.compile.

    python benchmarks/gpu.py --work decode      # greedy text from one prompt, tokens a second
    python benchmarks/gpu.py --work prefill     # reading a prompt, tokens a second
    python benchmarks/gpu.py --work training    # whole steps with AdamW, tokens a second

The work, and how it is timed, is that of `gpt2/decode.py`, `prefill.py` and `training.py`, on
whatever device torch and CuPy find: on a machine without a GPU the peers of torch compute on the
CPU, which shows that the program works and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "gpt2"))

import decode
import prefill
import training
from contest import Peer, Round, run
from random_gpt2 import add_size

from tfx.backends.cupy.machine import installed
from tfx.backends.cupy.plugin import probe

UNIT = "tokens/s"
Works = dict[str, Callable[..., Round]]
TFX: Works = {"decode": decode.tfx, "prefill": prefill.tfx, "training": training.tfx}
TRANSFORMERS: Works = {
    "decode": decode.transformers_generate,
    "prefill": prefill.transformers_forward,
    "training": partial(training.transformers_by_torch, True),
}
EAGER: Works = {
    "decode": decode.plain_torch,
    "prefill": prefill.plain_torch,
    "training": partial(training.plain_torch, True),
}
COMPILED: Works = {
    "decode": partial(decode.transformers_generate, compiled=True),
    "prefill": partial(prefill.plain_torch, compiled=True),
    "training": partial(training.plain_torch, True, compiled=True),
}


def on_device(works: Works, args: argparse.Namespace) -> Round:
    """The work of a peer of torch's, with all its tensors on one device."""
    import torch

    torch.set_default_device(torch_device(args))
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    return works[args.work](args)


def tfx_cupy(args: argparse.Namespace) -> Round:
    return TFX[args.work](args.cupy, args)


def tfx_torch(args: argparse.Namespace) -> Round:
    return TFX[args.work](f"torch:{torch_device(args)}", args)


def torch_device(args: argparse.Namespace) -> str:
    import torch

    return args.torch_device or ("cuda:0" if torch.cuda.is_available() else "cpu")


THEIRS = ("torch", "transformers")
CUPY = next(iter(installed()), "cupy")

PEERS = {
    "transformers": Peer(partial(on_device, TRANSFORMERS), THEIRS),
    "torch eager": Peer(partial(on_device, EAGER), ("torch",)),
    "torch.compile": Peer(partial(on_device, COMPILED), THEIRS),
    "tfx torch": Peer(tfx_torch, ("tfx-lm", "torch")),
    "tfx cupy": Peer(tfx_cupy, ("tfx-lm", CUPY)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_size(parser)
    parser.add_argument("--work", choices=TFX, default="decode", help="(default decode)")
    parser.add_argument("--prompt", type=int, default=128, help="its length (default 128)")
    parser.add_argument("--tokens", type=int, default=128, help="new ones (default 128)")
    parser.add_argument("--steps", type=int, default=5, help="of training in a round (default 5)")
    parser.add_argument("--cupy", default="cupy", help="the backend, as cupy:1 (default cupy)")
    parser.add_argument("--torch-device", help="cuda:0, cpu (default: cuda:0 where there is one)")
    parser.add_argument("--tf32", action="store_true", help="let torch round products' arguments")
    known, _ = parser.parse_known_args()
    peers = dict(PEERS)
    gpu = probe()
    if not gpu.ready:
        del peers["tfx cupy"]
        print(f"tfx cupy: left out, {gpu.reason or 'CuPy is not installed'}", file=sys.stderr)
    tolerance = 1e-2 if known.work == "training" else 0
    run(parser, peers, list(PEERS)[:3], UNIT, tolerance)


if __name__ == "__main__":
    main()
