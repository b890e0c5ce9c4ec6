"""What pytest is told of tfx: the options of `tfx.testing.suite`, and the backend they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tfx.testing.kit import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tfx", "tfx conformance kit")
    group.addoption(
        "--tfx-backend",
        metavar="NAME[:DEVICE]",
        help="the backend that 'pytest --pyargs tfx.testing.suite' puts to the test",
    )
    group.addoption(
        "--tfx-xfails",
        metavar="FILE",
        help="names of checks that are known to fail, one a line; # begins a comment",
    )


@pytest.fixture(scope="session")
def tfx_subject(request: pytest.FixtureRequest) -> Subject:
    """The backend that `--tfx-backend` names."""
    from tfx.testing.kit import Subject

    return Subject.open(request.config.getoption("--tfx-backend"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = any("tfx_subject" in getattr(item, "fixturenames", ()) for item in items)
    if asked and config.getoption("--tfx-backend") is None:
        raise pytest.UsageError("which backend? --tfx-backend=NAME says; `tfx backends` lists them")
    path = config.getoption("--tfx-xfails")
    if path is None:
        return
    from pathlib import Path

    from tfx.core.errors import TfxError
    from tfx.testing.known_gaps import read_known_gaps

    try:
        known = read_known_gaps(Path(path))
    except TfxError as error:
        raise pytest.UsageError(str(error)) from None
    for item in items:
        check = getattr(item, "callspec", None) and item.callspec.params.get("check")  # type: ignore[attr-defined]
        if check is not None and str(check) in known:
            item.add_marker(pytest.mark.xfail(strict=True, reason=known[str(check)]))
