"""One archive for a small device: two graphs, what is beside them, and the modules of the lab that run them.

    make edge-pack MODEL=base PRECISION=int8                 # edge/packs/whisper-base-int8.tar.gz
    make edge-pack MODEL=tiny.en PRECISION=int8 OPTIMIZED=yes
    python tools/edge_pack.py --model base --precision int8 --model-dir graphs --output-dir .

There it is unpacked anywhere; its README has the three commands. docs/devices.md says what to expect of a device.

    whisper-base-int8/README.md, LICENCES.md, SHA256SUMS, whisper-listen.service
                      requirements-edge.txt     locks/edge.txt: every package with its digests
                      graphs/                   encoder, decoder, and the folder of runtime files
                      weights/silero-vad/       the voice detector of --listen, where it is on this machine
                      whisper_lab/              edge/device/launch.py as __main__, and what it needs of the library

The same graphs and the same lab make the same bytes, with the same zlib; the digest is printed.
"""

import argparse
import ast
import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import __version__, console, files, flags, names  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

DEVICE = ROOT / "edge" / "device"
LIBRARY = ROOT / "whisper_lab"
# What the archive's programs are called there, and where they come from.
PROGRAMS = {"__main__": DEVICE / "launch.py", "clips": LIBRARY / "__main__.py",
            "listen": ROOT / "09-stream-microphone.py"}
# Modules that the others import only for what the archive does not have, and why that is.
LEFT_OUT = {
    "archive.cli": "transcribes archives on many machines",
    "checkpoints": "makes tokenizer.json of an older checkpoint's files; the runtime files have one",
    "weights.formats": "converts checkpoints of other runtimes",
    "speakers.encoder": "tells speakers apart, for 10",
}
CLIP = "clip.wav"
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


# Which modules -------------------------------------------------------------------------------------------------------

def file_of(module: str) -> Path | None:
    """The file of a module of the library, by its name in there (`stream.mel`); None: there is no such module."""
    base = LIBRARY.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports(path: Path) -> set[str]:
    """The library's modules that a file imports, at its top or within functions, by their names in there."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "whisper_lab":
            inside = node.module.removeprefix("whisper_lab").lstrip(".")
            found |= {inside, *(f"{inside}.{alias.name}".lstrip(".") for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("whisper_lab.") for alias in node.names
                      if alias.name.startswith("whisper_lab.")}
    return {module for module in found if module and file_of(module)}


def modules() -> dict[str, Path]:
    """Name in the library -> file, of every module that the archive's programs may import."""
    found, waiting = dict(PROGRAMS), set()
    for path in PROGRAMS.values():
        waiting |= imports(path)
    while waiting := waiting - set(found) - set(LEFT_OUT):
        module = waiting.pop()
        found[module] = file_of(module)
        waiting |= imports(found[module])
    packages = {module.rpartition(".")[0] for module in found}  # each package's own file: a/__init__.py
    return found | {module: LIBRARY.joinpath(*module.split("."), "__init__.py") for module in packages}


def library_files() -> dict[str, Path]:
    """Path in the archive -> file, of the modules and of the data that they name."""
    found, texts = {}, ""
    for module, path in modules().items():
        place = module.replace(".", "/")
        found[f"whisper_lab/{place}/__init__.py" if path.name == "__init__.py" else f"whisper_lab/{place}.py"] = path
        texts += path.read_text(encoding="utf-8")
    found = {name.replace("//", "/"): path for name, path in found.items()}
    data = [path for path in sorted(LIBRARY.glob("*.json")) if f'"{path.name}"' in texts]
    return found | {f"whisper_lab/{path.name}": path for path in data}


# What is in it -------------------------------------------------------------------------------------------------------

def graph_files(folder: Path, name: str, precision: str, optimized: bool) -> tuple[dict[str, Path], dict]:
    """Path in the archive -> file, of the graphs and what is beside them; and their metadata.

    Raises LabError where one is missing, has changed since 03 wrote it, or does not belong to the others.
    """
    from whisper_lab import external_data, seals
    from whisper_lab.onnx_whisper import OnnxWhisper, runtime_files

    facts = OnnxWhisper(folder, name, precision, 1, optimized).facts
    graphs = list(names.pair(folder, name, precision, optimized).values())
    beside = [path for graph in graphs for path in sorted(external_data.check(graph))]
    runtime = names.runtime_folder(folder, name)
    found = {f"graphs/{path.name}": path for path in (*graphs, *beside)}
    read = (*runtime_files(runtime), seals.MANIFEST)
    return found | {f"graphs/{runtime.name}/{file}": runtime / file for file in read}, facts


def voice_files() -> dict[str, Path]:
    """The voice detector of --listen, where this machine has it; without it the level has to do, which is noted."""
    from whisper_lab.speakers import models

    try:
        path = models.obtain("silero-vad")
    except LabError as error:
        console.note("--listen", "finds speech by its level", f"{error.problem}; then {error.remedy}")
        return {}
    return {f"weights/silero-vad/{path.name}": path}


