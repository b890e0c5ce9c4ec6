"""Reading a prompt up to the first new token: tokens of the prompt a second.

Everybody has the same random GPT-2 in float32 and answers with the same token. transformers runs
twice, by `generate` and by one call of its model that gives the last logits alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import tfx_peers
from contest import Peer, Round, run
from random_gpt2 import SIZES, Llama, add_size, prompt_ids, random_weights, transformers_model
from tfx_peers import KERNELS, peer

SPREAD = 0.2


def timed(count: int, read: Callable[[], int]) -> Round:
    def go() -> tuple[float, list[float]]:
        start = time.perf_counter()
        token = read()
        return count / (time.perf_counter() - start), [token]

    return go


def tfx(backend: str, args: argparse.Namespace) -> Round:
    from tfx.core.generation import GenerationOptions, stream

    model = tfx_peers.model(backend, args.size, SPREAD)
    prompt = prompt_ids(args.size, args.prompt)
    options = GenerationOptions(max_new_tokens=1)
    return timed(args.prompt, lambda: next(stream(model, [prompt], options)).id)


def transformers_generate(args: argparse.Namespace) -> Round:
    import torch

    model = transformers_model(args.size, SPREAD)
    prompt = torch.tensor([prompt_ids(args.size, args.prompt)])
    mask = torch.ones_like(prompt)

    def read() -> int:
        ids = model.generate(prompt, attention_mask=mask, max_new_tokens=1, do_sample=False)
        return int(ids[0, -1])

    return timed(args.prompt, read)


def transformers_forward(args: argparse.Namespace) -> Round:
    import torch

    model = transformers_model(args.size, SPREAD)
    prompt = torch.tensor([prompt_ids(args.size, args.prompt)])

    def read() -> int:
        with torch.inference_mode():
            return int(model(prompt, use_cache=True, logits_to_keep=1).logits.argmax())

    return timed(args.prompt, read)


def plain_torch(args: argparse.Namespace, *, compiled: bool = False) -> Round:
    import torch
    from plain_torch import GPT2

    model = GPT2(**SIZES[args.size])
    model.take(random_weights(args.size, SPREAD))
    prompt = torch.tensor([prompt_ids(args.size, args.prompt)])
    scores = torch.compile(model.next) if compiled else model.next

    def read() -> int:
        with torch.inference_mode():
            return int(scores(prompt, model.start(args.prompt)).argmax())

    return timed(args.prompt, read)


def llama_cpp(args: argparse.Namespace) -> Round:
    model = Llama(args.size, SPREAD, args.prompt)
    prompt = prompt_ids(args.size, args.prompt)

    def read() -> int:
        model.forget()
        return model.next(prompt)

    return timed(args.prompt, read)


PEERS = {
    "transformers generate": Peer(transformers_generate, ("transformers", "torch")),
    "transformers forward": Peer(transformers_forward, ("transformers", "torch")),
    "plain torch, compiled": Peer(partial(plain_torch, compiled=True), ("torch",)),
    "tfx numpy": peer(tfx, "numpy"),
    KERNELS: peer(tfx, "numpy", kernels=True),
    "tfx torch": peer(tfx, "torch"),
    "llama.cpp F32": Peer(llama_cpp, ("llama-cpp-python", "gguf", "numpy")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_size(parser)
    parser.add_argument("--prompt", type=int, default=512, help="its length (default 512)")
    run(parser, PEERS, list(PEERS)[:2], "tokens/s")


if __name__ == "__main__":
    main()
