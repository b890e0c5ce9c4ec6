"""What quantizing costs in quality: the perplexity of a text under the small GPT-2 that comes with
tfx, with whole and with quantized weights, by `tfx eval`.

Not a matter of time, so it is measured once. `--data` should be a text that the model did not learn
from: the last tenth of tinyshakespeare, or another play of Shakespeare's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SCHEMES = {"float32": [], "int8": ["--quantize", "int8"], "int4": ["--quantize", "int4"]}


def perplexity(data: Path, more: list[str]) -> float | str:
    """A number, or why there is none."""
    command = [sys.executable, "-m", "tfx", "eval", "gpt2-tiny", "--backend", "numpy"]
    command += ["--data", str(data), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip() or "no message").splitlines()[0]
    return float(json.loads(done.stdout)["perplexity"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="the text")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    args = parser.parse_args()

    found = {name: perplexity(args.data, more) for name, more in SCHEMES.items()}
    whole = found["float32"]
    if isinstance(whole, str):
        sys.exit(whole)
    for name, value in found.items():
        if isinstance(value, str):
            print(f"{name:<10}skipped: {value}")
        else:
            print(f"{name:<10}{value:.4f}  {100 * (value / whole - 1):+.2f} %")
    if args.json:
        numbers = {n: {"perplexity": [v]} for n, v in found.items() if not isinstance(v, str)}
        skipped = {n: v for n, v in found.items() if isinstance(v, str)}
        settings = {"data": args.data.name}
        described = {"settings": settings, "unit": "", "peers": numbers, "skipped": skipped}
        args.json.write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
