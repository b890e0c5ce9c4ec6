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


def trained(data: Path, steps: int, backend: str) -> Any:
    """What the command says of a run."""
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["tfx", "train", "microgpt", "--backend", backend, "--data", str(data)]
        sys.argv += [
            "--steps",
            str(steps),
            "--num-samples",
            "0",
            "--out",
            f"{folder}/run",
            "--json",
        ]
        with redirect_stdout(out), suppress(SystemExit):
            tfx()
    return json.loads(out.getvalue())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--backend", default="numpy")
    args = parser.parse_args()
    trained(args.data, FEW, args.backend)
    print(json.dumps(trained(args.data, args.steps, args.backend)))


if __name__ == "__main__":
    main()
