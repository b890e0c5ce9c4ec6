"""Leaving out of a program what does not matter to its results."""

from __future__ import annotations

from tfx.core.capture.program import Program


def without_dead_calls(program: Program) -> None:
    """Drop the calls whose results lead to no output."""
    wanted = set(program.outputs)
    pulled = set()
    kept = []
    for call in reversed(program.calls):
        if call in pulled or not wanted.isdisjoint(call.gives()):
            wanted.update(call.reads())
            if call.forward is not None:
                pulled.add(call.forward)
            kept.append(call)
    program.notes["dead"] = len(program.calls) - len(kept)
    program.calls[:] = reversed(kept)
