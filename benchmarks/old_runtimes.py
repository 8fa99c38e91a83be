"""Which onnxruntime opens which graphs: real old wheels, each in a folder of its own -> benchmarks/OLD-RUNTIMES.md.

    python 03-export-encoder-decoder.py --model nano --precision all
    python 03-export-encoder-decoder.py --model nano --precision int8 --optimize
    python 08-single-onnx-model.py --model nano --precision int8
    python benchmarks/old_runtimes.py                      # some minutes, and 25 MB a version in benchmarks/.envs
    python benchmarks/old_runtimes.py --versions 1.22.0    # one; the others stay as they were measured

Each version hears the same clip with each pair of graphs, with 09, and with the single graph of 08. "same text" is the
text of the version that the lab pins; otherwise the first words of the error. Such a folder contains onnxruntime and
NumPy, and is before the lab's own packages on the path: what old images lack is a new onnxruntime, not tokenizers.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console, files  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

VERSIONS = ["1.16.3", "1.17.0", "1.17.1", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.0", "1.23.2", "1.26.0",
            "1.29.0", "1.30.0"]
CLIP = "media/kitchen.wav"
RUNTIME = ["-m", "whisper_lab.onnx_whisper", CLIP, "--model", "nano", "--threads", "1", "--quiet", "--precision"]
PROGRAMS = {
    **{precision: [*RUNTIME, precision] for precision in ("fp32", "fp16", "int8", "int4")},
    "int8 optimized": [*RUNTIME, "int8", "--optimized"],
    "09, int8": ["09-stream-microphone.py", "--model", "nano", "--precision", "int8", "--file", CLIP, "--threads", "1",
                 "--quiet"],
    "08 run, int8": ["08-single-onnx-model.py", "run", CLIP, "--model", "nano", "--precision", "int8", "--quiet"],
}


def numpy_for(version: str) -> str:
    """onnxruntime was built for NumPy 2 from 1.19 on; before, NumPy 1 alone loads it."""
    return "numpy==1.26.4" if tuple(map(int, version.split(".")[:2])) < (1, 19) else "numpy"


def install(requirements: list[str], folder: Path) -> str | None:
    """Wheels of these requirements in `folder`, once; the reason where they cannot be had, else None."""
    if (folder / "onnxruntime").is_dir():
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", suffix=".partial") as partial:
        made = Path(partial) / "packages"
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:",
                               "--disable-pip-version-check", "--no-input", "--target", str(made), *requirements],
                              capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        made.rename(folder)
    return None


def hear(program: list[str], folder: Path | None) -> subprocess.CompletedProcess:
    """A program of the lab with the packages in `folder` before its own; None: with its own alone."""
    path = {"PYTHONPATH": str(folder)} if folder else {}
    return subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=os.environ | path)


def said(done: subprocess.CompletedProcess) -> dict[str, str]:
    """{"text": ...} of a program that ended well, else {"error": ...}."""
    if done.returncode == 0:
        return {"text": done.stdout.strip()}
    errors = re.findall(r"^error: (.*)", done.stderr, re.MULTILINE) or done.stderr.strip().splitlines()[-1:]
    return {"error": " ".join(errors)}


def measure(version: str | None) -> dict[str, dict[str, str]]:
    """program -> what it said with this onnxruntime; None: with the one that the lab pins.

    Raises LabError where the pinned one does not hear the clip, or an old wheel cannot be had.
    """
    folder = HERE / ".envs" / f"onnxruntime-{version}" if version else None
    if folder and (reason := install([f"onnxruntime=={version}", numpy_for(version)], folder)):
        raise LabError(f"onnxruntime {version} cannot be had: {reason[:200]}",
                       "another Python may have it; or leave it out with --versions")
    found = {name: said(hear(program, folder)) for name, program in PROGRAMS.items()}
    if version is None and (failed := [name for name in found if "error" in found[name]]):
        raise LabError(f"{failed[0]} does not run with the pinned onnxruntime: {found[failed[0]]['error'][:200]}",
                       "write the graphs first: the commands at the top of benchmarks/old_runtimes.py")
    return found


def cell(found: dict[str, str], text: str) -> str:
    """What a program said, beside what it says with the pinned onnxruntime."""
    if "text" in found:
        return "same text" if found["text"] == text else f"other text: {found['text']}"
    needs = re.search(r"need (onnxruntime \S+) or newer", found["error"])
    return f"needs {needs[1]}" if needs else f"error: {found['error'][:80]}"


def page(measured: dict) -> str:
    """The document."""
    pinned, rows = measured["pinned"], measured["heard"]
    lines = ["# Old onnxruntimes", "",
             "Which version opens which graphs of whisper-nano, and whether the text is that of the pinned one",
             f"({pinned}). Written by `benchmarks/old_runtimes.py`; Python {measured['python']}.", "",
             f"| onnxruntime | {' | '.join(PROGRAMS)} |", f"|---{'|---' * len(PROGRAMS)}|"]
    for version in sorted(rows, key=lambda text: tuple(map(int, text.split(".")))):
        cells = [cell(rows[version][name], rows[pinned][name].get("text", "")) for name in PROGRAMS]
        lines.append(f"| {version} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Install, hear, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=VERSIONS, metavar="X.Y.Z",
                        help="(default: those of the table)")
    args = parser.parse_args(argv)
    from whisper_lab import machine

    kept, pinned = HERE / "old-runtimes.json", machine.version("onnxruntime")
    before = files.read_json(kept) if kept.exists() else {}
    heard = before["heard"] if before.get("pinned") == pinned else {}
    measured = {"pinned": pinned, "python": sys.version.split()[0], "heard": heard}
    for version in args.versions if pinned in heard else [pinned, *args.versions]:
        heard[version] = measure(None if version == pinned else version)
        files.write_json(kept, measured)
        files.write_text(HERE / "OLD-RUNTIMES.md", page(measured))
    console.result(page(measured))
    return 0


if __name__ == "__main__":
    console.run(main)
