"""gpt2-tiny, which comes with tfx: its files go together, and do what their README says."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from optional import torch
from typer.testing import CliRunner

from tfx.backends.cupy.plugin import probe
from tfx.cli.main import app
from tfx.core.dtypes import DType
from tfx.core.tokenizer import load_tokenizer
from tfx.core.weights import open_weights
from tfx.models.gpt2.language_model import tokenizer_of
from tfx.models.gpt2.presets import BUNDLED, PRESETS
from tfx.models.gpt2.weights import read_pretrained

README = (BUNDLED / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^tfx .*$", README.replace("\\\n", ""), re.MULTILINE)


def said(pattern: str) -> float:
    """The number that the README has where `pattern` has a group."""
    (found,) = re.findall(pattern, README)
    return float(found.replace(",", ""))


def given(flag: str) -> list[str]:
    """The values that the README's commands give a flag."""
    words = [word for command in COMMANDS for word in shlex.split(command)]
    return [value for word, value in pairwise(words) if word == flag]


def silent(line: str) -> None:
    raise AssertionError(f"there is nothing to note, but: {line}")


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `tfx ARGS` in an empty folder without a connection; its stdout."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TFX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))

    def call(*args: object) -> str:
        done = CliRunner().invoke(app, [str(arg) for arg in args])
        assert done.exit_code == 0, done.stderr
        return str(done.stdout)

    return call


# ---- the files -----------------------------------------------------------------------------------


def test_weights_configuration_and_tokenizer_go_together() -> None:
    found = read_pretrained(BUNDLED, silent)
    stored = open_weights(BUNDLED / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {DType.float16}
    assert sum(tensor.array.size for tensor in stored.values()) == 924_416
    sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")
    for name in sizes:
        assert getattr(found.config, name) == getattr(PRESETS["gpt2-tiny"].config, name), name
    tokenizer = tokenizer_of(found)
    assert tokenizer is not None
    assert tokenizer.vocab_size == found.config.vocab_size
    assert found.config.eos_ids == (tokenizer.eos_id,) == (found.config.bos_token_id,)


def test_both_forms_of_the_tokenizer_are_the_same(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((BUNDLED / name).read_bytes())
    whole, parts = load_tokenizer(BUNDLED), load_tokenizer(tmp_path)
    assert (whole.vocab, whole.merges) == (parts.vocab, parts.merges)
    assert (whole.special_tokens, whole.eos_id) == (parts.special_tokens, parts.eos_id)


# ---- what it writes ------------------------------------------------------------------------------


def test_a_seed_gives_the_same_text_on_numpy_and_torch(invoke: Callable[..., str]) -> None:
    if not torch:
        pytest.skip("torch is not installed")
    texts = {
        backend: invoke("run", "gpt2-tiny", "ROMEO:", "--seed", 1, "-b", backend)
        for backend in ("numpy", "torch")
    }
    assert texts["numpy"].startswith("ROMEO:\n")
    assert len(texts["numpy"]) > 100
    assert texts["torch"] == texts["numpy"]


def test_a_seed_gives_the_same_text_on_cupy(invoke: Callable[..., str]) -> None:
    if not probe().ready:
        pytest.skip("no CUDA device, real or simulated")
    words = ("run", "gpt2-tiny", "ROMEO:", "--seed", 1, "--max-new-tokens", 20)
    assert invoke(*words, "-b", "cupy") == invoke(*words, "-b", "numpy")


# ---- what its README says ------------------------------------------------------------------------


@cache
def halves(text: Path) -> tuple[str, str]:
    """What it learnt from, and the last tenth, which it did not."""
    whole = text.read_text(encoding="utf-8")
    kept = round(len(whole) * 0.9)
    return whole[:kept], whole[kept:]


@pytest.mark.slow
def test_its_perplexity(invoke: Callable[..., str], shared_data: Path, tmp_path: Path) -> None:
    _, rest = halves(shared_data / "tinyshakespeare.txt")
    (tmp_path / "rest.txt").write_text(rest, encoding="utf-8")
    flags = ("-b", "numpy", "--data", "rest.txt", "--stride", 256, "--json")
    found = json.loads(invoke("eval", "gpt2-tiny", *flags))
    assert found["nats_per_character"] < 1.5
    assert round(found["nats_per_character"], 3) == said(r"([\d.]+) nats per character")
    assert round(found["loss"], 3) == said(r"([\d.]+) per token")
    assert round(found["perplexity"], 1) == said(r"perplexity ([\d.]+)\)")


@pytest.mark.slow
def test_how_often_it_read_the_text(shared_data: Path) -> None:
    learnt, _ = halves(shared_data / "tinyshakespeare.txt")
    [steps], [batch] = given("--steps"), given("--batch-size")
    read = int(steps) * int(batch) * PRESETS["gpt2-tiny"].config.n_positions
    times = read / len(load_tokenizer(BUNDLED).encode(learnt))
    assert int(times) == said(r"(\d+) times through the training text")


def test_the_numbers_of_its_commands() -> None:
    config = read_pretrained(BUNDLED, silent).config
    assert said(r"GPT-2 of ([\d,]+) parameters") == 924_416
    assert given("--vocab-size") == [str(config.vocab_size)]
    assert "dropout=0.1" in given("--set") and config.resid_pdrop == config.embd_pdrop == 0.1
    assert "attn_pdrop=0" in given("--set") and config.attn_pdrop == 0
    [steps], [every] = given("--steps"), given("--eval-every")
    assert int(steps) / int(every) == said(r"best of\s+(\d+) evaluations")
    assert said(r"after step (\d+)") % int(every) == 0


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_that_tfx_takes(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(import_module(f"tfx.cli.{name}").app)
    with command.make_context(name, arguments):
        pass  # an unknown option or a bad value has raised
