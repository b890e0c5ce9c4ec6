"""What was captured, in words."""

from __future__ import annotations

from collections.abc import Sequence

from tfx.core.capture.replay import Replay


def explained(name: str, replays: Sequence[Replay | str]) -> str:
    """A text about the replays of a function; a string stands for one that cannot be."""
    if not replays:
        return f"{name}: nothing captured yet"
    parts = [f"{name}: {len(replays)} captured"]
    for i, replay in enumerate(replays, 1):
        parts.append(f"\n{i}. " + (replay if isinstance(replay, str) else _one(replay)))
    return "\n".join(parts)


def _one(replay: Replay) -> str:
    program = replay.program
    inputs = ", ".join(map(str, program.inputs))
    outputs = ", ".join(map(str, program.outputs))
    notes = ", ".join(f"{count} {what}" for what, count in program.notes.items())
    return f"({inputs}) -> ({outputs}) on {program.backend}: {notes}\n{replay.listing()}"
