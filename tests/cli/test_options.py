"""Flags: their values are checked at once, and reach the recipe with the right precedence."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from tfx.cli import options
from tfx.cli.prompts import json_lines
from tfx.core.recipe import EvalSettings, RunSettings, TrainSettings


def given(done: Any) -> dict[str, Any]:
    """The settings that reached the recipe of a call with `--json`."""
    assert done.exit_code == 0, done.stderr
    settings: dict[str, Any] = json.loads(done.stdout)["given"]
    return settings


@pytest.mark.parametrize(
    "flag",
    [
        "--steps=-1",
        "--steps=1.5",
        "--batch-size=0",
        "--grad-accum=0",
        "--lr=0",
        "--lr=nan",
        "--lr=inf",
        "--lr=fast",
        "--min-lr=-1",
        "--warmup-steps=-1",
        "--weight-decay=-0.1",
        "--grad-clip=-1",
        "--eval-every=-1",
        "--save-every=-1",
        "--num-samples=-1",
        "--seed=-1",
        "--dtype=flaot32",
        "--autograd=torch",
        "--plot=loss.doc",
        "--config=missing.toml",
    ],
)
def test_train_refuses(invoke: Any, flag: str) -> None:
    refused(invoke("train", "echo", flag), flag)


@pytest.mark.parametrize(
    "flag",
    [
        "--temperature=-0.1",
        "--temperature=nan",
        "--temperature=inf",
        "--top-k=-1",
        "--top-p=0",
        "--top-p=1.1",
        "--min-p=-0.1",
        "--min-p=2",
        "--repetition-penalty=0",
        "--no-repeat-ngram-size=-1",
        "--length-penalty=10.5",
        "--early-stopping=yes",
        "--logprobs=-1",
        "--min-new-tokens=-1",
        "--batch-size=0",
        "--num-beams=0",
        "--num-samples=0",
        "--max-new-tokens=0",
        "--group-size=0",
        "--kv-dtype=half",
    ],
)
def test_run_refuses(invoke: Any, flag: str) -> None:
    refused(invoke("run", "echo", flag), flag)


@pytest.mark.parametrize(
    "flag",
    [
        "--docs=5",
        "--docs=5:",
        "--docs=a:b",
        "--docs=-1:5",
        "--docs=6:5",
        "--docs=5:5",
        "--docs=1:2:3",
        "--stride=0",
        "--batch-size=0",
    ],
)
def test_eval_refuses(invoke: Any, flag: str) -> None:
    refused(invoke("eval", "echo", flag), flag)


def refused(done: Any, flag: str) -> None:
    """A usage error that names the flag, and no work begun."""
    assert (done.exit_code, done.stdout) == (2, "")
    message, _ = done.stderr.splitlines()
    name, _, value = flag.partition("=")
    assert message.startswith("tfx: ")
    assert name in message
    assert value in message


@pytest.mark.parametrize("args", [["train"], ["run"], ["eval"]])
def test_a_model_is_required(invoke: Any, args: list[str]) -> None:
    done = invoke(*args)
    assert done.exit_code == 2
    assert "Missing argument 'MODEL'" in done.stderr


def test_train_passes_every_flag_on(invoke: Any) -> None:
    flags = {
        "data": "names.txt",
        "task": "text-classification",
        "class_weights": "balanced",
        "dtype": "float32",
        "autograd": "native",
        "steps": 0,
        "batch_size": 2,
        "grad_accum": 3,
        "lr": 0.5,
        "min_lr": 0.0,
        "weight_decay": 0.1,
        "grad_clip": 0.0,
        "eval_every": 0,
        "save_every": 10,
        "out": "here",
        "resume": "there",
        "weights": "w",
        "tokenizer": "t",
        "seed": 7,
        "num_samples": 0,
    }
    args = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    args.append("--checkpoint-activations")
    done = invoke("train", "echo", *args, "--set", "n_layer=2", "--json")
    others = {"checkpoint_activations": True, "overrides": {"n_layer": "2"}}
    assert given(done) == flags | others
    assert {f.name for f in fields(TrainSettings)} == {*flags, *others, "warmup_steps"}


def test_the_help_says_what_holds_where_nothing_is_given(invoke: Any) -> None:
    said = " ".join(invoke("run", "--help").stdout.split())
    assert said.count("default: the model's own") == 3
    said = " ".join(invoke("eval", "--help").stdout.split())
    assert "Text to predict; the model reads it whole, or a document a line. With --task" in said
    assert "Tokens from a sliding window to the next; default: as many as one holds." in said


def test_the_end_of_a_run_is_always_saved_says_the_help(invoke: Any) -> None:
    said = " ".join(invoke("train", "--help").stdout.split())
    assert "Steps between checkpoints; 0: only at the end, which always has one." in said


def test_run_passes_every_flag_on(invoke: Any) -> None:
    flags = {
        "task": "multiple-choice",
        "context": "c",
        "weights": "w",
        "dtype": "float64",
        "prompt": "ka",
        "max_new_tokens": 4,
        "min_new_tokens": 0,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        "num_beams": 2,
        "length_penalty": 0.0,
        "early_stopping": "never",
        "num_samples": 5,
        "seed": 0,
        "logprobs": 0,
        "draft": "d",
        "num_draft_tokens": 3,
        "quantize": "int4",
        "quantize_embeddings": "none",
        "group_size": 32,
        "kv_dtype": "float16",
        "theta": 0.0,
    }
    args = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    switches = ("--stop", "a", "--stop", "b", "--window", "--prompt-lookup")
    choices = ("--choice", "x", "--choice", "y")
    done = invoke("run", "echo", *args, *switches, *choices, "--json")
    repeated = {"stop": ["a", "b"], "choices": ["x", "y"]}
    assert given(done) == flags | repeated | {"window": True, "prompt_lookup": True}
    others = {"window", "prompt_lookup", "prompt_ids", "prompts", "batch_size", "records"}
    others |= repeated.keys()
    assert {f.name for f in fields(RunSettings)} == {*flags, *others}


def test_run_passes_other_kinds_of_prompts_on(invoke: Any, tmp_path: Path) -> None:
    assert given(invoke("run", "echo", "--prompt-ids", " 1 22  3", "--json")) == {
        "prompt_ids": [1, 22, 3]
    }
    (tmp_path / "in.jsonl").write_text('{"prompt": "ka"}\n{"prompt_token_ids": [4]}\n')
    done = invoke("run", "echo", "--jsonl", "in.jsonl", "--batch-size", "3")
    assert done.exit_code == 0
    settings = RunSettings(prompts=json_lines(tmp_path / "in.jsonl"))
    assert settings.prompts == ("ka", (4,))


def test_what_is_for_a_task_needs_one(invoke: Any) -> None:
    for flag in ("--context", "--choice"):
        done = invoke("run", "echo", "p", flag, "x")
        assert (done.exit_code, done.stdout) == (2, "")
        assert flag in done.stderr and "add --task" in done.stderr


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False), ("never", "never")])
def test_early_stopping(invoke: Any, word: str, value: object) -> None:
    assert given(invoke("run", "echo", "--early-stopping", word, "--json")) == {
        "early_stopping": value
    }


def test_eval_passes_every_flag_on(invoke: Any) -> None:
    flags = {
        "weights": "w",
        "task": "question-answering",
        "data": "d.txt",
        "dtype": "float32",
        "stride": 8,
        "batch_size": 2,
        "quantize": "int8",
        "quantize_embeddings": "float16",
        "group_size": 16,
        "theta": 0.0,
    }
    args = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    assert given(invoke("eval", "echo", *args, "--json")) == flags
    assert {f.name for f in fields(EvalSettings)} == {*flags, "docs"}


def test_docs_is_half_open(invoke: Any) -> None:
    assert given(invoke("eval", "echo", "--docs", "1000:6000", "--json")) == {"docs": [1000, 6000]}


def test_docs_and_stride_exclude_each_other(invoke: Any) -> None:
    done = invoke("eval", "echo", "--docs", "0:5", "--stride", "4")
    assert done.exit_code == 2
    assert "--docs" in done.stderr
    assert "--stride" in done.stderr


@pytest.mark.parametrize("command", ["train", "run", "eval"])
def test_what_is_not_given_is_left_to_the_recipe(invoke: Any, command: str) -> None:
    assert given(invoke(command, "echo", "--json")) == {}


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        (["--backend", "chip"], "chip:0"),
        (["-b", "chip:1"], "chip:1"),
        (["-b", "chip", "--device", "1"], "chip:1"),
        (["--device", "1"], "chip:1"),
        ([], "chip:0"),
    ],
)
def test_backend_and_device(invoke: Any, spelling: list[str], expected: str) -> None:
    done = invoke("run", "echo", *spelling, "--json")
    assert json.loads(done.stdout)["backend"] == expected


def test_the_environment_stands_in_for_four_flags(invoke: Any) -> None:
    environ = {
        "TFX_BACKEND": "chip",
        "TFX_DEVICE": "1",
        "TFX_DTYPE": "float64",
        "TFX_SEED": "5",
    }
    done = invoke("run", "echo", "--json", env=environ)
    assert given(done) == {"dtype": "float64", "seed": 5}
    assert json.loads(done.stdout)["backend"] == "chip:1"
    assert done.stderr == ""  # the backend was asked for, so no note tells of a choice


def test_a_bad_value_in_the_environment_names_the_variable(invoke: Any) -> None:
    done = invoke("train", "echo", env={"TFX_DTYPE": "flaot32"})
    assert done.exit_code == 2
    assert "TFX_DTYPE" in done.stderr
    assert "'flaot32'" in done.stderr


@pytest.mark.parametrize(
    ("environ", "args", "code", "note"),
    [
        ({"TFX_BACKEND": "chpi:0"}, [], 2, "--backend comes from TFX_BACKEND"),
        ({"TFX_BACKEND": "dead"}, [], 1, "--backend comes from TFX_BACKEND"),
        ({"TFX_DEVICE": "9"}, [], 1, "--device comes from TFX_DEVICE"),
        ({"TFX_DEVICE": "9"}, ["-b", "chip"], 1, "--device comes from TFX_DEVICE"),
        (
            {"TFX_BACKEND": "chip:0", "TFX_DEVICE": "1"},
            [],
            2,
            "--backend comes from TFX_BACKEND; --device comes from TFX_DEVICE",
        ),
        ({"TFX_SEED": "7"}, ["--set", "refuse=seed"], 2, "--seed comes from TFX_SEED"),
        ({"TFX_DTYPE": "int8"}, ["--set", "refuse=dtype"], 2, "--dtype comes from TFX_DTYPE"),
    ],
)
def test_a_refusal_of_what_the_environment_set_names_the_variable(
    invoke: Any, environ: dict[str, str], args: list[str], code: int, note: str
) -> None:
    done = invoke("train", "echo", *args, env=environ)
    assert done.exit_code == code
    assert done.stderr.splitlines()[-1].endswith(f" ({note})")


def test_a_refusal_of_something_else_does_not_speak_of_the_environment(invoke: Any) -> None:
    environ = {"TFX_BACKEND": "chip", "TFX_SEED": "7"}
    said = invoke("train", "echo", "--warmup-steps", "3", env=environ).stderr
    assert "comes from" not in said
    typed = invoke("train", "echo", "--set", "refuse=seed", "--seed", "8", env=environ).stderr
    assert "comes from" not in typed
    environ = {"TFX_SEED": "7"}
    itself = invoke("train", "echo", "--set", "refuse=seed", "--set", "by=TFX_SEED", env=environ)
    assert "--seed 7 of TFX_SEED: echo keeps" in itself.stderr
    assert "comes from" not in itself.stderr


@pytest.mark.parametrize("bad", ["n_layer", "=2", ""])
def test_set_wants_a_key_and_a_value(invoke: Any, bad: str) -> None:
    done = invoke("train", "echo", "--set", bad)
    assert done.exit_code == 2
    assert "--set expects KEY=VALUE" in done.stderr


def test_set_keeps_what_follows_the_first_equals_sign() -> None:
    assert options.pairs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_numbers() -> None:
    assert options.above_0("1e-3") == 1e-3
    assert options.share_but_1("0.75") == 0.75
    with pytest.raises(typer.BadParameter, match="above 0 and below 1, got '1'"):
        options.share_but_1("1")
    with pytest.raises(typer.BadParameter, match="expected a number above 0, got '-3'"):
        options.above_0("-3")


def test_the_listings_take_json_and_no_model(invoke: Any) -> None:
    for command in ("backends", "models", "plugins", "doctor"):
        assert isinstance(json.loads(invoke(command, "--json").stdout), dict)
        assert invoke(command, "echo").exit_code == 2


def test_theta_for_all_for_layers_or_for_heads(invoke: Any) -> None:
    for text, theta in (
        ("0.5", 0.5),
        (".5", 0.5),
        ("1,0.9", [1, 0.9]),
        ("[1, 0.9]", [1, 0.9]),
        ("[[1, 0], [2e0, 1]]", [[1, 0], [2, 1]]),
    ):
        assert given(invoke("run", "echo", "--theta", text, "--json"))["theta"] == theta
    flat = ("", "x", "-1", "1,", "1,x", "1,-1", "nan,1", "[]", "[1", "[1e999]", '["1"]')
    nested = ("[[1],[1,2]]", "[1,[2]]", "[[]]", "[[1,true]]", "[[[1]]]", "[" * 99999)
    for nonsense in flat + nested:
        done = invoke("run", "echo", "--theta", nonsense)
        assert done.exit_code == 2
        assert "expected a number of at least 0" in done.stderr
