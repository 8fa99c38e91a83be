"""What the benchmark needs before it can measure: environments for the peers, a checkpoint, and its conversions.

Each is made once, in benchmarks/.envs and benchmarks/work, and marked when it is whole. What cannot be had raises
Unavailable with the reason, which becomes that peer's row.
"""

import compileall
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT, ENVIRONMENTS, WORK = HERE.parent, HERE / ".envs", HERE / "work"
sys.path.insert(0, str(ROOT))

from whisper_lab import checkpoints, flags  # noqa: E402
from whisper_lab.checkpoints import name_of  # noqa: E402


def pins(name: str) -> list[str]:
    """The lines `package==version` of a file of pins."""
    return [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if "==" in line]


# The runtime environments hold nothing that the peer does not need: ctranslate2, for one, imports torch where it is.
REQUIREMENTS = {
    "optimum": ["torch==2.13.0", "optimum-onnx==0.1.0", "optimum==2.1.0", "transformers==4.57.6", "onnxruntime==1.31.1",
                "onnx==1.23.2"],
    "faster-whisper": ["faster-whisper==1.2.1", "ctranslate2==4.8.5"],
    "genai": ["onnxruntime-genai==0.18.0", "onnxruntime==1.31.1"],
    "whispercpp": ["pywhispercpp==1.5.1"],
    "sherpa-onnx": ["sherpa-onnx==2.0.1", "numpy==2.4.6"],
    "convert": ["torch==2.13.0", "transformers==5.23.0", "ctranslate2==4.8.5", "onnxruntime-genai==0.18.0",
                "onnxruntime==1.31.1", "onnx==1.23.2", "onnx-ir==1.1.0"],
    "openvino": ["openvino-genai==2026.4.1.0"],
    "onnxruntime-openvino": pins("requirements-openvino.txt"),
    "onnx-asr": ["onnx-asr==0.12.0", "onnxruntime==1.31.1", "numpy==2.4.6"],
    "openvino-convert": ["torch==2.13.0", "transformers==5.5.4", "optimum==2.3.0", "optimum-intel==2.2.0",
                         "nncf==3.4.0", "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0"],
}
# Must not be there, though pip brings it along: this wheel does not fit a torch without CUDA; transformers imports it.
UNWANTED = {"openvino-convert": ["torchvision"]}
# artefact -> the environment that makes it (None: this lab's own) and its arguments
RECIPES = {
    "graphs": (None, [str(ROOT / "03-export-encoder-decoder.py"), "--model", "{checkpoint}", "--precision", "all",
                      "--optimize", "--output-dir", "{out}", "--no-verify"]),
    "layouts": (None, [str(ROOT / "03-export-encoder-decoder.py"), "--model", "{checkpoint}", "--precision", "all",
                       "--layout", "optimum", "sherpa", "--output-dir", "{out}", "--no-verify"]),
    "optimum": ("optimum", ["-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", "{checkpoint}", "--task",
                            "automatic-speech-recognition-with-past", "{out}"]),
    **{f"ct2-{kind}": ("convert", ["-m", "ctranslate2.converters.transformers", "--model", "{checkpoint}",
                                   "--output_dir", "{out}", "--quantization", kind, "--force", "--copy_files",
                                   "tokenizer.json", "preprocessor_config.json"]) for kind in ("float32", "int8")},
    **{f"genai-{kind}": ("convert", ["-m", "onnxruntime_genai.models.builder", "-i", "{checkpoint}", "-o", "{out}",
                                     "-p", kind, "-e", "cpu"]) for kind in ("int8", "int4")},
    "whispercpp": (None, [str(HERE / "ggml.py"), "{checkpoint}", "{out}/model.bin"]),
    "onnx-asr-int8": ("optimum", [str(HERE / "onnx_asr_layout.py"), "{checkpoint}", "{out}"]),
    "sherpa-onnx-int8": ("optimum", [str(HERE / "sherpa_layout.py"), "{checkpoint}", "{out}"]),
    "openvino-int8": ("openvino-convert", ["-m", "optimum.commands.optimum_cli", "export", "openvino", "--model",
                                           "{checkpoint}", "--task", "automatic-speech-recognition-with-past",
                                           "--weight-format", "int8", "{out}"]),
}


class Unavailable(Exception):
    """A peer that cannot be measured here, and why."""


def compile_modules() -> None:
    """This lab's modules as Python keeps them after the first run, like those of packages that pip installed.

    A cold start would compile them each time where Python is told to write nothing (PYTHONDONTWRITEBYTECODE).
    """
    compileall.compile_dir(ROOT / "whisper_lab", quiet=1)


