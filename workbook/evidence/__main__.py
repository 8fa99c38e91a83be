"""Measure the evidence: every script, or those named, each in a fresh process.

    python -m workbook.evidence                         # all of them -> workbook/results/, some minutes
    python -m workbook.evidence monitoring padding
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from whisper_lab import console, flags
from whisper_lab.console import LabError
from workbook.evidence import common

HELPERS = {"__init__", "__main__", "common", "arm64", "imitated"}


def names() -> list[str]:
    """The evidence scripts."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in HELPERS)


def main(argv: list[str] | None = None) -> int:
    """Run them one after the other; 1 where one fails or a claim does not hold."""
    parser = flags.parser(__doc__, "output_dir", "seed", "quiet", "log_level", output_dir=str(common.RESULTS))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"(default: all) {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and clips, the same claims")
    args = flags.parse(parser, argv)
    if unknown := set(args.names) - set(names()):
        raise LabError(f"there is no evidence script {', '.join(sorted(unknown))}", f"choose from {', '.join(names())}")
    common.graphs()  # once, not in the time of the first script
    options = ["--output-dir", str(Path(args.output_dir).resolve()), "--seed", str(args.seed),
               *["--quick"] * args.quick, *["--quiet"] * args.quiet]
    failed, started = [], (time.perf_counter(), computed_s())
    with tempfile.TemporaryDirectory() as kept:
        for name in args.names or names():
            console.result(f"== {name}")
            start = time.perf_counter(), computed_s()
            if subprocess.run([sys.executable, "-m", f"workbook.evidence.{name}", *options], cwd=common.ROOT,
                              env=os.environ | {common.KEPT: kept}).returncode:
                failed.append(name)
            console.note(name, taken(*start), "failed" if name in failed else "every claim holds")
    console.note("in all", taken(*started), f"{len(args.names or names())} scripts")
    if failed:
        raise LabError(f"claims that do not hold, or errors, in {', '.join(failed)}", "read the lines above")
    return 0


def computed_s() -> float:
    """Processor seconds of all scripts so far: on a machine that does other things too they say more than a clock."""
    spent = os.times()
    return spent.children_user + spent.children_system


def taken(start_s: float, before_s: float) -> str:
    """How long it took since then."""
    return f"{time.perf_counter() - start_s:.0f} s, {computed_s() - before_s:.0f} s of processor"


if __name__ == "__main__":
    console.run(main)
