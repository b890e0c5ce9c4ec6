"""`tfx explain gpt2`: text, JSON and page have the numbers of the Python API."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfx
from tfx.cli.explanation_words import count, decimals, percent, spelled
from tfx.core.explanation import Explanation

EXPLAIN = ("explain", "gpt2", "-b", "numpy", "--weights")
PROMPT = "the thin error in the inner\nthe end é"


def explanation(folder: Path) -> Explanation:
    """What the Python API tells."""
    return tfx.load(folder, backend="numpy").explain(PROMPT)


class Page(HTMLParser):
    """What a browser would find in a page.

    Attributes:
        tables: rows of cells, the head's among them.
        titles: of all elements that have one.
        scripts: by their type.
        fetched: what a browser would get from elsewhere.
        said: what there is to read of each token once it is pointed at.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.titles: list[str] = []
        self.scripts: dict[str | None, str] = {}
        self.fetched: list[str] = []
        self.said: list[str] = []
        self._depth = 0  # of `div`s within the one around what is said
        self._cell, self._script = False, ""
        self._kind: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [str(given[name]) for name in ("src", "href", "srcset") if name in given]
        self.titles += [given["title"]] if given.get("title") else []
        if tag == "div" and (self._depth or given.get("id") == "expected"):
            self._depth += 1
            self.said += [""] if self._depth == 2 else []
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "small":
            self.tables[-1][-1][-1] += " "
        elif tag == "script":
            self._script, self._kind = "script", given.get("type")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False
        elif tag == "script":
            self._script = ""
        elif tag == "div" and self._depth:
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._kind] = self.scripts.get(self._kind, "") + data
        elif self._cell:
            self.tables[-1][-1][-1] += data
        elif self._depth == 2:
            self.said[-1] += f"{data} "


