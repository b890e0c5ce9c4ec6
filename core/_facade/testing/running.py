"""Puts the checks to a backend and keeps what came of each."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from traceback import walk_tb
from typing import Any, Literal

from tfx.core.backend import PRIMITIVES, Backend
from tfx.core.errors import TfxError, UsageError
from tfx.core.plugin_loader import CRASHES
from tfx.core.specs import API
from tfx.core.wording import one_line
from tfx.testing.kit import Check, Level, Skipped, Subject, checks

Status = Literal["passed", "failed", "missing", "skipped", "xfailed", "xpassed"]

OWED = ("is_array", "shape", "dtype", *PRIMITIVES, "value_and_grad")
"""What a backend may still have to write, in the order of the interface."""

STATUSES: tuple[Status, ...] = ("passed", "failed", "missing", "skipped", "xfailed", "xpassed")


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        level: of the check.
        name: of the check.
        status: "missing" where a primitive is not written yet, "xfailed" for a gap that was known,
            "xpassed" for one that is none any more.
        seconds: how long it took.
        told: one line: what was wrong, why it was skipped, what was measured, or the name of the
            method that is missing.
        where: what it was wrong on, or nothing.
    """

    level: Level
    name: str
    status: Status
    seconds: float
    told: str
    where: str = ""

    @property
    def message(self) -> str:
        """What was told, and where."""
        return f"{self.told} {self.where}".rstrip()


@dataclass(frozen=True)
class Result:
    """What came of all checks that were run.

    Attributes:
        backend: the name of the subject.
        declared: what the backend says of itself: dtypes, flags, kernels.
        outcomes: in the order of the levels.
        whole: the levels of which every check was run.
        stubs: the methods that do nothing but say that they are missing.
    """

    backend: str
    declared: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    whole: tuple[Level, ...]
    stubs: tuple[str, ...]

    @property
    def passed(self) -> tuple[Level, ...]:
        """The levels, from the lowest on, of which nothing failed, was missing or a known gap."""
        levels = []
        for level in Level:
            if level not in self.whole or self._faults(level):
                break
            levels.append(level)
        return tuple(levels)

    @property
    def failures(self) -> list[Outcome]:
        """What has to be mended: failed and missing, and known gaps that are none any more."""
        return [o for o in self.outcomes if o.status in ("failed", "missing", "xpassed")]

    @property
    def unwritten(self) -> list[str]:
        """The methods that are missing, in the order of the interface."""
        asked = {o.told for o in self.outcomes if o.status == "missing"}
        known = self.stubs if self.whole else ()
        return [name for name in OWED if name in asked or name in known]

    def counts(self, level: Level) -> Counter[Status]:
        """How many checks of a level came to what."""
        return Counter(o.status for o in self.outcomes if o.level is level)

    def _faults(self, level: Level) -> int:
        counts = self.counts(level)
        return counts["failed"] + counts["missing"] + counts["xfailed"] + counts["xpassed"]

    def as_json(self) -> dict[str, Any]:
        """The object that `conformance.json` holds."""
        ran = sorted({o.level for o in self.outcomes})
        return {
            "backend": self.backend,
            "tfx": version("tfx-lm"),
            "api": API,
            "declared": self.declared,
            "passed": [str(level) for level in self.passed],
            "unwritten": self.unwritten,
            "levels": {
                str(level): {
                    "meaning": level.meaning,
                    "whole": level in self.whole,
                    **{status: self.counts(level)[status] for status in STATUSES},
                }
                for level in ran
            },
            "checks": [
                {
                    "level": str(o.level),
                    "name": o.name,
                    "status": o.status,
                    "message": o.message,
                    "seconds": round(o.seconds, 4),
                }
                for o in self.outcomes
            ],
        }


def run(
    subject: Subject,
    levels: Sequence[Level] = tuple(Level),
    keyword: str = "",
    known: Collection[str] = (),
    begins: Callable[[Check], None] = lambda check: None,
    ended: Callable[[Outcome], None] = lambda outcome: None,
) -> Result:
    """Put the checks of some levels to a backend.

    Args:
        subject: the backend.
        levels: those to run.
        keyword: run only checks with this text in `"L1-matmul-float32"` or `"matmul float32"`.
        known: gaps that are known, as the checks print (`"L1-exp-float16"`): failing there is no
            failure, and passing is.
        begins: called before each check.
        ended: called after each check.

    Raises:
        UsageError: no check has that keyword.
    """
    chosen = checks(levels)
    those = asked(chosen, keyword)
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of 1/0, which the checks ask for
        for check in those:
            begins(check)
            outcomes.append(_put(check, subject, str(check) in known))
            ended(outcomes[-1])
    whole = sorted(levels) if those == chosen else ()
    return summed_up(subject, outcomes, whole)


def asked(chosen: Sequence[Check], keyword: str) -> list[Check]:
    """Those with a text in their name; `UsageError` where there is none."""
    those = [check for check in chosen if keyword in str(check) or keyword in check.name]
    if not those:
        raise UsageError(
            f"no check has {keyword!r} in its name; `tfx conformance --list` shows all"
        )
    return those


def summed_up(subject: Subject, outcomes: Sequence[Outcome], whole: Sequence[Level] = ()) -> Result:
    """The result of the checks that were run; `whole` are the levels of which all were."""
    stubs = _stubs(subject.backend)
    return Result(subject.name, declared(subject), tuple(outcomes), tuple(whole), stubs)


def _put(check: Check, subject: Subject, known: bool) -> Outcome:
    began = time.perf_counter()
    status: Status
    where: Sequence[str] = ()
    try:
        told = check.run(subject) or ""
        status = "xpassed" if known else "passed"
    except Skipped as reason:
        status, told = "skipped", str(reason)
    except NotImplementedError as error:
        status, told = "xfailed" if known else "missing", _unwritten(error) or _said(error)
    except CRASHES as error:
        status, told = "xfailed" if known else "failed", _said(error)
        where = getattr(error, "__notes__", ())
    seconds = time.perf_counter() - began
    return Outcome(check.level, check.name, status, seconds, told, " ".join(where))


def _unwritten(error: BaseException) -> str:
    """The method of the backend that raised, the innermost if one calls another."""
    frames = (frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__))
    return next((name for name in reversed([*frames]) if name in OWED), "")


def _said(error: BaseException) -> str:
    """An error in a line; with its type where it is none of the kit's or of tfx's."""
    plain = isinstance(error, AssertionError | TfxError)
    return " ".join(str(error).split()) if plain else one_line(error)


def _stubs(B: Backend) -> tuple[str, ...]:
    codes = {name: getattr(getattr(B, name), "__code__", None) for name in OWED}
    stubs = (name for name, code in codes.items() if code and "_missing" in code.co_names)
    return tuple(name for name in stubs if name != "value_and_grad" or B.native_autograd)


def declared(subject: Subject) -> dict[str, Any]:
    """What the backend says of itself."""
    B = subject.backend
    return {
        "device": B.device,
        "dtypes": _names(B.dtypes),
        "storage_dtypes": _names(B.storage_dtypes),
        "index_dtype": str(B.index_dtype),
        "device_random": B.device_random,
        "deterministic": B.deterministic,
        "native_autograd": B.native_autograd,
        "kernels": sorted(getattr(B, "fused", ())),  # a base class may not have been called
    }


def _names(dtypes: Iterable[Any]) -> list[str]:
    return sorted(map(str, dtypes))
