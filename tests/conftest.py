"""What all tests share: the backends that can run here, and the folder of optional data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opening import PLUGINS, open_or_skip

from tfx.core.backend import Backend


@pytest.fixture(scope="session", params=[*PLUGINS, "strict"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend that is ready on this machine, and the strict one."""
    return open_or_skip(request.param)


@pytest.fixture(autouse=True)
def little_to_guard() -> Iterator[None]:
    """Where every launch on a simulated device opens and closes all of its memory, a test leaves
    none behind that nobody uses."""
    yield
    if os.environ.get("CUDASIM_PROTECT") == "1" and "cupy.cuda.memory" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Optional test data: `$TFX_TEST_DATA`, else `../shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TFX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; TFX_TEST_DATA names the folder")
    return folder
