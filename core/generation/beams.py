"""Beam search: the likeliest texts among those that stay close to the likeliest at every token.

Scores, the order of equal ones, and the moment a search ends follow Hugging Face transformers 5,
float32 included, so that the same logits give the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tfx.core.generation.logits import Logprob, Row, largest, logprob, nothing_left
from tfx.core.generation.options import GenerationOptions

Scores = npt.NDArray[np.float32]

OUT = np.float32(-1e9)
"""Added to the score of what must not be chosen while there is anything else."""


@dataclass(frozen=True)
class Beam:
    """A text that is being followed.

    Attributes:
        ids: its generated tokens.
        row: which of the search's texts it went on from at the last of them.
        logprobs: of its tokens; empty unless they are asked for.
    """

    ids: tuple[int, ...] = ()
    row: int = 0
    logprobs: tuple[Logprob, ...] = ()


@dataclass
class BeamSearch:
    """The search for one prompt's texts.

    Args:
        options: num_beams texts are followed at once.
        ends: whether generated tokens end a text.

    Attributes:
        beams: the texts it follows, best first; all are one to begin with.
        found: texts that ended, with their scores, best first; at most num_beams.
        over: no better text is expected, as `early_stopping` has it.
    """

    options: GenerationOptions
    ends: Callable[[Sequence[int]], bool]
    beams: list[Beam] = field(init=False)
    found: list[tuple[np.float32, Beam]] = field(init=False, default_factory=list)
    over: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        count = self.options.num_beams
        self.beams = [Beam()] * count
        self._scores: Scores = np.full(count, OUT)
        self._scores[0] = 0

    def advance(self, log_probs: Row, logits: Row) -> None:
        """Take the next token of every text.

        Args:
            log_probs: what the search adds up, (num_beams, vocabulary).
            logits: the model's own, of the same shape, to report log-probabilities from.

        Raises:
            UsageError: every token is forbidden.
        """
        options, vocabulary = self.options, log_probs.shape[1]
        totals: Scores = (log_probs.astype(np.float32) + self._scores[:, None]).reshape(-1)
        # Enough that num_beams texts go on, whichever end.
        best = largest(totals, max(2, 1 + len(set(options.eos_ids))) * options.num_beams)
        scores = totals[best]
        if scores[0] == -np.inf:
            raise nothing_left(options)
        candidates = [
            self._extended(row, token, logits[row])
            for row, token in (divmod(int(i), vocabulary) for i in best)
        ]
        ended = np.array([self.ends(beam.ids) for beam in candidates])
        self._file(scores, candidates, ended)

        going: Scores = np.where(ended, scores + OUT, scores)
        chosen = largest(going, options.num_beams)
        self.beams = [candidates[i] for i in chosen]
        self._scores = going[chosen]
        self.over = bool(ended.all()) or self._is_settled()

    def _extended(self, row: int, token: int, logits: Row) -> Beam:
        beam, logprobs = self.beams[row], self.beams[row].logprobs
        if self.options.logprobs is not None:
            logprobs = (*logprobs, logprob(logits, token, self.options.logprobs))
        return Beam((*beam.ids, token), row, logprobs)

    def _file(
        self, scores: Scores, candidates: Sequence[Beam], ended: npt.NDArray[np.bool_]
    ) -> None:
        """Put the candidates that ended among the texts found; only the best num_beams can be."""
        count = self.options.num_beams
        scores = scores / np.float32(len(candidates[0].ids) ** self.options.length_penalty)
        top = zip(scores[:count], candidates, ended, strict=False)
        new = [(score, beam) for score, beam, end in top if end and score > -np.inf]
        self.found = sorted(self.found + new, key=lambda found: -found[0])[:count]

    def _is_settled(self) -> bool:
        """Whether there are enough texts, and none better is expected."""
        if len(self.found) < self.options.num_beams:
            return False
        if self.options.early_stopping is True:
            return True
        length, penalty = len(self.beams[0].ids), self.options.length_penalty
        if self.options.early_stopping == "never" and penalty > 0:
            length = self.options.max_new_tokens
        return bool(self._scores[0] / length**penalty <= self.found[-1][0])
