"""`tfx run gpt2` as a recipe: what it generates, shows and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import END, SIZES, write_gpt2
from optional import torch

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.errors import CheckpointError, UsageError
from tfx.core.generation import GenerationOptions, generate
from tfx.core.recipe import RunSettings
from tfx.core.tokenizer import load_tokenizer
from tfx.core.weights import open_weights
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import PRESETS
from tfx.models.gpt2.recipe import GPT2
from tfx.models.gpt2.request import MAX_NEW_TOKENS, TEMPERATURE, TOP_K
from tfx.models.gpt2.running import Clocked

PROMPTS = [(257, 32, 119), (7,), (1, 2, 3, 4, 5, 6, 7, 8, 9), (100, 0)]
TEXT = "the winter in the thé"


class Page:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.lines: list[str] = []
        self.notes: list[str] = []

    def result(self, line: str) -> None:
        self.lines.append(line)

    def piece(self, text: str) -> None:
        self.pieces.append(text)

    def note(self, line: str) -> None:
        self.notes.append(line)

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None:
        raise AssertionError("it takes no time")

    def progress_done(self, *, is_result: bool = True) -> None:
        raise AssertionError("there is none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "words")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "bare", tokenizer=False, eos_token_id=None)


def run(
    weights: Path, page: Page | None = None, backend: Backend | None = None, **given: Any
) -> dict[str, Any]:
    settings = RunSettings(weights=weights, **given)
    return GPT2("gpt2").run(settings, backend or NumpyBackend(), page or Page())


def theirs(folder: Path, ids: tuple[int, ...], **given: Any) -> list[list[int]]:
    """What transformers generates after a prompt."""
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    prompt = torch.tensor([ids])
    config = transformers.GenerationConfig(do_sample=False, pad_token_id=0, **given)
    with torch.no_grad():
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), generation_config=config
        )
    return [row[len(ids) :].tolist() for row in out]


# ---- the tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", PROMPTS, ids=len)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_beams": 4, "num_samples": 2},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_the_tokens_are_those_of_transformers(
    bare: Path, ids: tuple[int, ...], given: dict[str, Any]
) -> None:
    ours = run(bare, prompt_ids=ids, max_new_tokens=20, temperature=0.0, **given)
    renamed = {"num_return_sequences" if k == "num_samples" else k: v for k, v in given.items()}
    expected = theirs(bare, ids, max_new_tokens=20, **renamed)
    assert [sample["token_ids"] for sample in ours["samples"]] == expected


def test_many_prompts_get_what_each_would_get_alone(folder: Path, backend: Backend) -> None:
    together, given = Page(), {"max_new_tokens": 8, "seed": 3, "num_samples": 2, "logprobs": 1}
    prompts = (*PROMPTS, TEXT, "")
    result = run(folder, together, backend, prompts=prompts, batch_size=4, **given)
    assert result["prompts"] == 6
    for prompt, line in zip(prompts, together.lines, strict=True):
        key = "prompt" if isinstance(prompt, str) else "prompt_ids"
        found = json.loads(line)
        alone = run(folder, None, backend, **given | {key: prompt, "seed": found["seed"]})
        for ours, its in zip(found.pop("samples"), alone["samples"], strict=True):
            assert [ours[k] for k in ("text", "token_ids")] == [
                its[k] for k in ("text", "token_ids")
            ]
            likely = [[x["logprob"] for x in sample["logprobs"]] for sample in (ours, its)]
            np.testing.assert_allclose(*likely, rtol=1e-4)
        assert found == {key: alone[key] for key in ("prompt", "prompt_token_ids", "seed")}


def test_each_line_draws_by_a_seed_of_its_own(folder: Path) -> None:
    page, given = Page(), {"max_new_tokens": 12, "seed": 3}
    run(folder, page, prompts=(TEXT,) * 5, batch_size=2, **given)
    found = [json.loads(line) for line in page.lines]
    assert len({one["samples"][0]["text"] for one in found}) == 5
    assert found[0]["seed"] == 3
    assert found[0]["samples"] == run(folder, prompt=TEXT, **given)["samples"]
    other = Page()
    run(folder, other, prompts=(TEXT,) * 5, **given | {"seed": 4})
    seeds = [one["seed"] for one in [*found, *map(json.loads, other.lines)]]
    assert len(set(seeds)) == 10
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_lines_are_still_read_in_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        "tfx.models.gpt2.running.generate",
        lambda model, prompts, *rest: sizes.append(len(prompts)) or generate(model, prompts, *rest),
    )
    run(folder, Page(), prompts=(TEXT,) * 5, batch_size=2, seed=1, max_new_tokens=2)
    assert sizes == [2, 2, 1]


def test_lines_that_draw_nothing_have_no_seed(folder: Path) -> None:
    page = Page()
    run(folder, page, prompts=((1,), (2,)), temperature=0.0, max_new_tokens=2)
    assert [json.loads(line)["seed"] for line in page.lines] == [None, None]


def test_without_a_length_each_prompt_has_what_there_is_room_for(folder: Path) -> None:
    page, positions = Page(), SIZES["n_positions"]
    prompts = ((1, 2, 3), tuple(range(30)), (4, 5, 6), tuple(range(positions)))
    run(folder, page, prompts=prompts, temperature=0.0, batch_size=3)
    for line, prompt in zip(page.lines, prompts, strict=True):
        [sample] = json.loads(line)["samples"]
        if sample["finish_reason"] == "length":
            assert len(sample["token_ids"]) == positions + 1 - len(prompt)
        [alone] = run(folder, prompt_ids=prompt, temperature=0.0)["samples"]
        assert sample == alone


def test_past_the_positions_with_window(folder: Path) -> None:
    given: dict[str, Any] = {"prompt_ids": (1, 2, 3), "temperature": 0.0, "repetition_penalty": 1.5}
    [short] = run(folder, **given)["samples"]
    [long] = run(folder, window=True, **given)["samples"]
    assert len(short["token_ids"]) == SIZES["n_positions"] - 2
    assert len(long["token_ids"]) == MAX_NEW_TOKENS
    assert long["token_ids"][:30] == short["token_ids"]
    run(folder, window=True, prompt_ids=tuple(range(40)), max_new_tokens=3)


def test_the_defaults_are_those_of_the_readme(folder: Path) -> None:
    page, given = Page(), {"prompt": TEXT, "max_new_tokens": 10}
    found = run(folder, page, **given)
    assert page.notes[-1] == f"seed: {found['seed']}"
    again = run(folder, temperature=TEMPERATURE, top_k=TOP_K, seed=found["seed"], **given)
    assert again["samples"] == found["samples"]
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    told = f"{MAX_NEW_TOKENS} tokens, or as many as there are positions for, at temperature "
    assert f"{told}{TEMPERATURE} from the {TOP_K} likeliest" in readme
    assert run(folder, **given)["seed"] != found["seed"]


def test_nothing_is_drawn_nothing_needs_a_seed(folder: Path) -> None:
    page = Page()
    assert run(folder, page, prompt=TEXT, temperature=0.0)["seed"] is None
    assert run(folder, page, prompt=TEXT, num_beams=2)["seed"] is None
    assert page.notes == []


def test_every_option_has_its_effect(folder: Path, tmp_path: Path) -> None:
    """Each against the same run without it, which it must change."""
    common: dict[str, Any] = {"prompt_ids": (1, 2, 3, 2)}
    drawn = common | {"seed": 3, "top_k": 0, "temperature": 1.5}

    def ids(weights: Path = folder, **given: Any) -> list[list[int]]:
        return [sample["token_ids"] for sample in run(weights, **given)["samples"]]

    for more in (
        {"temperature": 0.3}, {"top_k": 2}, {"top_p": 0.1}, {"min_p": 0.9}, {"seed": 4},
        {"repetition_penalty": 9.0}, {"max_new_tokens": 2}, {"num_samples": 2}, {"window": True},
    ):  # fmt: skip
        assert ids(**drawn | more) != ids(**drawn), more
    greedy = common | {"temperature": 0.0}
    assert ids(**greedy, no_repeat_ngram_size=1) != ids(**greedy)
    searched = common | {"num_beams": 3, "repetition_penalty": 1.1}
    free = ids(**searched)
    assert free != ids(**greedy, repetition_penalty=1.1)
    ends = write_gpt2(tmp_path / "ends", eos_token_id=(free[0][2], END))
    short, long = (ids(ends, **searched, length_penalty=x) for x in (-9.0, 9.0))
    assert len(short[0]) < len(long[0])
    assert len(ids(ends, **searched, length_penalty=-9.0, min_new_tokens=9)[0]) >= 9
    early, late = (
        ids(ends, **searched, length_penalty=9.0, early_stopping=x) for x in (True, "never")
    )
    assert early != late


# ---- the object ----------------------------------------------------------------------------------


def test_the_object(folder: Path) -> None:
    found = run(folder, prompt=TEXT, seed=7, max_new_tokens=5, logprobs=2)
    timing = found.pop("timing")
    [sample] = found.pop("samples")
    weights = open_weights(folder / "model.safetensors").values()
    assert found.pop("weight_bytes") == sum(x.array.nbytes for x in weights)
    assert found == {
        "model": "gpt2",
        "backend": "numpy",
        "device": "cpu",
        "dtype": "float32",
        "seed": 7,
        "prompt": TEXT,
        "prompt_token_ids": load_tokenizer(folder).encode(TEXT),
    }
    assert list(sample) == ["text", "token_ids", "finish_reason", "logprobs"]
    assert len(sample["logprobs"]) == len(sample["token_ids"]) == 5
    for token, likely in zip(sample["token_ids"], sample["logprobs"], strict=True):
        assert likely["token_id"] == token
        assert likely["logprob"] <= likely["top"][0]["logprob"] <= 0
        assert len(likely["top"]) == 2
    names = ["load_s", "prefill_s", "decode_s", "prompt_tokens_per_s", "decode_tokens_per_s"]
    assert list(timing) == names
    assert all(seconds > 0 for seconds in timing.values())


def test_the_times_count_what_they_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks once a look: at the model, around it, and at each call of the model."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("tfx.models.gpt2.running.perf_counter", lambda: float(next(ticks)))
    given: dict[str, Any] = {"prompt_ids": (1, 2, 3), "temperature": 0.0, "repetition_penalty": 9.0}
    timing = run(folder, max_new_tokens=5, **given)["timing"]
    assert timing == {
        "load_s": 1.0,
        "prefill_s": 2.0,  # the start, the first call, the second
        "decode_s": 4.0,  # from there by calls 3, 4 and 5 to the end
        "prompt_tokens_per_s": 1.5,
        "decode_tokens_per_s": 1.0,
    }
    timing = run(folder, max_new_tokens=1, **given)["timing"]
    assert (timing["decode_s"], timing["decode_tokens_per_s"]) == (0.0, None)


def test_any_causal_model_can_be_clocked(folder: Path) -> None:
    model = LanguageModel.load(folder, NumpyBackend(), print)
    clocked = Clocked(model)
    assert not isinstance(clocked, LanguageModel)  # no second copy of it
    options = GenerationOptions(max_new_tokens=4)
    [[ours], [theirs]] = (generate(one, [[1, 2]], options) for one in (clocked, model))
    assert ours == theirs
    assert len(clocked.calls) == 4
    assert clocked.calls == sorted(clocked.calls)


def test_an_empty_prompt_goes_on_from_the_token_that_begins_texts(folder: Path) -> None:
    page = Page()
    found = run(folder, page, max_new_tokens=3, seed=1)
    assert (found["prompt"], found["prompt_token_ids"]) == ("", [END])
    assert "".join(page.pieces) == found["samples"][0]["text"] + "\n"


def test_eos_of_the_config_and_of_the_tokenizer_end_a_text(folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"prompt": TEXT, "temperature": 0.0, "repetition_penalty": 2.0}
    [free] = run(folder, **given)["samples"]
    eos = free["token_ids"][4]
    [ended] = run(write_gpt2(tmp_path / "ends", eos_token_id=(eos, END)), **given)["samples"]
    assert ended["token_ids"] == free["token_ids"][:5]
    assert ended["finish_reason"] == "eos"
    assert free["text"].startswith(ended["text"])
    [kept] = run(write_gpt2(tmp_path / "far", eos_token_id=50256, bos_token_id=50256), **given)[
        "samples"
    ]
    assert kept == free  # an id that the model does not know ends nothing


@pytest.mark.parametrize("several", [False, True])
def test_eos_of_the_generation_config_ends_a_text_too(tmp_path: Path, several: bool) -> None:
    folder = write_gpt2(tmp_path / "words")
    given: dict[str, Any] = {"prompt": TEXT, "temperature": 0.0, "repetition_penalty": 2.0}
    [free] = run(folder, **given)["samples"]
    eos = free["token_ids"][4]
    ends = [eos, END, 50256] if several else eos
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    for weights in (folder, folder / "model.safetensors"):
        [ended] = run(weights, **given)["samples"]
        assert ended["token_ids"] == free["token_ids"][:5]
        assert ended["finish_reason"] == "eos"
    prompt = tuple(load_tokenizer(folder).encode(TEXT))
    room = SIZES["n_positions"] - len(prompt)
    assert theirs(
        folder, prompt, max_new_tokens=room, repetition_penalty=2.0, eos_token_id=ends
    ) == [ended["token_ids"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read .*generation_config.json: it is not sound JSON"),
        ('{"eos_token_id": "end"}', "eos_token_id is '\"end\"'; expected the id of a token, or a"),
        ('{"eos_token_id": [1, -2]}', r"eos_token_id is '\[1, -2\]'; expected the id of a token"),
        ('{"eos_token_id": true}', "eos_token_id is 'true'; expected the id of a token"),
    ],
)
def test_a_damaged_generation_config(tmp_path: Path, text: str, message: str) -> None:
    folder = write_gpt2(tmp_path / "words")
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        run(folder, prompt=TEXT)
    for harmless in ("{}", '{"eos_token_id": null}'):
        (folder / "generation_config.json").write_text(harmless)
        run(folder, prompt=TEXT, seed=1, max_new_tokens=1)


# ---- the page ------------------------------------------------------------------------------------


def test_prompt_and_text_are_shown_as_they_come(folder: Path) -> None:
    page = Page()
    [sample] = run(folder, page, prompt=TEXT, seed=1, max_new_tokens=20)["samples"]
    assert page.pieces[0] == TEXT
    assert len(page.pieces) > 10
    assert "".join(page.pieces) == f"{TEXT}{sample['text']}\n"
    assert page.lines == []


@pytest.mark.parametrize("given", [{}, {"num_beams": 3}], ids=str)
def test_samples_stand_below_their_numbers(folder: Path, given: dict[str, Any]) -> None:
    page = Page()
    found = run(folder, page, prompt="the", seed=1, num_samples=3, max_new_tokens=9, **given)
    texts = [sample["text"] for sample in found["samples"]]
    expected = "".join(f"--- sample {n} ---\nthe{text}\n" for n, text in enumerate(texts, 1))
    assert "".join(page.pieces) == expected
    assert len({tuple(sample["token_ids"]) for sample in found["samples"]}) == 3


def test_without_a_tokenizer_ids_are_shown(bare: Path) -> None:
    page = Page()
    [sample] = (found := run(bare, page, prompt_ids=(1, 2), seed=1, max_new_tokens=4))["samples"]
    ids = " ".join(map(str, [1, 2, *sample["token_ids"]]))
    assert "".join(page.pieces) == f"{ids}\n"
    assert (found["prompt"], sample["text"]) == (None, None)


def test_a_stop_string_and_what_follows_are_not_shown(folder: Path) -> None:
    [whole] = run(folder, prompt=TEXT, seed=1, max_new_tokens=20)["samples"]
    stop = whole["text"][4:7]
    page = Page()
    [sample] = run(folder, page, prompt=TEXT, seed=1, max_new_tokens=20, stop=(stop,))["samples"]
    assert sample["finish_reason"] == "stop"
    assert sample["text"] == whole["text"][: whole["text"].index(stop)]
    assert "".join(page.pieces) == f"{TEXT}{sample['text']}\n"


# ---- what is refused -----------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": 2, "temperature": 0.5}, "--temperature is for drawing tokens"),
    ({"num_beams": 2, "top_k": 5}, "--top-k is for drawing tokens"),
    ({"length_penalty": 2.0}, "--length-penalty is for beam search; add --num-beams"),
    ({"early_stopping": False}, "--early-stopping is for beam search; add --num-beams"),
    ({"temperature": 0.0, "num_samples": 2}, "--num-samples 2: expected 1 at --temperature 0"),
    ({"num_beams": 2, "num_samples": 3}, "--num-samples 3: expected at most --num-beams, 2"),
    ({"max_new_tokens": 3, "min_new_tokens": 4}, "--min-new-tokens 4: expected at most"
     " --max-new-tokens, 3"),
    ({"stop": ("",)}, "--stop '' would end every text at once; expected some text, or none"),
    ({"prompt_ids": (1, 300)}, "the prompt: token 300 is not from 0 to 262"),
    ({"prompt_ids": (10**17,)}, "the prompt: token 100000000000000000 is not from 0 to 262"),
    ({"prompt_ids": tuple(range(33))}, "the prompt: 33 tokens do not fit the model's 32 positions; "
     "shorten it, or go on from the end of it with --window"),
    ({"prompt_ids": (1, 2, 3), "max_new_tokens": 31}, "the prompt: 3 + 31 new tokens do not "
     "fit the model's 32 positions; lower --max-new-tokens to 30 (the last needs no position), or "
     "go past them with --window"),
    ({"prompts": ((1,), (), (2,))}, "line 2 of --jsonl: empty; expected at least one token"),
    ({"prompts": ("a", (1, 263))}, "line 2 of --jsonl: token 263 is not from 0 to 262"),
    ({"prompts": ((1,), "the" * 40)}, "line 2 of --jsonl: 40 tokens do not fit"),
    ({"logprobs": 264}, "--logprobs 264: expected at most 263"),
    ({"no_repeat_ngram_size": 1, "window": True, "min_new_tokens": 300},
     "no token is left to choose: --no-repeat-ngram-size 1 and --min-new-tokens 300 forbid"),
    ({"prompt_ids": (1, 2, 3), "min_new_tokens": 31}, "the prompt: 3 + at least 31 new tokens do "
     "not fit the model's 32 positions; lower --min-new-tokens to 30, or go past them with --wind"),
    ({"repetition_penalty": 1e-40, "seed": 1}, "--repetition-penalty 1e-40 is too small to divide"),
    ({"temperature": 1e-320, "seed": 1}, "--temperature 1e-320 is too small to divide by; use 0"),
    ({"max_new_tokens": 10**20, "window": True}, "--max-new-tokens 100000000000000000000: expected "
     "a whole number from 1 to 2147483647"),
    ({"min_new_tokens": 10**20, "window": True}, "--min-new-tokens 100000000000000000000: expected "
     "a whole number from 0 to 2147483647"),
    ({"num_beams": 2, "top_p": 0.9}, "--top-p is for drawing tokens"),
    ({"prompts": ((1, 2), (1, 2, 3)), "min_new_tokens": 31}, "line 2 of --jsonl: 3 + at least 31"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_is_refused(folder: Path, given: dict[str, Any], message: str) -> None:
    page = Page()
    if not given.keys() & {"prompt_ids", "prompts"}:
        given = given | {"prompt": "the"}
    with pytest.raises(UsageError) as caught:
        run(folder, page, **given)
    assert str(caught.value).startswith(message)
    assert page.lines == []


def test_a_search_may_be_told_that_nothing_is_filtered(folder: Path) -> None:
    given: dict[str, Any] = {"prompt": "the", "num_beams": 3, "max_new_tokens": 9}
    plain = run(folder, **given)["samples"]
    told = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert run(folder, **given, **told)["samples"] == plain


def test_only_options_are_spelled_as_flags(folder: Path) -> None:
    """Not words that a message quotes, or that look like an option."""
    given: dict[str, Any] = {"window": "window and {top_k}, max_new_tokens", "prompt": "the"}
    with pytest.raises(UsageError) as caught:
        run(folder, **given)
    assert str(caught.value) == f"--window {given['window']!r}: expected True or False"


def test_text_needs_a_tokenizer(bare: Path) -> None:
    for given in ({"prompt": "the"}, {"prompt": ""}, {}, {"prompts": ("the",)}):
        with pytest.raises(UsageError, match="without a tokenizer; give token ids, as in --prompt"):
            run(bare, **given)
    with pytest.raises(UsageError, match=r"^--stop is looked for in text, and the weights came"):
        run(bare, prompt_ids=(1,), stop=("x",))


def test_every_size_runs_by_its_name(folder: Path) -> None:
    for name in PRESETS:
        settings = RunSettings(weights=folder, prompt="the", max_new_tokens=1)
        assert GPT2(name).run(settings, NumpyBackend(), Page())["model"] == name
