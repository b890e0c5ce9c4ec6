"""`tfx explain` as text: tables of at most 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tfx.cli.explanation_words import Line, budget, count, decimals, percent, spelled
from tfx.core.explanation import Alternative, Explanation

WIDTH = 100
TOKEN = 10
"""The most columns for a token."""

CELL = 14
"""The columns of what one stage says: a token, and how likely it is."""


def lines_of(found: Explanation) -> Iterator[str]:
    """All of an explanation, line by line."""
    yield from _predictions(found)
    yield from _lens(found)
    yield from _attentions(found)
    yield from _activations(found)
    yield from _parts(found)


def _predictions(found: Explanation) -> Iterator[str]:
    yield f"{_of(found)}{_summary(found)}"
    highest = math.log(found.vocab_size)
    yield from _title(f"PREDICTIONS (loss and entropy in nats; entropy at most {highest:.2f})")
    opening = f"{'#':>4}  {'behind':{TOKEN}}  {'comes':{TOKEN}}  {'loss':>6}  {'rank':>4}  "
    yield f"{opening}{'entropy':>7}  likeliest"
    tokens = [*zip(found.token_ids, found.texts, strict=True)]
    for place, (said, token) in enumerate(zip(found.predictions, tokens, strict=True)):
        comes = loss = rank = ""
        if said.loss is not None:
            comes, loss = _cell(*tokens[place + 1]), decimals(said.loss)
            rank = str(said.rank)
        opening = (
            f"{place:4}  {_cell(*token):{TOKEN}}  {comes:{TOKEN}}  {loss:>6}  {rank:>4}  "
            f"{decimals(said.entropy):>7}  "
        )
        first, *others = _wrapped(said.top, WIDTH - len(opening)) or [""]
        yield f"{opening}{first}".rstrip()
        for line in others:
            yield " " * len(opening) + line


def _of(found: Explanation) -> str:
    return f"{len(found.token_ids)} token{'s' * (len(found.token_ids) != 1)}"


def _summary(found: Explanation) -> str:
    if found.loss is None:
        return ""
    perplexity = "" if found.perplexity is None else f", perplexity {found.perplexity:,.2f}"
    return f", loss {found.loss:.4f} nats a token{perplexity}"


def _lens(found: Explanation) -> Iterator[str]:
    """A row a place, a column a stage, in as many blocks as it takes."""
    if not any(said.top for said in found.predictions):
        return
    yield from _title("LOGIT LENS (what the model would say if it ended behind ...; = what comes)")
    fit = (WIDTH - TOKEN - 8 + 2) // (CELL + 2)
    blocks = math.ceil(len(found.stages) / fit)
    size = math.ceil(len(found.stages) / blocks)
    following: list[int | None] = [*found.token_ids[1:], None]
    for start in range(0, len(found.stages), size):
        stages = found.stages[start : start + size]
        if start:
            yield ""
        names = "  ".join(f"{stage.name:{CELL}}" for stage in stages)
        yield f"{'#':>4}  {'behind':{TOKEN}}  {names}".rstrip()
        for place, token in enumerate(zip(found.token_ids, found.texts, strict=True)):
            cells = []
            for stage in stages:
                best = stage.predictions[place].top[0]
                mark = "=" if best.token_id == following[place] else " "
                cells.append(
                    f"{_cell(best.token_id, best.text, 8)} {percent(best.probability)}{mark}"
                )
            row = "  ".join(f"{cell:{CELL}}" for cell in cells)
            yield f"{place:4}  {_cell(*token):{TOKEN}}  {row}".rstrip()


def _attentions(found: Explanation) -> Iterator[str]:
    if not found.attentions:
        return
    yield from _title("ATTENTION (means over all tokens but the first; entropy in nats)")
    head = ("layer", "head", "entropy", "on first", "on previous", "on itself")
    rows = []
    for one in found.attentions:
        summary = one.summary()
        shares = [summary[name] for name in ("on_first", "on_previous", "on_itself")]
        rows.append(
            [
                str(one.layer),
                str(one.head),
                "-" if summary["entropy"] is None else decimals(summary["entropy"]),
                *("-" if share is None else percent(share) for share in shares),
            ]
        )
    yield from _table(head, rows)


def _activations(found: Explanation) -> Iterator[str]:
    yield from _title("ACTIVATIONS (of the residual stream behind ...; norm: mean of the tokens')")
    rows = [
        [stage.name, *(f"{x:.4g}" for x in (s.mean, s.std, s.max_abs, s.norm))]
        for stage in found.stages
        for s in (stage.statistics,)
    ]
    yield from _table(("behind", "mean", "std", "max |x|", "norm"), rows)


def _parts(found: Explanation) -> Iterator[str]:
    yield from _title("PARAMETERS AND FLOPS (a multiplication and an addition are two)")
    head = ("part", "parameters", "flops", "share", "flops of one")
    lines: Sequence[Line] = budget(found)
    yield from _table(
        head,
        [
            [
                line.name,
                count(line.parameters),
                count(line.flops),
                percent(line.share),
                line.formula,
            ]
            for line in lines
        ],
    )
    sizes = ", ".join(f"{letter} = {size}" for letter, size in found.sizes.items())
    yield f"with {sizes}"


# ---- rows and cells ------------------------------------------------------------------------------


def _title(text: str) -> Iterator[str]:
    yield ""
    yield text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns side by side: the first and the last to the left, numbers to the right."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.ljust(width) if n == 0 or head[n].startswith("flops of") else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _cell(token_id: int, text: str | None, width: int = TOKEN) -> str:
    shown = spelled(token_id, text)
    return shown if len(shown) <= width else shown[: width - 2] + "…" + shown[-1]


def _wrapped(top: Sequence[Alternative], width: int) -> list[str]:
    """Alternatives, as many in a line as fit."""
    lines: list[str] = []
    for one in top:
        cell = f"{_cell(one.token_id, one.text)} {percent(one.probability)}"
        if lines and len(lines[-1]) + 2 + len(cell) <= width:
            lines[-1] += f"  {cell}"
        else:
            lines.append(cell)
    return lines
