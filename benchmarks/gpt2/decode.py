"""Greedy text from one prompt, token by token: tokens a second after the first.

Everybody has the same random GPT-2 in float32 and gives the same tokens. transformers runs twice,
by `generate` and by the shortest loop that one can write around its model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from contest import Peer, Round, run
from random_gpt2 import Llama, add_size, prompt_ids, tfx_model, transformers_model

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


def tfx(backend: str, args: argparse.Namespace) -> Round:
    from tfx.core.generation import GenerationOptions, stream

    model = tfx_model(backend, args.size, SPREAD)
    prompt = prompt_ids(args.size, args.prompt)
    options = GenerationOptions(max_new_tokens=args.tokens)

    return timed(lambda: (token.id for token in stream(model, [prompt], options)))


def transformers_generate(args: argparse.Namespace) -> Round:
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

    def go() -> tuple[float, list[float]]:
        clock = Times()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=args.tokens,
            do_sample=False,
            streamer=clock,
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


def llama_cpp(args: argparse.Namespace) -> Round:
    model = Llama(args.size, SPREAD, args.prompt + args.tokens)
    prompt = prompt_ids(args.size, args.prompt)

    def tokens() -> Iterator[int]:
        model.forget()
        ids = prompt
        for _ in range(args.tokens):
            ids = [model.next(ids)]
            yield ids[0]

    return timed(tokens)


PEERS = {
    "transformers generate": Peer(transformers_generate, ("transformers", "torch")),
    "transformers forward loop": Peer(transformers_loop, ("transformers", "torch")),
    "tfx numpy": Peer(partial(tfx, "numpy"), ("tfx-lm", "numpy")),
    "tfx torch": Peer(partial(tfx, "torch"), ("tfx-lm", "torch")),
    "llama.cpp F32": Peer(llama_cpp, ("llama-cpp-python", "gguf", "numpy")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_size(parser)
    parser.add_argument("--prompt", type=int, default=32, help="its length (default 32)")
    parser.add_argument("--tokens", type=int, default=64, help="new ones (default 64)")
    run(parser, PEERS, list(PEERS)[:2], "tokens/s")


if __name__ == "__main__":
    main()
