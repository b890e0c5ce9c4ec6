"""The cupy backend, for the tests of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opening import open_or_skip


@pytest.fixture(scope="module")
def B() -> Any:
    """Where a module has no backend of its own."""
    return open_or_skip("cupy")


@pytest.fixture
def cupy(B: Any) -> Any:
    return sys.modules["cupy"]
