"""`tfx explain --html`: one page with pictures, with all it needs in itself.

Tables, the coloured text and all that is said of a token or a head are HTML. The script draws the
maps of attention, from the numbers in the page's JSON, and shows what is pointed at. A policy in
the page's head forbids the browser to fetch anything.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from tfx.cli.destination import PAGE
from tfx.cli.explanation_tables import (
    activations,
    heads,
    lens,
    norms,
    parts,
    predictions,
)
from tfx.cli.explanation_words import count, decimals, percent, spelled
from tfx.core.explanation import Alternative, AttentionMap, Explanation, Prediction

TEMPLATES = Path(__file__).parent / "templates" / "explanation"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_TITLE = 60


def page_of(found: Explanation, about: Mapping[str, Any]) -> str:
    """The page of an explanation; `about` tells of which model and backend it is."""
    return "\n".join(_page(found, about))


def _page(found: Explanation, about: Mapping[str, Any]) -> Iterator[str]:
    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    text = "".join(x or "" for x in found.texts)
    title = f"{about['model']} explained" + (f": {text[:_TITLE]}" if text else "")
    yield f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{PAGE.mark.decode()}
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(" ".join(title.split()))}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>What {escape(str(about["model"]))} makes of {count(len(found.token_ids))} tokens</h1>
<p class="faint">{escape(_where(found, about))}</p>
<dl class="facts">{"".join(_facts(found))}</dl>
</header>
<main>"""
    yield from _text(found)
    yield from _attention(found)
    yield from _section(
        "The logit lens",
        "What the model would say if it ended behind its embeddings, or behind one of its layers: "
        "the likeliest token, and its probability. A green frame: it is what comes.",
        lens(found),
    )
    yield from _section(
        "Activations",
        "How large the numbers in the residual stream are behind each layer. The norm is that of "
        "a token's numbers, sqrt(sum x²), its mean over tokens.",
        activations(found) + norms(found),
    )
    yield from _section(
        "Parameters and FLOPs",
        "What each part holds, and what it costs to read this text once. A multiplication and an "
        "addition are two FLOPs; products alone are counted. "
        f"Here {', '.join(f'{letter} = {count(size)}' for letter, size in found.sizes.items())}.",
        parts(found),
    )
    yield f"""</main>
<script type="application/json" id="explanation">{_embedded(found, about)}</script>
<script>
{script}</script>
</body>
</html>
"""


def _where(found: Explanation, about: Mapping[str, Any]) -> str:
    words = f"computed by {about['backend']} on {about['device']} in {found.dtype}"
    if about["theta"] is not None:
        words += f", theta {json.dumps(about['theta'])}"
    return words if about["weights"] is None else f"{words}; weights from {about['weights']}"


def _facts(found: Explanation) -> Iterator[str]:
    facts = {"parameters": count(found.parameters), "FLOPs to read it": count(found.flops)}
    if found.perplexity is not None:
        facts = {"perplexity": f"{found.perplexity:,.2f}"} | facts
    if found.loss is not None:
        facts = {"loss, nats a token": f"{found.loss:.4f}"} | facts
    for name, value in facts.items():
        yield f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _section(title: str, words: str, content: str) -> Iterator[str]:
    yield f'<section>\n<h2>{title}</h2>\n<p class="faint">{words}</p>\n{content}\n</section>'


# ---- the text ------------------------------------------------------------------------------------


def _text(found: Explanation) -> Iterator[str]:
    most = math.log(found.vocab_size)
    before: list[Prediction | None] = [None, *found.predictions]
    chips = "".join(_chip(found, place, said, most) for place, said in enumerate(before))
    expected = "".join(_expected(found, place, said) for place, said in enumerate(before))
    yield from _section(
        "Token by token",
        "How hard each token was to predict (loss), or how open it was what would come (entropy), "
        "from what stands before it. Point at a token to see what was expected in its place.",
        f"""<fieldset class="switch" aria-label="Colour by">
<label><input type="radio" name="colour" value="loss" checked> loss</label>
<label><input type="radio" name="colour" value="entropy"> entropy</label>
<span class="faint">0 <span class="scale"></span> {decimals(most)} nats, as by mere guessing
</span></fieldset>
<div id="text" class="text by-loss">{chips}</div>
<div id="expected" class="detail" aria-live="polite">{expected}</div>
<details><summary>All of it as a table</summary>{predictions(found)}</details>""",
    )


def _chip(found: Explanation, place: int, said: Prediction | None, most: float) -> str:
    """A token, coloured by what was said before it; behind the last, what is to come."""
    here = place < len(found.token_ids)
    words, style = "the first token", ""
    if said is not None:
        words = f"entropy {decimals(said.entropy)}"
        style = f"--entropy:{said.entropy / most:.4f}"
        if said.loss is not None:
            words = f"loss {decimals(said.loss)}, {words}"
            style += f";--loss:{min(1, said.loss / most):.4f}"
    text = _visible(found, place) if here else "?"
    label = _spelled(found, place) if here else "what comes next"
    shown = f"{place}: {label}, {words}"
    kind = "token" if said is not None and here else "token unknown"
    ends_line = here and (found.texts[place] or "").endswith("\n")
    return (
        f'<button type="button" class="{kind}" style="{style}" title="{escape(shown)}" '
        f'aria-label="{escape(shown)}">{escape(text)}</button>{"<br>" if ends_line else ""}'
    )


