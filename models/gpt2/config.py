"""`config.json` of a Hugging Face checkpoint: read with care, and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, get_args

from tfx.core.errors import CheckpointError
from tfx.core.nn import Activation
from tfx.core.wording import quoted
from tfx.models.gpt2.model import Config

MODEL_TYPE = "gpt2"


def config_json(config: Config) -> dict[str, Any]:
    """What `config.json` says of a configuration; `config_from` reads it back.

    >>> config_from(config_json(Config(n_layer=3)), "here") == (Config(n_layer=3), [])
    True
    """
    values = asdict(config)
    pruned = values.pop("pruned_heads")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": MODEL_TYPE,
        **{key: list(x) if isinstance(x, tuple) else x for key, x in values.items()},
        "n_ctx": config.n_positions,  # some tools know the length by its older name alone
        # as transformers 4 has it; version 5 would find the shapes wrong
        **(
            {"pruned_heads": {str(layer): list(heads) for layer, heads in pruned}} if pruned else {}
        ),
    }


def config_from(data: Mapping[str, Any], origin: str) -> tuple[Config, list[str]]:
    """The configuration in a parsed `config.json`, and the keys that mean nothing to us.

    Args:
        data: the JSON object; what it lacks has transformers' default.
        origin: what a message calls it, as a rule the path of the file.

    Raises:
        CheckpointError: another model's, a value of the wrong type or out of bounds, or sizes that
            do not go together.
    """
    model_type = data.get("model_type", MODEL_TYPE)
    if model_type != MODEL_TYPE:
        raise CheckpointError(f"{origin} is of model type {_shown(model_type)}, not 'gpt2'")
    if data.get("add_cross_attention"):
        raise CheckpointError(f"{origin}: add_cross_attention: tfx has no encoder to attend to")
    values: dict[str, Any] = {}
    unknown = []
    for key, value in data.items():
        name = _ALIASES.get(key, key)
        if name in _RULES:
            expected, fits = _RULES[name]
            if not fits(value):
                raise CheckpointError(f"{origin}: {key} is {_shown(value)}; expected {expected}")
            if values.setdefault(name, value) != value:
                raise CheckpointError(f"{origin} has two values of {name}, one of them as {key}")
        elif key not in _IGNORED:
            unknown.append(key)
    config = Config(**{name: _typed(name, value) for name, value in values.items()})
    if config.n_embd % config.n_head:
        raise CheckpointError(
            f"{origin}: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}"
        )
    for layer, heads in config.pruned_heads:
        known = layer < config.n_layer and all(head < config.n_head for head in heads)
        if not known or len(heads) == config.n_head:
            raise CheckpointError(
                f"{origin}: pruned_heads: layer {layer} without heads {list(heads)}: expected "
                f"layers below {config.n_layer}, and of {config.n_head} heads some that are left"
            )
    return config, sorted(unknown)


# Other names that transformers takes for the same.
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

# What tells nothing about the language model itself: heads of other kinds, how a program was to
# use the model, and how text was to be generated.
_ELSEWHERE = """
model model_type architectures transformers_version dtype torch_dtype _name_or_path n_ctx
add_cross_attention gradient_checkpointing use_cache attn_implementation _attn_implementation
chunk_size_feed_forward is_decoder is_encoder_decoder keys_to_ignore_at_inference
output_attentions output_hidden_states output_past return_dict torchscript use_bfloat16
summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
cross_attention_hidden_size tie_encoder_decoder tf_legacy_loss n_special predict_special_tokens
_num_labels num_labels id2label label2id problem_type finetuning_task task_specific_params
pad_token_id sep_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
prefix tokenizer_class bad_words_ids begin_suppress_tokens suppress_tokens remove_invalid_values
do_sample temperature top_k top_p typical_p repetition_penalty encoder_no_repeat_ngram_size
no_repeat_ngram_size num_beams num_beam_groups num_return_sequences diversity_penalty
length_penalty early_stopping exponential_decay_length_penalty max_length min_length
output_scores return_dict_in_generate
"""
_IGNORED = frozenset(_ELSEWHERE.split())


class _Rule(NamedTuple):
    """What a message says was expected, and whether a value is that."""

    expected: str
    fits: Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or isinstance(value, float)


def _size(most: int) -> _Rule:
    return _Rule(
        f"a whole number from 1 to {most}", lambda value: _whole(value) and 1 <= value <= most
    )


def _or_null(rule: _Rule) -> _Rule:
    return _Rule(f"{rule.expected}, or null", lambda value: value is None or rule.fits(value))


_PROBABILITY = _Rule(
    "a probability of at least 0 and below 1", lambda value: _number(value) and 0 <= value < 1
)
_SPREAD = _Rule(
    "a number of at least 0 and below 1000", lambda value: _number(value) and 0 <= value < 1000
)
_SWITCH = _Rule("true or false", lambda value: isinstance(value, bool))
_TOKEN = _Rule("a token's id", lambda value: _whole(value) and 0 <= value < 2**31)
_TOKENS = _Rule(
    "a token's id, or a list of such",
    lambda value: all(map(_TOKEN.fits, value if isinstance(value, list | tuple) else [value])),
)

# The bounds are far above any GPT-2, and low enough that no product of sizes overflows.
_RULES = {
    "vocab_size": _size(2**24),
    "n_positions": _size(2**24),
    "n_embd": _size(2**20),
    "n_layer": _size(2**12),
    "n_head": _size(2**20),
    "n_inner": _or_null(_size(2**22)),
    "activation_function": _Rule(
        " or ".join(get_args(Activation)), lambda value: value in get_args(Activation)
    ),
    "resid_pdrop": _PROBABILITY,
    "embd_pdrop": _PROBABILITY,
    "attn_pdrop": _PROBABILITY,
    "layer_norm_epsilon": _SPREAD,
    "initializer_range": _SPREAD,
    "scale_attn_weights": _SWITCH,
    "scale_attn_by_inverse_layer_idx": _SWITCH,
    "reorder_and_upcast_attn": _SWITCH,
    "tie_word_embeddings": _SWITCH,
    "bos_token_id": _or_null(_TOKEN),
    "eos_token_id": _or_null(_TOKENS),
    "pruned_heads": _Rule("lists of heads by layer", lambda value: _are_heads_by_layer(value)),
}


def _are_heads_by_layer(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        str(layer).isdecimal()
        and len(str(layer)) < 6
        and isinstance(heads, list | tuple)
        and all(_whole(head) and head >= 0 for head in heads)
        for layer, heads in value.items()
    )


def _typed(name: str, value: Any) -> Any:
    if name == "pruned_heads":
        found = {int(layer): tuple(sorted(set(heads))) for layer, heads in value.items() if heads}
        return tuple(sorted(found.items()))
    if isinstance(value, list):
        return tuple(value)
    return float(value) if _RULES[name] in (_PROBABILITY, _SPREAD) else value


def _shown(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)[:100]
