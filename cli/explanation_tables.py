"""The tables of the page of `tfx explain`, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from tfx.cli.explanation_words import budget, count, decimals, percent, spelled
from tfx.core.explanation import Explanation, Prediction


def predictions(found: Explanation) -> str:
    """What is said behind each token, and what comes."""
    tokens = _tokens(found)
    rows = []
    for place, said in enumerate(found.predictions):
        comes = ["", "", "", ""]
        if said.loss is not None:
            chance = percent(math.exp(-said.loss))
            comes = [tokens[place + 1], decimals(said.loss), chance, str(said.rank)]
        top = "  ".join(f"{spelled(x.token_id, x.text)} {percent(x.probability)}" for x in said.top)
        rows.append([str(place), tokens[place], *comes, decimals(said.entropy), top])
    head = ["#", "behind", "comes", "loss", "probability", "rank", "entropy", "likeliest"]
    return _table("Loss and entropy in nats", head, rows, texts=("behind", "comes", "likeliest"))


def heads(found: Explanation) -> str:
    """A line for each map of attention."""
    rows = []
    for one in found.attentions:
        summary = one.summary()
        entropy = summary.pop("entropy")
        shares = ["-" if share is None else percent(share) for share in summary.values()]
        shown = "-" if entropy is None else decimals(entropy)
        rows.append([str(one.layer), str(one.head), shown, *shares])
    head = ["layer", "head", "entropy", "on first", "on previous", "on itself"]
    return _table("Means over all tokens but the first; entropy in nats", head, rows)


def activations(found: Explanation) -> str:
    rows = []
    for stage in found.stages:
        s = stage.statistics
        rows.append([stage.name, *(f"{x:.4g}" for x in (s.mean, s.std, s.max_abs, s.norm))])
    head = ["behind", "mean", "std", "max |x|", "norm"]
    return _table("Over all tokens and channels", head, rows, texts=("behind",))


def lens(found: Explanation) -> str:
    """A row a stage, a column a token: what would be said behind it."""
    following: list[int | None] = [*found.token_ids[1:], None]
    rows = []
    for stage in found.stages:
        cells = [f'<td class="plain">{"-" if stage.loss is None else decimals(stage.loss)}</td>']
        cells += map(_lens_cell, stage.predictions, following)
        rows.append((stage.name, cells))
    return _heat_table("lens", "behind", ["mean loss", *_tokens(found)], rows)


def _lens_cell(said: Prediction, follows: int | None) -> str:
    if not said.top:
        return "<td></td>"
    best = said.top[0]
    each = [(spelled(x.token_id, x.text), percent(x.probability)) for x in said.top]
    words = "\n".join(f"{token} {share}" for token, share in each)
    hit = ' class="hit"' if best.token_id == follows else ""
    return (
        f'<td{hit} style="--heat:{best.probability:.4f}" title="{escape(words)}">'
        f"{escape(each[0][0])}<small>{each[0][1]}</small></td>"
    )


def norms(found: Explanation) -> str:
    """A row a stage, a column a token: how large its hidden state is."""
    every = [x for stage in found.stages for x in stage.statistics.norms if x]
    low, high = math.log(min(every, default=1)), math.log(max(every, default=1))
    rows = []
    for stage in found.stages:
        shares = (
            (math.log(x) - low) / (high - low) if x and high > low else 0.0
            for x in stage.statistics.norms
        )
        cells = [
            f'<td style="--heat:{share:.4f}">{x:.4g}</td>'
            for share, x in zip(shares, stage.statistics.norms, strict=True)
        ]
        rows.append((stage.name, cells))
    return "<p></p>" + _heat_table("norms", "norm behind", _tokens(found), rows)


def parts(found: Explanation) -> str:
    """What the model is made of, and the sums."""
    lines = [
        f'<tr><th scope="row">{escape(line.name)}</th><td>{count(line.parameters)}</td>'
        f'<td>{count(line.flops)}</td><td class="share" style="--share:{line.share:.4f}">'
        f'{percent(line.share)}</td><td class="left">{line.formula}</td></tr>'
        for line in budget(found)
    ]
    names = ("part", "parameters", "FLOPs", "share of FLOPs", "FLOPs of one")
    head = "".join(
        f'<th scope="col"{_LEFT if n in (0, 4) else ""}>{name}</th>' for n, name in enumerate(names)
    )
    return _scrolling(
        f'<table class="parts"><thead><tr>{head}</tr></thead><tbody>{"".join(lines[:-1])}</tbody>'
        f"<tfoot>{lines[-1]}</tfoot></table>",
        "What the model is made of",
    )


# ---- tables --------------------------------------------------------------------------------------

_LEFT = ' class="left"'


def _tokens(found: Explanation) -> list[str]:
    return [spelled(*token) for token in zip(found.token_ids, found.texts, strict=True)]


def _table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[str] = ()
) -> str:
    columns = "".join(
        f'<th scope="col"{_LEFT if name in texts else ""}>{escape(name)}</th>' for name in head
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f'<td class="left token-text">{escape(cell)}</td>'
            if name in texts
            else f"<td>{escape(cell)}</td>"
            for name, cell in zip(head, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return _scrolling(
        f"<table><caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{lines}</tbody></table>",
        caption,
    )


def _heat_table(
    kind: str, corner: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]
) -> str:
    """Coloured cells, with names on both sides."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows
    )
    return _scrolling(
        f'<table class="heat {kind}"><thead><tr><th scope="row">{corner}</th>{columns}</tr></thead>'
        f"<tbody>{lines}</tbody></table>",
        kind,
    )


def _scrolling(table: str, label: str) -> str:
    """A table that is wider than the page scrolls, by the keyboard too."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'
    )
