"""What can be chosen about a training, what holds where nothing is, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_training import TEXT, Place, losses, metrics, tokenizer

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.checkpoint import find_checkpoint, load_checkpoint
from tfx.core.errors import TfxError
from tfx.core.recipe import TrainSettings
from tfx.core.schedules import cosine
from tfx.core.tokenizer import ByteLevelBPE
from tfx.core.tokenizer.save import save_tokenizer
from tfx.models.gpt2.model import Config
from tfx.models.gpt2.options import Options, configured
from tfx.models.gpt2.presets import PRESETS
from tfx.models.gpt2.stepping import optimizer_for

NUMPY = NumpyBackend()
CONFIG = Config(n_positions=256)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def chosen(fine_tuning: bool = False, **given: Any) -> Options:
    known = TrainSettings.__dataclass_fields__.keys()
    flags = {name: value for name, value in given.items() if name in known}
    rest = {name: str(value) for name, value in given.items() if name not in known}
    return Options.chosen(TrainSettings(**flags, overrides=rest), CONFIG, fine_tuning)


# ---- defaults ----------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_readme() -> None:
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text("utf-8").split())
    new, tuned = chosen(), chosen(fine_tuning=True)
    rates = [f"{options.lr:.0e}".replace("e-0", "e-") for options in (new, tuned)]
    assert (
        f"{new.steps} steps of {new.batch_size} sequences, at most at a rate of {rates[0]}, or of "
        f"{rates[1]} from weights" in readme
    )


@pytest.mark.parametrize(
    ("given", "derived"),
    [
        ({}, {}),
        ({"fine_tuning": True}, {"lr": 5e-5, "min_lr": 5e-5 / 10}),
        ({"fine_tuning": True, "lr": 0.1}, {"min_lr": 0.1 / 10}),
        ({"lr": 0.1, "min_lr": 0.02}, {}),
        ({"steps": 50}, {"warmup_steps": 5}),
        ({"steps": 5000}, {}),
        ({"steps": 50, "warmup_steps": 50}, {}),
        ({"block_size": 100}, {}),
        ({"beta1": 0.5, "patience": 3, "dtype": "float64"}, {}),
    ],
)
def test_what_holds_where_nothing_is_said(given: Any, derived: dict[str, Any]) -> None:
    documented = {"lr": 6e-4, "min_lr": 6e-4 / 10, "warmup_steps": 100, "block_size": 256}
    documented |= {"weight_decay": 0.1, "grad_clip": 1.0, "beta1": 0.9, "beta2": 0.95}
    said = {name: value for name, value in given.items() if name != "fine_tuning"}
    expected = asdict(Options()) | documented | said | derived
    assert asdict(chosen(**given)) == expected


def test_decay_is_of_matrices_alone(place: Place) -> None:
    """At a gradient of zero for all but decay, those shrink, and nothing else does."""
    place.train(NUMPY, "run", steps=1)
    from tfx.models.gpt2.training_run import Run

    saved = load_checkpoint(place.folder / "run")
    run = Run.resume(saved, TrainSettings(steps=2), NUMPY, lambda line: None)
    optimizer = optimizer_for(run.options, run.state.params, cosine(2, 0.1))
    decay = run.state.params.replaced(optimizer._decay)  # type: ignore[arg-type]
    for name, array in decay.items():
        expected = 0.1 if name.endswith("weight") and ".ln_" not in f".{name}" else 0.0
        assert (array.numpy() == np.float32(expected)).all(), name


# ---- --set -------------------------------------------------------------------------------------


def test_every_value_of_the_configuration_can_be_set() -> None:
    changed = {
        "vocab_size": 300,
        "n_positions": 64,
        "n_embd": 96,
        "n_layer": 5,
        "n_head": 6,
        "n_inner": 100,
        "activation_function": "silu",
        "resid_pdrop": 0.2,
        "embd_pdrop": 0.3,
        "attn_pdrop": 0.0,
        "layer_norm_epsilon": 1e-3,
        "initializer_range": 0.5,
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 7,
        "pruned_heads": {"1": [0, 2]},
    }
    assert changed.keys() == asdict(Config()).keys()
    assert all(changed[name] != value for name, value in asdict(Config()).items())
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in changed.items()}
    changed["pruned_heads"] = ((1, (0, 2)),)
    assert configured(Config(), texts) == Config(**changed)  # type: ignore[arg-type]
    dropped = configured(Config(), {"dropout": "0.4"})
    assert dropped == Config(resid_pdrop=0.4, embd_pdrop=0.4, attn_pdrop=0.4)
    assert configured(Config(), {"attn_pdrop": "0", "dropout": "0.4"}).attn_pdrop == 0.4
    assert configured(Config(), {"dropout": "0.4", "attn_pdrop": "0"}).attn_pdrop == 0


def test_the_vocabulary_is_the_tokenizers(place: Place) -> None:
    place.train(NUMPY, "run", steps=1)
    config = load_checkpoint(place.folder / "run").config
    size = tokenizer().vocab_size
    assert (config["vocab_size"], config["eos_token_id"], config["bos_token_id"]) == (
        *(size, size - 1, size - 1),
    )
    bare = place.folder / "bare"
    known = tokenizer()
    vocab = {token: number for token, number in known.vocab.items() if number < size - 1}
    save_tokenizer(ByteLevelBPE(vocab, known.merges), bare)
    place.train(NUMPY, "other", steps=1, tokenizer=bare)
    config = load_checkpoint(place.folder / "other").config
    assert (config["vocab_size"], config["eos_token_id"]) == (size - 1, None)


def test_attention_of_a_new_model_has_no_dropout(place: Place) -> None:
    preset = PRESETS["gpt2-tiny"].config
    assert (preset.resid_pdrop, preset.embd_pdrop, preset.attn_pdrop) == (0.1, 0.1, 0.1)

    def dropouts(run: str) -> list[float]:
        config = load_checkpoint(place.folder / run).config
        return [config[name] for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")]

    once = {"steps": 1, "eval_every": 0}
    place.train(NUMPY, "new", **once, dropout=None)
    assert dropouts("new") == [0.1, 0.1, 0.0]
    place.train(NUMPY, "all", **once, dropout=0.1)
    assert dropouts("all") == [0.1, 0.1, 0.1]
    place.train(NUMPY, "one", **once, dropout=None, attn_pdrop=0.2)
    assert dropouts("one") == [0.1, 0.1, 0.2]
    place.fine_tune(NUMPY, place.folder / "one", "tuned", **once)
    assert dropouts("tuned") == [0.1, 0.1, 0.2]
    assert losses(place.folder / "new") != losses(place.folder / "all")


# ---- refusals ----------------------------------------------------------------------------------

ODD = Path("odd.npy")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"data": None}, "gpt2-tiny has nothing to learn from; give --data: a text file"),
        ({"data": Path("missing.txt")}, r"missing\.txt.*No such file"),
        ({"data": ODD, "tokenizer": None, "vocab_size": 50}, "has the token id 900; .* 0 to 49"),
        ({"data": ODD}, "has the token id 900; the model knows 0 to 260"),
        ({"tokenizer": Path("missing")}, r"missing"),
        ({"weights": Path("missing")}, "missing does not exist"),
        ({"n_positions": 5000}, r"has \d+ tokens to train on, and a sequence takes 5001"),
        ({"block_size": 13}, "block_size=13: expected 1 to 12, the positions of the model"),
        ({"block_size": 0}, "block_size=0: expected 1 to 12"),
        ({"n_embd": 15}, "--set: n_embd 15 is not a multiple of n_head 2"),
        ({"n_embd": 0}, "--set: n_embd is 0; expected a whole number from 1"),
        ({"n_embd": "many"}, "--set: n_embd is 'many'; expected a whole number"),
        ({"dropout": 1}, "--set: .*_pdrop is 1.0; expected a probability"),
        ({"dropout": "half"}, "--set dropout=half: expected a number"),
        ({"vocab_size": 100}, "the tokenizer has 261 tokens and the model 100"),
        ({"activation_function": "tanh"}, "activation_function is 'tanh'; expected gelu_new or"),
        ({"n_layers": 3}, "--set n_layers: gpt2 has no such setting. Did you mean 'n_layer'"),
        ({"xyzzy": 3}, "--set xyzzy: gpt2 has no such setting. There are dropout, block_size"),
        ({"val_fraction": 1}, "val_fraction=1.0: expected a share"),
        ({"val_fraction": 0.0002}, "has 1 token to validate on; give more data or a larger share"),
        ({"patience": -1}, "patience at least 0"),
        ({"patience": 2.5}, "--set patience=2.5: expected a whole number"),
        ({"patience": 1, "eval_every": 0}, "patience: needs --eval-every and validation data"),
        ({"patience": 1, "val_fraction": 0}, "patience: needs --eval-every and validation data"),
        ({"bos_token_id": 5000}, "--set bos_token_id=5000: the model knows the tokens 0 to 260"),
        ({"eos_token_id": 261}, r"--set eos_token_id=261: .* 0 to 260 \(vocab_size\)"),
        ({"eos_token_id": 7}, r"a text ends with token 260, with the model 7 \(eos_token_id\)"),
        ({"eos_token_id": 9, "vocab_size": 9, "tokenizer": None, "data": ODD}, "tokens 0 to 8"),
        ({"beta1": 1}, "AdamW needs 0 <= beta1 < 1"),
        ({"eps": 0}, "AdamW needs .* eps > 0"),
        ({"beta2": "nan"}, "--set beta2=nan: expected a number"),
        ({"min_lr": 1.0}, "--min-lr 1.0 is above --lr 0.0006"),
        ({"dtype": "float16"}, "--dtype float16: gradients are too small for it; choose float32"),
        ({"dtype": "int32"}, "gpt2 cannot compute in int32 on numpy"),
        ({"dtype": "bfloat16"}, "cannot compute in bfloat16 on numpy; .* float32, float64"),
        ({"autograd": "native"}, "--autograd native: backend numpy has no autograd of its own"),
    ],
)
def test_what_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(place.folder)
    np.save(ODD, np.array([3, 900, *range(51)]))
    with pytest.raises(TfxError, match=words) as caught:
        place.train(NUMPY, "run", steps=1, **how)
    assert str(caught.value).isprintable()
    assert place.listener.results == []
    assert not (place.folder / "run").exists()  # nothing half done


def test_a_flag_is_no_setting(place: Place) -> None:
    settings = TrainSettings(data=place.data, overrides={"batch_size": "3"})
    with pytest.raises(TfxError, match=r"no such setting. It is a flag: --batch-size\."):
        Options.chosen(settings, CONFIG, False)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"n_layer": 3}, "--set n_layer=3: the weights in .* are of a model with 2; leave it out"),
        ({"layer_norm_epsilon": 0.1}, "--set layer_norm_epsilon=0.1: .* with 1e-05"),
        ({"vocab_size": 500}, "--set vocab_size=500: .* with 261"),
        ({"block_size": 99}, "block_size=99: expected 1 to 12"),
    ],
)
def test_weights_have_their_sizes(place: Place, how: dict[str, Any], words: str) -> None:
    place.train(NUMPY, "base", steps=1, eval_every=0)
    with pytest.raises(TfxError, match=words):
        place.fine_tune(NUMPY, place.folder / "base", "tuned", steps=1, **how)
    fitting = {"n_layer": 2, "dropout": 0.3, "attn_pdrop": 0, "vocab_size": 261}
    place.fine_tune(NUMPY, place.folder / "base", "tuned", steps=1, **fitting)
    config = load_checkpoint(place.folder / "tuned").config
    assert (config["resid_pdrop"], config["attn_pdrop"]) == (0.3, 0)


def test_weights_without_a_tokenizer(place: Place) -> None:
    np.save(place.folder / "ids.npy", tokenizer().encode(TEXT))
    tokens = {"data": place.folder / "ids.npy", "tokenizer": None}
    place.train(NUMPY, "base", steps=1, vocab_size=261, **tokens, eval_every=0)
    with pytest.raises(TfxError, match="has no tokenizer; give one with --tokenizer"):
        place.fine_tune(NUMPY, place.folder / "base", "tuned", steps=1)
    given = {"tokenizer": place.tokenizer, "steps": 1}
    result = place.fine_tune(NUMPY, place.folder / "base", "tuned", **given)
    assert result["val_loss_per_char"] > 0
    result = place.fine_tune(NUMPY, place.folder / "base", "ids", steps=1, data=tokens["data"])
    assert result["val_loss_per_char"] is None


def test_weights_with_another_tokenizer(place: Place) -> None:
    """As large, with the same tokens but for the order of two, or of two merges."""
    place.train(NUMPY, "base", steps=1, eval_every=0)
    known = tokenizer()
    swapped = {"Ġt": known.vocab["sa"], "sa": known.vocab["Ġt"]}
    turned = [known.merges[1], known.merges[0], *known.merges[2:]]
    end = {"special_tokens": ["<|endoftext|>"], "eos_token": "<|endoftext|>"}
    others = {
        "vocab": ByteLevelBPE({**known.vocab, **swapped}, known.merges, **end),
        "merges": ByteLevelBPE(known.vocab, turned, **end),
    }
    for name, other in others.items():
        save_tokenizer(other, place.folder / name)
        with pytest.raises(TfxError, match=f"--tokenizer .*{name} has other tokens than the one"):
            place.fine_tune(
                NUMPY, place.folder / "base", "tuned", steps=1, tokenizer=place.folder / name
            )
    given = {"tokenizer": place.tokenizer, "steps": 1, "eval_every": 0}
    place.fine_tune(NUMPY, place.folder / "base", "tuned", **given)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"lr": 0.5}, "--lr 0.5: the run that --resume continues keeps its 0.0006"),
        ({"seed": 1}, "--seed 1: the run that --resume continues keeps its 42"),
        ({"batch_size": 5}, "--batch-size 5: .* keeps its 2"),
        ({"dtype": "float64"}, "--dtype float64: .* keeps its float32"),
        ({"block_size": 4}, "--set block_size 4: .* keeps its 12"),
        ({"val_fraction": 0.5}, "--set val_fraction 0.5: .* keeps its 0.1"),
        ({"dropout": 0.5}, "--set .*_pdrop 0.5: .* keeps its 0.1"),
        ({"n_layer": 5}, "--set n_layer 5: .* keeps its 2"),
        ({"steps": 1}, "--steps 1: .*checkpoint-2 has taken 2 already"),
        ({"weights": Path("x")}, "--weights: the run that --resume continues has its own"),
        ({"tokenizer": Path("x")}, "--tokenizer: the run that --resume continues has its own"),
        ({"data": Path("other.txt")}, r"other\.txt is not what .* was trained on"),
    ],
)
def test_what_a_resumed_run_keeps(
    place: Place, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(place.folder)
    Path("other.txt").write_text(TEXT.replace("moon", "mood"))
    place.train(NUMPY, "run", steps=2)
    with pytest.raises(TfxError, match=words) as caught:
        place.resume(NUMPY, place.folder / "run", **how)
    assert str(caught.value).isprintable()
    assert find_checkpoint(place.folder / "run").name == "checkpoint-2"


def test_what_a_resumed_run_may_change(place: Place) -> None:
    place.train(NUMPY, "run", steps=2)
    how = {"steps": 6, "eval_every": 2, "save_every": 1, "num_samples": 1, "patience": 9}
    result = place.resume(NUMPY, place.folder / "run", **how, autograd="core")
    assert len(result["samples"]) == 1
    assert [x["step"] for x in metrics(place.folder / "run") if "val_loss" in x] == [2, 4, 6]
    result = place.resume(NUMPY, place.folder / "run", n_layer=2, num_samples=0)  # as it is
    assert result["final_loss"] == losses(place.folder / "run")[-1]
    assert place.listener.notes[-3].endswith("has taken all 6 steps; --steps adds more")


def test_a_checkpoint_that_does_not_fit(place: Place) -> None:
    from tfx.core.checkpoint import Checkpoint, save_checkpoint

    place.train(NUMPY, "run", steps=2)
    saved = load_checkpoint(place.folder / "run")
    parts = {name: getattr(saved, name) for name in Checkpoint.__dataclass_fields__}

    def refused(words: str, **changes: Any) -> None:
        save_checkpoint(place.folder / "changed", Checkpoint(**parts | changes))
        with pytest.raises(TfxError, match=words):
            place.resume(NUMPY, place.folder / "changed")

    refused("state.json has no 'options'", state={})
    odd = {**saved.state, "options": {**saved.state["options"], "odd": 1}}
    refused("other options than this tfx knows: .*odd", state=odd)
    odd = {**saved.state, "evaluations": {**saved.state["evaluations"], "odd": 1}}
    refused("other evaluations than this tfx knows: .*odd", state=odd)
    refused("its m has other shapes than its weights", optimizer={})
    cut = {name: x.array[:1] if x.shape else x for name, x in saved.optimizer.items()}
    refused("its m has other shapes than its weights", optimizer=cut)
    refused("is of model 'microgpt', not 'gpt2'", model="microgpt")
