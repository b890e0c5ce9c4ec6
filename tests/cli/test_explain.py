"""`tfx explain`: what it hands to a stranger's model, how it shows what comes back, and models
that have nothing to tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from installing import install

MODELS = """
import numpy as np

from tfx.core.explanation import (
    AttentionMap, Explanation, Part, Stage, predictions_in, statistics_of
)

@hookimpl
def tfx_models():
    return [ModelSpec(name="bush", target="tfx_bush:Bush", summary="says what it was given")]

TEXTS = ["</script><b>", "\\n", "&amp;", "\\x1b[31m"]

class Bush:
    name = "bush"
    train = run = evaluate = lambda *_: None

    def explain(self, settings, backend, report):
        report.note(f"{settings.given()} on {backend}")
        ids = [0, 1, 2, 3]
        said = predictions_in(np.log([[.1, .2, .3, .4]] * 4), ids, 4, TEXTS.__getitem__)
        stage = Stage("<leaves>", statistics_of(np.ones((4, 2))), said)
        size = 3000 if settings.prompt == "long" else 4
        heads = (AttentionMap(0, 0, np.full((size, size), 1 / size)),)
        parts = (Part("<twigs>", None, 3, 8, "2 T"),)
        text = tuple(ids), tuple(TEXTS)
        return Explanation(*text, 4, (stage,), heads, parts, 3, {"T": 4}, "float64")
"""


@pytest.fixture(autouse=True)
def plugin(shelf: Path) -> None:
    """A distribution with a model that explains itself, beside the others."""
    install(shelf, "tfx-bush", MODELS)


def test_every_flag_is_passed_on(invoke: Any) -> None:
    flags = ["--weights=in", "--dtype=float64", "--theta=0.5", "--top-k=3", "--layers=0 2"]
    done = invoke("explain", "bush", "-p", "words", *flags, "--heads=1", "--backend=chip")
    given = {
        "weights": Path("in"), "dtype": "float64", "prompt": "words", "theta": 0.5, "top_k": 3,
        "layers": (0, 2), "heads": (1,),
    }  # fmt: skip
    assert done.exit_code == 0
    assert done.stderr.startswith(str(given).replace("'float64'", "<DType.float64: 'float64'>"))
    assert " on chip:0" in done.stderr


def test_json_says_what_was_asked_for(invoke: Any) -> None:
    done = invoke("explain", "bush", "--prompt-ids=0 1", "--backend=chip", "--json")
    found = json.loads(done.stdout)
    named = {"model": "bush", "backend": "chip", "device": "0", "dtype": "float64", "theta": None}
    assert named.items() <= found.items()
    assert found["tokens"][0] == {"token_id": 0, "text": "</script><b>"}
    assert found["attentions"][0]["weights"] == [[0.25] * 4] * 4


def test_tokens_cannot_reach_into_the_terminal(invoke: Any) -> None:
    done = invoke("explain", "bush", "x", "--backend=chip")
    assert done.exit_code == 0 and "\x1b" not in done.stdout
    assert "'\\x1b[31m'" in done.stdout and "<leaves>" in done.stdout


def test_tokens_cannot_reach_into_the_page(invoke: Any) -> None:
    done = invoke("explain", "bush", "x", "--backend=chip", "--html=page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert done.exit_code == 0 and "the page is in page.html" in done.stderr
    assert page.count("</script>") == 2 and "<b>" not in page
    assert invoke("explain", "bush", "x", "--backend=chip", "--html=page.html").exit_code == 0
    assert "&amp;amp;" in page and "&lt;leaves&gt;" in page and "&lt;twigs&gt;" in page


def test_more_than_anybody_would_read(invoke: Any) -> None:
    for flag in ("--json", "--html=page.html"):
        done = invoke("explain", "bush", "long", "--backend=chip", flag)
        assert done.exit_code == 2 and done.stdout == ""
        assert "9,000,000 weights" in done.stderr and "choose some with --layers" in done.stderr
        assert not Path("page.html").exists()
    assert invoke("explain", "bush", "long", "--backend=chip").exit_code == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["words", "--prompt=words"], "PROMPT and --prompt each give a prompt"),
        (["x", "--layers=a"], "--layers expects numbers, as in '0 3', got 'a'"),
        (["x", "--heads="], "--heads expects numbers, as in '0 3', got ''"),
        (["--prompt-ids=a"], "--prompt-ids expects ids of tokens"),
        (["x", "--top-k=-1"], "--top-k"),
        (["x", "--theta=-1"], "expected a number of at least 0"),
        (["x", "--html=none/page.html"], "--html none/page.html: there is no folder none"),
    ],
)
def test_what_will_not_do(flags: list[str], complaint: str, invoke: Any) -> None:
    done = invoke("explain", "bush", *flags, "--backend=chip")
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_page_that_cannot_be_written(invoke: Any) -> None:
    Path("page.html").mkdir()
    done = invoke("explain", "bush", "x", "--backend=chip", "--html=page.html")
    assert done.exit_code == 1 and "--html: cannot write page.html: " in done.stderr
    assert done.stdout == ""


def test_a_model_with_nothing_to_tell(invoke: Any) -> None:
    done = invoke("explain", "echo", "x", "--backend=chip")
    assert done.exit_code == 2 and "echo cannot be explained" in done.stderr
