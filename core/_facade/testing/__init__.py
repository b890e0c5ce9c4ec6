"""The conformance kit: tells whoever writes a backend what is right about it, and what is not.

`tfx conformance NAME` runs it from the command line, `pytest --pyargs tfx.testing.suite
--tfx-backend=NAME` under pytest, and this from Python:

>>> from tfx.testing import Level, Subject, run
>>> result = run(Subject.open("numpy"), [Level.CONTRACT])
>>> result.passed, result.failures
((<Level.CONTRACT: 0>,), [])

`StrictBackend` is for the other side, whoever writes models: it computes with NumPy and checks
every call against the contract of `tfx.core.backend.Backend`, which `tfx.testing.contract` has as
code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # HOMES once more, for type checkers and editors
    from tfx.testing.contract import ContractError as ContractError
    from tfx.testing.kit import Check as Check
    from tfx.testing.kit import Level as Level
    from tfx.testing.kit import Subject as Subject
    from tfx.testing.kit import checks as checks
    from tfx.testing.running import Result as Result
    from tfx.testing.running import run as run
    from tfx.testing.strict import StrictBackend as StrictBackend

HOMES = {
    "Check": "kit",
    "Level": "kit",
    "Subject": "kit",
    "checks": "kit",
    "ContractError": "contract",
    "Result": "running",
    "run": "running",
    "StrictBackend": "strict",
}
"""Each public name and its module, imported when asked for: pytest loads this in every run."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'tfx.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tfx.testing.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
