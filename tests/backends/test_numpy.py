"""The numpy plugin: what it says without importing NumPy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from tfx.backends.numpy.plugin import probe
from tfx.core.specs import Probe


def test_the_version_is_that_of_the_library() -> None:
    assert probe() == Probe(ready=True, version=f"numpy {np.__version__}")


def test_probing_imports_no_numpy() -> None:
    code = "from tfx.backends.numpy.plugin import probe; probe(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" not in done.stdout.split()
