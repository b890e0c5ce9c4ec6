"""A trained GPT of 86,000 numbers that sorts six digits: what it gives, and each step within it.

The golden values are another implementation's, for three texts.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.core import nn
from tfx.core.backend import Backend, HostArray
from tfx.core.creation import tensor
from tfx.core.fused import composed
from tfx.core.generation.generate import GenerationOptions, generate
from tfx.core.tensor import Tensor
from tfx.models.gpt2 import model
from tfx.models.gpt2.language_model import LanguageModel

pytestmark = pytest.mark.usefixtures("calm")


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    found = shared_data / "gpt-nano-sort"
    if not found.is_dir():
        pytest.skip(f"no {found}")
    return found


@pytest.fixture(scope="module")
def sorter(folder: Path, backend: Backend) -> LanguageModel:
    notes: list[str] = []
    loaded = LanguageModel.load(folder, backend, notes.append)
    assert notes == []
    return loaded


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, HostArray]:
    stored = json.loads((folder / "block0-partials.json").read_text())
    del stored["config"]
    return {
        name: np.frombuffer(base64.b64decode(x["data"]), np.float32).reshape(x["shape"])
        for name, x in stored.items()
    }


def test_every_input_is_sorted(sorter: LanguageModel) -> None:
    """Every seventh where a device may be a simulated one."""
    inputs = [list(digits) for digits in product(range(3), repeat=6)]
    assert len(inputs) == 729
    if sorter.backend.name == "cupy":
        inputs = inputs[::7]
    found = generate(sorter, inputs, GenerationOptions(max_new_tokens=6))
    assert [text.token_ids for [text] in found] == [sorted(digits) for digits in inputs]


class Call:
    """One call of an operation: its arguments and its result."""

    def __init__(self, args: tuple[Any, ...], out: Tensor) -> None:
        self.args = args
        self.out = out


def calls_within(
    sorter: LanguageModel, ids: HostArray, patch: pytest.MonkeyPatch
) -> Mapping[str, list[Call]]:
    """What the model's file calls on its way from ids to logits, and attention on its own."""
    calls: dict[str, list[Call]] = defaultdict(list)

    def watch(module: Any, name: str) -> None:
        right = getattr(module, name)

        def watched(*args: Any, **more: Any) -> Tensor:
            out: Tensor = right(*args, **more)
            calls[name].append(Call(args, out))
            return out

        patch.setattr(module, name, watched)

    for name in ("embedding", "layer_norm", "linear", "attention"):
        watch(model, name)
    watch(nn, "softmax")
    sorter.all_logits(tensor(ids, sorter.backend, sorter.backend.index_dtype))
    return calls


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "composed"])
def test_every_step_of_the_first_block(
    kernels: bool,
    sorter: LanguageModel,
    golden: dict[str, HostArray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = golden["idx"].astype(np.int64)
    if kernels:
        calls = calls_within(sorter, ids, monkeypatch)
    else:
        with composed():
            calls = calls_within(sorter, ids, monkeypatch)
    norms, products, [attended, *_] = calls["layer_norm"], calls["linear"], calls["attention"]
    heads = sorter.config.n_head
    found = {
        "tok_emb": calls["embedding"][0].out,
        "pos_emb": calls["embedding"][1].out[None],
        "x": norms[0].args[0],
        "ln1": norms[0].out,
        "qkv": products[0].out,
        **{name: nn.split_heads(attended.args[i], heads) for i, name in enumerate("qkv")},
        "y": attended.out,
        "yProj": nn.linear(*products[1].args[:3]),  # behind it, what came in is added
        "attnResid": norms[1].args[0],
        "ln2": norms[1].out,
        "fc": nn.linear(*products[2].args),
        "gelu": products[2].out,
        "mlp": nn.linear(*products[3].args[:3]),
        "mlpResid": norms[2].args[0],
        "block0": norms[2].args[0],
        "block1": norms[4].args[0],
        "block2": norms[6].args[0],
        "ln_f": norms[6].out,
        "lm_head": products[-1].out,
        "probs": nn.softmax(products[-1].out),
    }
    if not kernels:
        found |= {"att": calls["softmax"][0].args[0], "attSm": calls["softmax"][0].out}
    for name, x in found.items():
        expected = golden[name]
        np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=1e-5, err_msg=name)
    assert kernels or found.keys() | {"idx"} == golden.keys()
