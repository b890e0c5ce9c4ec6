"""Texts that are shown while they are generated, without anything that would be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfx.core.generation.generate import Token
from tfx.core.generation.stopping import Decoder, before_stop, settled
from tfx.core.tokenizer import ByteLevelBPE, StreamDecoder


def decoder(tokenizer: ByteLevelBPE) -> Decoder:
    """From ids to text. A model may know more ids than its tokenizer; those stand for no text."""
    known = tokenizer.vocab_size
    return lambda ids: tokenizer.decode(token for token in ids if token < known)


class Growing:
    """One text as it grows: `feed` gives, token by token, the pieces of what `decoder` makes of it.

    A character is held back until it is whole, and what may begin a stop string until it is known
    not to.
    """

    def __init__(self, tokenizer: ByteLevelBPE, stop: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._known = tokenizer.vocab_size
        self._stop = stop
        self._held = ""

    def feed(self, token: Token) -> str:
        """What may be shown once `token` is there."""
        if token.finish_reason != "eos" and token.id < self._known:
            self._held += self._decoder.feed(token.id)
        if token.finish_reason is None:
            piece = settled(self._held, self._stop)
        else:
            piece = before_stop(self._held + self._decoder.flush(), self._stop)
        self._held = self._held[len(piece) :]
        return piece


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
