"""Running `tfx` for microGPT, and looking at what it left behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfx.core.checkpoint import find_checkpoint
from tfx.core.weights import open_weights

KEPT = {name: value for name, value in os.environ.items() if not name.startswith(("TFX_", "_TFX"))}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ENVIRONMENT = {**KEPT, **ONE_THREAD, "TFX_OFFLINE": "1", "TFX_LOAD_PLUGINS": ""}

Invoke = Callable[..., Any]


def start(*args: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Begin `tfx ARGS` in a process of its own, with one thread for products."""
    return subprocess.Popen(
        [sys.executable, "-m", "tfx", *map(str, args)],
        cwd=cwd,
        env=ENVIRONMENT | {"TFX_DATA_DIR": str(cwd / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(*args: object, cwd: Path, code: int = 0, **options: Any) -> tuple[str, str]:
    """Run `tfx ARGS` so, expect `code`, and return stdout and stderr."""
    process = start(*args, cwd=cwd, **options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path, which: str = "model") -> dict[str, Any]:
    stored = open_weights(find_checkpoint(run) / f"{which}.safetensors")
    return {name: tensor.array for name, tensor in stored.items()}


def kept(run: Path) -> dict[str, Any]:
    """All that a run left behind, but for the time that it took."""
    folder = find_checkpoint(run)
    state = json.loads((folder / "state.json").read_text())
    return {
        "checkpoint": folder.name,
        "weights": (folder / "model.safetensors").read_bytes(),
        "optimizer": (folder / "optimizer.safetensors").read_bytes(),
        "config": (folder / "config.json").read_bytes(),
        "random": state["random"],
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in metrics(run)],
    }


def fingerprints(folder: Path) -> dict[str, str]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def resumed(run: Path, command: tuple[object, ...], *more: object) -> str:
    """Go on with the run that `command` began; what it printed."""
    backend = command[command.index("-b") + 1]
    out, _ = finish("train", "microgpt", "-b", backend, "--resume", run, *more, cwd=run.parent)
    return out


def redone(run: Path, file: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of the newest checkpoint, which stays whole."""
    path = find_checkpoint(run) / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    seal(path)


def seal(path: Path) -> None:
    """Let the manifest of a checkpoint agree to a file in it."""
    manifest, raw = path.with_name("manifest.json"), path.read_bytes()
    content = json.loads(manifest.read_text())
    content["files"][path.name] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    manifest.write_text(json.dumps(content))


def assert_refused(result: Any, code: int, *words: str) -> None:
    """One line on stderr that says `words`, perhaps one more that points to the help."""
    assert result.exit_code == code, result.output
    line, *more = result.stderr.splitlines()
    assert all(extra.startswith("Try 'tfx ") for extra in more), result.stderr
    assert line.startswith("tfx: ")
    for word in words:
        assert word in line
