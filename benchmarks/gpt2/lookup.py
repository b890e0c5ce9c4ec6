"""Prompt lookup against plain decoding, with trained weights and a text that repeats.

The model is the small GPT-2 that comes with tfx, the prompt two lines of Shakespeare's said three
times. All give the same greedy tokens. What share of the guesses was right is printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any

import tfx_peers
from contest import Round, run
from tfx_peers import KERNELS, peer

LINES = """\
First Citizen:
We are accounted poor citizens, the patricians good.

"""


def tfx(backend: str, args: argparse.Namespace, guess: bool) -> Round:
    from tfx.core import generation

    model = tfx_peers.trained(backend)
    prompt = model.tokenizer.encode(3 * LINES)
    options = generation.GenerationOptions(max_new_tokens=args.tokens)

    def go() -> tuple[float, list[float]]:
        how: dict[str, Any] = {}
        if guess:
            how["speculation"] = speculation = generation.Speculation()
        ids, times = [], []
        for token in generation.stream(model, [prompt], options, **how):
            times.append(time.perf_counter())
            ids.append(token.id)
        if guess:
            share = 100 * (speculation.acceptance_rate or 0.0)
            print(f"{backend}: {share:.0f} % of the guesses were right", file=sys.stderr)
        return (len(ids) - 1) / (times[-1] - times[0]), list(ids)

    return go


def both(name: str, backend: str, *, kernels: bool = False) -> dict[str, Any]:
    return {
        name + more: peer(partial(tfx, guess=bool(more)), backend, kernels=kernels)
        for more in ("", ", lookup")
    }


PEERS = {
    **both("tfx numpy", "numpy"),
    **both(KERNELS, "numpy", kernels=True),
    **both("tfx torch", "torch"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128, help="new ones (default 128)")
    run(parser, PEERS, [name for name in PEERS if "lookup" not in name], "tokens/s")


if __name__ == "__main__":
    main()
