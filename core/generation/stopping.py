"""When a text is done: its last token ends texts, a stop string has come, or it is long enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from tfx.core.errors import OptionError
from tfx.core.generation.options import GenerationOptions

Decoder = Callable[[Sequence[int]], str]
"""From token ids to text; for bytes that make no character yet it gives a replacement."""

FinishReason = Literal["eos", "stop", "length"]

_CUT = 4
"""Where a tail begins and ends within characters, it may show so many that the text has not."""


class Ending:
    """The end of texts, as the options have it.

    A stop string is looked for in what a few last tokens decode to, however long the text is. So
    those tokens must decode to the end of what all of them do; where a character is cut in two, the
    first few characters may differ.

    Raises:
        OptionError: there are stop strings and no decoder to see them with.
    """

    def __init__(self, options: GenerationOptions, decode: Decoder | None = None) -> None:
        if options.stop and decode is None:
            raise OptionError(
                "{stop} {given!r}: no decoder makes text to find it in; use {eos_ids}",
                given=options.stop,
            )
        self._options = options
        self._decode = decode
        self._reach = max(map(len, options.stop), default=0) + _CUT

    def reason(self, new: Sequence[int]) -> FinishReason | None:
        """Why the generated tokens `new`, at least one, end with the last of them, if they do.

        Those before the last are taken to go on: of a text, one asks after every token.
        """
        if new[-1] in self._options.eos_ids:
            return "eos"
        if self._options.stop and self._has_stopped(new):
            return "stop"
        return "length" if len(new) >= self._options.max_new_tokens else None

    def text(self, new: Sequence[int]) -> str | None:
        """The generated text without what ended it; None without a decoder."""
        if self._decode is None:
            return None
        if new[-1] in self._options.eos_ids:
            new = new[:-1]
        return before_stop(self._text(new), self._options.stop)

    def _has_stopped(self, new: Sequence[int]) -> bool:
        """Whether the last token completes a stop string."""
        count = self._reach
        while count < len(new) and len(self._text(new[-count:-1])) < self._reach:
            count *= 2
        stop = self._options.stop
        if _find(self._text(new[-count:]), stop) is None:
            return False
        return count >= len(new) or _find(self._text(new), stop) is not None

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