def licences(facts: dict, detector: bool) -> str:
    """Whose what is in the archive is, and on which terms."""
    model, parts = facts["model"], [f"# Licences\n\nWhisper ONNX Lab {__version__}, the Python files: "
                                    "as the project that this archive comes from."]
    notices = []
    if model in names.PUBLISHED_NAMES:
        parts.append(f"{model}, the graphs: MIT (OpenAI), weights {facts['weights_sha256'][:16]}.")
        notices.append("Copyright (c) 2022 OpenAI")
    elif model == "whisper-nano":
        parts.append("whisper-nano, the graphs: CC BY-SA 4.0, as whisper_model_dir/whisper-nano/README.md of the "
                     "project says.")
    else:
        parts.append(f"{model}, the graphs: as the checkpoint they were exported from, weights "
                     f"{facts['weights_sha256'][:16]}.")
    if detector:
        parts.append("Silero VAD, the voice detector: MIT (Silero Team), github.com/snakers4/silero-vad.")
        notices.append("Copyright (c) 2020-present Silero Team")
    parts.append("The packages of requirements-edge.txt come from the package index, each under its own licence.")
    text = "\n\n".join(parts) + "\n"
    return text + ("\n## MIT\n\n" + "\n".join(notices) + f"\n\n{MIT}" if notices else "")


def contents(folder: Path, name: str, precision: str, optimized: bool) -> tuple[dict[str, bytes], dict]:
    """Path in the archive -> bytes, and what is noted of the graphs. Raises LabError as `graph_files`."""
    graphs, facts = graph_files(folder, name, precision, optimized)
    voice = voice_files()
    sounddevice = next(line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
                       if line.startswith("sounddevice=="))
    noted = {"model": name, "precision": precision, "optimized": optimized, "lab": __version__,
             "weights_sha256": facts["weights_sha256"], "sounddevice": sounddevice}
    made_from = f"{facts['model']} {precision}{' optimized' if optimized else ''}, weights " \
                f"{facts['weights_sha256'][:16]}, with Whisper ONNX Lab {__version__}"
    readme = (DEVICE / "README.md").read_text(encoding="utf-8")
    for key, value in {"title": f"{facts['model']} {precision}", "clip": CLIP, "sounddevice": sounddevice,
                       "made_from": made_from}.items():
        readme = readme.replace(f"{{{key}}}", value)
    found = {place: path.read_bytes() for place, path in (graphs | voice | library_files()).items()}
    found |= {"README.md": readme.encode(), "LICENCES.md": licences(facts, bool(voice)).encode(),
              "requirements-edge.txt": (ROOT / "locks" / "edge.txt").read_bytes(),
              "whisper-listen.service": (DEVICE / "whisper-listen.service").read_bytes(),
              f"{LIBRARY.name}/pack.json": (json.dumps(noted, indent=2) + "\n").encode()}
    sums = "".join(f"{hashlib.sha256(found[place]).hexdigest()}  {place}\n" for place in sorted(found))
    return found | {"SHA256SUMS": sums.encode()}, noted


# Writing it ----------------------------------------------------------------------------------------------------------

def entries(top: str, found: dict[str, bytes]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The archive's entries: sorted, without owner or time."""
    for place in sorted(found):
        entry = tarfile.TarInfo(f"{top}/{place}")
        entry.size, entry.mode = len(found[place]), 0o644
        yield entry, found[place]


def write(path: Path, found: dict[str, bytes]) -> str:
    """Write the archive, whole or not at all; returns its SHA-256. Raises LabError where that is not possible."""
    top = path.name.removesuffix(".tar.gz")
    with files.atomic(path) as temporary:
        with temporary.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed, \
                tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for entry, data in entries(top, found):
                archive.addfile(entry, io.BytesIO(data))
        with temporary.open("rb") as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()


def kinds(found: dict[str, bytes]) -> list[list[object]]:
    """Rows of the table: what, files, MB."""
    what = {"graphs": lambda place: place.endswith((".onnx", ".data")) and place.startswith("graphs/"),
            "runtime files": lambda place: place.startswith("graphs/") and not place.endswith((".onnx", ".data")),
            "voice detector": lambda place: place.startswith("weights/"),
            "Python": lambda place: place.startswith("whisper_lab/"),
            "the rest": lambda place: "/" not in place}
    rows = []
    for name, belongs in what.items():
        sizes = [len(data) for place, data in found.items() if belongs(place)]
        rows.append([name, len(sizes), f"{sum(sizes) / 1e6:.2f}"])
    return [*rows, ["together", len(found), f"{sum(map(len, found.values())) / 1e6:.2f}"]]


def pack(model: str, precision: str, optimized: bool, folder: Path, output: Path) -> Path:
    """Write the archive; returns its path. Raises LabError as `graph_files`, and where it cannot be written."""
    name = names.name_for(model)
    found, _ = contents(folder, name, precision, optimized)
    path = output / f"{name}-{precision}{'-optimized' if optimized else ''}.tar.gz"
    digest = write(path, found)
    console.table(f"{path.name}, unpacked", ["what", "files", "MB"], kinds(found))
    console.result(f"{console.plain(path, one_line=True)}  {path.stat().st_size / 1e6:.1f} MB\nsha256 {digest}")
    return path


def main(argv: list[str] | None = None) -> int:
    """Pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=names.DEFAULT, metavar="NAME", help="as 03 takes it (default: %(default)s)")
    parser.add_argument("--precision", choices=names.PRECISIONS, default="int8", help="(default: %(default)s)")
    parser.add_argument("--optimized", action="store_true", help="the pair that 03 --optimize wrote")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR",
                        help="where 03 wrote the graphs (default: %(default)s)")
    parser.add_argument("--output-dir", default="edge/packs", metavar="DIR", help="(default: %(default)s)")
    args = flags.parse(parser, argv)
    pack(args.model, args.precision, args.optimized, Path(args.model_dir), Path(args.output_dir))
    return 0


if __name__ == "__main__":
    console.run(main)
