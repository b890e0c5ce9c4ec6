"""Speculation: tokens are guessed, and several are verified in one pass of the model.

A pass over a few tokens costs little more than one over a single token, where what costs is to read
the weights, or to call the library. The token at each place is chosen as it would be without: from
the same logits, by the same rules and the same random number. A guess that equals it has spared a
pass; the first that does not is forgotten, with all behind it. So texts are what they are without
speculation, for every seed, but where rounding decides between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from tfx.core.errors import OptionError, UsageError
from tfx.core.generation.causal import Batch, CausalModel, Rewinding, Verifying
from tfx.core.generation.guessing import Draft, Guess, Guesser, Lookup
from tfx.core.generation.logits import Chooser
from tfx.core.generation.options import GenerationOptions
from tfx.core.generation.pace import Offer, Pace

LENGTHS = (0, 1, 2, 4, 8)
"""How many tokens are guessed at a time: few numbers, for backends that prepare for each."""


@dataclass
class Speculation:
    """How tokens are guessed, and what has come of it in all texts so far.

    Attributes:
        draft: a smaller model with the same tokens, which guesses. None: prompt lookup, which takes
            a text to go on as where its last tokens stood before.
        length: how many tokens are guessed at a time, 0 for none. None: as many as pay, by the time
            that passes take here and by how often guesses are right.
        clock: tells seconds.
        pace: what was learnt about time and guesses.
        passes: over new tokens, counted for every text in them.
        new_tokens: what those gave.
        drafted_tokens: guesses that were verified.
        accepted_tokens: those that were right.
        draft_s: seconds for guessing.
        verify_s: seconds of passes with guesses.
        read_s: seconds of passes without.

    Raises:
        OptionError: the length is not one.
    """

    draft: CausalModel | None = None
    length: int | None = None
    clock: Callable[[], float] = perf_counter
    pace: Pace = field(default_factory=Pace, repr=False)
    passes: int = 0
    new_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    draft_s: float = 0.0
    verify_s: float = 0.0
    read_s: float = 0.0

    def __post_init__(self) -> None:
        length = self.length
        if length is not None and (type(length) is not int or length < 0):
            message = "{num_draft_tokens} {given!r}: expected a whole number from 0 up"
            raise OptionError(message, given=length)

    @property
    def acceptance_rate(self) -> float | None:
        """The share of guesses that were right; None before there was one."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None

    @property
    def tokens_per_pass(self) -> float | None:
        """How many tokens a pass gave each text, 1 without guesses; None before there was one."""
        return self.new_tokens / self.passes if self.passes else None

    @property
    def most(self) -> int:
        """The most tokens that are guessed at a time."""
        return LENGTHS[-1] if self.length is None else self.length

    def lengths(self, room: int) -> list[int]:
        """How many tokens may be guessed where so many could be right, rising from 0."""
        lengths = [n for n in LENGTHS if n < self.most] + [self.most]
        return [n for n in lengths if n <= room]

    def decide(self, lengths: Sequence[int], offers: Sequence[Offer]) -> int:
        """Which of `lengths` to verify, of what there is for each text."""
        if self.length is None:
            return self.pace.best(lengths, offers)
        return lengths[-1] if any(offer.tokens for offer in offers) else 0

    def check(self, model: CausalModel, options: GenerationOptions) -> None:
        """Raise `UsageError` where tokens of this model cannot be guessed and verified."""
        if options.num_beams > 1:
            raise OptionError(
                "{num_beams} {given}: a search takes no guesses; use 1, or no speculation",
                given=options.num_beams,
            )
        if not isinstance(model, Verifying) or not _rewinds(model):
            raise UsageError(
                "this model cannot verify guesses, which takes `each_logits`, and `rewind` of its "
                "cache; generate without speculation"
            )
        if self.draft is None:
            return
        if self.draft.vocab_size != model.vocab_size:
            raise UsageError(
                f"the draft model has {self.draft.vocab_size} tokens and the model "
                f"{model.vocab_size}; expected a draft model with the same tokens"
            )
        if not _rewinds(self.draft):
            raise UsageError(
                "the draft model cannot forget what it guessed wrong, which takes `rewind` of its "
                "cache; take another, or none"
            )


def _rewinds(model: CausalModel) -> bool:
    return isinstance(model.start(1, 1), Rewinding)


class Ahead:
    """Reads a batch of texts with guesses at what comes next.

    Args:
        speculation: how; what comes of it is added to its counts.
        batch: its text i goes on from `prompts[rows[i]]`, and its tokens are chosen by
            `choosers[i]`.
    """

    def __init__(
        self,
        speculation: Speculation,
        batch: Batch,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        choosers: Sequence[Chooser],
    ) -> None:
        self._speculation = speculation
        self._batch = batch
        self._guesser: Guesser = Lookup()
        if speculation.draft is not None:
            most = speculation.most
            self._guesser = Draft(speculation.draft, prompts, rows, choosers, most)
        self._guesses: list[Guess] = []

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with text `rows[i]` in place i."""
        self._batch.keep(rows)
        self._guesser.keep(rows)

    def read(self) -> None:
        """Read what is new in each text, with guesses behind it."""
        spec, batch = self._speculation, self._batch
        if not spec.most:
            return batch.read()
        began = spec.clock()
        lengths = spec.lengths(batch.room)
        self._guesses, count = self._guesser.guess(
            batch.texts, lengths[-1], lambda offers: spec.decide(lengths, offers)
        )
        guessed = spec.clock()
        batch.read([guess.tokens[:count] for guess in self._guesses])
        rows = len(batch.logits)  # waits for them
        ended = spec.clock()
        spec.passes += rows
        spec.draft_s += guessed - began
        if batch.guessed:
            spec.verify_s += ended - guessed
        else:
            spec.read_s += ended - guessed
        if self._guesser.is_work and count:
            spec.pace.drafted(count, guessed - began)
        spec.pace.passed(rows * (1 + batch.guessed), ended - guessed)

    def learn(self, row: int, new: Sequence[int]) -> None:
        """What a text got by the last pass, of what was guessed for it."""
        if not self._guesses:  # the prompts alone were read
            return
        guess = self._guesses[row]
        right = [guessed == token for guessed, token in zip(guess.tokens, new, strict=False)]
        spec = self._speculation
        spec.pace.verified(guess.found_by, sum(right), len(right) - sum(right))
        spec.new_tokens += len(new)
        spec.drafted_tokens += min(len(guess.tokens), self._batch.guessed)
        spec.accepted_tokens += sum(right[: self._batch.guessed])
