"""What was thought of a model's tokens: experiences, kept in a file of JSON lines.

Every line is an object with the `id` of an experience, and is appended the moment something
happens: what is in it replaces what earlier lines of that id said, but for three keys. `decision`
is one more of the experience's decisions, `undone` takes so many of the last ones back, and `time`
that stands already stays. So an interruption at any point loses nothing, and what is in the file is
never written over.

    {"id": "5f0c", "time": "2026-01-02T03:04:05+00:00", "prompt": "To be", "theta": 0.75, ...}
    {"id": "5f0c", "decision": {"key": "s", "token_id": 266, ...}, "theta": 0.8, ...}
    {"id": "5f0c", "status": "accepted", "score": 1.0, "notes": "Hamlet"}
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tfx.core.errors import DataError
from tfx.core.files import make_folder, open_regular, reason, shown
from tfx.core.wording import quoted

ACCEPTED, REJECTED, UNVALIDATED = "accepted", "rejected", "unvalidated"
STATUSES = (ACCEPTED, REJECTED, UNVALIDATED)

_START = b'{"id": "'  # of a line


@dataclass(frozen=True)
class Decision:
    """What was thought of one token.

    Attributes:
        key: "s", satisfied: the token stands; or "n", not satisfied: the next alternative comes.
        token_id, token: the token, and its text.
        probability: what the model gave it.
        theta: what it was judged under, before the judgement changed it.
    """

    key: str
    token_id: int
    token: str
    probability: float
    theta: float


@dataclass(frozen=True)
class Experience:
    """A prompt, what was made of it token by token, and what came of that.

    Attributes:
        id: its name in the store.
        prompt: what the model was given.
        response: the text of the tokens that stand.
        decisions: in their order, without those that were undone.
        status: whether it was validated: accepted, rejected, or unvalidated.
        score: from 0 to 1; None before the first decision. The share of satisfied decisions, unless
            a validation says otherwise.
        theta: after the last decision.
        notes: in somebody's words.
        time: when it began, in ISO 8601.
        model: whose tokens they are.
        theta_start: before the first decision.
    """

    id: str
    prompt: str
    response: str = ""
    decisions: tuple[Decision, ...] = ()
    status: str = UNVALIDATED
    score: float | None = None
    theta: float = 1.0
    notes: str = ""
    time: str = ""
    model: str = ""
    theta_start: float = 1.0

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"decisions": [asdict(decision) for decision in self.decisions]}

    @property
    def thetas(self) -> list[float]:
        """Theta under each of the tokens that stand, and after the last."""
        return [d.theta for d in self.decisions if d.key == "s"] + [self.theta]


_CHANGEABLE = {f.name for f in fields(Experience)} - {"id", "decisions"}
_EXPECTED: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "response": (str,),
    "status": (str,),
    "score": (int, float, type(None)),
    "theta": (int, float),
    "notes": (str,),
    "time": (str,),
    "model": (str,),
    "theta_start": (int, float),
    "undone": (int,),
    "decision": (dict,),
}
_OF_DECISION: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "token_id": (int,),
    "token": (str,),
    "probability": (int, float),
    "theta": (int, float),
}


@dataclass
class ExperienceStore:
    """The experiences in a file, which need not be there yet."""

    path: Path

    def begin(self, **values: Any) -> str:
        """Enter a new experience, with `prompt` and what else is known of it; its id.

        Raises:
            DataError: the file cannot be read or written, or is no store of experiences.
        """
        self.experiences()
        name = secrets.token_hex(6)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.note(name, time=now, **values)
        return name

    def note(self, name: str, **values: Any) -> None:
        """Add to what is known of an experience, as one line that is forced to disk.

        Raises:
            DataError: the file cannot be written.
        """
        line = json.dumps({"id": name, **values}, allow_nan=False, ensure_ascii=False)
        try:
            if self.path.parent != Path():
                make_folder(self.path.parent)
            with _opened(self.path) as descriptor:
                _cut_torn_end(descriptor)
                data = line.encode("utf-8", "surrogatepass") + b"\n"
                while data:
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
        except OSError as error:
            raise DataError(f"cannot write {shown(self.path)}: {reason(error)}") from error

    def validate(self, name: str, **verdict: Any) -> Experience:
        """Say of an experience how it was, by `status`, `score` and `notes`; what it then is.

        Raises:
            DataError: there is none of that id, or the file cannot be read or written.
        """
        name = self.experience(name).id
        self.note(name, **verdict)
        return self.experience(name)

    def experience(self, name: str) -> Experience:
        """The one of that id, or the only one whose id begins so.

        Raises:
            DataError: there is none, or more than one, or the file cannot be read.
        """
        known = {x.id: x for x in self.experiences()}
        found = [x for x in known if name and x.startswith(name)]
        if name in known or len(found) == 1:
            return known[name if name in known else found[0]]
        if found:
            raise DataError(
                f"{len(found)} experiences in {shown(self.path)} begin with {quoted(name)}, as "
                f"{found[0]} and {found[1]}; say more of the id"
            )
        raise DataError(f"{shown(self.path)} holds no experience {quoted(name)}")

    def experiences(self) -> list[Experience]:
        """All there are, by when they began. A last line that was torn by a kill does not count.

        Raises:
            DataError: the file cannot be read, or a line in it is something else.
        """
        try:
            with open_regular(self.path) as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"cannot read {shown(self.path)}: {reason(error)}") from error
        found: dict[str, Experience] = {}
        for number, line in enumerate(lines[:-1], 1):
            try:
                _fold(json.loads(line.decode("utf-8", "surrogatepass")), found)
            except (ValueError, RecursionError) as error:
                why = str(error) if type(error) is ValueError else "it is no JSON"
                raise DataError(f"line {number} of {shown(self.path)}: {why}") from None
        if not lines[-1].startswith(_START) and not _START.startswith(lines[-1]):
            raise DataError(f"line {len(lines)} of {shown(self.path)}: it is no experience")
        return list(found.values())

    def theta_for(self, prompt: str, model: str) -> float | None:
        """The mean of where theta ended in the accepted experiences of a model whose prompts this
        one begins with; None where there are none."""
        ends = [
            x.theta
            for x in self.experiences()
            if x.status == ACCEPTED and x.model == model and prompt.startswith(x.prompt)
        ]
        return sum(ends) / len(ends) if ends else None


def _fold(line: Any, found: dict[str, Experience]) -> None:
    """Add a line to the experiences that are known.

    Raises:
        ValueError: it is no such line; says why.
    """
    if not isinstance(line, dict) or not isinstance(name := line.get("id"), str):
        raise ValueError("expected an object with an id")
    for key, value in line.items():
        kinds = (str,) if key == "id" else _EXPECTED.get(key)
        if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise ValueError(f"{key} is {quoted(json.dumps(value))}")
    if (status := line.get("status", UNVALIDATED)) not in STATUSES:
        raise ValueError(f"status is {quoted(status)}; expected {', '.join(STATUSES)}")
    before = found.get(name)
    if before is None:
        if "prompt" not in line:
            raise ValueError(f"{quoted(name)} was never begun with a prompt")
        before = Experience(id=name, prompt=line["prompt"])
    changes = {key: value for key, value in line.items() if key in _CHANGEABLE}
    if before.time:
        changes.pop("time", None)
    decisions = before.decisions
    if undone := line.get("undone", 0):
        if not 0 <= undone <= len(decisions):
            raise ValueError(f"{undone} decisions are undone of {len(decisions)}")
        decisions = decisions[:-undone]
    if "decision" in line:
        decisions = (*decisions, _decision(line["decision"]))
    found[name] = Experience(**(_values(before) | changes | {"decisions": decisions}))


def _values(experience: Experience) -> dict[str, Any]:
    return {f.name: getattr(experience, f.name) for f in fields(Experience)}


def _decision(given: Mapping[str, Any]) -> Decision:
    if given.keys() != _OF_DECISION.keys() or not all(
        isinstance(given[key], kinds) and not isinstance(given[key], bool)
        for key, kinds in _OF_DECISION.items()
    ):
        raise ValueError(f"a decision is {quoted(json.dumps(given))}")
    return Decision(**given)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, to append to, by nobody else meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    if path.exists():
        open_regular(path).close()
    descriptor = os.open(path, flags, 0o666)
    try:
        if find_spec("fcntl") is not None:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)  # which gives up the lock


def _cut_torn_end(descriptor: int) -> None:
    """Cut off a last line that a kill left unfinished."""
    end = size = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 4096)
        os.lseek(descriptor, start, os.SEEK_SET)
        found = os.read(descriptor, end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def summary(experiences: Sequence[Experience]) -> dict[str, Any]:
    """How many experiences there are of each status, how many decisions, and where theta ended:
    means over all, and over those that were accepted; None where there are none."""
    decisions = [decision for x in experiences for decision in x.decisions]
    satisfied = sum(decision.key == "s" for decision in decisions)
    accepted = [x.theta for x in experiences if x.status == ACCEPTED]
    return {
        "experiences": len(experiences),
        **{status: sum(x.status == status for x in experiences) for status in STATUSES},
        "decisions": len(decisions),
        "satisfied": satisfied,
        "mean_theta": _mean([x.theta for x in experiences]),
        "mean_theta_accepted": _mean(accepted),
        "mean_score": _mean([x.score for x in experiences if x.score is not None]),
    }


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
