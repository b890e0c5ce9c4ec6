"""How numbers and tokens of an explanation are written, as text and on a page alike."""

from __future__ import annotations

from dataclasses import dataclass

from tfx.core.explanation import Explanation, Part


def spelled(token_id: int, text: str | None) -> str:
    """A token for a reader: quoted, so that spaces show; its id where there is no tokenizer.

    >>> spelled(3, " the"), spelled(4, "\\n"), spelled(5, None)
    ("' the'", "'\\\\n'", '5')
    """
    return str(token_id) if text is None else repr(text)


def percent(share: float) -> str:
    """A share of one with two digits, or as many as 0.1 % takes.

    >>> [percent(x) for x in (0.98765, 0.1234, 0.0123, 0.00004, 0.0, 1.0)]
    ['99%', '12%', '1.2%', '<0.1%', '0%', '100%']
    """
    if not share:
        return "0%"
    if share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def decimals(number: float) -> str:
    """A loss or an entropy.

    >>> decimals(2.34567)
    '2.346'
    """
    return f"{number:.3f}"


def count(number: int) -> str:
    """
    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,}"


@dataclass(frozen=True)
class Line:
    """A line of the table of parts: like parts of all layers together.

    Attributes:
        name: with how many there are of it.
        share: of all FLOPs.
        formula: of the FLOPs of one of them.
    """

    name: str
    parameters: int
    flops: int
    share: float
    formula: str


def budget(found: Explanation) -> list[Line]:
    """The parts of a model, those of like name in all layers as one line, and their sums."""
    alike: dict[tuple[str, bool], list[Part]] = {}
    for part in found.parts:
        alike.setdefault((part.name, part.layer is None), []).append(part)
    lines = [
        _line(name if once else f"{len(parts)} x {name}", parts, found.flops)
        for (name, once), parts in alike.items()
    ]
    return [*lines, _line("all", found.parts, found.flops)]


def _line(name: str, parts: list[Part] | tuple[Part, ...], flops: int) -> Line:
    own = sum(part.flops for part in parts)
    formula = parts[0].formula if len({part.formula for part in parts}) == 1 else ""
    return Line(name, sum(part.parameters for part in parts), own, own / (flops or 1), formula)
