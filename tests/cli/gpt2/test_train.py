"""`tfx train gpt2-tiny` as a user types it: what it prints, leaves, and refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt2_training import SMALL, TEXT, kept, metrics, tokenizer
from interrupts import heed_ctrl_c
from microgpt_cli import assert_refused

from tfx.core.checkpoint import find_checkpoint
from tfx.core.tokenizer.save import save_tokenizer

Invoke = Callable[..., Any]

SIZES = [f"--set={name}={value}" for name, value in SMALL.items()]
TRAIN = ("train", "gpt2-tiny", "-b", "numpy", "--batch-size", 2, *SIZES)


@pytest.fixture(autouse=True)
def material(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    save_tokenizer(tokenizer(), tmp_path / "bpe")


@pytest.fixture
def train(invoke: Invoke) -> Invoke:
    """Train on the text; the result, which must be a success."""

    def call(*args: object) -> Any:
        result = invoke(*TRAIN, "--data", "text.txt", "--tokenizer", "bpe", *args)
        assert result.exit_code == 0, result.stderr
        return result

    return call


def test_what_it_prints_and_leaves(train: Invoke) -> None:
    result = train("--steps", 4, "--eval-every", 2, "--out", "run", "--num-samples", 2)
    lines = result.stdout.splitlines()
    ids = len(tokenizer().encode(TEXT[: round(0.9 * len(TEXT))]))
    assert lines[0].startswith(f"tokens: {ids} to train on, ")
    assert lines[1:3] == ["vocab size: 261", "num params: 10960"]
    last = metrics(Path("run"))[-1]
    assert lines[3] == f"step    4 /    4 | loss {last['loss']:.4f}"
    assert lines[4] == "--- sample 1 ---"
    assert "--- sample 2 ---" in lines
    judged = f"step    4 | val loss {last['val_loss']:.4f} | val loss per char "
    assert sum(line.startswith(judged) for line in result.stderr.splitlines()) == 1
    assert result.stderr.splitlines()[-1].startswith("peak memory ")
    assert find_checkpoint("run").name == "checkpoint-4"
    assert find_checkpoint("run/best").name in ("checkpoint-2", "checkpoint-4")


def test_json(train: Invoke) -> None:
    result = train("--steps", 2, "--json", "--out", "run")
    told = json.loads(result.stdout)
    assert list(told) == [
        *("model", "backend", "dtype", "seed", "train_tokens", "val_tokens", "vocab_size"),
        *("num_params", "steps", "final_loss", "val_loss", "val_loss_per_char", "best_val_loss"),
        *("best_val_loss_per_char", "best_step", "samples", "tokens_per_s", "timing", "out"),
        "memory",
    ]
    assert told["memory"].keys() == {"peak_host_bytes", "peak_device_bytes"}
    assert (told["model"], told["backend"], told["dtype"]) == ("gpt2-tiny", "numpy", "float32")
    assert (told["seed"], told["steps"], told["best_step"], told["out"]) == (42, 2, 2, "run")
    assert len(told["samples"]) == 1


def test_the_run_folder_and_a_plot(train: Invoke) -> None:
    pytest.importorskip("matplotlib")
    result = train("--steps", 2, "--num-samples", 0, "--plot")
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("gpt2-tiny-")
    assert f"run folder: {folder}\n" in result.stderr
    assert (folder / "loss.png").stat().st_size > 1000


def test_what_was_trained_can_be_run_and_judged(train: Invoke, invoke: Invoke) -> None:
    train("--steps", 2, "--out", "run", "--num-samples", 0)
    result = invoke("run", "gpt2-tiny", "When", "-b", "numpy", "--weights", "run", "--seed", 1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("When")
    result = invoke(
        *("eval", "gpt2-tiny", "-b", "numpy", "--weights", "run", "--data", "text.txt", "--json")
    )
    assert result.exit_code == 0, result.stderr


def test_a_config_file(invoke: Invoke) -> None:
    sets = ", ".join(f'"{name}={value}"' for name, value in SMALL.items())
    Path("run.toml").write_text(
        f'data = "text.txt"\ntokenizer = "bpe"\nsteps = 2\nbatch_size = 2\nset = [{sets}]\n'
        'num_samples = 0\nout = "run"\n'
    )
    result = invoke("train", "gpt2-tiny", "-b", "numpy", "--config", "run.toml")
    assert result.exit_code == 0, result.stderr
    assert find_checkpoint("run").name == "checkpoint-2"


def test_ctrl_c_saves_and_resume_is_bitwise(
    train: Invoke, environment: Any, tmp_path: Path
) -> None:
    command = [*TRAIN, "--data", "text.txt", "--tokenizer", "bpe", "--steps", 150]
    command += ["--eval-every", 10, "--set", "eval_batches=2", "--num-samples", 1]
    whole = train(*command[len(TRAIN) + 4 :], "--out", "whole")

    def start(*args: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tfx", *map(str, args)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        )

    process = start(*command, "--out", "run")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step   10 | val loss"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "; to go on: tfx train gpt2-tiny --resume run\n" in err
    assert 10 <= len(metrics(tmp_path / "run")) < 150

    process = start("train", "gpt2-tiny", "-b", "numpy", "--resume", "run")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == whole.stdout
    assert kept(tmp_path / "run") == kept(Path("whole"))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 2, "nothing to learn from; give --data"),
        (["--data", "text.txt", "--tokenizer", "nowhere"], 1, "nowhere"),
        (["--data", "nowhere.txt", "--tokenizer", "bpe"], 1, "nowhere.txt"),
        (["--data", "latin.txt", "--tokenizer", "bpe"], 1, "latin.txt is not UTF-8 text"),
        (["--data", "short.txt", "--tokenizer", "bpe"], 1, "and a sequence takes 13"),
        (
            ["--data", "odd.bin", "--set", "vocab_size=512"],
            1,
            "has the token id 65535; the model knows 0 to 511",
        ),
        (["--data", "text.txt", "--tokenizer", "bpe", "--prompt", "x"], 2, "--prompt"),
        (["--data", "text.txt", "--tokenizer", "bpe", "--set", "n_embd=15"], 2, "n_embd 15 is not"),
        (["--resume", "nowhere"], 1, "nowhere does not exist"),
    ],
)
def test_refusals(invoke: Invoke, args: list[str], code: int, words: str) -> None:
    Path("latin.txt").write_bytes(b"caf\xe9 " * 50)
    Path("short.txt").write_text("short")
    Path("odd.bin").write_bytes(b"\xff\xff" * 50)
    where = TRAIN if "--resume" not in args else ("train", "gpt2-tiny", "-b", "numpy")
    assert_refused(invoke(*where, *args, "--out", "run"), code, words)
    assert not Path("run").exists() or not list(Path("run").iterdir())


def test_a_preset_of_the_hub_without_a_connection(invoke: Invoke) -> None:
    result = invoke("train", "gpt2", "-b", "numpy", "--data", "text.txt", "--steps", 1)
    assert_refused(result, 1, "no tokenizer, as openai-community/gpt2", "--tokenizer DIR")


def test_microgpt_has_no_use_for_a_tokenizer(invoke: Invoke) -> None:
    result = invoke("train", "microgpt", "-b", "numpy", "--tokenizer", "bpe")
    assert_refused(result, 2, "microgpt has no use for --tokenizer; leave it out")


def test_a_loss_that_is_not_finite(invoke: Invoke) -> None:
    wild = ("--lr", "1e30", "--grad-clip", "1e9", "--steps", 20, "--out", "run")
    result = invoke(*TRAIN, "--data", "text.txt", "--tokenizer", "bpe", *wild)
    assert result.exit_code == 3
    assert "not finite" in result.stderr.splitlines()[-1]
