"""Runs on a machine with a GPU what simulated devices cannot show, and writes down what came of it.

    python tests/gpu_report.py

runs all tests of the cupy backend, the conformance kit, and short timings, each in a process of its
own, and writes `gpu-report.md`, to read and to attach to an issue, with the whole of it as
`gpu-report.json` beside it. The exit code is 1 where anything failed. On a simulated device
(`python -m cudasim tests/gpu_report.py`) it runs too, but for the timings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_SHOWN = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--backend", default="cupy", help="cupy, or cupy:NUMBER to see one device alone (cupy)"
    )
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files and folders (all)")
    parser.add_argument("--levels", default="L0-L5", help="of the conformance kit (L0-L5)")
    parser.add_argument("--timed", default="gpt2-tiny", help="the model that is timed (gpt2-tiny)")
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"))
    args = parser.parse_args()
    began = time.time()
    report: dict[str, Any] = {
        "installation": tfx("doctor", "--json"),
        "device": device(args.backend),
        "tests": tests(args.tests, args.backend),
        "conformance": conformance(args.backend, args.levels),
        "peers": versions(),
    }
    simulated = report["device"].get("simulated")
    report["timings"] = {} if simulated else timings(args.backend, args.timed)
    report["seconds"] = round(time.time() - began)
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=2, default=str) + "\n")
    args.out.write_text("\n".join(in_words(report)) + "\n")
    print(args.out.read_text())
    tell(f"written: {args.out} and {args.out.with_suffix('.json')}")
    sys.exit(bool(failed(report)))


# ---- what is found out, each in a process of its own ---------------------------------------------


def python(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    tell(f"$ python {' '.join(arg if len(arg) < 200 else '...' for arg in args)}")
    return subprocess.run([sys.executable, *args], encoding="utf-8", cwd=ROOT, **options)


def tfx(*args: str) -> Any:
    """The object that a command of tfx prints, or what it said instead."""
    pipe = subprocess.PIPE
    done = python("-m", "tfx", *args, stdout=pipe, stderr=pipe)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"error": done.stderr.strip()[-2000:]}


DEVICE = """
import json, sys
import cupy
from cupy.cuda import cublas, driver, nvrtc, runtime
number = int(sys.argv[1] or 0)
about = runtime.getDeviceProperties(number)
free, total = cupy.cuda.Device(number).mem_info
print(json.dumps({
    "name": about["name"].decode(), "number": number, "devices": runtime.getDeviceCount(),
    "compute_capability": f"{about['major']}.{about['minor']}",
    "multiprocessors": about["multiProcessorCount"], "memory_bytes": total, "free_bytes": free,
    "driver_cuda": runtime.driverGetVersion(), "cupy": cupy.__version__,
    "cupy_built_for_cuda": driver.get_build_version(), "nvrtc": nvrtc.getVersion(),
    "cublas": cublas.getVersion(cupy.cuda.Device(number).cublas_handle),
    "simulated": "cudasim" in sys.modules,
}))
"""


def device(backend: str) -> Any:
    pipe = subprocess.PIPE
    number = backend.partition(":")[2]
    done = python("-c", DEVICE, number, stdout=pipe, stderr=pipe)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    about = json.loads(done.stdout)
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,clocks.max.mem",
        "--format=csv,noheader",
    ]
    try:
        smi = subprocess.run(query, capture_output=True, text=True, check=True)
        about["nvidia_smi"] = smi.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        about["nvidia_smi"] = None
    return about


def alone(backend: str) -> dict[str, str]:
    """The environment of a process that sees the device of a backend alone, as its first."""
    number = backend.partition(":")[2]
    if not number:
        return dict(os.environ)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    device = number if seen is None else seen.split(",")[int(number)].strip()
    return os.environ | {"CUDA_VISIBLE_DEVICES": device}


def tests(places: Sequence[str], backend: str) -> dict[str, Any]:
    """What pytest says of the tests of the cupy backend, on the device of this one."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = ("-m", "pytest", "-q", "-k", "cupy", f"--junit-xml={results}", *places)
        python(*command, env=alone(backend))
        if not results.exists():
            return {"error": "pytest did not come to its end"}
        (suite,) = ElementTree.parse(results).getroot().iter("testsuite")
    cases = list(suite.iter("testcase"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    counts["passed"] = counts["tests"] - sum(counts[n] for n in ("failures", "errors", "skipped"))
    faults = {
        f"{case.get('classname')}::{case.get('name')}": fault.get("message", "")
        for case in cases
        for fault in (*case.findall("failure"), *case.findall("error"))
    }
    skips = [skip.get("message", "") for case in cases for skip in case.findall("skipped")]
    reasons = {reason: skips.count(reason) for reason in skips}
    return {**counts, "seconds": float(suite.get("time", 0)), "faults": faults, "skips": reasons}


def conformance(backend: str, levels: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        out = f"--out={folder}/conformance.json"
        return tfx("conformance", backend, "--level", levels, out, "--json")


def timings(backend: str, model: str) -> Any:
    """Both ways of writing text and a training step, beside NumPy."""
    return tfx("bench", model, "--backend", backend, "--backend", "numpy", "--json")


def versions() -> dict[str, str | None]:
    """Of torch and transformers, which tests compare with."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in ("torch", "transformers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


# ---- what is written -----------------------------------------------------------------------------


def failed(report: dict[str, Any]) -> list[str]:
    """What the report is about, if not all is well."""
    parts = ("device", "tests", "conformance", "timings")
    faults = [f"{part}: {report[part]['error']}" for part in parts if "error" in report[part]]
    faults += report["tests"].get("faults", ())
    for level, found in report["conformance"].get("levels", {}).items():
        if found["failed"] or found["missing"]:
            faults.append(f"conformance {level}: {found['failed'] + found['missing']} failed")
    return faults


def in_words(report: dict[str, Any]) -> Iterator[str]:
    installed, gpu, ran = (report[part] for part in ("installation", "device", "tests"))
    yield "# tfx on a GPU\n"
    if gpu.get("simulated"):
        yield "**On a simulated device, which has no speed.**\n"
    yield "| | |\n|---|---|"
    for name, value in gpu.items():
        yield f"| {name.replace('_', ' ')} | {value} |"
    if "error" not in installed:
        yield f"| tfx | {installed['tfx']['version']} |"
        yield f"| python | {installed['python']['version']}, {installed['python']['platform']} |"
        yield f"| numpy | {installed['numpy']['version']} |"
    for name, version in report["peers"].items():
        yield f"| {name} | {version or 'not installed'} |"
    yield "\n## Tests\n"
    if "error" not in ran:
        yield (
            f"{ran['passed']} passed, {ran['failures']} failed, {ran['errors']} broke off, "
            f"{ran['skipped']} skipped in {ran['seconds']:.0f} s."
        )
        yield from (f"- skipped {count} times: {why}" for why, count in ran["skips"].items())
    yield "\n## Conformance\n"
    yield from (
        f"- {level}: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
        for level, found in report["conformance"].get("levels", {}).items()
        if found["whole"]
    )
    yield "\n## Timings\n"
    yield "```json"
    yield json.dumps(report["timings"], indent=1, default=str)
    yield "```\n"
    faults = failed(report)
    yield "## What failed\n"
    yield from (f"- {fault}" for fault in faults[:MOST_SHOWN])
    if len(faults) > MOST_SHOWN:
        yield f"- and {len(faults) - MOST_SHOWN} more: see the JSON"
    if not faults:
        yield "Nothing."


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
