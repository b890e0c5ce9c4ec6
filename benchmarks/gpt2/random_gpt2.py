"""The same GPT-2 for every peer: sizes, random weights, and how each library takes them.

Importing this costs no array library but NumPy: a program pays for what it uses.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

SIZES = {
    "124M": {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "tiny": {"vocab_size": 768, "n_positions": 256, "n_embd": 128, "n_layer": 4, "n_head": 4},
    "1M": {"vocab_size": 1024, "n_positions": 1024, "n_embd": 128, "n_layer": 4, "n_head": 4},
}


def add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=SIZES, default="124M", help="(default 124M)")


def random_weights(size: str, spread: float) -> dict[str, Any]:
    """float32 arrays by the names of GPT-2's checkpoint. With a spread of 0.2 a model's greedy text
    does not repeat one token, and so shows what goes wrong."""
    from tfx.models.gpt2.model import Config

    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in Config(**SIZES[size]).shapes().items():
        drawn = rng.standard_normal(shape, np.float32) * np.float32(spread)
        weights[name] = drawn + np.float32(1) if "ln_" in name and "weight" in name else drawn
    return weights


def prompt_ids(size: str, count: int) -> list[int]:
    ids = np.random.default_rng(1).integers(0, SIZES[size]["vocab_size"], count)
    return [int(i) for i in ids]


def transformers_model(size: str, spread: float) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(**SIZES[size], bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = GPT2LMHeadModel(config)
    state = {
        f"transformer.{name}": torch.from_numpy(array)
        for name, array in random_weights(size, spread).items()
    }
    model.load_state_dict(state, strict=False)  # the head is tied
    return model.eval()


def write_gguf(path: str, size: str, spread: float) -> None:
    """The model as llama.cpp reads it: matrices (outputs, inputs), no vocabulary."""
    from gguf import GGUFWriter

    sizes = SIZES[size]
    writer = GGUFWriter(path, "gpt2")
    writer.add_context_length(sizes["n_positions"])
    writer.add_embedding_length(sizes["n_embd"])
    writer.add_block_count(sizes["n_layer"])
    writer.add_head_count(sizes["n_head"])
    writer.add_feed_forward_length(4 * sizes["n_embd"])
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(sizes["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = {
        "wte": "token_embd",
        "wpe": "position_embd",
        "ln_f": "output_norm",
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
    for name, array in random_weights(size, spread).items():
        where, _, kind = name.rpartition(".")
        if where.startswith("h."):
            _, layer, part = where.split(".", 2)
            theirs = f"blk.{layer}.{names[part]}.{kind}"
            array = np.ascontiguousarray(array.T)
        else:
            theirs = f"{names[where]}.{kind}"
        writer.add_tensor(theirs, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    """llama.cpp through its C interface, with as many threads as there are cores.

    Args:
        size: of the model.
        spread: of its weights.
        capacity: how many tokens its cache has room for.
        kind: what the weights are stored as: F32, Q8_0 or Q4_0, as llama.cpp itself quantizes them.
    """

    def __init__(self, size: str, spread: float, capacity: int, kind: str = "F32") -> None:
        import os
        import tempfile

        import llama_cpp

        self._lib = llama_cpp
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silence, None)
        llama_cpp.llama_backend_init()
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.gguf"
            write_gguf(path, size, spread)
            if kind != "F32":
                path = self._quantized(path, kind)
            how = llama_cpp.llama_model_default_params()
            how.use_mmap = False
            self._model = llama_cpp.llama_model_load_from_file(path.encode(), how)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = capacity
        settings.n_threads = settings.n_threads_batch = os.cpu_count() or 1
        settings.type_k = settings.type_v = 0  # float32, as the others keep them
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._vocab_size = SIZES[size]["vocab_size"]

    def _quantized(self, path: str, kind: str) -> str:
        how = self._lib.llama_model_quantize_default_params()
        how.ftype = getattr(self._lib, f"LLAMA_FTYPE_MOSTLY_{kind}")
        smaller = f"{path}.{kind}"
        if self._lib.llama_model_quantize(path.encode(), smaller.encode(), how):
            raise RuntimeError(f"llama.cpp could not quantize to {kind}")
        return smaller

    def forget(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)

    def next(self, ids: list[int]) -> int:
        """Read more ids; the likeliest one after the last."""
        tokens = (self._lib.llama_token * len(ids))(*ids)
        batch = self._lib.llama_batch_get_one(tokens, len(ids))
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        logits = self._lib.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())
