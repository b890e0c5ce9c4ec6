"""When a text is done: its last token ends texts, a stop string has come, or it is long enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from tfx.core.errors import UsageError
from tfx.core.generation.options import GenerationOptions

Decoder = Callable[[Sequence[int]], str]
"""From token ids to text; for bytes that make no character yet it gives a replacement."""

FinishReason = Literal["eos", "stop", "length"]


class Ending:
    """The end of texts, as the options have it.

    Raises:
        UsageError: there are stop strings and no decoder to see them with.
    """

    def __init__(self, options: GenerationOptions, decode: Decoder | None = None) -> None:
        if options.stop and decode is None:
            raise UsageError(
                f"stop {options.stop!r}: no decoder makes text to find it in; use eos_ids"
            )
        self._options = options
        self._decode = decode

    def reason(self, new: Sequence[int]) -> FinishReason | None:
        """Why the generated tokens `new`, at least one, end with the last of them, if they do."""
        if new[-1] in self._options.eos_ids:
            return "eos"
        if self._options.stop and _find(self._text(new), self._options.stop) is not None:
            return "stop"
        return "length" if len(new) >= self._options.max_new_tokens else None

    def text(self, new: Sequence[int]) -> str | None:
        """The generated text without what ended it; None without a decoder."""
        if self._decode is None:
            return None
        if new[-1] in self._options.eos_ids:
            new = new[:-1]
        return before_stop(self._text(new), self._options.stop)

    def _text(self, ids: Sequence[int]) -> str:
        assert self._decode is not None
        return self._decode(ids)


def settled(text: str, stop: Sequence[str]) -> str:
    """What a stream may show of a text that goes on: all but what may begin a stop string.

    >>> settled("Yes.\\nUs", ["\\nUser:"]), settled("Yes.\\nUp", ["\\nUser:"])
    ('Yes.', 'Yes.\\nUp')
    """
    begun = (n for s in stop for n in range(len(s) - 1, 0, -1) if text.endswith(s[:n]))
    return text[: len(text) - max(begun, default=0)]


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop string in it.

    >>> before_stop("Yes.\\nUser: why?", ["why", "\\nUser:"])
    'Yes.'
    """
    return text[: _find(text, stop)]


def _find(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string in `text` begins."""
    return min((at for s in stop if (at := text.find(s)) >= 0), default=None)
