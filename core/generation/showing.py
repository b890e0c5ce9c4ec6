"""Texts that are shown while they are generated, without anything that would be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfx.core.generation.generate import Token
from tfx.core.generation.stopping import Decoder, before_stop, settled
from tfx.core.tokenizer import ByteLevelBPE

_CUT = "\N{REPLACEMENT CHARACTER}"
"""What decoders make of bytes that are no whole character, or none yet."""

_CHARACTER = 4
"""The most bytes of a character, and so the most tokens."""


def decoder(tokenizer: ByteLevelBPE) -> Decoder:
    """From ids to text. A model may know more ids than its tokenizer; those stand for no text."""
    known = tokenizer.vocab_size
    return lambda ids: tokenizer.decode(token for token in ids if token < known)


class Growing:
    """One text as it grows: `feed` gives, token by token, the pieces of what `decode` makes of it.

    A character is held back until it is whole or cannot become it, and what may begin a stop string
    until it is known not to. A token costs the decoding of a few, however long the text is.

    >>> growing = Growing(lambda ids: bytes(ids).decode(errors="replace"))
    >>> [growing.feed(Token(0, 0, id, None, None)) for id in "né".encode()]
    ['n', '', 'é']

    Args:
        decode: from ids to text. Of a few ids of a text, the first of which stands for what
            it showed before, it gives what they stand for there.
        stop: texts, of which the first that comes ends it.
    """

    def __init__(self, decode: Decoder, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._tail: list[int] = []  # the last tokens that stand for something
        self._held = ""

    def feed(self, token: Token) -> str:
        """What may be shown once `token` is there."""
        over = token.finish_reason is not None
        self._read([] if token.finish_reason == "eos" else [token.id], over)
        piece = (before_stop if over else settled)(self._held, self._stop)
        self._held = self._held[len(piece) :]
        return piece

    def _read(self, new: list[int], over: bool) -> None:
        """Decode the new token behind the few before it, which may say how it is spelled.

        Those may begin within a character. At most three bytes of it are left, and UTF-8 begins
        anew at the next: of as many tokens as a character has bytes, the last ends as in the whole
        text.
        """
        before = self._decode(self._tail)
        text = self._decode(self._tail + new)
        self._held += text[_whole(before) : len(text) if over else _whole(text)]
        if text != before or self._decode(self._tail + new * _CHARACTER) != before:
            self._tail = (self._tail + new)[-_CHARACTER:]


def _whole(text: str) -> int:
    """How long it is without a last character that further bytes may complete."""
    return len(text) - text.endswith(_CUT)


class Turns:
    """Several texts on one page, one after the other, though they grow at the same time.

    The first that is not complete is shown as it grows; of those behind it, what there is when
    their turn comes.

    Args:
        openings: what each begins with; the first is shown at once.
        show: takes the pieces of the page.
    """

    def __init__(self, openings: Sequence[str], show: Callable[[str], None]) -> None:
        self._waiting = list(openings)
        self._complete = [False] * len(openings)
        self._show = show
        self._turn = 0
        self.add(0, "")

    def add(self, text: int, piece: str, complete: bool = False) -> None:
        """A piece of a text, and whether it is the last."""
        self._waiting[text] += piece
        self._complete[text] = complete
        while self._turn < len(self._waiting):
            if self._waiting[self._turn]:
                self._show(self._waiting[self._turn])
                self._waiting[self._turn] = ""
            if not self._complete[self._turn]:
                return
            self._turn += 1
