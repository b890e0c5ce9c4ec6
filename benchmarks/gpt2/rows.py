"""Eight texts at once against one: how much longer a step of decoding takes.

Each peer decodes its rows greedily from random prompts; the rate is steps a second, whatever the
number of rows, so that a ratio of 0.5 to the same with one row is twice the time.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import islice

import tfx_peers
from contest import Peer, Round, run
from random_gpt2 import add_size, prompt_ids
from tfx_peers import KERNELS, peer

SPREAD = 0.2


def tfx(backend: str, args: argparse.Namespace, rows: int, quantize: str | None = None) -> Round:
    from tfx.core.generation import GenerationOptions, stream

    model = tfx_peers.model(backend, args.size, SPREAD, quantize)
    ids = prompt_ids(args.size, rows * args.prompt)
    prompts = [ids[i : i + args.prompt] for i in range(0, len(ids), args.prompt)]
    options = GenerationOptions(max_new_tokens=args.tokens + 1)

    def go() -> tuple[float, list[float]]:
        tokens = stream(model, prompts, options)
        for _ in islice(tokens, rows):  # the first of each row, which the prompts are read for
            pass
        start = time.perf_counter()
        for _ in tokens:
            pass
        return args.tokens / (time.perf_counter() - start), []

    return go


def peers(name: str, quantize: str | None, *, kernels: bool) -> dict[str, Peer]:
    return {
        f"{name}, {rows} row{'s' * (rows > 1)}": peer(
            partial(tfx, rows=rows, quantize=quantize), "numpy", kernels=kernels
        )
        for rows in (1, 8)
    }


PEERS = {
    **peers("tfx numpy", None, kernels=False),
    **peers(KERNELS, None, kernels=True),
    **peers(f"{KERNELS} int8", "int8", kernels=True),
    **peers(f"{KERNELS} int4", "int4", kernels=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_size(parser)
    parser.add_argument("--prompt", type=int, default=32, help="its length (default 32)")
    parser.add_argument("--tokens", type=int, default=32, help="new ones a row (default 32)")
    run(parser, PEERS, [name for name in PEERS if name.endswith("1 row")], "steps/s")


if __name__ == "__main__":
    main()
