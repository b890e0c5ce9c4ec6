"""From a row of logits to the next token: small functions that each change one thing.

A row is one text's logits (vocabulary,), float32 or float64 on the host. Functions leave it as it
is and give a new one, where -inf forbids a token. Order, formulas and what happens to equals are
those of Hugging Face transformers 5, so that the same logits give the same choice. Probabilities
are computed in float64 and added up as whole multiples of 2**-40 of the largest: such a sum is the
same in whatever order it is taken, so that a device may take it by many threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx.core.errors import OptionError
from tfx.core.generation.options import GenerationOptions
from tfx.core.threefry import key_from_seed, threefry2x32

Row = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

UNIT = 2**40
"""The weight of the likeliest token, in units that weights are whole numbers of."""

MOST_TOKENS = 2**22
"""The weights of so many tokens add up to what 64 bits hold."""

_BLOCK = 64


def constrained(row: Row, ids: Ids, new: int, options: GenerationOptions) -> Row:
    """The row after what the text so far (`ids`, of which `new` are generated) has a say in."""
    if options.repetition_penalty != 1:
        row = penalize_repetition(row, ids, options.repetition_penalty)
    if options.no_repeat_ngram_size:
        row = forbid(row, repeated_ngram_ends(ids, options.no_repeat_ngram_size))
    if new < options.min_new_tokens:
        row = forbid(row, np.array(options.eos_ids, np.int64))
    return row


def choose(row: Row, options: GenerationOptions, uniform: float) -> int:
    """The likeliest token at temperature 0, the first of equals; else one drawn by `uniform`.

    Raises:
        OptionError: every token is forbidden, or what logits are divided by is so small that they
            overflow.
    """
    if options.temperature == 0:
        token = int(row.argmax())
        if row[token] == -math.inf:
            raise nothing_left(options)
        return token
    return draw(filtered(row, options), uniform, options)


@dataclass(frozen=True)
class Chooser:
    """How one text's tokens are chosen. A token depends on the logits, the text and its place in it
    alone, whenever it is chosen, and by whichever model.

    Attributes:
        options: what may be chosen, and how.
        seed: of the prompt's draws.
        sample: which of the prompt's texts it is.
        prompt: how many tokens it began with.
    """

    options: GenerationOptions
    seed: int
    sample: int
    prompt: int

    def __call__(self, logits: Row, ids: Ids) -> int:
        """The token after `ids`, the text so far, by the logits behind it."""
        new = len(ids) - self.prompt
        scores = constrained(logits, ids, new, self.options)
        number = uniform(self.seed, self.sample, new) if self.options.temperature else 0.0
        return choose(scores, self.options, number)


def filtered(row: Row, options: GenerationOptions) -> Row:
    """The row that a token is drawn from: temperature, top-k, top-p and min-p, in this order."""
    if options.temperature != 1:
        with np.errstate(all="ignore"):  # what is not finite, `draw` finds
            row = row / options.temperature
    if options.top_k:
        row = keep_top_k(row, options.top_k)
    if options.top_p < 1:
        row = keep_top_p(row, options.top_p)
    if options.min_p:
        row = keep_min_p(row, options.min_p)
    return row


# ---- the text so far ----------------------------------------------------------------------------


def penalize_repetition(row: Row, ids: Ids, penalty: float) -> Row:
    """Logits of tokens among `ids` divided by the penalty, or multiplied where negative."""
    out = row.copy()
    seen = row[ids]
    out[ids] = np.where(seen < 0, seen * penalty, seen / penalty)
    return out


def repeated_ngram_ends(ids: Ids, size: int) -> Ids:
    """Every token that would complete a sequence of `size` tokens that is among `ids` already.

    >>> repeated_ngram_ends(np.array([1, 2, 7, 1, 2, 8, 1, 2]), 3)
    array([7, 8])
    """
    if len(ids) < size:
        return ids[:0]
    windows = np.lib.stride_tricks.sliding_window_view(ids, size)
    begun = (windows[:, :-1] == ids[len(ids) - size + 1 :]).all(axis=1)
    return np.asarray(windows[begun, -1])


def forbid(row: Row, which: Ids | Mask) -> Row:
    """The row with -inf for tokens named by their ids, or marked in a mask of the row's length."""
    out = row.copy()
    out[which] = -math.inf
    return out


# ---- what is left to draw from ------------------------------------------------------------------


def keep_top_k(row: Row, k: int) -> Row:
    """Only the k largest logits, and all that equal the last of them."""
    return forbid(row, row < kth_largest(row, min(k, len(row))))


def keep_top_p(row: Row, p: float) -> Row:
    """Only the likeliest tokens, as few as reach a probability of p together, and at least one;
    of equals those with larger ids (Holtzman et al. 2019, arXiv:1904.09751)."""
    weights = _weights(row)
    total = int(weights.sum())
    may_go = min(int((1 - p) * total), total - 1)
    # What would not reach half of that if all tokens were as unlikely need not be sorted.
    removed = weights * len(row) < may_go // 2
    others = np.flatnonzero(~removed)
    rising = others[np.argsort(row[others], kind="stable")]
    reached = weights[removed].sum() + np.cumsum(weights[rising])
    removed[rising[reached <= may_go]] = True
    return forbid(row, removed)