def _expected(found: Explanation, place: int, said: Prediction | None) -> str:
    """What was said before a token, in words and bars; hidden until somebody points at it."""
    if said is None:
        words = "Nothing comes before the first token: nobody predicts it."
        return f'<div><p class="faint">{words}</p></div>'
    comes = found.token_ids[place] if place < len(found.token_ids) else None
    words = "What comes next, nobody has said yet."
    if said.loss is not None:
        words = (
            f"{_spelled(found, place)} comes: probability {percent(math.exp(-said.loss))}, "
            f"loss {decimals(said.loss)} nats, number {said.rank} of the likeliest."
        )
    words += f" The entropy before it is {decimals(said.entropy)} nats."
    bars = "".join(_bar(one, one.token_id == comes) for one in said.top)
    return f'<div hidden><p>{escape(words)}</p><dl class="bars">{bars}</dl></div>'


def _bar(one: Alternative, came: bool) -> str:
    return (
        f'<dt class="{"came" if came else ""}">{escape(spelled(one.token_id, one.text))}</dt>'
        f"<dd>{percent(one.probability)}</dd>"
        f'<dd class="bar" style="width:{one.probability:.2%}"></dd>'
    )


def _spelled(found: Explanation, place: int) -> str:
    return spelled(found.token_ids[place], found.texts[place])


def _visible(found: Explanation, place: int) -> str:
    """A token as it stands in a text; what would not be seen, by a sign."""
    text = found.texts[place]
    if text is None:
        return f"{found.token_ids[place]} "
    return text.replace("\n", "⏎").replace("\t", "⇥") or "∅"


# ---- attention -----------------------------------------------------------------------------------


def _attention(found: Explanation) -> Iterator[str]:
    if not found.attentions:
        return
    layers = sorted({one.layer for one in found.attentions})
    numbers = sorted({one.head for one in found.attentions})
    size = len(found.token_ids)
    cells = ["<span></span>", *(f'<span class="name">head {n}</span>' for n in numbers)]
    for layer in layers:
        cells.append(f'<span class="name">layer {layer}</span>')
        for column, number in enumerate(numbers, 2):
            label = f"layer {layer}, head {number}"
            cells.extend(
                f'<button type="button" class="head" style="grid-column:{column}" '
                f'title="{label}" aria-label="{label}" data-words="{_words(one)}">'
                f'<canvas width="{size}" height="{size}"></canvas></button>'
                for one in found.attentions
                if (one.layer, one.head) == (layer, number)
            )
    chips = "".join(
        f'<button type="button" class="token" aria-label="{escape(_spelled(found, place))} '
        f'({place})">{escape(_visible(found, place))}</button>'
        for place in range(size)
    )
    yield from _section(
        "Attention",
        "What each head attends to: a row a token, a column for each that it may look at. Colours "
        "go by the square root of the weight, so that small ones show. Point at a head to see it "
        "large, and at a row of it, or at a token, to see what that token attends to.",
        f"""<noscript><p>The maps are drawn by a script; the table below needs none.</p></noscript>
<div class="attention">
<div class="grid" style="grid-template-columns:max-content repeat({len(numbers)}, minmax(0, 9rem))">
{"".join(cells)}</div>
<div><canvas id="big" width="{size}" height="{size}" role="img" aria-labelledby="which"></canvas>
<p id="which" aria-live="polite"></p>
<p id="whose"></p>
<div id="attended" class="text by-weight">{chips}</div></div>
</div>
<details><summary>All heads as a table</summary>{heads(found)}</details>""",
    )


def _words(one: AttentionMap) -> str:
    words = f"Layer {one.layer}, head {one.head}."
    about = one.summary()
    entropy = about.pop("entropy")
    if entropy is None:
        return words
    first, previous, itself = (percent(share or 0) for share in about.values())
    return (
        f"{words} Entropy {decimals(entropy)} nats; on the first token {first}, on the one before "
        f"{previous}, on itself {itself}."
    )


# ---- the numbers ---------------------------------------------------------------------------------


def _embedded(found: Explanation, about: Mapping[str, Any]) -> str:
    """The numbers of the page as JSON, those of attention bit for bit as they are in memory."""
    described: dict[str, Any] = dict(about) | found.described(with_weights=False)
    wide = any(one.weights.dtype.itemsize == 8 for one in found.attentions)
    described["weights_dtype"] = kind = "<f8" if wide else "<f4"
    for plain, one in zip(described["attentions"], found.attentions, strict=True):
        plain["weights"] = b64encode(one.weights.astype(kind).tobytes()).decode("ascii")
    plain_text = json.dumps(described, allow_nan=False, separators=(",", ":"))
    return plain_text.replace("<", "\\u003c")  # or a token could end the script