def environment(name: str | None) -> Path:
    """The Python of a peer's environment, made if need be; None is this lab's own."""
    if name is None:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / ".whole"
    wanted = "\n".join(REQUIREMENTS[name])
    if not (stamp.is_file() and stamp.read_text() == wanted):
        say(f"environment {name}: {', '.join(REQUIREMENTS[name])}")
        if not python.exists():
            run([sys.executable, "-m", "venv", str(folder)], f"{name}.log")
        run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS[name]],
            f"{name}.log")
        if name in UNWANTED:
            run([str(python), "-m", "pip", "uninstall", "-q", "-y", *UNWANTED[name]], f"{name}.log")
        stamp.write_text(wanted)
    return python


def random_checkpoint(size: str) -> Path:
    """A random-weight checkpoint of a published size."""
    folder = WORK / f"whisper-{size}-random"
    if not (folder / "config.json").is_file():
        say(f"checkpoint {folder.name}")
        run([sys.executable, "-m", "training.make_random_checkpoint", "--size", size, "--output-dir", str(folder)],
            "checkpoint.log")
    return folder


def artefact(name: str | None, source: Path) -> Path:
    """A conversion of the checkpoint `source`, made if need be and named after both; None is the checkpoint itself."""
    if name is None:
        return source
    out = home(source) / name
    stamp, recipe = out / ".whole", RECIPES[name]
    wanted = hashlib.sha256(repr((recipe, REQUIREMENTS.get(recipe[0]), own_code(recipe))).encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        say(f"conversion {name}")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        arguments = [text.format(checkpoint=source, out=out) for text in recipe[1]]
        run([str(environment(recipe[0])), *arguments], f"{name}.log", cwd=WORK)
        stamp.write_text(wanted)
    return out


def home(source: Path) -> Path:
    """Where a checkpoint's conversions are kept. Trained weights are part of the name: a folder's name says too little.

    A random checkpoint comes from a seed, so that its name says everything.
    """
    name = name_of(source)
    return WORK / (name.removesuffix("-random") if name.endswith("-random") else f"{name}-{weights_digest(source)[:8]}")


@functools.cache
def weights_digest(source: Path) -> str:
    """SHA-256 over a checkpoint's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted([*source.glob("*.safetensors"), *source.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def identity(peer, source: Path) -> str:
    """What a peer's transcripts follow from, wherever this repository is: weights, setting, packages, own code."""
    environments = {peer.environment, RECIPES[peer.artefact][0] if peer.artefact else None} - {None}
    recipe = repr(RECIPES.get(peer.artefact)).replace(str(ROOT), ".")
    pins = [REQUIREMENTS[name] for name in sorted(environments)]
    code = [(HERE / "peers" / name).read_text(encoding="utf-8") for name in (peer.script, "harness.py")]
    return repr((weights_digest(source), peer.setting, recipe, pins, code))


def short_digest(text: str) -> str:
    """Of a text, for a file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def own_code(recipe: tuple) -> list[str]:
    """This lab's own conversions are made again when the code that makes them changes."""
    sources = [Path(recipe[1][0])]
    if recipe[0] is None:
        sources += [*(ROOT / "whisper_lab" / name for name in ("caches.py", "thinning.py")),
                    *sorted((ROOT / "whisper_lab" / "export").rglob("*.py"))]
    return [path.read_text(encoding="utf-8") for path in sources if path.is_file()]


def run(command: list[str], log: str, cwd: Path = ROOT) -> None:
    """Run a command, its output into benchmarks/work/<log>; raises Unavailable with its last line where it fails."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / log).open("w", encoding="utf-8") as file:
        status = subprocess.run(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        raise Unavailable(f"{Path(command[2]).name if command[1] == '-m' else Path(command[1]).name} failed: "
                          f"{last_line((WORK / log).read_text(encoding='utf-8', errors='replace'))}")


def add_clips_and_graphs(parser) -> None:
    """The clips that a benchmark hears, and the graphs that it hears them with."""
    parser.add_argument("--corpus", default=str(ROOT / "media"), metavar="FOLDER|NAME",
                        help="a folder with references.json, or a corpus by name (default: media)")
    parser.add_argument("--graphs", metavar="DIR", help="graphs that 03 wrote (default: made in benchmarks/work)")
    parser.add_argument("--limit", type=flags.whole(1), metavar="N", help="the first N clips (default: all)")


def graphs(args) -> tuple:
    """The checkpoint of --model, and the folder with its graphs, of --graphs or made; later processes stay offline."""
    checkpoint = checkpoints.resolve(args.model)
    folder = Path(args.graphs) if args.graphs else artefact("graphs", checkpoint.folder)
    os.environ["HF_HUB_OFFLINE"] = "1"
    return checkpoint, folder


def last_line(text: str) -> str:
    """The last line that says something, without what names a place."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no output").replace(str(ROOT), ".")[:200]


def say(text: str) -> None:
    """Progress on stderr."""
    print(f"== {text}", file=sys.stderr, flush=True)
