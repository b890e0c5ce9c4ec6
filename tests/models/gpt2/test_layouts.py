"""Files of other programs give the model that those programs have.

The oracles are two small models in plain torch, with the names and layouts of nanoGPT and minGPT,
and transformers' model of the same weights.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core import creation
from tfx.core.dtypes import DType
from tfx.core.errors import CheckpointError, WeightsError
from tfx.core.parameters import borrowed
from tfx.core.weights import StoredTensor, write_weights
from tfx.models.gpt2.config import config_json
from tfx.models.gpt2.model import Config, logits
from tfx.models.gpt2.weights import Pretrained, read_pretrained, write_pretrained

CONFIG = Config(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)

Arrays = dict[str, Any]


def drawn(config: Config) -> Arrays:
    """Weights of which no two numbers are the same."""
    numbers = np.random.default_rng(1)
    return {name: numbers.normal(size=shape, scale=0.2) for name, shape in config.shapes().items()}


def stored(folder: Path, tensors: Arrays, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    write_weights(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def quiet(line: str) -> None:
    raise AssertionError(f"nothing to note here, but: {line}")


def read(folder: Path) -> tuple[Pretrained, list[str]]:
    notes: list[str] = []
    return read_pretrained(folder, notes.append), notes


def assert_holds(found: Pretrained, tensors: Arrays) -> None:
    assert list(found.tensors) == list(found.config.shapes())
    assert found.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found.tensors[name].array, array, err_msg=name)


def reading_fault(folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_pretrained(folder, lambda _: None)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{folder} does not fit {folder / 'config.json'}: ")
    return message.split("config.json: ", 1)[1]


# transformers' layout


@pytest.mark.parametrize("prefix", ["", "transformer.", "_orig_mod.transformer."])
def test_keys_with_and_without_a_prefix(tmp_path: Path, prefix: str) -> None:
    tensors = drawn(CONFIG)
    folder = stored(tmp_path, {prefix + k: x for k, x in tensors.items()}, config_json(CONFIG))
    assert_holds(read_pretrained(folder, quiet), tensors)


def test_matrices_are_views_of_the_file(tmp_path: Path) -> None:
    folder = stored(tmp_path, drawn(CONFIG), config_json(CONFIG))
    tensors = read_pretrained(folder, quiet).tensors
    for tensor in tensors.values():
        assert tensor.array.base is not None
        assert not tensor.array.flags.writeable


def test_old_files_hold_masks(tmp_path: Path) -> None:
    tensors = drawn(CONFIG)
    masks: Arrays = {}
    for i in range(2):
        masks[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 8, 8), "uint8"))
        masks[f"transformer.h.{i}.attn.masked_bias"] = np.array(-1e4)
    assert_holds(
        read_pretrained(stored(tmp_path, tensors | masks, config_json(CONFIG)), quiet), tensors
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_storage_is_as_it_was(tmp_path: Path, dtype: str) -> None:
    tensors = {name: x.astype(dtype) for name, x in drawn(CONFIG).items()}
    found = read_pretrained(stored(tmp_path, tensors, config_json(CONFIG)), quiet)
    assert_holds(found, tensors)
    assert {tensor.dtype for tensor in found.tensors.values()} == {dtype}


def test_bfloat16(tmp_path: Path) -> None:
    words = {name: (x * 1e4).astype("int16").view("uint16") for name, x in drawn(CONFIG).items()}
    tensors = {name: StoredTensor(DType.bfloat16, x) for name, x in words.items()}
    found = read_pretrained(stored(tmp_path, tensors, config_json(CONFIG)), quiet)
    assert_holds(found, words)
    assert {tensor.dtype for tensor in found.tensors.values()} == {DType.bfloat16}


# The head

UNTIED = Config(**{**vars(CONFIG), "tie_word_embeddings": False})


def test_a_tied_head_may_be_there_under_both_names_or_either(tmp_path: Path) -> None:
    tensors = drawn(CONFIG)
    both = tensors | {"lm_head.weight": tensors["wte.weight"].copy()}
    assert_holds(read_pretrained(stored(tmp_path / "2", both, config_json(CONFIG)), quiet), tensors)
    del both["wte.weight"]  # what safetensors' save_model leaves of two names for one tensor
    assert_holds(read_pretrained(stored(tmp_path / "1", both, config_json(CONFIG)), quiet), tensors)


def test_a_head_that_differs_is_used_and_told(tmp_path: Path) -> None:
    tensors = drawn(UNTIED)
    found, notes = read(stored(tmp_path, tensors, config_json(CONFIG)))
    assert not found.config.tie_word_embeddings
    assert_holds(found, tensors)
    (note,) = notes
    assert "lm_head.weight differs from wte.weight, so it is used" in note


def test_the_head_is_as_transformers_takes_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tied, untied = drawn(CONFIG), drawn(UNTIED)
    same = tied | {"lm_head.weight": tied["wte.weight"].copy()}
    alone = {name: x for name, x in same.items() if name != "wte.weight"}
    for number, tensors in enumerate([tied, same, alone, untied]):
        folder = tmp_path / str(number)
        named = {k if k == "lm_head.weight" else f"transformer.{k}": x for k, x in tensors.items()}
        stored(folder, named, config_json(CONFIG))
        write_weights(folder / "model.safetensors", named, {"format": "pt"})
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder)
        ours, _ = read(folder)
        head = ours.tensors.get("lm_head.weight", ours.tensors["wte.weight"])
        np.testing.assert_array_equal(head.array, theirs.lm_head.weight.detach().numpy())


def test_an_untied_head_must_be_there(tmp_path: Path) -> None:
    folder = stored(tmp_path, drawn(CONFIG), config_json(UNTIED))
    assert reading_fault(folder) == "missing: lm_head.weight"


# Query, key and value apart


def apart(tensors: Arrays, config: Config, turned: bool = False) -> Arrays:
    """With `w_q`, `w_k` and `w_v`, and the matrices transposed if asked for."""
    found: Arrays = {}
    for name, array in tensors.items():
        parts = {name: array}
        if "c_attn" in name:
            thirds = np.split(array, 3, axis=-1)
            parts = {
                name.replace("c_attn", f"w_{k}"): part
                for k, part in zip("qkv", thirds, strict=True)
            }
        matrix = name.startswith("h.") and array.ndim == 2
        found |= {k: x.T if turned and matrix else x for k, x in parts.items()}
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_query_key_and_value_are_put_side_by_side(tmp_path: Path, turned: bool) -> None:
    tensors = drawn(CONFIG)
    folder = stored(tmp_path, apart(tensors, CONFIG, turned), config_json(CONFIG))
    assert_holds(read_pretrained(folder, quiet), tensors)


def test_square_matrices_alone_do_not_tell_which_way_round_they_are(tmp_path: Path) -> None:
    square = Config(**{**vars(CONFIG), "n_inner": 12})
    folder = stored(tmp_path / "joined", drawn(square), config_json(square))
    assert_holds(read_pretrained(folder, quiet), drawn(square))
    folder = stored(tmp_path / "apart", apart(drawn(square), square), config_json(square))
    assert "every matrix is square" in reading_fault(folder)


def test_parts_that_do_not_go_together(tmp_path: Path) -> None:
    parts = apart(drawn(CONFIG), CONFIG)
    del parts["h.1.attn.w_k.weight"]
    parts["h.0.attn.w_q.bias"] = np.zeros(36)
    parts["h.0.attn.w_v.weight"] = parts["h.0.attn.w_v.weight"].astype("float32")
    fault = reading_fault(stored(tmp_path, parts, config_json(CONFIG)))
    assert "missing: h.1.attn.c_attn.weight; " in fault
    assert "unexpected: 'h.1.attn.w_q.weight', 'h.1.attn.w_v.weight'; " in fault
    assert "'h.0.attn.w_q.bias' is [36], expected [12]" in fault
    assert "the parts of h.0.attn.c_attn.weight are float32 and float64, expected one" in fault


# What does not fit


def test_all_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    tensors = drawn(CONFIG)
    del tensors["wpe.weight"], tensors["h.1.ln_2.bias"]
    tensors["score.weight\n"] = np.zeros(3)
    tensors["h.2.ln_1.bias"] = np.zeros(12)
    tensors["wte.weight"] = np.zeros((12, 11))
    tensors["h.0.mlp.c_fc.bias"] = np.zeros(48, "int32")
    assert reading_fault(stored(tmp_path, tensors, config_json(CONFIG))) == (
        "missing: wpe.weight, h.1.ln_2.bias; "
        r"unexpected: 'h.2.ln_1.bias', 'score.weight\n'; "
        "wrong: 'wte.weight' is [12, 11], expected [11, 12], "
        "'h.0.mlp.c_fc.bias' is int32, expected floats"
    )


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    deep = Config(**{**vars(CONFIG), "n_layer": 4096})
    fault = reading_fault(stored(tmp_path, {"x" * 5000: np.zeros(3)}, config_json(deep)))
    assert fault.startswith("missing: wte.weight, wpe.weight, h.0.attn.c_attn.weight, ")
    assert f" and {4 + 12 * 4096 - 5} more; unexpected: 'xxx" in fault
    assert len(fault) < 500


def test_one_matrix_the_other_way_round_is_a_fault(tmp_path: Path) -> None:
    tensors = drawn(CONFIG)
    tensors["h.1.mlp.c_fc.weight"] = tensors["h.1.mlp.c_fc.weight"].T
    fault = reading_fault(stored(tmp_path, tensors, config_json(CONFIG)))
    assert fault == "wrong: 'h.1.mlp.c_fc.weight' is [48, 12], expected [12, 48]"


def test_one_tensor_under_two_names(tmp_path: Path) -> None:
    tensors = drawn(CONFIG)
    tensors["transformer.wpe.weight"] = tensors["wpe.weight"]
    fault = reading_fault(stored(tmp_path, tensors, config_json(CONFIG)))
    assert "'wpe.weight'" in fault
    assert "'transformer.wpe.weight'" in fault
    assert "are the same tensor" in fault


# nanoGPT and minGPT

NANO = {
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 12,
    "block_size": 8,
    "bias": False,
    "vocab_size": 11,
    "dropout": 0.25,
}
MINI = {
    "model_type": "gpt-nano",
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 12,
    "vocab_size": 11,
    "block_size": 8,
    "embd_pdrop": 0.1,
    "resid_pdrop": 0.2,
    "attn_pdrop": 0.3,
}


def linear_model(bias: bool, tied: bool, approximate: str) -> Any:
    """A GPT of `torch.nn.Linear`s, its parts called as in nanoGPT and minGPT."""
    torch = pytest.importorskip("torch")
    from torch import nn

    torch.manual_seed(3)
    c, heads, length, vocab = 12, 3, 8, 11

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(c))
            self.bias = nn.Parameter(torch.zeros(c)) if bias else None

        def forward(self, x: Any) -> Any:
            return nn.functional.layer_norm(x, (c,), self.weight, self.bias, 1e-5)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = nn.Linear(c, 3 * c, bias=bias)
            self.c_proj = nn.Linear(c, c, bias=bias)
            self.register_buffer("bias", torch.tril(torch.ones(1, 1, length, length)))

        def forward(self, x: Any) -> Any:
            shape = (*x.shape[:2], heads, c // heads)
            q, k, v = (part.view(shape).transpose(1, 2) for part in self.c_attn(x).split(c, 2))
            scores = q @ k.transpose(-2, -1) * (c // heads) ** -0.5
            seen = self.bias[:, :, : x.shape[1], : x.shape[1]] == 0
            y = scores.masked_fill(seen, -torch.inf).softmax(-1) @ v
            return self.c_proj(y.transpose(1, 2).reshape(x.shape))

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc = nn.Linear(c, 4 * c, bias=bias)
            self.c_proj = nn.Linear(4 * c, c, bias=bias)

        def forward(self, x: Any) -> Any:
            return self.c_proj(nn.functional.gelu(self.c_fc(x), approximate=approximate))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn, self.ln_2, self.mlp = Norm(), Attention(), Norm(), MLP()

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.ModuleDict(
                {
                    "wte": nn.Embedding(vocab, c),
                    "wpe": nn.Embedding(length, c),
                    "h": nn.ModuleList([Block(), Block()]),
                    "ln_f": Norm(),
                }
            )
            self.lm_head = nn.Linear(c, vocab, bias=False)
            if tied:
                self.lm_head.weight = self.transformer["wte"].weight

        def forward(self, ids: Any) -> Any:
            t = self.transformer
            x = t["wte"](ids) + t["wpe"](torch.arange(ids.shape[1]))
            for part in t["h"]:
                x = part(x)
            return self.lm_head(t["ln_f"](x))

    model = GPT()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("program", ["nanoGPT", "nanoGPT with biases", "minGPT"])
def test_another_programs_model_comes_out_of_transformers(tmp_path: Path, program: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_model

    nano, bias = program != "minGPT", program != "nanoGPT"
    model = linear_model(bias, nano, "none" if nano else "tanh")
    (tmp_path / "model.safetensors").touch()
    save_model(model, str(tmp_path / "model.safetensors"))
    config: dict[str, Any] = NANO | {"bias": bias} if nano else MINI
    (tmp_path / "config.json").write_text(json.dumps(config))

    found, notes = read(tmp_path)
    write_pretrained(tmp_path / "out", found.config, found.tensors)
    theirs, loading = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )

    ids = torch.randint(11, (4, 8))
    with torch.no_grad():
        expected, logits = model(ids), theirs.eval()(ids).logits
    assert not any(loading.values())
    assert expected.abs().max() > 1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert found.config.tie_word_embeddings == nano
    dropouts = [found.config.embd_pdrop, found.config.resid_pdrop, found.config.attn_pdrop]
    assert dropouts == ([0.25] * 3 if nano else [0.1, 0.2, 0.3])
    (note,) = notes
    activation = "gelu" if nano else "gelu_new"
    assert f"read as {program.split()[0]} has it, with activation_function {activation}" in note


def test_the_readme_brings_nanogpts_checkpoint_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    model = linear_model(bias=False, tied=True, approximate="none")
    compiled = {f"_orig_mod.{name}": x for name, x in model.state_dict().items()}
    monkeypatch.chdir(tmp_path)
    torch.save({"model": compiled, "model_args": NANO, "iter_num": 3}, "ckpt.pt")
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^<!-- python: nano -->\n```python\n(.*?)^```$", readme, re.S | re.M)
    exec(code, {})

    found, _ = read(tmp_path / "nano")
    backend = NumpyBackend()
    p = borrowed(found.tensors, backend, DType.float32)
    ids = np.random.default_rng(0).integers(0, 11, (4, 8))
    with torch.no_grad():
        expected = model(torch.tensor(ids)).numpy()
    ours = logits(p, found.config, creation.tensor(ids, backend)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_biases_may_only_lack_where_the_configuration_says_so(tmp_path: Path) -> None:
    tensors = {k: x for k, x in drawn(CONFIG).items() if not k.endswith("bias")}
    assert "missing: h.0.attn.c_attn.bias" in reading_fault(
        stored(tmp_path / "a", tensors, NANO | {"bias": True})
    )
    found, _ = read(stored(tmp_path / "b", tensors, NANO))
    assert not found.tensors["ln_f.bias"].array.any()
    del tensors["wpe.weight"]
    assert reading_fault(stored(tmp_path / "c", tensors, NANO)) == "missing: wpe.weight"


def test_their_configurations_are_checked_too(tmp_path: Path) -> None:
    for config, fault in [
        (NANO | {"bias": 0}, "bias is 0; expected true or false"),
        (NANO | {"block_size": "8"}, "n_positions is '8'; expected a whole number"),
        (NANO | {"dropout": 2}, "resid_pdrop is 2; expected a probability"),
    ]:
        with pytest.raises(CheckpointError, match=fault):
            read(stored(tmp_path, drawn(CONFIG), config))
    found, notes = read(stored(tmp_path, drawn(CONFIG), NANO | {"activation_function": "relu"}))
    assert found.config.activation_function == "relu"
    assert "with activation_function relu" in notes[0]