@pytest.fixture(scope="module")
def page_text(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    from typer.testing import CliRunner

    from tfx.cli.main import app

    file = tmp_path_factory.mktemp("pages") / "page.html"
    done = CliRunner().invoke(app, [*EXPLAIN, str(folder), PROMPT, "--html", str(file)])
    assert done.exit_code == 0, done.stderr
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(page_text: str) -> Page:
    return Page(page_text)


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_is_what_the_api_says(folder: Path, invoke: Any) -> None:
    found = json.loads(invoke(*EXPLAIN, folder, PROMPT, "--json").stdout)
    expected = explanation(folder)
    plain = json.loads(json.dumps(expected.described()))
    assert {name: found[name] for name in plain} == plain
    for one, weights in zip(found["attentions"], expected.attentions, strict=True):
        np.testing.assert_array_equal(np.float32(one["weights"]), weights.weights)


@pytest.mark.parametrize("way", ["-p", "-f", "stdin", "--prompt-ids"])
def test_ways_to_give_the_prompt(way: str, folder: Path, invoke: Any, tfx: Any) -> None:
    whole = json.loads(invoke(*EXPLAIN, folder, PROMPT, "--json").stdout)
    if way == "stdin":
        done = tfx(*EXPLAIN, folder, "--json", input=f"{PROMPT}\n".encode())
    elif way == "-f":
        Path("prompt.txt").write_text(f"{PROMPT}\n", encoding="utf-8")
        done = invoke(*EXPLAIN, folder, way, "prompt.txt", "--json")
    elif way == "-p":
        done = invoke(*EXPLAIN, folder, way, PROMPT, "--json")
    else:
        ids = " ".join(str(token["token_id"]) for token in whole["tokens"])
        done = invoke(*EXPLAIN, folder, way, ids, "--json")
    assert json.loads(done.stdout) == whole


# ---- text ----------------------------------------------------------------------------------------


def test_the_text_fits_and_has_the_numbers(folder: Path, invoke: Any) -> None:
    lines = invoke(*EXPLAIN, folder, PROMPT).stdout.splitlines()
    expected = explanation(folder)
    assert max(map(len, lines)) <= 100
    assert not re.search(r"[\x00-\x1f\x7f]", "".join(lines))
    assert f"loss {expected.loss:.4f} nats a token" in lines[0]
    first = next(line for line in lines if line.startswith("   0  "))
    said = expected.predictions[0]
    assert said.loss is not None
    for number in (decimals(said.loss), decimals(said.entropy), percent(said.top[0].probability)):
        assert number in first
    assert any(line.split()[:2] == ["all", count(expected.parameters)] for line in lines)


def test_without_a_tokenizer_tokens_are_ids(bare: Path, invoke: Any) -> None:
    done = invoke(*EXPLAIN, bare, "--prompt-ids", "5 7 9", "--html", "page.html")
    assert done.exit_code == 0 and done.stdout.startswith("3 tokens, loss ")
    assert Path("page.html").exists()


def test_no_alternatives(folder: Path, invoke: Any) -> None:
    done = invoke(*EXPLAIN, folder, "the end", "--top-k", "0", "--html", "page.html")
    assert done.exit_code == 0 and "LOGIT LENS" not in done.stdout


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(page: Page, page_text: str) -> None:
    assert page.fetched == []
    assert "default-src 'none'" in page_text
    for way in ("url(", "@import", "fetch(", "import(", "XMLHttpRequest", "http:", "https:"):
        assert way not in page_text


def test_the_numbers_in_the_page_are_the_apis(folder: Path, page: Page) -> None:
    expected = explanation(folder)
    found = json.loads(page.scripts["application/json"])
    plain = json.loads(json.dumps(expected.described(with_weights=False)))
    for one, weights in zip(found["attentions"], expected.attentions, strict=True):
        words = b64decode(one.pop("weights"))
        array = np.frombuffer(words, found["weights_dtype"]).reshape(weights.weights.shape)
        np.testing.assert_array_equal(array, weights.weights)
    assert {name: found[name] for name in plain} == plain


def test_the_tables_in_the_page_have_them_too(folder: Path, page: Page) -> None:
    expected = explanation(folder)
    said, heads, lens, activations, norms, parts = page.tables
    tokens = [spelled(*x) for x in zip(expected.token_ids, expected.texts, strict=True)]
    for place, (row, one) in enumerate(zip(said[1:], expected.predictions, strict=True)):
        numbers = ["", "", ""]
        if one.loss is not None:
            numbers = [decimals(one.loss), percent(np.exp(-one.loss)), str(one.rank)]
        top = "  ".join(f"{spelled(x.token_id, x.text)} {percent(x.probability)}" for x in one.top)
        follows = tokens[place + 1] if place + 1 < len(tokens) else ""
        assert row == [
            str(place), tokens[place], follows, *numbers, decimals(one.entropy), top,
        ]  # fmt: skip
    for row, weights in zip(heads[1:], expected.attentions, strict=True):
        entropy, *shares = weights.summary().values()
        assert entropy is not None
        numbers = [decimals(entropy), *(percent(x) for x in shares if x is not None)]
        assert row == [str(weights.layer), str(weights.head), *numbers]
    assert lens[0][2:] == tokens
    for row, stage in zip(lens[1:], expected.stages, strict=True):
        best = [one.top[0] for one in stage.predictions]
        assert stage.loss is not None
        assert row[:2] == [stage.name, decimals(stage.loss)]
        assert row[2:] == [f"{spelled(x.token_id, x.text)} {percent(x.probability)}" for x in best]
    for row, stage in zip(activations[1:], expected.stages, strict=True):
        s = stage.statistics
        assert row == [stage.name, *(f"{x:.4g}" for x in (s.mean, s.std, s.max_abs, s.norm))]
    for row, stage in zip(norms[1:], expected.stages, strict=True):
        assert row == [stage.name, *(f"{x:.4g}" for x in stage.statistics.norms)]
    assert parts[-1][:3] == ["all", count(expected.parameters), count(expected.flops)]
    sums = [sum(int(row[n].replace(",", "")) for row in parts[1:-1]) for n in (1, 2)]
    assert sums == [expected.parameters, expected.flops]


def test_each_token_says_its_loss(folder: Path, page: Page) -> None:
    tokens = explanation(folder)
    losses = [decimals(said.loss) for said in tokens.predictions if said.loss is not None]
    found = [re.findall(r"loss ([\d.]+), entropy", title) for title in page.titles]
    assert [loss for [loss] in filter(None, found)] == losses


def test_what_is_said_of_a_token_are_the_apis_numbers(folder: Path, page: Page) -> None:
    expected = explanation(folder)
    names = [spelled(*x) for x in zip(expected.token_ids, expected.texts, strict=True)]
    assert len(page.said) == len(names) + 1
    assert page.said[0].startswith("Nothing comes before")
    for name, words, one in zip(
        [*names[1:], None], page.said[1:], expected.predictions, strict=True
    ):
        top = " ".join(f"{spelled(x.token_id, x.text)} {percent(x.probability)}" for x in one.top)
        assert words.rstrip().endswith(
            f"The entropy before it is {decimals(one.entropy)} nats. {top}"
        )
        if one.loss is not None:
            start = (
                f"{name} comes: probability {percent(np.exp(-one.loss))}, loss {decimals(one.loss)}"
            )
            assert words.startswith(f"{start} nats, number {one.rank} of the likeliest. ")


SHARES = [k / 2**n for n in range(1, 12) for k in range(2**n)] + [k / 1000 for k in range(1001)]
"""Among them whatever lies between two numbers that `percent` writes."""

POINTING = f"""<script>
document.querySelectorAll("#text .token")[2].dispatchEvent(new Event("mouseenter"));
document.querySelectorAll(".head")[5].dispatchEvent(new Event("focus"));
const box = $("big").getBoundingClientRect();
const at = (share) => Math.floor((share + 0.5) / size * box.width);
$("big").dispatchEvent(
  new MouseEvent("mousemove", {{ clientX: box.left + at(1), clientY: box.top + at(3) }})
);
document.title = {json.dumps(SHARES)}.map(percent).join(" ");
</script>"""
"""Somebody points at the third token, then at layer 1's head 1, then at its row 3 and column 1. The
title says how the script writes `SHARES`."""


@pytest.mark.slow
def test_in_a_browser(folder: Path, page_text: str, tmp_path: Path) -> None:
    """Without a network, the script runs to its end and shows the numbers of what is pointed at."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    file = tmp_path / "page.html"
    file.write_text(page_text.replace("</body>", f"{POINTING}</body>"), encoding="utf-8")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    done = subprocess.run(
        [browser, *quiet, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    expected, shown = explanation(folder), unescape(done.stdout)
    one, said = expected.attentions[5], expected.predictions[1]
    summary, tokens = one.summary(), [*zip(expected.token_ids, expected.texts, strict=True)]
    assert (one.layer, one.head) == (1, 1)
    assert summary["entropy"] is not None and said.loss is not None
    words = f"Layer 1, head 1. Entropy {decimals(summary['entropy'])} nats; on the first token "
    assert re.search(rf'<p id="which"[^>]*>{re.escape(words)}', shown)
    [visible] = re.findall(r"<div><p>(.*?)</p>", shown)
    assert visible.startswith(f"{spelled(*tokens[2])} comes: ")
    assert f"loss {decimals(said.loss)} nats, number {said.rank} of the likeliest" in visible
    weight = percent(float(one.weights[3, 1]))
    assert f"{spelled(*tokens[3])} (3) attends to: {spelled(*tokens[1])} (1), {weight}<" in shown
    assert f"<title>{' '.join(map(percent, SHARES))}</title>" in shown
