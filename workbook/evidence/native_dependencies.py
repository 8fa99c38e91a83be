"""Which native dependencies fail on a small device, and how large is what one really needs?

Measured: installed sizes, native files, import times of the whole lab and of a lean runtime; and the failure of this
very lab: torchaudio's wheel, linked against CUDA, beside a CPU-only torch, in an environment of its own, as pip
leaves it.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workbook.evidence import common

LEAN = ["onnxruntime", "numpy", "tokenizers", "soundfile", "soxr"]
FULL = ["torch", "transformers", "onnxruntime", "onnx", "soundfile", "soxr"]
NATIVE = re.compile(r"\.(so|pyd|dylib)(\.\d+)*$")


def package_files(name: str) -> list[Path]:
    """Every file of an installed package, itself alone; none where it is not installed."""
    try:
        listed = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = {path for one in listed if (path := Path(str(one.locate()))).is_file()}
    return sorted(found)


def size_mb(files: list[Path]) -> float:
    return sum(path.stat().st_size for path in files) / 1e6


def import_s(packages: list[str], rounds: int) -> float:
    """Seconds to import them in a fresh process, the best of a few."""
    code = f"import {', '.join(packages)}"
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def broken_torchaudio() -> tuple[str | None, str | None]:
    """What `import torchaudio` says in an environment of its own, with its native files and without them.

    A copy of the package as pip unpacks it goes first on the path of a fresh process; what `doctor --fix` moved aside
    is put back. None: the import works.
    """
    from whisper_lab import torchaudio_repair

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "torchaudio"
        shutil.copytree(torchaudio_repair.folder(), package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in torchaudio_repair.aside_files(package):
            path.rename(path.with_name(path.name.removesuffix(torchaudio_repair.ASIDE)))
        broken = _import_error(folder)
        for path in torchaudio_repair.native_files(package):
            path.unlink()
        return broken, _import_error(folder)


def _import_error(folder: str) -> str | None:
    code = "import torchaudio"
    environment = {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def measure(evidence, args) -> None:
    names = sorted({found.metadata["Name"] for found in importlib.metadata.distributions()} - {None})
    files = {name: package_files(name) for name in names}
    everything = sorted({path for found in files.values() for path in found})
    for name in ("torch", "torchaudio", "onnxruntime", "transformers"):
        if files.get(name):
            evidence.value(f"{name}_mb", size_mb(files[name]), "MB")
    evidence.value("venv_mb", size_mb(everything), "MB")
    evidence.value("lean_mb", sum(size_mb(package_files(name)) for name in LEAN), "MB")
    evidence.value("packages", len(names))
    evidence.value("native_files", sum(bool(NATIVE.search(path.name)) for path in everything))
    rounds = 1 if args.quick else 3
    evidence.value("lean_import_s", import_s(LEAN, rounds), "s")
    evidence.value("full_import_s", import_s(FULL, rounds), "s")
    wheel = importlib.metadata.distribution("onnxruntime").read_text("WHEEL") or ""
    tag = re.search(r"^Tag: (.+)$", wheel, re.MULTILINE)
    evidence.value("wheel_tag", tag[1] if tag else "unknown")
    largest = sorted(files, key=lambda name: -size_mb(files[name]))[:6]
    evidence.series = {"sizes": {name: size_mb(files[name]) for name in largest}}
    _torchaudio(evidence)
    values = evidence.values
    evidence.claim("lean_small", "The lean runtime takes less than a third of the room of the whole lab.",
                   "De lichte runtime neemt minder dan een derde van de plaats van het hele lab in.",
                   values["lean_mb"] < values["venv_mb"] / 3, values["lean_mb"])
    evidence.claim("lean_quick", "The lean runtime is imported faster than PyTorch and transformers.",
                   "De lichte runtime is sneller geïmporteerd dan PyTorch en transformers.",
                   values["lean_import_s"] < values["full_import_s"], values["lean_import_s"])
    evidence.claim("tagged", "The wheel of onnxruntime names its Python, system and processor.",
                   "De wheel van onnxruntime noemt zijn Python, systeem en processor.",
                   len(values["wheel_tag"].split("-")) == 3, values["wheel_tag"])


def _torchaudio(evidence) -> None:
    """The claim is made only where this torch is the CPU-only one that the wheel does not fit."""
    import torch

    broken, mended = broken_torchaudio()
    evidence.value("torch_build", "CPU only" if torch.version.cuda is None else f"CUDA {torch.version.cuda}")
    evidence.value("import_error", re.sub(r"/\S*/", "", broken) if broken else "none: this torch brings CUDA along")
    evidence.value("import_without_native", "works" if mended is None else re.sub(r"/\S*/", "", mended))
    if torch.version.cuda is not None:
        return
    evidence.claim("torchaudio_fails", "As pip leaves it beside a CPU-only torch, torchaudio cannot be imported.",
                   "Zoals pip het naast een CPU-versie van torch achterlaat, kan torchaudio niet geïmporteerd worden.",
                   broken is not None, evidence.values["import_error"])
    evidence.claim("torchaudio_mended", "With its native files out of the way, its pure Python part works.",
                   "Zonder zijn native bestanden werkt het deel in zuivere Python wel.", mended is None,
                   evidence.values["import_without_native"])


def draw(evidence, figure) -> None:
    panel, values = figure.subplots(), evidence.values
    bars = {"the whole environment": values["venv_mb"], **evidence.series["sizes"],
            "lean: " + ", ".join(LEAN[:2]) + ", …": values["lean_mb"]}
    colours = [common.GREY, *[common.BLUE] * len(evidence.series["sizes"]), common.GREEN]
    panel.barh(list(bars), list(bars.values()), color=colours)
    for row, size in enumerate(bars.values()):
        panel.text(size, row, f" {size:.0f} MB", va="center")
    panel.invert_yaxis()
    panel.set(xlabel="installed size (MB)", xlim=(0, 1.15 * values["venv_mb"]),
              title=f"import: all {values['full_import_s']:.1f} s, lean {values['lean_import_s']:.1f} s; "
                    f"{values['native_files']} native files")


def main(argv: list[str] | None = None) -> int:
    return common.run("native_dependencies", "2.07", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
