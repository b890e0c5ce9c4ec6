"""Judging a text token by token: what is shown, what a key does, and what is kept of it at once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tfx.cli.report import TextReporter
from tfx.core.errors import DataError, UsageError
from tfx.core.wording import quoted

if TYPE_CHECKING:
    from tfx.core.experiences import ExperienceStore
    from tfx.core.resonance import Choice, Resonance

KEYS = {"s": "satisfied", "n": "not satisfied", "u": "undo", "q": "quit"}
TAIL = 40
"""So many letters of the text so far are shown before a token."""


@dataclass(frozen=True)
class Judging:
    """One session at one experience in a store.

    Attributes:
        session: the text in the making.
        prompt: what it began with.
        name: the experience.
        alternatives: how many are shown.
        written: whether the keys come from a file, and a wrong one is an error.
    """

    session: Resonance
    store: ExperienceStore
    prompt: str
    name: str
    alternatives: int
    written: bool

    @classmethod
    def begin(
        cls,
        session: Resonance,
        store: ExperienceStore,
        prompt: str,
        model: str,
        alternatives: int,
        written: bool,
    ) -> Judging:
        """Enter a new experience."""
        theta = session.theta
        name = store.begin(prompt=prompt, model=model, theta=theta, theta_start=theta)
        return cls(session, store, prompt, name, alternatives, written)

    def run(self, keys: Generator[str], report: TextReporter) -> None:
        """Do what the keys say, until one quits or there are no more.

        Raises:
            DataError: the store cannot be written, or a key that was written means nothing here.
        """
        report.note("; ".join(f"{key} {meaning}" for key, meaning in KEYS.items()))
        with closing(keys):
            report.note(self._line())
            for number, key in enumerate(keys, 1):
                if key == "q":
                    break
                if key.isspace():
                    continue
                try:
                    self._press(key)
                except UsageError as fault:
                    if self.written:
                        raise DataError(f"key {number} of the feedback, {key}: {fault}") from None
                    report.note(str(fault))
                else:
                    report.note(self._line())

    def _press(self, key: str) -> None:
        """Do what a key says, and keep it before anything else is computed."""
        session = self.session
        if key == "s":
            decision = asdict(session.satisfied())
        elif key == "n":
            decision = asdict(session.not_satisfied())
        elif key == "u":
            session.undo()
        else:
            known = ", ".join(f"{key} {meaning}" for key, meaning in KEYS.items())
            name = quoted(key) if key.isprintable() else "that"
            raise UsageError(f"{name} is no key here; expected {known}")
        change = {"undone": 1} if key == "u" else {"decision": decision}
        self.store.note(
            self.name,
            **change,
            theta=session.theta,
            response=session.response,
            score=session.score,
        )

    def _line(self) -> str:
        """The end of the text, the token that is proposed for it, and what else there is."""
        session = self.session
        text = repr((self.prompt + session.response)[-TAIL:])[1:-1]
        if (reason := session.finish_reason) is not None:
            return f"{text}|  the end ({reason})  theta {session.theta:.4g}"
        others = map(self._shown, session.alternatives(self.alternatives))
        choices = "  or  ".join(filter(None, [self._shown(session.proposed), "  ".join(others)]))
        return f"{text}|  {choices}  theta {session.theta:.4g}"

    def _shown(self, choice: Choice) -> str:
        return f"{quoted(self.session.text_of(choice))} {choice.probability:.1%}"
