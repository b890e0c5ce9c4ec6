"""Replaying a program on any backend: its calls as straight-line Python, results handed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tfx.core.backend import Array
from tfx.core.capture.copies import copied
from tfx.core.capture.program import Call, Program, Value

Run = Callable[[Sequence[Array]], list[Array]]


def straight_line(program: Program) -> tuple[Run, str]:
    """A function from the inputs to the outputs of a program, and its source.

    Every value is let go after its last use, so that a run holds no more than it has to.
    """
    return _Writer(program).written()


class _Writer:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._lines: list[str] = []
        self._names: dict[Value, str] = {}
        self._scope: dict[str, Any] = {"B": program.backend}
        self._named: dict[int, str] = {}  # what is in the scope, by identity
        self._saved: dict[Call, str] = {}
        self._pulls = Counter(call.forward for call in program.calls if call.forward is not None)

    def written(self) -> tuple[Run, str]:
        program = self._program
        for i, value in enumerate(program.inputs):
            self._names[value] = f"v{i}"
        self._lines.append(
            f"[{', '.join(self._names[value] for value in program.inputs)}] = inputs"
        )
        last = program.last_uses()
        for i, call in enumerate(program.calls):
            self._write(call)
            gone = [self._names[value] for value in last.get(i, ())]
            if call.forward is not None:
                self._pulls[call.forward] -= 1
                if not self._pulls[call.forward]:
                    gone.append(self._saved[call.forward])
            if gone:
                self._lines.append(f"del {', '.join(gone)}")
        outputs = ", ".join(self._output(i) for i in range(len(program.outputs)))
        self._lines.append(f"return [{outputs}]")
        source = "def run(inputs):\n" + "".join(f"    {line}\n" for line in self._lines)
        exec(compile(source, "<captured program>", "exec"), self._scope)
        return self._scope["run"], source

    def _output(self, i: int) -> str:
        """Copied where it is a constant, or the same as another output."""
        value = self._program.outputs[i]
        name = self._argument(value)
        if value.array is None and value not in self._program.outputs[:i]:
            return name
        backend = self._program.backend
        return f"{self._constant(partial(copied, backend), 'copied')}({name})"

    def _write(self, call: Call) -> None:
        results = [self._new(value) for value in call.results]
        args = [self._argument(x) for x in call.args]
        params = [f"{name}={self._constant(x)}" for name, x in call.params.items()]
        if call.kernel is None:
            method = self._constant(getattr(self._program.backend, call.name), call.name)
            self._lines.append(f"{results[0]} = {method}({', '.join(args + params)})")
        elif call.forward is None:
            kernel = self._constant(call.kernel.forward, f"{call.name}_kernel")
            out = f"({', '.join(results)},)" if call.several else results[0]
            self._saved[call] = f"saved{len(self._saved)}"
            parts = ", ".join(["B", *args, *params])
            self._lines.append(f"{out}, {self._saved[call]} = {kernel}({parts})")
            if not self._pulls[call]:
                self._lines.append(f"del {self._saved[call]}")
        else:
            vjp = self._constant(call.kernel.vjp, f"{call.name}_vjp")
            g, out, *raw = args
            parts = ", ".join(["B", g, out, self._saved[call.forward], *raw, *params])
            self._lines.append(f"{', '.join(results)}, = {vjp}({parts})")

    def _new(self, value: Value | None) -> str:
        if value is None:
            return "_"
        self._names[value] = f"v{len(self._names)}"
        return self._names[value]

    def _argument(self, x: Any) -> str:
        if not isinstance(x, Value):
            return self._constant(x)
        return self._names[x] if x.array is None else self._constant(x.array)

    def _constant(self, x: Any, name: str = "c") -> str:
        if x is None or type(x) in (int, bool, str):
            return repr(x)
        if id(x) not in self._named:
            self._named[id(x)] = f"{name}{len(self._named)}"
            self._scope[self._named[id(x)]] = x
        return self._named[id(x)]
