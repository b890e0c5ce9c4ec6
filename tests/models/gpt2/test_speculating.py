"""`tfx run gpt2` with guesses: the same texts, in fewer passes, from trained weights too."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_checkpoints import write_gpt2

from tfx.backends.numpy.backend import NumpyBackend
from tfx.core.backend import Backend
from tfx.core.creation import tensor
from tfx.core.errors import TfxError
from tfx.core.recipe import RunSettings
from tfx.models.gpt2.language_model import LanguageModel
from tfx.models.gpt2.presets import BUNDLED
from tfx.models.gpt2.recipe import GPT2

REPEATS = "ROMEO:\nWhat is the matter with thee, my lord?\n\nJULIET:\nWhat is the matter"
AHEAD: tuple[dict[str, Any], ...] = (
    {"prompt_lookup": True},
    {"prompt_lookup": True, "num_draft_tokens": 3},
    {"draft": "gpt2-tiny", "num_draft_tokens": 4},
)


class Page:
    """A reporter that keeps the lines of the result."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def result(self, line: str) -> None:
        self.lines.append(line)

    def piece(self, text: str) -> None: ...

    def note(self, line: str) -> None: ...

    def progress(self, step: int, total: int, loss: float, seconds: float) -> None: ...

    def progress_done(self, *, is_result: bool = True) -> None: ...


def run(page: Page | None = None, backend: Backend | None = None, **given: Any) -> dict[str, Any]:
    return GPT2("gpt2-tiny").run(RunSettings(**given), backend or NumpyBackend(), page or Page())


@cache
def plainly(backend: Backend, **given: Any) -> Any:
    return run(None, backend, **given)["samples"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tokenizer of its own."""
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "other")


@pytest.mark.parametrize("how", AHEAD, ids=str)
@pytest.mark.parametrize("seed", [None, 3], ids=["greedy", "drawn"])
def test_the_text_is_the_same(how: dict[str, Any], seed: int | None, backend: Backend) -> None:
    drawn: dict[str, Any] = {"temperature": 0.0} if seed is None else {"seed": seed}
    given: dict[str, Any] = {"prompt": REPEATS, "max_new_tokens": 24, **drawn}
    ahead = run(None, backend, **given, **how)
    assert ahead["samples"] == plainly(backend, **given)
    timing = ahead["timing"]
    if "num_draft_tokens" in how:
        assert timing["acceptance_rate"] == timing["accepted_tokens"] / timing["drafted_tokens"]
        assert timing["tokens_per_pass"] > (1.5 if "draft" in how or seed is None else 1)


def test_many_prompts_too() -> None:
    page, ahead = Page(), Page()
    given: dict[str, Any] = {
        "prompts": (REPEATS, (257, 32, 119), (7,), (1, 2, 3, 4, 5, 6, 7, 8, 9), "All:"),
        "seed": 5,
        "batch_size": 4,
    }
    given |= {"max_new_tokens": 60, "num_samples": 2}
    run(page, **given)
    for how in AHEAD:
        ahead.lines.clear()
        timing = run(ahead, **given, **how)["timing"]
        assert [*map(json.loads, ahead.lines)] == [*map(json.loads, page.lines)]
        assert timing["tokens_per_pass"] > ("num_draft_tokens" in how)


def test_each_of_several_tokens_has_the_logits_of_reading_it_last(backend: Backend) -> None:
    model = LanguageModel.load(BUNDLED, backend, print)
    ids = np.random.default_rng(0).integers(0, model.vocab_size, (2, 9))
    one, several = model.start(2, 9), model.start(2, 9)
    index = backend.index_dtype
    each = model.each_logits(tensor(ids, backend, index), several).numpy()
    assert each.shape == (2, 9, model.vocab_size)
    for i in range(9):
        last = model.logits(tensor(ids[:, i : i + 1], backend, index), one).numpy()
        np.testing.assert_allclose(each[:, i], last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"prompt_lookup": True, "draft": "gpt2-tiny"},
            "--prompt-lookup and --draft both guess the next tokens; leave one out",
        ),
        ({"num_draft_tokens": 3}, "--num-draft-tokens is for tokens that are guessed; add --promp"),
        ({"prompt_lookup": True, "num_beams": 2}, "--prompt-lookup guesses tokens, and a search w"),
        ({"draft": "gpt2-tiny", "num_beams": 2}, "--draft guesses tokens, and a search with --num"),
        ({"draft": "./nowhere"}, "--draft: nowhere does not exist; expected a folder"),
        ({"prompt_lookup": True, "num_draft_tokens": -1}, "--num-draft-tokens -1: expected a whol"),
    ],
    ids=str,
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TfxError) as caught:
        run(prompt="All:", **given)
    assert str(caught.value).startswith(message)


def test_a_draft_with_other_tokens_is_refused(other: Path) -> None:
    with pytest.raises(TfxError) as caught:
        run(prompt="All:", draft=str(other))
    assert str(caught.value) == (
        f"--draft {other}: its 263 tokens are not the 768 of gpt2-tiny; expected a smaller model "
        "with the same tokenizer"
    )
