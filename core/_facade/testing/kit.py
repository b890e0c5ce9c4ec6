"""What the kit is made of: checks, each on one of seven levels, and the backend they are put to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from typing import Any

from tfx.core.backend import Backend
from tfx.core.dtypes import DType
from tfx.core.errors import PluginError, UsageError
from tfx.core.plugins import PluginHost
from tfx.core.resolve import AUTO, open_backend


class Level(IntEnum):
    """How far a backend can be trusted. Each level takes those below it for granted."""

    CONTRACT = 0
    VALUES = 1
    GRADIENTS = 2
    KERNELS = 3
    MODELS = 4
    BEHAVIOUR = 5
    OVERHEAD = 6

    def __str__(self) -> str:
        return f"L{int(self)}"

    @property
    def meaning(self) -> str:
        """What a backend that passes the level is known to do, in a line."""
        return _MEANING[self]


_MEANING = {
    Level.CONTRACT: "every primitive is there and gives the promised shape and dtype",
    Level.VALUES: "results are right: odd shapes and layouts, NaN and infinities, each dtype",
    Level.GRADIENTS: "derivatives are right, by the tape and by the backend's own autograd",
    Level.KERNELS: "composed ops are right, and each kernel is what it replaces",
    Level.MODELS: "both models compute, write and learn what they do on the reference",
    Level.BEHAVIOUR: "no transfers by its own methods, repeatable, threads and instances apart",
    Level.OVERHEAD: "what a call costs: measured, never failed",
}


class Skipped(Exception):
    """A check has no object here, by what the backend declares; the message says by what."""


class Subject:
    """The backend under test.

    Args:
        name: what reports call it.
        opener: gives an instance; called once for the instance that most checks share, and again
            for each check that needs one to itself.
    """

    def __init__(self, name: str, opener: Callable[[], Backend]) -> None:
        self.name = name
        self.fresh = opener
        self.backend = opener()

    @classmethod
    def open(cls, name: str) -> Subject:
        """The installed backend `name` or `name:device`.

        It need not be whole yet. Raises as `tfx.core.resolve.open_backend` does; a plugin's kernel
        that does not load is an error here, and "auto" no name.
        """
        if name == AUTO:
            raise UsageError("the kit is for one backend; `tfx backends` lists their names")
        host = PluginHost()

        def opener() -> Backend:
            opened = open_backend(host, name, incomplete=True)
            if opened.left_out:
                raise PluginError(opened.left_out[0])
            return opened.backend

        return cls(name, opener)

    def needs(self, *dtypes: DType) -> None:
        """Skip the check unless the backend computes with all of these."""
        for dtype in dtypes:
            if dtype not in self.backend.dtypes:
                raise Skipped(f"{dtype} is not among its dtypes")

    def held(self) -> list[DType]:
        """The dtypes it computes with, in a fixed order."""
        return [dtype for dtype in DType if dtype in self.backend.dtypes]


@dataclass(frozen=True)
class Check:
    """One question to a backend.

    Attributes:
        level: where it belongs.
        name: what it asks: the op and the dtype, or a sentence.
        run: raises where the answer is wrong, and `Skipped` where there is none; may return a line
            to report.
    """

    level: Level
    name: str
    run: Callable[[Subject], str | None]

    def __str__(self) -> str:
        return f"{self.level}-{self.name.replace(' ', '-')}"

    def test(self, subject: Subject) -> None:
        """Run it under pytest."""
        import pytest

        try:
            self.run(subject)
        except Skipped as reason:
            pytest.skip(str(reason))


class Checks(list[Check]):
    """The checks of one level, in the order they are reported."""

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.level = level

    def add(self, name: str, run: Callable[..., str | None], *fixed: Any) -> None:
        """One more; `fixed` are arguments after the subject."""
        self.append(Check(self.level, name, lambda subject: run(subject, *fixed)))

    def check(self, run: Callable[[Subject], str | None]) -> Callable[[Subject], str | None]:
        """Decorate a function whose name says what it asks."""
        self.add(run.__name__.replace("_", " "), run)
        return run


def checks(levels: Sequence[Level] = tuple(Level)) -> list[Check]:
    """All checks of some levels, lowest first. Which are skipped is for the backend to declare."""
    return [
        check
        for level in sorted(levels)
        for check in import_module(f"tfx.testing.levels.{level.name.lower()}").CHECKS
    ]
