"""`tfx eval gpt2`: its lines, its object, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from microgpt_cli import assert_refused

import tfx

EVAL = ("eval", "gpt2", "-b", "numpy", "--weights")
TEXT = "the winter in the inn, and the thé. " * 9


@pytest.fixture(autouse=True)
def data(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)


def test_a_line_on_stdout_and_progress_on_stderr(invoke: Any, folder: Path) -> None:
    done = invoke(*EVAL, folder, "--data", "t.txt", "--stride", 16, "--batch-size", 2)
    assert done.exit_code == 0
    [line] = done.stdout.splitlines()
    found = json.loads(invoke(*EVAL, folder, "--data", "t.txt", "--stride", 16, "--json").stdout)
    assert line.split(" | ") == [
        f"tokens {found['num_tokens']}",
        f"loss {found['loss']:.4f}",
        f"standard error {found['standard_error']:.4f}",
        f"perplexity {found['perplexity']:.4f}",
        f"nats/character {found['nats_per_character']:.4f}",
        f"bits/byte {found['bits_per_byte']:.4f}",
    ]
    assert all(line.startswith("step ") for line in done.stderr.splitlines())
    assert found["stride"] == 16


def test_theta_is_that_of_python(invoke: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the winter")
    model = tfx.load(folder, backend="numpy")
    for theta in (0.3, [0.2, 1.5]):
        flags = ("--data", "short.txt", "--theta", json.dumps(theta), "--json")
        logits = model("the winter", theta=theta).logits[0].astype(np.float64)
        ids = model.encode("the winter")
        chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        loss = -np.mean([np.log(chances[i, token]) for i, token in enumerate(ids[1:])])
        found = json.loads(invoke(*EVAL, folder, *flags).stdout)
        assert found["loss"] == pytest.approx(loss, rel=1e-5)


FAULTS = {
    "--data t.txt --theta 1,1,1": (2, "--theta [1, 1, 1]: expected a number, 2 of them"),
    "--data t.txt --stride 33": (2, "--stride 33 would leave tokens out; expected at most"),
    "--data t.txt --docs 0:3": (2, "gpt2 has no use for --docs; leave it out"),
    "--data t.txt --dtype int8": (2, "--dtype int8"),
    "--data t.txt --batch-size 0": (2, "--batch-size"),
    "--data none.txt": (1, "none.txt: No such file or directory"),
    "--data .": (1, ". is a folder; name one text file in it"),
    "": (2, "there is nothing to predict; give a text with --data FILE"),
}


@pytest.mark.parametrize("flags", FAULTS)
def test_what_is_refused(invoke: Any, folder: Path, flags: str) -> None:
    code, message = FAULTS[flags]
    done = invoke(*EVAL, folder, *flags.split())
    assert_refused(done, code, message)
    assert done.stdout == ""


def test_a_tokenizer_is_needed(invoke: Any, bare: Path) -> None:
    done = invoke(*EVAL, bare, "--data", "t.txt")
    assert_refused(done, 2, "--data is text", "came without a tokenizer")


def test_without_weights_and_connection(invoke: Any) -> None:
    done = invoke("eval", "gpt2-xl", "-b", "numpy", "--data", "t.txt")
    assert_refused(done, 1, "openai-community/gpt2-xl is not in the cache")
