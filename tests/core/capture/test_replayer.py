"""A backend may replay programs in its own way, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfx.core.capture import jit
from tfx.core.capture.program import Program
from tfx.core.capture.replay import AsRecorded, Replayer
from tfx.core.capture.walking import Walk
from tfx.core.creation import full, tensor
from tfx.testing.strict import StrictBackend


class Walking(AsRecorded):
    """Looks at each call of a program before it makes it."""

    def __init__(self, program: Program, seen: list[str]) -> None:
        super().__init__(program)
        self._seen = seen

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        program = self.program
        walk, gone = Walk(program, inputs), program.last_uses()
        for i, call in enumerate(program.calls):
            self._seen.append(call.name)
            walk.take(call, walk.prepared(call)())
            walk.let_go(gone.get(i, ()))
        return [walk.array(value) for value in program.outputs]

    def listing(self) -> str:
        return f"walks past {len(self.program.calls)} calls"


class Stranger(StrictBackend):
    """Keeps the programs that it is given, function by function."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[list[Mapping[int, int]]] = []
        self.seen: list[str] = []

    def replayer(self) -> Replayer:
        programs: list[Mapping[int, int]] = []
        self.functions.append(programs)

        def replay(program: Program, homes: Mapping[int, int]) -> Walking:
            programs.append(dict(homes))
            return Walking(program, self.seen)

        return replay


def test_programs_are_replayed_by_the_backend() -> None:
    B = Stranger()
    captured = jit(lambda state, x: (x.exp().sum(), state + x), donate_argnums=0)
    for value in (0.0, 1.0, 2.0):
        total, state = captured(full((2,), 1.0, B), full((2,), value, B))
        assert total.item() == np.exp(np.float32(value)) * 2
        assert state.tolist() == [1.0 + value] * 2
    assert B.seen == ["exp", "sum", "add"] * 3
    assert "walks past 3 calls" in captured.explain()


def test_a_function_has_one_replayer_for_all_its_programs() -> None:
    """And is told which outputs take over the memory of which inputs."""
    B = Stranger()
    first = jit(lambda state, x: (x * 2, state + x), donate_argnums=0)
    for count in (1, 2, 1, 2):
        first(full((), 0.0, B), full((count,), 1.0, B))
    jit(lambda x: x + 1)(tensor(np.ones(3, np.float32), B))
    assert B.functions == [[{}, {}], [{}]]
    jit(lambda state, x: (x * 2, state + x.sum()), donate_argnums=0)(
        full((), 0.0, B), full((3,), 1.0, B)
    )
    assert B.functions[2:] == [[{1: 0}]]
