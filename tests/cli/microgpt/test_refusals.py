"""What is refused: one line each, the right exit code, and nothing half written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from microgpt_cli import (
    Invoke,
    assert_refused,
    fingerprints,
    redone,
    seal,
    weights,
)

from tfx.core.checkpoint import find_checkpoint
from tfx.core.weights import write_weights
from tfx.models.microgpt.data import BUNDLED

USAGE = {
    "--top-k 3": ["microgpt has no use for --top-k"],
    "--stop x": ["--stop"],
    "--num-beams 2": ["--num-beams"],
    "--window": ["microgpt has no use for --window"],
    "--prompt-lookup": ["microgpt has no use for --prompt-lookup"],
    "--draft x": ["microgpt has no use for --draft"],
    "--prompt-ids 1": ["microgpt has no use for --prompt-ids"],
    "--no-repeat-ngram-size 2": ["microgpt has no use for --no-repeat-ngram-size"],
    "--early-stopping false": ["microgpt has no use for --early-stopping"],
    "--prompt é": ["not trained on 'é'", "abcdefghijklmnopqrstuvwxyz"],
    "--prompt Anna": ["not trained on 'A'"],
    "--prompt abcdefghijklmnop": ["16 characters", "at most 15"],
    "--dtype int32": ["cannot compute in int32 on numpy", "float32, float64"],
    "--dtype bfloat16": ["cannot compute in bfloat16 on numpy"],
    "--dtype float33": ["float33"],
    "--temperature -1": ["--temperature"],
    "--temperature nan": ["--temperature"],
    "--num-samples 0": ["--num-samples"],
    "--max-new-tokens 0": ["--max-new-tokens"],
    "--seed -1": ["--seed"],
}


@pytest.mark.parametrize("flags", USAGE)
def test_run_refuses(invoke: Invoke, run: Path, flags: str) -> None:
    result = invoke("run", "microgpt", "-b", "numpy", "--weights", run, *flags.split())
    assert_refused(result, 1 if "é" in flags or "Anna" in flags else 2, *USAGE[flags])
    assert result.stdout == ""


EVAL = {
    "--docs 0:6000": ["--docs 0:6000", "documents 0:5163"],
    "--docs 9:9": ["9:9"],
    "--docs 1000": ["START:STOP"],
    "--stride 4": ["microgpt has no use for --stride"],
    "--batch-size 4": ["microgpt has no use for --batch-size"],
}


@pytest.mark.parametrize("flags", EVAL)
def test_eval_refuses(invoke: Invoke, run: Path, flags: str) -> None:
    result = invoke("eval", "microgpt", "-b", "numpy", "--weights", run, *flags.split())
    assert_refused(result, 2, *EVAL[flags])


def test_eval_refuses_characters_it_does_not_know(
    invoke: Invoke, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "zoë.txt").write_text("anna\nzoë\n")
    common = ("eval", "microgpt", "-b", "numpy", "--weights", run)
    assert_refused(invoke(*common, "--data", "zoë.txt"), 1, "not trained on 'ë' (in 'zoë')")


TRAIN = {
    "--set n_layr=2": ["n_layr", "Did you mean 'n_layer'?"],
    "--set depth=2": ["depth", "n_layer, n_embd, n_head, block_size"],
    "--set lr=1": ["--set lr", "It is a flag: --lr"],
    "--set n_layer": ["KEY=VALUE"],
    "--set n_layer=two": ["n_layer=two", "a whole number"],
    "--set n_layer=1.5": ["n_layer=1.5", "a whole number"],
    "--set n_layer=0": ["n_layer=0", "at least 1"],
    "--set block_size=-1": ["block_size=-1", "at least 1"],
    "--set n_embd=18": ["n_embd=18", "n_head=4"],
    "--set beta1=1": ["beta1"],
    "--set beta2=nan": ["beta2=nan", "a number"],
    "--set eps=0": ["eps"],
    "--set init_std=inf": ["init_std=inf", "a number"],
    "--set init_std=-1": ["init_std"],
    "--set temperature=-1": ["temperature"],
    "--dtype float16": ["float64 or float32, not float16"],
    "--dtype bfloat16": ["float64 or float32, not bfloat16"],
    "--autograd native": ["--autograd native", "numpy has no autograd of its own"],
    "--autograd magic": ["magic"],
    "--eval-every 3": ["microgpt has no use for --eval-every"],
    "--checkpoint-activations": ["microgpt has no use for --checkpoint-activations"],
    "--weights x": ["microgpt has no use for --weights"],
    "--steps -1": ["--steps"],
    "--steps many": ["--steps"],
    "--lr 0": ["--lr"],
    "--lr inf": ["--lr"],
    "--min-lr 0.5": ["--min-lr 0.5 is above --lr 0.01"],
    "--batch-size 0": ["--batch-size"],
    "--grad-clip -1": ["--grad-clip"],
    "--weight-decay -1": ["--weight-decay"],
    "--warmup-steps -1": ["--warmup-steps"],
}


@pytest.mark.parametrize("flags", TRAIN)
def test_train_refuses(invoke: Invoke, flags: str) -> None:
    result = invoke(
        *("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--out", "run", *flags.split())
    )
    assert_refused(result, 2, *TRAIN[flags])
    assert result.stdout == ""
    assert os.listdir() == []  # nothing half written


RESUME = {
    "--lr 0.1": "--lr 0.1: the run that --resume continues keeps its 0.01",
    "--seed 1": "--seed 1: the run that --resume continues keeps its 42",
    "--set n_layer=2": "--set n_layer 2: the run that --resume continues keeps its 1",
    "--dtype float32": "--dtype float32: the run that --resume continues keeps its float64",
    "--batch-size 2": "--batch-size 2: ",
    "--warmup-steps 2": "--warmup-steps 2: ",
    "--weight-decay 1": "--weight-decay 1.0: ",
    "--grad-clip 1": "--grad-clip 1.0: ",
    "--eval-every 1": "microgpt has no use for --eval-every",
}


@pytest.mark.parametrize("flags", RESUME)
def test_resume_refuses(invoke: Invoke, run: Path, flags: str) -> None:
    before = fingerprints(run)
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run, *flags.split())
    assert_refused(result, 2, RESUME[flags])
    assert fingerprints(run) == before


@pytest.mark.parametrize(
    ("flag", "variable", "value", "before"),
    [("--dtype", "TFX_DTYPE", "float32", "float64"), ("--seed", "TFX_SEED", "1", "42")],
)
def test_a_refused_value_of_the_environment_is_called_by_its_name(
    *,
    invoke: Invoke,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    variable: str,
    value: str,
    before: str,
) -> None:
    monkeypatch.setenv(variable, value)
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run)
    expected = f"{flag} or {variable} {value}: the run that --resume continues keeps its {before}"
    assert_refused(result, 2, expected)


def test_a_dtype_of_the_environment(
    invoke: Invoke, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFX_DTYPE", "bfloat16")
    trained = invoke("train", "microgpt", "-b", "numpy", "--data", BUNDLED)
    assert_refused(trained, 2, "--dtype or TFX_DTYPE: microgpt trains in float64 or float32")
    sampled = invoke("run", "microgpt", "-b", "numpy", "--weights", run)
    assert_refused(sampled, 2, "bfloat16 on numpy; choose --dtype or TFX_DTYPE float16, float32")


def test_resume_into_a_checkpoint(invoke: Invoke, run: Path) -> None:
    before, inside = fingerprints(run), run / "checkpoint-30"
    common = ("train", "microgpt", "-b", "numpy", "--resume", inside, "--steps", 40)
    result = invoke(*common, "--out", inside)
    assert result.exit_code == 1
    assert f"{inside} is a checkpoint, not the folder of a run" in result.stderr
    assert fingerprints(run) == before


def test_resume_does_not_mind_what_is_so_already(invoke: Invoke, run: Path) -> None:
    same = "--lr 0.01 --seed 42 --dtype float64 --batch-size 1 --set n_layer=1 --steps 30"
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run, *same.split())
    assert result.exit_code == 0, result.stderr


def test_resume_refuses_fewer_steps(invoke: Invoke, run: Path) -> None:
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run, "--steps", 20)
    assert_refused(result, 2, "--steps 20", "has taken 30 already")


def test_resume_from_before_the_newest(invoke: Invoke, run: Path) -> None:
    early = run / "checkpoint-20"
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", early)
    assert result.exit_code == 1
    assert f"{run}/checkpoint-30 is in the way" in result.stderr


def test_a_folder_of_another_run(invoke: Invoke, run: Path) -> None:
    before = fingerprints(run)
    result = invoke("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--out", run)
    assert_refused(result, 1, "checkpoint-30 is in the way", f"--resume {run}", "--out")
    assert fingerprints(run) == before


def test_data_that_is_none(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "binary.txt").write_bytes(b"anna\n\xff\xfe\n")
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir())
    for name, words in {
        "absent.txt": "no data file absent.txt",
        "empty.txt": "empty.txt is empty",
        "blank.txt": "blank.txt has only empty lines",
        "binary.txt": "binary.txt is not UTF-8 text: byte 0xff at offset 5",
        "folder": "folder is a directory",
    }.items():
        result = invoke("train", "microgpt", "-b", "numpy", "--data", name, "--out", "run")
        assert_refused(result, 1, words)
        assert sorted(os.listdir()) == before


@pytest.mark.parametrize("out", ["taken", "taken/below", "/dev/null/below", "/proc/tfx"])
def test_an_out_that_cannot_be_written(invoke: Invoke, tmp_path: Path, out: str) -> None:
    (tmp_path / "taken").write_text("mine")
    result = invoke("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--out", out)
    assert_refused(result, 1, f"cannot write to the run folder {out}: ")
    assert result.stdout == ""
    assert (tmp_path / "taken").read_text() == "mine"


def test_metrics_that_cannot_be_written(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "run/metrics.jsonl").mkdir(parents=True)
    result = invoke("train", "microgpt", "-b", "numpy", "--data", BUNDLED, "--out", "run")
    assert_refused(result, 1, "cannot write run/metrics.jsonl: Is a directory")


@pytest.mark.parametrize("command", ["run", "eval"])
def test_no_weights(invoke: Invoke, tmp_path: Path, command: str) -> None:
    common = (command, "microgpt", "-b", "numpy")
    assert_refused(invoke(*common), 1, "no trained microgpt in runs/", "tfx train microgpt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in {
        "absent": "checkpoint absent does not exist",
        "empty": "empty holds no complete checkpoint",
        "file": "checkpoint file is a file; give its folder",
    }.items():
        assert_refused(invoke(*common, "--weights", name), 1, words)
        resumed = invoke("train", "microgpt", "-b", "numpy", "--resume", name)
        assert_refused(resumed, 1, words)


STRANGE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "model": ("config.json", lambda c: c | {"model": "gpt2"}, "is of model 'gpt2', not 'microgpt'"),
    "size": ("config.json", lambda c: c | {"n_embd": 32}, "wte is (27, 16), expected (27, 32)"),
    "layers": ("config.json", lambda c: c | {"n_layer": 2}, "does not fit microgpt"),
    "characters": (
        "config.json",
        lambda c: c | {"characters": c["characters"][1:]},
        "does not fit microgpt: 26 tokens, vocab_size 27",
    ),
    "key": ("config.json", lambda c: c | {"dropout": 0.1}, "does not fit microgpt"),
}


INCOMPLETE = {
    ("run", "random"): "state.json has no 'random'",
    ("train", "random"): "state.json has no 'random'",
    ("train", "options"): "state.json has no 'options'",
    ("train", "data"): "state.json has no 'data'",
    ("train", "documents"): "state.json has no 'documents'",
    ("eval", "documents"): "state.json has no 'documents'",
}


@pytest.mark.parametrize(("command", "key"), INCOMPLETE)
def test_a_checkpoint_without(invoke: Invoke, run: Path, command: str, key: str) -> None:
    redone(run, "state.json", lambda s: {k: v for k, v in s.items() if k != key})
    where = ("--resume", run) if command == "train" else ("--weights", run)
    result = invoke(command, "microgpt", "-b", "numpy", *where)
    path = f"checkpoint {run}/checkpoint-30 does not fit microgpt: "
    assert_refused(result, 1, path + INCOMPLETE[command, key])


def test_a_checkpoint_of_no_data(invoke: Invoke, run: Path) -> None:
    redone(run, "state.json", lambda s: s | {"data": None})
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run)
    assert_refused(result, 1, "does not fit microgpt: state.json names its data None")


@pytest.mark.parametrize(
    ("which", "change", "fault"),
    [
        ("optimizer", {"m.wpe": None}, "optimizer.safetensors has no m.wpe"),
        ("optimizer", {"v.wte": np.zeros((16, 27))}, "v.wte is (16, 27), expected (27, 16)"),
        ("model", {"wpe": None}, "model.safetensors has no wpe"),
        ("model", {"wte": np.zeros((27, 16), "int64")}, "wte is of int64, expected floats"),
    ],
)
def test_a_checkpoint_of_other_tensors(
    invoke: Invoke, run: Path, which: str, change: dict[str, Any], fault: str
) -> None:
    path = find_checkpoint(run) / f"{which}.safetensors"
    arrays = {n: x for n, x in (weights(run, which) | change).items() if x is not None}
    write_weights(path, arrays)
    seal(path)
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run)
    assert_refused(result, 1, f"does not fit microgpt: {fault}")


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("command", ["run", "eval", "train"])
def test_a_checkpoint_of_something_else(invoke: Invoke, run: Path, what: str, command: str) -> None:
    file, change, words = STRANGE[what]
    redone(run, file, change)
    where = ("--resume", run) if command == "train" else ("--weights", run)
    assert_refused(invoke(command, "microgpt", "-b", "numpy", *where), 1, words)


def test_a_checkpoint_of_a_later_tfx(invoke: Invoke, run: Path) -> None:
    redone(run, "state.json", lambda s: s | {"options": s["options"] | {"dropout": 0.1}})
    result = invoke("train", "microgpt", "-b", "numpy", "--resume", run, "--steps", 40)
    assert_refused(result, 1, "has other options than this tfx knows", "'dropout'")


def test_a_damaged_checkpoint(invoke: Invoke, run: Path) -> None:
    path = find_checkpoint(run) / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    result = invoke("run", "microgpt", "-b", "numpy", "--weights", run)
    assert_refused(result, 1, "damaged: model.safetensors", f"before it is {run}/checkpoint-20")
