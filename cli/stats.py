"""`--stats`: how long things took, what came of guesses, and how much memory."""

from __future__ import annotations

from collections.abc import Mapping


def stats_line(timing: Mapping[str, float | None], memory: Mapping[str, int | None]) -> str:
    """The `timing` and the `memory` of a result in one line.

    >>> stats_line({"load_s": 0.5, "prefill_s": None, "decode_tokens_per_s": 41.26}, {})
    'load 0.500 s | decode 41.3 tokens/s | peak memory not known'
    >>> stats_line({"accepted_tokens": 8, "acceptance_rate": 0.8, "tokens_per_pass": 3.25}, {})
    'accepted 8 tokens | acceptance 80% | 3.25 tokens a pass | peak memory not known'
    """
    shown = [_shown(name, value) for name, value in timing.items() if value is not None]
    return " | ".join([*shown, memory_line(memory)])


def memory_line(memory: Mapping[str, int | None]) -> str:
    """The `memory` of a result, as `tfx.core.memory` measures it.

    >>> memory_line({"peak_host_bytes": 412_000_000, "peak_device_bytes": None})
    'peak memory 412 MB'
    >>> memory_line({"peak_host_bytes": 412_000_000, "peak_device_bytes": 2_000_000_000})
    'peak memory 412 MB, on the device 2000 MB'
    """
    host, device = memory.get("peak_host_bytes"), memory.get("peak_device_bytes")
    line = f"peak memory {_megabytes(host)}"
    return line if device is None else f"{line}, on the device {_megabytes(device)}"


def _megabytes(count: int | None) -> str:
    return "not known" if count is None else f"{count / 1e6:.0f} MB"


def _shown(name: str, value: float) -> str:
    if name.endswith("_tokens_per_s"):
        return f"{name.removesuffix('_tokens_per_s')} {value:.1f} tokens/s"
    if name.endswith("_tokens"):
        return f"{name.removesuffix('_tokens')} {value:.0f} tokens"
    if name.endswith("_rate"):
        return f"{name.removesuffix('_rate')} {value:.0%}"
    if name.endswith("_per_pass"):
        return f"{value:.2f} {name.removesuffix('_per_pass')} a pass"
    return f"{name.removesuffix('_s')} {value:.3f} s"
