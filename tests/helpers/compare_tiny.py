"""One comparison of the tiny random model, made once for the tests of 04 and of its page."""

import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers import export_tiny
from whisper_lab import seals

ROOT = Path(__file__).resolve().parents[2]

# Runs a script, and writes down how many sessions were open at once and which packages were needed for that.
WATCHED = """
import json, runpy, sys, weakref
import onnxruntime

live, most, start = weakref.WeakSet(), 0, onnxruntime.InferenceSession.__init__

def watched(self, *arguments, **options):
    global most
    live.add(self)
    most = max(most, len(live))
    start(self, *arguments, **options)

onnxruntime.InferenceSession.__init__ = watched
report, *sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    with open(report, "w") as file:
        json.dump({"sessions": most, "packages": sorted({"torch", "transformers"} & set(sys.modules))}, file)
"""


@functools.cache
def comparison() -> tuple[int, str, str, Path, str]:
    """Run 04 on fp32 and int8 of the tiny model: exit status, stdout, stderr, folder of the reports, model name."""
    from whisper_lab import names
    from whisper_lab.export import layouts

    made = export_tiny.exported()
    folder = Path(tempfile.mkdtemp(prefix="compare-tiny-"))
    name = made.checkpoint.name
    layouts.write_runtime_files(made.checkpoint, made.model, folder)
    facts = _facts(made, names.runtime_folder(folder, name))
    for precision in ("fp32", "int8"):
        for part, path in made.pairs[precision].items():
            _finish(shutil.copy(path, folder / path.name), facts, part, precision)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(folder / "watched.json"), str(ROOT / "04-compare-precisions.py"),
         "--model", str(made.checkpoint.folder), "--model-dir",
         str(folder), "--audio", str(ROOT / "media" / "digits.wav"), "--reference", "four seven two nine one eight",
         "--language", "en", "--output-dir", str(folder), "--threads", "1", "--repeats", "2",
         "--fail-if", "size_ratio>0.01 and int8.nonfinite<1"],
        cwd=ROOT, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr, folder, name


def _facts(made, folder: Path) -> dict:
    from whisper_lab.export import metadata

    return metadata.of_checkpoint(made.checkpoint, made.model.config, folder)


def _finish(path: str, facts: dict, part: str, precision: str) -> None:
    from whisper_lab.export import metadata

    metadata.write(Path(path), facts, part, precision, {}, verified=False)
    seals.seal(Path(path))
