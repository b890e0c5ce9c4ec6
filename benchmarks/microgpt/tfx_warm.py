"""`tfx train microgpt` in a process that has its kernels: compiling and loading them is left out,
as compiling is of JAX's time. Recording the step is not.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from task import arguments

from tfx.cli.main import main as tfx

FEW = 20


def trained(data: Path, steps: int) -> Any:
    """What the command says of a run."""
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        command = f"tfx train microgpt --backend numpy --steps {steps} --num-samples 0 --json"
        sys.argv = [*command.split(), "--data", str(data), "--out", f"{folder}/run"]
        with redirect_stdout(out), suppress(SystemExit):
            tfx()
    return json.loads(out.getvalue())


def main() -> None:
    args = arguments(__doc__).parse_args()
    trained(args.data, FEW)
    print(json.dumps(trained(args.data, args.steps)))


if __name__ == "__main__":
    main()
