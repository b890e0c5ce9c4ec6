"""Greedy text from one prompt, token by token: tokens a second after the first.

Everybody has the same random GPT-2. Those that keep it in float32 give the same tokens; the others
have quantized it, each in its own way. transformers runs twice, by `generate` and by the shortest
loop that one can write around its model. Two peers are no programs that write text: the shortest
loop that NumPy can be used in, and the rate at which the same bytes pass through `np.dot`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bare_numpy
import tfx_peers
from contest import Peer, Round, run
from random_gpt2 import SIZES, Llama, add_size, prompt_ids, random_weights, transformers_model
from tfx_peers import KERNELS, peer

SPREAD = 0.2


def timed(tokens: Callable[[], Iterator[int]]) -> Round:
    """A round: the rate of all tokens but the first, which the prompt is read for."""

    def go() -> tuple[float, list[float]]:
        ids, times = [], []
        for token in tokens():
            times.append(time.perf_counter())
            ids.append(token)
        return (len(ids) - 1) / (times[-1] - times[0]), list(ids)

    return go


def tfx(backend: str, args: argparse.Namespace, quantize: str | None = None) -> Round:
    from tfx.core.generation import GenerationOptions, stream

    model = tfx_peers.model(backend, args.size, SPREAD, quantize)
    prompt = prompt_ids(args.size, args.prompt)
    options = GenerationOptions(max_new_tokens=args.tokens)

    return timed(lambda: (token.id for token in stream(model, [prompt], options)))


def transformers_generate(args: argparse.Namespace, *, compiled: bool = False) -> Round:
    """Compiled as transformers' own guide has it: over a static cache, replayed as a CUDA graph."""
    import torch
    from transformers.generation.streamers import BaseStreamer

    class Times(BaseStreamer):  # type: ignore[misc]
        """Notes when each token is known; the prompt comes first."""

        def __init__(self) -> None:
            self.seen: list[tuple[float, list[int]]] = []

        def put(self, value: Any) -> None:
            self.seen.append((time.perf_counter(), value.flatten().tolist()))

        def end(self) -> None:
            pass

    model = transformers_model(args.size, SPREAD)
    prompt = torch.tensor([prompt_ids(args.size, args.prompt)])
    how = {"cache_implementation": "static"} if compiled else {}
    if compiled:
        model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)

    def go() -> tuple[float, list[float]]:
        clock = Times()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=args.tokens,
            do_sample=False,
            streamer=clock,
            **how,
        )
        (first, _), *_, (last, _) = tokens = clock.seen[1:]
        return (len(tokens) - 1) / (last - first), [i for _, ids in tokens for i in ids]

    return go


def transformers_loop(args: argparse.Namespace) -> Round:
    import torch
    from transformers import DynamicCache

    model = transformers_model(args.size, SPREAD)
    prompt = torch.tensor([prompt_ids(args.size, args.prompt)])

    def tokens() -> Iterator[int]:
        with torch.inference_mode():
            cache, ids = DynamicCache(config=model.config), prompt
            for _ in range(args.tokens):
                out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids = out.logits[:, -1].argmax(-1, keepdim=True)
                yield int(ids)

    return timed(tokens)


def plain_torch(args: argparse.Namespace) -> Round:
    import torch
    from plain_torch import GPT2

    model = GPT2(**SIZES[args.size])
    model.take(random_weights(args.size, SPREAD))
    prompt = torch.tensor([prompt_ids(args.size, args.prompt)])

    def tokens() -> Iterator[int]:
        with torch.inference_mode():
            cache, ids = model.start(args.prompt + args.tokens), prompt
            for _ in range(args.tokens):
                ids = model.next(ids, cache).argmax(-1, keepdim=True)
                yield int(ids)

    return timed(tokens)


def bare_loop(args: argparse.Namespace) -> Round:
    sizes, weights = SIZES[args.size], random_weights(args.size, SPREAD)
    prompt = prompt_ids(args.size, args.prompt)
    return timed(lambda: bare_numpy.tokens(weights, sizes["n_head"], prompt, args.tokens))


def gemv(args: argparse.Namespace) -> Round:
    """What a token would take if it were one product of a row and all that it must read."""
    weights = random_weights(args.size, SPREAD)
    read = sum(array.nbytes for name, array in weights.items() if name != "wpe.weight")
    sizes, seen = SIZES[args.size], args.prompt + args.tokens // 2  # positions, on average
    read += 2 * sizes["n_layer"] * seen * sizes["n_embd"] * 4
    return bare_numpy.bandwidth(read)


def llama_cpp(kind: str, args: argparse.Namespace) -> Round:
    model = Llama(args.size, SPREAD, args.prompt + args.tokens, kind)
    prompt = prompt_ids(args.size, args.prompt)

    def tokens() -> Iterator[int]:
        model.forget()
        ids = prompt
        for _ in range(args.tokens):
            ids = [model.next(ids)]
            yield ids[0]

    return timed(tokens)


LLAMA = ("llama-cpp-python", "gguf", "numpy")

PEERS = {
    "transformers generate": Peer(transformers_generate, ("transformers", "torch")),
    "transformers forward loop": Peer(transformers_loop, ("transformers", "torch")),
    "plain torch": Peer(plain_torch, ("torch",)),
    "bare NumPy loop": Peer(bare_loop, ("numpy",)),
    "gemv bandwidth": Peer(gemv, ("numpy",), exact=False),
    "llama.cpp F32": Peer(partial(llama_cpp, "F32"), LLAMA),
    "llama.cpp Q8_0": Peer(partial(llama_cpp, "Q8_0"), LLAMA, exact=False),
    "llama.cpp Q4_0": Peer(partial(llama_cpp, "Q4_0"), LLAMA, exact=False),
    "tfx numpy": peer(tfx, "numpy"),
    KERNELS: peer(tfx, "numpy", kernels=True),
    f"{KERNELS} int8": peer(partial(tfx, quantize="int8"), "numpy", kernels=True, exact=False),
    f"{KERNELS} int4": peer(partial(tfx, quantize="int4"), "numpy", kernels=True, exact=False),
    "tfx torch": peer(tfx, "torch"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_size(parser)
    parser.add_argument("--prompt", type=int, default=32, help="its length (default 32)")
    parser.add_argument("--tokens", type=int, default=64, help="new ones (default 64)")
    run(parser, PEERS, list(PEERS)[:2], "tokens/s")


if __name__ == "__main__":
    main()
