"""A configuration means to tfx what it means to transformers, or is refused by one line."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from tfx.core.errors import CheckpointError
from tfx.models.gpt2 import config as module
from tfx.models.gpt2.config import config_from, config_json
from tfx.models.gpt2.model import Config

OTHER = Config(
    vocab_size=300,
    n_positions=64,
    n_embd=30,
    n_layer=3,
    n_head=5,
    n_inner=70,
    activation_function="relu",
    resid_pdrop=0.0,
    embd_pdrop=0.25,
    attn_pdrop=0.5,
    layer_norm_epsilon=1e-6,
    initializer_range=0.2,
    scale_attn_weights=False,
    scale_attn_by_inverse_layer_idx=True,
    reorder_and_upcast_attn=True,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=(7, 299),
    pruned_heads=((0, (1,)), (2, (0, 4))),
)

# What the config.json of openai-community/gpt2 says.
OPENAI = """{
  "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
  "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
  "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
  "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
  "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
  "summary_use_proj": true,
  "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
  "vocab_size": 50257
}"""


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        config_from(data, "here/config.json")
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("here/config.json")
    assert len(message) < 300
    return message


def test_defaults_and_names_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2Config()
    ours = {name: value for name, value in asdict(Config()).items() if name != "pruned_heads"}
    assert ours == {name: getattr(theirs, name) for name in ours}


@pytest.mark.parametrize("config", [Config(), OTHER])
def test_both_ways_through_transformers(tmp_path: Any, config: Config) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2Config(**config_json(config))
    values = {f.name: getattr(theirs, f.name, {}) for f in fields(Config)}
    assert config_from(values, "there") == (config, [])
    theirs.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert config_from(saved, "here") == (config, [])


def test_transformers_writes_no_key_that_is_strange_to_us() -> None:
    transformers = pytest.importorskip("transformers")
    assert config_from(transformers.GPT2Config().to_dict(), "here") == (Config(), [])


def test_every_field_is_told_from_its_default() -> None:
    defaults, others = asdict(Config()), asdict(OTHER)
    assert not [name for name in defaults if defaults[name] == others[name]]
    assert config_from(json.loads(json.dumps(config_json(OTHER))), "here") == (OTHER, [])


def test_every_field_has_a_rule() -> None:
    assert list(module._RULES) == [f.name for f in fields(Config)]


def test_the_file_of_openai() -> None:
    assert config_from(json.loads(OPENAI), "here") == (Config(), [])


def test_nothing_given_is_the_default() -> None:
    assert config_from({}, "here") == (Config(), [])


def test_strange_keys_come_back_sorted() -> None:
    config, unknown = config_from({"rotary": True, "alibi": 1, "n_layer": 2}, "here")
    assert (config.n_layer, unknown) == (2, ["alibi", "rotary"])


def test_the_other_names_of_the_sizes() -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    config, unknown = config_from(sizes | {"max_position_embeddings": 8, "n_embd": 32}, "here")
    assert (config.n_embd, config.n_head, config.n_layer, config.n_positions) == (32, 4, 2, 8)
    assert unknown == []
    assert "two values of n_embd" in refusal({"hidden_size": 32, "n_embd": 64})


def test_whole_numbers_become_the_floats_they_stand_for() -> None:
    config, _ = config_from({"resid_pdrop": 0, "layer_norm_epsilon": 1}, "here")
    assert isinstance(config.resid_pdrop, float)
    assert isinstance(config.layer_norm_epsilon, float)


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("n_layer", [0, -1, 12.0, True, "12", None, [12], 2**31], "whole number from 1 to 4096"),
        ("vocab_size", [0, None, 2**24 + 1], "a whole number from 1 to 16777216"),
        ("n_positions", [0, 1e3], "a whole number from 1 to"),
        ("n_embd", [0, "768"], "a whole number from 1 to"),
        ("n_head", [0, False], "a whole number from 1 to"),
        ("num_attention_heads", [0], "a whole number from 1 to"),
        ("n_inner", [0, -4, "null"], "a whole number from 1 to 4194304, or null"),
        ("activation_function", ["tanh", "GELU", None, 3, ["relu"]], "gelu_new or gelu or relu or"),
        ("resid_pdrop", [1, -0.1, 1.5, "0.1", None, True], "probability of at least 0 and below 1"),
        ("embd_pdrop", [float("nan")], "a probability"),
        ("attn_pdrop", [float("inf"), {}], "a probability"),
        ("layer_norm_epsilon", [-1e-5, float("nan"), float("inf"), "1e-5", None], "of at least 0"),
        ("initializer_range", [-1, 10**400, None], "a number of at least 0 and below 1000"),
        ("scale_attn_weights", [1, 0, "true", None], "true or false"),
        ("scale_attn_by_inverse_layer_idx", [1], "true or false"),
        ("reorder_and_upcast_attn", ["false"], "true or false"),
        ("tie_word_embeddings", [None], "true or false"),
        ("bos_token_id", [-1, 1.0, "0", True], "a token's id, or null"),
        ("eos_token_id", [2**31, [1, -2], [True], [[1]], "1"], "a token's id, or a list of such"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    key: str, values: list[Any], expected: str
) -> None:
    for value in values:
        message = refusal({key: value})
        assert f"{key} is {repr(value)[:20]}" in message
        assert expected in message


def test_one_token_or_several_end_a_text() -> None:
    found = [config_from({"eos_token_id": given}, "here")[0] for given in ([767], [], 5, None)]
    assert [config.eos_token_id for config in found] == [(767,), (), 5, None]
    assert [config.eos_ids for config in found] == [(767,), (), (5,), ()]
    assert config_json(found[0])["eos_token_id"] == [767]


def test_a_value_cannot_break_the_line() -> None:
    refusal({"n_layer": "a\nb" + "x" * 1000})
    refusal({"n_layer": ["a\nb\u202e" + "x" * 1000]})
    refusal({"model_type": "a\nb" + "x" * 1000})


def test_what_does_not_go_together() -> None:
    assert "n_embd 768 is not a multiple of n_head 7" in refusal({"n_head": 7})


def test_another_model() -> None:
    assert "is of model type 'llama', not 'gpt2'" in refusal({"model_type": "llama"})
    assert "is of model type None, not 'gpt2'" in refusal({"model_type": None})
    assert "add_cross_attention" in refusal({"add_cross_attention": True})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([[0, [1]]], "expected lists of heads by layer"),
        ({"0": 1}, "expected lists of heads by layer"),
        ({"-1": [1]}, "expected lists of heads by layer"),
        ({"0": [1.0]}, "expected lists of heads by layer"),
        ({"0": [-1]}, "expected lists of heads by layer"),
        ({"9" * 5000: [1]}, "expected lists of heads by layer"),
        ({"12": [1]}, "layer 12 without heads [1]: expected layers below 12"),
        ({"3": [12]}, "layer 3 without heads [12]"),
        ({"3": list(range(12))}, "of 12 heads some that are left"),
    ],
)
def test_pruned_heads_that_cannot_be(data: Any, message: str) -> None:
    assert message in refusal({"pruned_heads": data})


def test_pruned_heads_as_others_write_them() -> None:
    found, _ = config_from({"pruned_heads": {"3": [5, 2, 5], "0": [1], "1": []}}, "here")
    assert found.pruned_heads == ((0, (1,)), (3, (2, 5)))
    assert "pruned_heads" not in config_json(Config())


WHOLE = replace(OTHER, pruned_heads=())


@pytest.mark.parametrize("config", [WHOLE, Config(n_layer=2, n_embd=12, n_head=3, vocab_size=9)])
def test_shapes_are_those_of_transformers(config: Config) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config_json(config)))
    named = {name.removeprefix("transformer."): x for name, x in theirs.named_parameters()}
    assert config.shapes() == {name: tuple(x.shape) for name, x in named.items()}
