"""Arguments of calls from Python: what a wrong one is told in one line, by its name there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from inspect import Parameter, signature
from numbers import Integral
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from tfx.core.errors import UsageError
from tfx.core.wording import in_brief, meant, quoted

P = ParamSpec("P")
R = TypeVar("R")


def checked_call(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which refuses calls that do not suit its signature with a `UsageError`.

    >>> @checked_call
    ... def load(name, *, backend=None): ...
    >>> load("gpt2", bakend="numpy")
    Traceback (most recent call last):
    ...
    tfx.core.errors.UsageError: load has no argument 'bakend'. Did you mean 'backend'?
    >>> load("gpt2", "numpy")
    Traceback (most recent call last):
    ...
    tfx.core.errors.UsageError: load: too many positional arguments; it takes (name, *, backend)
    """
    form = signature(function)
    of_any_name = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    named = [p.name for p in form.parameters.values() if p.kind not in of_any_name]
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in form.parameters.values())
    known = [name for name in named if name != "self"]
    called = "a call" if function.__name__ == "__call__" else function.__name__

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not takes_any and (unknown := [name for name in kwargs if name not in known]):
            name = unknown[0]
            raise UsageError(f"{called} has no argument {quoted(name)}.{meant(name, known)}")
        try:
            form.bind(*args, **kwargs)
        except TypeError as misfit:
            raise UsageError(f"{called}: {misfit}; it takes {_in_short(form)}") from None
        return function(*args, **kwargs)

    return cast("Callable[P, R]", checked)


def _in_short(form: Any) -> str:
    """A signature without types and defaults."""
    plain = [
        p.replace(annotation=Parameter.empty, default=Parameter.empty)
        for p in form.parameters.values()
        if p.name != "self"
    ]
    return str(form.replace(parameters=plain, return_annotation=Parameter.empty))


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An argument that is a whole number.

    Raises:
        UsageError: it is not, or is too small or too large.
    """
    if not is_whole(value) or value < least or (most is not None and value > most):
        bounds = f"from {least} up" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} {in_brief(value)}: expected a whole number {bounds}")
    return int(value)


def wholes(name: str, values: Any, most: int | None = None) -> list[int]:
    """An argument that is a list of whole numbers from 0 up.

    Raises:
        UsageError: it is none, or has others.
    """
    listed = list(values) if isinstance(values, Iterable) and not is_text(values) else None
    if listed is None or not all(map(is_whole, listed)):
        raise UsageError(
            f"{name} {in_brief(values)}: expected a list of whole numbers, as in [0, 2]"
        )
    return [whole(name, value, 0, most) for value in listed]


def is_whole(value: object) -> bool:
    """Whether it is a whole number, of Python's or NumPy's; truth values are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether it is a text, or bytes that somebody took for one.

    >>> is_text("a"), is_text(b"a"), is_text(["a"])
    (True, True, False)
    """
    return isinstance(value, str | bytes | bytearray | memoryview)


def one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    """An argument that has few values.

    Raises:
        UsageError: it has another.
    """
    if not any(type(value) is type(x) and value == x for x in known):
        raise UsageError(f"{name} {value!r}: expected one of {', '.join(map(repr, known))}")
    return value


def name_of(argument: str, value: Any, *examples: str) -> str:
    """An argument that is a name, such as the examples.

    Raises:
        UsageError: it is no text, or empty.
    """
    if not isinstance(value, str) or not value:
        known = ", ".join(map(repr, examples))
        raise UsageError(f"{argument} {in_brief(value)}: expected a name, as {known}")
    return value


def path_of(argument: str, value: Any) -> Path:
    """An argument that is a path.

    Raises:
        UsageError: it is none, or empty.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UsageError(f"{argument} {in_brief(value)}: expected a path, as in 'models/mine'")
    return Path(value)
