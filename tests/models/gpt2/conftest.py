"""What the tests of GPT-2 share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from causal_models import one_thread


@pytest.fixture
def calm() -> Iterator[None]:
    with one_thread():
        yield
