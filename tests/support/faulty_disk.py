"""A made-up disk that fails, fills up or kills the program at the k-th change, for every k."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

CHANGES = ["open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir"]


class Killed(BaseException):
    """The program is dead; nothing it does from here on reaches the disk."""


def takes_space(name: str, args: tuple[Any, ...]) -> bool:
    return name in ("write", "fsync", "mkdir") or (name == "open" and bool(args[1] & os.O_CREAT))


class Disk:
    """Lets `at - 1` changing calls pass; then fails once, or is full, or the program dies."""

    def __init__(self, at: int, how: str) -> None:
        self.at, self.how, self.calls = at, how, 0

    def passing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.how == "kill" and self.calls >= self.at:
                if name == "write" and self.calls == self.at:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                if name == "close":  # the system closes a dead program's files
                    with suppress(OSError):
                        real(*args)
                raise Killed
            once = self.how == "once" and self.calls == self.at
            full = self.how == "full" and self.calls >= self.at and takes_space(name, args)
            if once or full:
                if name == "close":
                    real(*args)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return call


def faults(
    save: Callable[[], object], reset: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, BaseException | None]]:
    """Run `save` from the state `reset` makes, with a fault at every call it makes in turn.

    Yields how the disk failed and what came out of `save`, for the test to look at the disk.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the real disk need not be waited for
    for how in ("once", "full", "kill"):
        at = 1
        while True:
            reset()
            disk = Disk(at, how)
            outcome: BaseException | None = None
            with monkeypatch.context() as patch:
                for name in CHANGES:
                    patch.setattr(os, name, disk.passing(name, getattr(os, name)))
                try:
                    save()
                except (Killed, Exception) as error:
                    outcome = error
            if disk.calls < at:
                break
            yield how, outcome
            at += 1
        assert at > 5