def keep_min_p(row: Row, p: float) -> Row:
    """Only tokens at least p times as likely as the likeliest (arXiv:2407.01082)."""
    return forbid(row, row - row.max() < math.log(p))


def draw(row: Row, uniform: float, options: GenerationOptions) -> int:
    """The token at which the distribution function of softmax(row) passes `uniform`, in [0, 1)."""
    top = row.max()
    if top == -math.inf:
        raise nothing_left(options)
    if not np.isfinite(top):
        raise _overflow(options)
    kept = np.flatnonzero(row > -math.inf)
    passed = np.cumsum(_weights(row[kept]))
    total = int(passed[-1])
    target = min(int(uniform * total), total - 1)
    return int(kept[np.searchsorted(passed, target, side="right")])


def uniform(seed: int, sample: int, step: int) -> float:
    """The number in [0, 1) that draws token `step` of a prompt's text `sample`: 53 bits of
    Threefry-2x32-20, the same on every machine and for whatever else is generated beside it.

    >>> uniform(42, 0, 0)
    0.42672756361231334
    """
    return float(_unit_interval(*threefry2x32(key_from_seed(seed), sample, step)))


def uniforms(seed: int, sample: int, steps: range) -> npt.NDArray[np.float64]:
    """`uniform` of several steps.

    >>> uniforms(42, 0, range(2)).tolist() == [uniform(42, 0, 0), uniform(42, 0, 1)]
    True
    """
    counter = np.arange(steps.start, steps.stop)
    words = threefry2x32(key_from_seed(seed), np.full_like(counter, sample), counter)
    return np.asarray(_unit_interval(*words), np.float64)


def _unit_interval(high: Any, low: Any) -> Any:
    return ((high >> 5) * 2**26 + (low >> 6)) * 2.0**-53


# ---- log-probabilities --------------------------------------------------------------------------


@dataclass(frozen=True)
class Logprob:
    """How likely a token was to the model, before anything was changed about its logits.

    Attributes:
        value: the natural logarithm of its probability.
        top: the likeliest tokens in its place and their logarithms, best first.
    """

    value: float
    top: tuple[tuple[int, float], ...] = ()


def logprob(row: Row, token: int, alternatives: int) -> Logprob:
    """The log-probability of a token, and of so many of the likeliest."""
    values = log_softmax(row.astype(np.float64))
    best = largest(values, alternatives) if alternatives else ()
    return Logprob(float(values[token]), tuple((int(i), float(values[i])) for i in best))


# ---- shared -------------------------------------------------------------------------------------


def softmax(rows: Row) -> Row:
    """Probabilities over the last axis, in float64."""
    wide = np.asarray(rows, np.float64)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def log_softmax(rows: Row) -> Row:
    """log(softmax(rows)) over the last axis, in the dtype of the rows."""
    shifted = rows - rows.max(-1, keepdims=True)
    total = np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(total).astype(rows.dtype))


def largest(values: Row, count: int) -> npt.NDArray[np.intp]:
    """Where the `count` largest values stand, largest first, equals in their order."""
    count = min(count, len(values))
    candidates = np.flatnonzero(values >= kth_largest(values, count))
    return candidates[np.argsort(-values[candidates], kind="stable")[:count]]


def kth_largest(values: Row, k: int) -> np.floating:
    """The k-th largest of `values`, 1 <= k <= len(values).

    >>> float(kth_largest(np.array([3.0, 1.0, 2.0, 3.0]), 3))
    2.0
    """
    # k blocks reach the k-th largest of the blocks' maxima: whatever is smaller is out already.
    blocks = len(values) // _BLOCK
    if k < blocks:
        tops = values[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(1)
        values = values[values >= np.partition(tops, -k)[-k]]
    return np.partition(values, -k)[-k]  # type: ignore[no-any-return]


def nothing_left(options: GenerationOptions) -> OptionError:
    """That every token is forbidden, and by what."""
    return OptionError(
        "no token is left to choose: {no_repeat_ngram_size} {size} and {min_new_tokens} {count} "
        "forbid them all; relax them",
        size=options.no_repeat_ngram_size,
        count=options.min_new_tokens,
    )


def _overflow(options: GenerationOptions) -> OptionError:
    """That logits were divided by next to nothing, and which option said so."""
    penalty, temperature = options.repetition_penalty, options.temperature
    if penalty < temperature:
        message = "{repetition_penalty} {given} is too small to divide by; 1 is none"
        return OptionError(message, given=penalty)
    return OptionError("{temperature} {given} is too small to divide by; use 0", given=temperature)


def _weights(row: Row) -> npt.NDArray[np.int64]:
    """Probabilities, in units of the largest's UNIT-th part."""
    top = float(row.max())
    if not math.isfinite(top):  # which `draw` finds
        return np.zeros(len(row), np.int64)
    weights = np.exp(row.astype(np.float64) - top)
    weights *= UNIT
    return np.rint(weights, out=weights).astype(np.int64)
