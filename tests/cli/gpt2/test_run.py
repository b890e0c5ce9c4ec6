"""`tfx run gpt2`: streams, exit codes, and one line for each thing that can be wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpt2_checkpoints import END, TOKENS, write_gpt2
from interrupts import heed_ctrl_c
from microgpt_cli import assert_refused

import tfx
from tfx.core.tokenizer import load_tokenizer
from tfx.core.weights import open_weights, write_weights

RUN = ("run", "gpt2", "-b", "numpy", "--weights")
PROMPT = "the thé"


# ---- what comes out ------------------------------------------------------------------------------


def test_a_text_and_nothing_else_on_stdout(invoke: Any, folder: Path) -> None:
    shown = invoke(*RUN, folder, PROMPT, "--seed", 1, "-n", 9)
    assert (shown.exit_code, shown.stderr) == (0, "")
    found = json.loads(invoke(*RUN, folder, PROMPT, "--seed", 1, "-n", 9, "--json").stdout)
    assert shown.stdout == f"{PROMPT}{found['samples'][0]['text']}\n"


def test_theta_is_that_of_python(invoke: Any, folder: Path) -> None:
    model = tfx.load(folder, backend="numpy")
    plain = model.generate(PROMPT, max_new_tokens=9).token_ids
    for theta in (0.3, [0.2, 1.5], [[0, 1, 0.3, 2], [1, 0.1, 0, 0.5]]):
        flags = ("--temperature", 0, "-n", 9, "--theta", json.dumps(theta), "--json")
        [found] = json.loads(invoke(*RUN, folder, PROMPT, *flags).stdout)["samples"]
        expected = model.generate(PROMPT, max_new_tokens=9, theta=theta).token_ids
        assert found["token_ids"] == expected != plain
    refused = invoke(*RUN, folder, PROMPT, "--theta", "1,1,1")
    assert refused.exit_code == 2
    assert (
        "--theta [1, 1, 1]: expected a number, 2 of them, one for each layer, or 2 rows of 4"
        in refused.stderr
    )


def test_the_object_is_the_documented_one(invoke: Any, folder: Path) -> None:
    found = json.loads(
        invoke(*RUN, folder, PROMPT, "--num-samples", 2, "--logprobs", 1, "--json").stdout
    )
    assert list(found) == [
        *("model", "backend", "device", "dtype", "weight_bytes", "seed"),
        *("prompt", "prompt_token_ids"),
        *("samples", "timing", "memory"),
    ]
    assert found["memory"]["peak_host_bytes"] > 10**7
    assert found["memory"]["peak_device_bytes"] is None
    assert [list(sample) for sample in found["samples"]] == [
        ["text", "token_ids", "finish_reason", "logprobs"]
    ] * 2


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--num-samples", 3), ("--stop", "e")], ids=str)
def test_the_same_bytes_streamed_or_not_to_a_pipe_or_a_terminal(
    tfx: Any, folder: Path, environment: dict[str, str], more: tuple[Any, ...]
) -> None:
    args = (*RUN, folder, PROMPT, "--seed", 1, *more)
    piped, late = tfx(*args), tfx(*args, "--no-stream")
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert piped.stdout == late.stdout
    assert len(piped.stdout) > 30
    terminal, inside = pty.openpty()
    import termios

    plain = termios.tcgetattr(inside)
    plain[1] &= ~termios.OPOST  # the terminal's own carriage returns
    termios.tcsetattr(inside, termios.TCSANOW, plain)
    command = [sys.executable, "-m", "tfx", *map(str, args)]
    process = subprocess.Popen(
        command, env=environment, stdin=inside, stdout=inside, stderr=subprocess.PIPE
    )
    os.close(inside)
    shown = b""
    while len(shown) < len(piped.stdout):
        shown += os.read(terminal, 4096)
    assert process.wait(60) == 0
    os.close(terminal)
    assert shown == piped.stdout


def test_a_text_is_shown_while_it_is_generated(
    folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """And what was shown stays at Ctrl-C, a whole line."""
    endless = write_gpt2(tmp_path / "endless", eos_token_id=None, bos_token_id=None)
    os.remove(endless / "vocab.json")
    args = (*RUN, endless, "--prompt-ids", "1 2 3", "--window", "-n", 10**6, "--seed", 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "tfx", *map(str, args)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    assert process.stdout is not None
    begun = process.stdout.read(40)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert begun.startswith(b"1 2 3 ")
    assert rest.endswith(b"\n")
    assert said.decode() == "tfx: interrupted\n"


def test_whoever_reads_may_go(folder: Path, environment: dict[str, str]) -> None:
    args = " ".join(map(str, (*RUN, folder, "the", "--seed", 1)))
    line = f"{sys.executable} -m tfx {args} | head -c 3; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, timeout=60)
    assert done.stdout in (b"the141\n", b"the0\n")
    assert done.stderr == b""


def test_stats_and_a_seed_go_to_stderr(invoke: Any, folder: Path) -> None:
    done = invoke(*RUN, folder, PROMPT, "-n", 5, "--stats")
    seed, stats = done.stderr.splitlines()
    assert seed.startswith("seed: ")
    again = invoke(*RUN, folder, PROMPT, "-n", 5, "--seed", seed.removeprefix("seed: "))
    assert again.stdout == done.stdout
    names = [part.split()[0] for part in stats.split(" | ")]
    assert names == ["load", "prefill", "decode", "prompt", "decode", "peak"]


def test_guesses_are_counted_on_stderr(invoke: Any) -> None:
    tiny = ("run", "gpt2-tiny", "-b", "numpy", "\nROMEO:\n", "--temperature", 0)
    ahead = invoke(*tiny, "--prompt-lookup", "--num-draft-tokens", 4, "--stats")
    assert ahead.stdout == invoke(*tiny).stdout
    said = ahead.stderr.split(" | ")[5:-1]
    patterns = [r"draft \d\.\d{3} s", r"verify \d\.\d{3} s", r"drafted (\d+) tokens"]
    patterns += [r"accepted (\d+) tokens", r"acceptance (\d+)%", r"(\d\.\d\d) tokens a pass"]
    found = [re.fullmatch(*pair) for pair in zip(patterns, said, strict=True)]
    drafted, accepted, share, per_pass = (float(match[1]) for match in found[2:] if match)
    assert 0 < accepted < drafted
    assert share == round(100 * accepted / drafted)
    assert per_pass > 2
    refused = invoke(*tiny, "--num-draft-tokens", 0)
    assert refused.exit_code == 2


# ---- what goes in --------------------------------------------------------------------------------


def test_stdin_is_the_prompt(tfx: Any, folder: Path) -> None:
    done = tfx(*RUN, folder, "--seed", 1, "-n", 3, input=f"{PROMPT}\n".encode())
    assert done.stdout.decode().startswith(PROMPT)
    assert done.stdout == tfx(*RUN, folder, PROMPT, "--seed", 1, "-n", 3).stdout


LINES = [{"prompt": PROMPT}, {"prompt_token_ids": [1, 2, 3]}, {"prompt": ""}]


def test_json_lines_in_and_out(tfx: Any, folder: Path, tmp_path: Path) -> None:
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    (tmp_path / "in.jsonl").write_text(text)
    args = (*RUN, folder, "--seed", 1, "-n", 4, "--batch-size", 2, "--jsonl")
    done = tfx(*args, "in.jsonl")
    assert (done.returncode, done.stderr) == (0, b"")
    assert tfx(*args, "-", input=text.encode()).stdout == done.stdout
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["prompt_token_ids"] for one in found][1:] == [[1, 2, 3], [END]]
    assert [one["prompt"] for one in found] == [
        PROMPT,
        load_tokenizer(folder).decode([1, 2, 3]),
        "",
    ]
    assert all(list(one) == ["prompt", "prompt_token_ids", "samples", "seed"] for one in found)
    assert found[0]["seed"] == 1


BAD_LINES = {
    '{"prompt": "a"}\n{"prompt": "a"': "line 2 of in.jsonl is no JSON: Expecting ',' delimiter at "
    "column 15",
    '{"prompt": "a"}\n\n{"prompt": "b"}\n': "line 2 of in.jsonl is blank; expected a JSON object",
    '{"prompt": "a", "prompt": "b"}': "line 1 of in.jsonl: the key 'prompt' comes twice in one",
    "1" * 5000: "is too large; expected at most 1.8e308",
    '["a"]': "line 1 of in.jsonl is a list; expected an object",
    '{"promt": "a"}': "line 1 of in.jsonl has the key 'promt'; expected prompt or prompt_token_ids",
    "{}": "line 1 of in.jsonl has neither of prompt and prompt_token_ids; expected one of them",
    '{"prompt": "a", "prompt_token_ids": [1]}': "line 1 of in.jsonl has both of prompt and",
    '{"prompt": 3}': "line 1 of in.jsonl: prompt is '3'; expected a text",
    '{"prompt_token_ids": [1, 2.5]}': "prompt_token_ids is '[1, 2.5]'; expected a list of whole",
    '{"prompt_token_ids": [true]}': "prompt_token_ids is '[true]'; expected a list of whole",
    '{"prompt": "a"}\n{"prompt_token_ids": [1, 999]}': "line 2 of --jsonl: token 999 is not from 0",
    '{"prompt": "a"}\n{"prompt_token_ids": [-1]}': "line 2 of --jsonl: token -1 is not from 0",
    '{"prompt": "a"}\n{"prompt_token_ids": []}': "line 2 of --jsonl: empty; expected",
    '{"prompt": "\\ud800"}': "line 1 of --jsonl: character 0 of the text is the lone surrogate",
    "": "in.jsonl is empty; expected a JSON object a line",
    "[" * 100_000: "line 1 of in.jsonl is nested too deeply",
}


@pytest.mark.parametrize("text", BAD_LINES, ids=lambda text: text[:40])
def test_a_bad_line_is_refused_by_its_number_before_any_work(
    invoke: Any, folder: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    done = invoke(*RUN, folder, "--jsonl", "in.jsonl")
    assert_refused(done, done.exit_code, BAD_LINES[text])
    assert done.exit_code in (1, 2)
    assert done.stdout == ""


FLAGS = {
    "the --prompt-ids 1": "PROMPT and --prompt-ids each give a prompt; keep one of them",
    "the --jsonl x": "PROMPT and --jsonl each give a prompt; keep one of them",
    "-p the --jsonl x --prompt-ids 1": "--prompt, --prompt-ids and --jsonl each give a prompt",
    "--jsonl x --json": "--jsonl prints an object a line, --json one in all; leave one out",
    "the --batch-size 2": "--batch-size is for the prompts of --jsonl; leave it out",
    "the --logprobs 2": "--logprobs is for JSON; add --json",
    "--prompt-ids 1,2": "--prompt-ids expects ids of tokens, as in '1 2 3', got '1,2'",
    "--prompt-ids -1": "--prompt-ids expects ids of tokens",
    "--prompt-ids=": "--prompt-ids expects ids of tokens",
    "--prompt-ids 263": "the prompt: token 263 is not from 0 to 262",
    "the --stop=": "--stop '' would end every text at once; expected some text",
    "the --window -n 100000000000000000000": "--max-new-tokens 100000000000000000000: expected a",
    "the --min-new-tokens 300": "the prompt: 1 + at least 300 new tokens do not fit the model's 32",
    "the --num-beams 2 --temperature 0.8": "--temperature is for drawing tokens",
    "the --length-penalty 2": "--length-penalty is for beam search; add --num-beams",
    "the --length-penalty 11": "expected a number from -10 to 10, got '11'",
    "the --early-stopping always": "always",
    "the --temperature hot": "hot",
    "the --window=3": "--window",
    "the --dtype int8": "--dtype int8",
    "the --dtype bfloat16": "--dtype bfloat16: numpy computes in float16, float32, float64",
    "the --max-new-tokens 33": "the prompt: 1 + 33 new tokens do not fit the model's 32",
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_that_are_refused(invoke: Any, folder: Path, flags: str) -> None:
    done = invoke(*RUN, folder, *flags.split())
    assert_refused(done, 2, FLAGS[flags])
    assert done.stdout == ""


def test_a_prompt_that_is_too_long(invoke: Any, folder: Path) -> None:
    done = invoke(*RUN, folder, "x" * 33)
    message = "33 tokens do not fit the model's 32 positions; shorten it, or go on from the end"
    assert_refused(done, 2, message, "--window")
    assert invoke(*RUN, folder, "x" * 33, "--window", "-n", 40, "--seed", 1).exit_code == 0


def test_the_prompt_must_be_text(tfx: Any, folder: Path) -> None:
    done = tfx(*RUN, folder, "--seed", 1, input=b"ab\xff")
    assert done.returncode == 1
    assert done.stderr == b"tfx: the prompt from stdin is not UTF-8 text: byte 0xff at offset 2\n"


@pytest.mark.parametrize("flags", [(), ("the",), ("--prompt", "")], ids=str)
def test_without_a_tokenizer(invoke: Any, bare: Path, flags: tuple[str, ...]) -> None:
    done = invoke(*RUN, bare, *flags)
    assert_refused(done, 2, "without a tokenizer; give token ids, as in --prompt-ids '1 2 3'")
    stop = invoke(*RUN, bare, "--prompt-ids", "1", "--stop", "x")
    assert_refused(stop, 2, "--stop is looked for in text, and the weights came without a tokeniz")
    shown = invoke(*RUN, bare, "--prompt-ids", "1 2 3", "--seed", 1, "-n", 3).stdout
    assert shown.startswith("1 2 3 ") and len(shown.split()) <= 6


# ---- the weights ---------------------------------------------------------------------------------


def test_no_weights_and_no_connection(invoke: Any) -> None:
    done = invoke("run", "gpt2", "-b", "numpy", "the")
    assert_refused(done, 1, "openai-community/gpt2 is not in the cache", "--weights DIR")


def changed(folder: Path, **config: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_shard(folder: Path) -> None:
    stored = {k: v.array for k, v in open_weights(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(stored)
    for n, part in enumerate((names[::2], names[1::2]), 1):
        write_weights(folder / f"model-{n}-of-2.safetensors", {name: stored[name] for name in part})
    index = {name: f"model-{1 + i % 2}-of-2.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    shard = folder / "model-2-of-2.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])


def foreign_tokenizer(folder: Path) -> None:
    """One with more tokens than the model."""
    vocab = {token: i for i, token in enumerate([*TOKENS, "more"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))


WEIGHTS = {
    "wrong folder": (shutil.rmtree, ["does not exist", "expected a folder with config.json"]),
    "pickle": (only_pickle, ["'pytorch_model.bin'", "tfx reads no pickle", "safetensors"]),
    "shard": (cut_shard, ["model-2-of-2.safetensors"]),
    "config": (lambda folder: changed(folder, n_head=5), ["config.json", "n_embd 32", "n_head 5"]),
    "type": (
        lambda folder: changed(folder, model_type="llama"),
        ["model type 'llama', not 'gpt2'"],
    ),
    "sizes": (lambda folder: changed(folder, n_embd=64), ["does not fit", "wte.weight"]),
    "tokenizer": (foreign_tokenizer, ["264", "263", "do not belong together"]),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["config.json does not exist"]),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_weights_that_will_not_do(invoke: Any, tmp_path: Path, fault: str) -> None:
    folder = write_gpt2(tmp_path / "spoiled")
    spoil, words = WEIGHTS[fault]
    spoil(folder)
    done = invoke(*RUN, folder, "the")
    assert_refused(done, 1, *words)
    assert done.stdout == ""


def test_parameters_that_are_too_large(invoke: Any, tmp_path: Path) -> None:
    huge = write_gpt2(tmp_path / "huge", spread=1e30)
    assert_refused(invoke(*RUN, huge, "the", "--temperature", 0), 3, "the logits are not finite")
