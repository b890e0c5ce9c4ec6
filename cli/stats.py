"""`--stats`: how long things took, and how much memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def stats_line(timing: Mapping[str, float | None]) -> str:
    """The `timing` of a result in one line, and the most memory this process has had so far.

    >>> stats_line({"load_s": 0.5, "prefill_s": None, "decode_tokens_per_s": 41.26})[:35]
    'load 0.500 s | decode 41.3 tokens/s'
    """
    parts = [_shown(name, value) for name, value in timing.items() if value is not None]
    memory = peak_memory()
    return " | ".join(parts if memory is None else [*parts, f"peak memory {memory / 1e6:.0f} MB"])


def _shown(name: str, value: float) -> str:
    if name.endswith("_tokens_per_s"):
        return f"{name.removesuffix('_tokens_per_s')} {value:.1f} tokens/s"
    return f"{name.removesuffix('_s')} {value:.3f} s"


def peak_memory() -> int | None:
    """The most memory of the host that this process has had, in bytes; None where nobody knows."""
    try:  # first, since Linux's getrusage counts what the process was before it became Python
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
