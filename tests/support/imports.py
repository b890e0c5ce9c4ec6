"""What the command `tfx` imports, as a process of its own tells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_PROGRAM = """
import json, sys
from tfx.cli.main import main
sys.argv = ["tfx", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imports_of(
    args: Sequence[str], **options: Any
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """`tfx ARGS`, run to its end, and the modules imported by then; options are for `run`."""
    command = [sys.executable, "-c", _PROGRAM, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    return done, set(json.loads(done.stderr.splitlines()[-1]))
