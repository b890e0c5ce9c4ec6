"""The options that commands share, and the checks of their values.

An environment variable stands in for four options that a user may want to set once for
all commands: TFX_BACKEND, TFX_DEVICE, TFX_DTYPE and TFX_SEED.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import typer

from tfx.core.dtypes import DType, as_dtype
from tfx.core.errors import DTypeError, TfxError, UsageError


class Autograd(StrEnum):
    auto = "auto"
    core = "core"
    native = "native"


class EarlyStopping(StrEnum):
    true = "true"
    false = "false"
    never = "never"

    @property
    def meaning(self) -> bool | Literal["never"]:
        """What generation takes for it."""
        return "never" if self is EarlyStopping.never else self is EarlyStopping.true


class Span(NamedTuple):
    """Documents `start` to `stop`, the latter not among them."""

    start: int
    stop: int


def number(wanted: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """A parser of finite numbers that fit; `wanted` completes "expected a number ..."."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            raise typer.BadParameter(f"expected a number {wanted}, got {text!r}")
        return value

    return parse


above_0 = number("above 0", lambda x: x > 0)
at_least_0 = number("of at least 0", lambda x: x >= 0)
share = number("above 0 and at most 1", lambda x: 0 < x <= 1)
share_but_1 = number("above 0 and below 1", lambda x: 0 < x < 1)
share_or_0 = number("from 0 to 1", lambda x: 0 <= x <= 1)
exponent = number("from -10 to 10", lambda x: -10 <= x <= 10)


def element_type(text: str) -> DType:
    try:
        return as_dtype(text)
    except DTypeError as error:
        raise typer.BadParameter(str(error)) from None


def path(text: str | Path) -> Path:
    """The name of a file or folder, and not an option that stands where one was forgotten."""
    given = str(text)
    if not given or (given.startswith("-") and given != "-"):
        hint = f"; ./{given} would be one" if given else ""
        raise typer.BadParameter(f"expected the name of a file or folder, got {given!r}{hint}")
    return Path(text)


def span(text: str) -> Span:
    """`1000:6000`, half open.

    >>> span("1000:6000")
    Span(start=1000, stop=6000)
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise typer.BadParameter(f"expected START:STOP, as in 1000:6000, got {text!r}")
    found = Span(*map(int, match.groups()))
    if found.start >= found.stop:
        raise typer.BadParameter(f"{text} holds no document: STOP must be above START")
    return found


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """What `--set key=value` gave, by key; the last of two with one key holds.

    >>> pairs(["n_layer=2", "n_embd=32"])
    {'n_layer': '2', 'n_embd': '32'}
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"--set expects KEY=VALUE, as in --set n_layer=2, got {text!r}")
        found[key] = value
    return found


def theta(text: str) -> float | list[float] | list[list[float]]:
    """`--theta 0.8`, `--theta 1,0.9` for each layer, `--theta "[[1,0.5],[1,1]]"` for each head.

    >>> theta("0.8"), theta("1,0.9"), theta("[[1, 0.5], [1, 1]]")
    (0.8, [1, 0.9], [[1, 0.5], [1, 1]])
    """
    if not set(text) & {",", "["}:
        return at_least_0(text)
    try:
        found = json.loads(text if text.lstrip().startswith("[") else f"[{text}]")
    except (ValueError, RecursionError):
        found = []
    rows = [row if isinstance(row, list) else [row] for row in found]
    alike = len({(type(one) is list, len(row)) for one, row in zip(found, rows, strict=True)}) == 1
    if not alike or not all(rows) or not all(_is_theta(x) for row in rows for x in row):
        raise typer.BadParameter(
            "expected a number of at least 0, one for each layer, as in '1,0.9', or for each head, "
            f"as in '[[1,0.5],[1,1]]', got {text!r:.60}"
        )
    return cast("list[float] | list[list[float]]", found)


def _is_theta(x: object) -> bool:
    return type(x) in (int, float) and 0 <= cast(float, x) < math.inf


def token_ids(text: str) -> tuple[int, ...]:
    """`--prompt-ids "1 2 3"`.

    >>> token_ids("1 2 3")
    (1, 2, 3)
    """
    return _whole_numbers(
        f"--prompt-ids expects ids of tokens, as in '1 2 3', got {text!r:.60}", text
    )


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """`--layers "0 3"`.

    >>> numbers("--layers", "0 3")
    (0, 3)
    """
    return _whole_numbers(f"{flag} expects numbers, as in '0 3', got {text!r:.60}", text)


def _whole_numbers(complaint: str, text: str) -> tuple[int, ...]:
    words = text.split()
    if not words or not all(re.fullmatch("[0-9]{1,18}", word) for word in words):
        raise UsageError(complaint)
    return tuple(map(int, words))


def complete_backend(incomplete: str) -> list[tuple[str, str]]:
    return _on_offer("backends")


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    return _on_offer("models")


def complete_logger(incomplete: str) -> list[tuple[str, str]]:
    return _on_offer("loggers")


def _on_offer(kind: str) -> list[tuple[str, str]]:
    """Names and summaries; none rather than an error in the middle of somebody's typing."""
    from tfx.core.plugins import PluginHost

    try:
        offers = getattr(PluginHost(), kind)()
    except TfxError:
        return []
    return [(name, offer.spec.summary) for name, offer in offers.items()]


def complete_dtype(incomplete: str) -> list[str]:
    return [str(dtype) for dtype in DType]


ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="'tfx models' lists them.", autocompletion=complete_model),
]
BackendName = Annotated[
    str | None,
    typer.Option(
        "--backend",
        "-b",
        metavar="NAME[:DEVICE]",
        envvar="TFX_BACKEND",
        help="Array library; 'tfx backends' lists them. By default the best that is ready.",
        autocompletion=complete_backend,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", envvar="TFX_DEVICE", help="Of the backend, such as cuda:0."),
]
ElementType = Annotated[
    DType | None,
    typer.Option(
        metavar="DTYPE",
        envvar="TFX_DTYPE",
        help="Of the parameters and the arithmetic, such as float32.",
        parser=element_type,
        autocompletion=complete_dtype,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="INT", envvar="TFX_SEED", help="Of all that is random.", min=0, max=2**63 - 1
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="TASK",
        help="Of a head on the model: text-classification, token-classification, "
        "question-answering or multiple-choice; by default it predicts text.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(parser=path, metavar="PATH", help="Checkpoint to take the parameters from."),
]
PromptText = Annotated[
    str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="As PROMPT.")
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", parser=path, metavar="FILE", help="Take the prompt from a file; - is stdin."
    ),
]
PromptIds = Annotated[
    str | None, typer.Option(metavar="IDS", help="The prompt as token ids: '1 2 3'.")
]
Theta = Annotated[
    Any,
    typer.Option(
        metavar="FLOAT",
        parser=theta,
        help="Multiply the scores of attention; below 1 it spreads, 0 attends to all alike. One "
        "for each layer: '1,0.9,0.8,1'; for each head: '[[1,0.5],[1,1]]'.",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEME",
        help="Keep the weights in fewer bits: int8, int4, float16 or bfloat16.",
    ),
]
QuantizeEmbeddings = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEME",
        help="Those of tokens, and the head; none: as they are. Default: as the others, int8 for "
        "int4.",
    ),
]
GroupSize = Annotated[
    int | None,
    typer.Option(metavar="INT", min=1, help="Neighbours that share a scale; default: 64."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
NoJit = Annotated[
    bool,
    typer.Option(
        "--no-jit",
        help="Compute every step anew instead of replaying the first.",
    ),
]
