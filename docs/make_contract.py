"""Writes docs/contract.md, the reference for those who write backends, from the docstrings:

python docs/make_contract.py > docs/contract.md
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import tfx.core.backend as interface
from tfx.core import fused_ops
from tfx.core.backend import Backend, Fused
from tfx.core.dtypes import DType
from tfx.core.fused import FUSED
from tfx.core.specs import API, BackendSpec, KernelSpec, LoggerSpec, Probe
from tfx.core.wording import in_words

WIDTH = 100  # of a signature on one line

HEAD = f"""\
# The contract of a backend

Interface {API}. `python docs/make_contract.py` wrote this from the docstrings of
`tfx.core.backend`, {", ".join(f"`{module.__name__}`" for module in fused_ops.MODULES)} and
`tfx.core.specs`;
[backends.md](backends.md) is the tutorial.
"""

FUSED_OPS = """\
These are the fused ops. A kernel gets their arguments in this order, with raw arrays for tensors,
and all keywords.
"""


def page() -> Iterator[str]:
    """The paragraphs of the page."""
    yield HEAD
    yield prose(interface)
    yield "## What a backend declares\n"
    yield prose(Backend)
    yield f"The element types are {in_words(f'`{dtype}`' for dtype in DType)}.\n"
    for title, methods in groups():
        yield f"## {title[0].upper()}{title[1:]}\n"
        for name in methods:
            yield described(name, getattr(Backend, name))
    yield "## Kernels\n"
    yield described("Fused", Fused)
    yield FUSED_OPS
    for module in fused_ops.MODULES:
        for name, form in FUSED.items():
            if form.__module__ == module.__name__:
                yield described(name, form)
    yield "## What a plugin hands over\n"
    for spec in (BackendSpec, Probe, KernelSpec, LoggerSpec):
        yield described(spec.__name__, spec)


def groups() -> Iterator[tuple[str, list[str]]]:
    """The headings in the source of `Backend`, and the methods below each."""
    source = inspect.getsource(Backend)
    headings = list(re.finditer(r"^    # ---- (.+?) -+$", source, re.MULTILINE))
    ends = [*(heading.start() for heading in headings), len(source)]
    for heading, (start, end) in zip(headings, pairwise(ends), strict=True):
        yield heading[1], re.findall(r"^    def ([a-z]\w*)", source[start:end], re.MULTILINE)


def described(name: str, thing: Callable[..., Any]) -> str:
    """A heading, the signature, and the docstring."""
    return f"### {name}\n\n```python\n{call(name, thing)}\n```\n\n{prose(thing)}"


def call(name: str, thing: Callable[..., Any]) -> str:
    """The signature as it would be written, on one line or on one for each parameter."""
    signature = inspect.signature(thing)
    parts = []
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        star = "*" if p.kind is p.VAR_POSITIONAL else ""
        default = "" if p.default is p.empty else f" = {p.default!r}"
        if p.name != "self":
            parts.append(f"{star}{p.name}: {p.annotation}{default}")
    result = "" if inspect.isclass(thing) else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(parts)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){result}"])


def prose(thing: Any) -> str:
    """A docstring as markdown; a list for each of its sections."""
    text = inspect.cleandoc(thing.__doc__)
    text = re.sub(r"^(\w+):\n((?: {4}.*(?:\n|$)|\n)+)", _section, text, flags=re.MULTILINE)
    return f"{text.rstrip()}\n"


def _section(found: re.Match[str]) -> str:
    title, body = found[1], inspect.cleandoc(f"\n{found[2]}").replace("\n    ", "\n  ")
    entries = re.sub(r"^(\w[\w, ]*): ", r"- `\1`: ", body, flags=re.MULTILINE)
    return f"{title}:\n\n{entries}\n\n"


if __name__ == "__main__":
    print("\n".join(page()), end="")
