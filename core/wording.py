"""Turns of phrase that error messages share."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def one_line(error: BaseException) -> str:
    """The kind of an error and its message, on one line.

    >>> one_line(ImportError("no acme:\\n  install it"))
    'ImportError: no acme: install it'
    """
    message = " ".join(str(error).split())
    kind = type(error).__name__
    return f"{kind}: {message}" if message else kind


def kind_of(value: object) -> str:
    """What `value` is, as a message says it.

    >>> kind_of(None), kind_of({}), kind_of(int)
    ('None', 'a dict', 'the class int')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def in_brief(value: object) -> str:
    """What somebody gave, fit for a one-line message: its beginning, where it is long.

    >>> in_brief(0.5), in_brief([[1, 2]] * 9)
    ('0.5', '[[1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1,...')
    """
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 63 else f"{shown[:60]}..."


def quoted(name: str) -> str:
    """A name from a file, fit for a one-line message: escaped, and cut when it is long.

    >>> quoted("wte\\n"), len(quoted("x" * 1000))
    ("'wte\\\\n'", 102)
    """
    return repr(name if len(name) <= 100 else name[:97] + "...")


def in_words(names: Iterable[str]) -> str:
    """A list as a sentence has it.

    >>> in_words(["exp"]), in_words(["exp", "log"]), in_words(["exp", "log", "tanh"])
    ('exp', 'exp and log', 'exp, log and tanh')
    """
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def megabytes(count: int) -> str:
    """A number of bytes, to read.

    >>> megabytes(12_345_678_900)
    '12,345.7 MB'
    """
    return f"{count / 1e6:,.1f} MB"


def did_you_mean(asked: str, known: Iterable[str]) -> str:
    """A sentence to append when one of `known` looks like `asked`, else nothing.

    >>> did_you_mean("cuppy", ["cupy", "numpy"])
    " Did you mean 'cupy'?"
    >>> did_you_mean("tpu", ["cupy", "numpy"])
    ''
    """
    close = get_close_matches(asked.lower(), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def meant(asked: str, known: Iterable[str]) -> str:
    """A sentence to append: which of `known` looks like `asked`, else all there are.

    >>> meant("cuppy", ["cupy", "numpy"]), meant("tpu", ["cupy", "numpy"])
    (" Did you mean 'cupy'?", ' There are cupy, numpy.')
    """
    listed = list(known)
    return did_you_mean(asked, listed) or f" There are {', '.join(listed) or 'none'}."
