"""What a model and its files are called: from --model to the names of the graphs, without looking for weights.

The runtime needs no more than this; where a checkpoint is, and whether it is whole, is asked of checkpoints.py.
"""

import difflib
import os
import re
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError

SIZES = ["tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en",
         "large", "large-v2", "large-v3", "large-v3-turbo"]
# On the Hub `whisper-large` is the first large model; later ones have names of their own.
PUBLISHED = {size: f"openai/whisper-{size}" for size in SIZES} | {"turbo": "openai/whisper-large-v3-turbo"}
PUBLISHED_NAMES = {repository.rpartition("/")[2] for repository in PUBLISHED.values()}
DEFAULT = "base"
MODEL_DIR = "whisper_model_dir"  # where graphs are written, and looked for, in the folder one works in
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Files that every checkpoint of their format has: such a file is called what its folder is called.
WEIGHT_FILES = {"model.bin", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                "pytorch_model.bin.index.json"}

# Models --------------------------------------------------------------------------------------------------------------

_given: dict[str, str] = {}  # name in file names -> the path or Hub id that --model was, so that remedies can be typed


def name_for(model: str) -> str:
    """What `checkpoints.resolve(model)` will call it: the name in the graphs' file names.

    Raises LabError for an adapter's folder.
    """
    size = model.removeprefix("whisper-")
    if size == "nano":
        return "whisper-nano"
    if size in PUBLISHED:
        return repository_name(PUBLISHED[size])
    from whisper_lab import adapters

    adapters.refuse(model)
    path = Path(model).expanduser()
    name = repository_name(model) if HUB_ID.fullmatch(model) and not path.exists() else name_of(path)
    remember(name, model)
    return name


def chosen_name(model: str | None, folder: str | Path) -> str:
    """The name in the graphs' file names: `model`, else $WHISPER_LAB_MODEL, else base, else nano.

    nano stands in for base where no one named a model, `folder` holds no graph of base, and graphs of nano are there or
    base was never fetched; that is noted.
    """
    asked = model or os.environ.get("WHISPER_LAB_MODEL")
    name = name_for(asked or DEFAULT)
    if any(Path(folder).glob(f"{name}_*.onnx")):
        return name
    if asked:
        require_known(asked)
        return name
    if not any(Path(folder).glob("whisper-nano_*.onnx")) and was_fetched(name):
        return name  # whoever fetched base wants to be told how to export base
    console.note("graphs", "of whisper-nano", f"no graphs of {name}, the default, in {folder}")
    return "whisper-nano"


def require_known(model: str) -> None:
    """Raises LabError for what can be no checkpoint: no published one, no path, no Hub id."""
    size = model.removeprefix("whisper-")
    if size == "nano" or size in PUBLISHED or HUB_ID.fullmatch(model) or is_path(model):
        return
    near = difflib.get_close_matches(size, ["nano", *PUBLISHED], n=1)
    raise LabError(f"there is no checkpoint called '{model}'" + (f"; did you mean {near[0]}?" if near else ""),
                   f"choose from nano, {', '.join(PUBLISHED)}, a Hub id such as openai/whisper-base, or a folder")


def is_path(model: str) -> bool:
    """Whether --model is a file or folder, or was meant as one."""
    return Path(model).expanduser().exists() or re.match(r"[./~\\]|[A-Za-z]:[\\/]", model) is not None


def was_fetched(name: str) -> bool:
    """Whether this lab has fetched the weights of a published checkpoint."""
    from whisper_lab.weights import store

    try:
        return any(kept.name == name for kept in store.contents())
    except LabError:  # a user without a home has no store
        return False


def given(name: str) -> str:
    """The --model that leads to graphs of this name: what was given in this process, else the shortest that does."""
    size = name.removeprefix("whisper-")
    return _given.get(name) or (size if size in ("nano", *SIZES) else name)


def remember(name: str, model: str) -> None:
    """That this name came from a path or a Hub id, for `given`."""
    if model.removeprefix("whisper-") not in ("nano", *PUBLISHED):
        _given[name] = model


def name_of(path: Path) -> str:
    """A path's name in file names: the folder's, a file's without .pt or .bin, the repository's for a snapshot.

    Only the published checkpoint itself is called what that is called: another folder named whisper-base becomes
    whisper-base-own, or its graphs would later be taken for those of the default model.
    """
    from whisper_lab.weights import store

    name = plain_name(path)
    if path.resolve().parent.name == "snapshots" or store.receipt(path).get("name") == name:
        return name
    return f"{name}-own" if name in PUBLISHED_NAMES else name


def plain_name(path: Path) -> str:
    """As `name_of`, whether or not a published checkpoint is called the same."""
    path = path.resolve()
    if path.name in WEIGHT_FILES and not path.is_dir():
        path = path.parent
    if path.parent.name == "snapshots":
        return repository_name("/".join(path.parents[1].name.split("--")[-2:]))
    return path.stem if path.suffix in (".pt", ".bin") and not path.is_dir() else path.name


def repository_name(repository: str) -> str:
    """The last part of a Hub id; with its owner before it where that part belongs to a published checkpoint."""
    owner, _, name = repository.rpartition("/")
    return f"{owner}-{name}" if name in PUBLISHED_NAMES and owner != "openai" else name


# Graphs --------------------------------------------------------------------------------------------------------------

PRECISIONS = ("fp32", "fp16", "int8", "int4")
PARTS = ("encoder", "decoder")


def graph_file(model: str, part: str, precision: str = "fp32", optimized: bool = False) -> str:
    """`whisper-base_encoder.onnx`, `whisper-base_decoder_int8.onnx`, `whisper-base_encoder_int8_optimized.onnx`"""
    suffix = "" if precision == "fp32" else f"_{precision}"
    return f"{model}_{part}{suffix}{'_optimized' if optimized else ''}.onnx"


def pair(folder: str | Path, model: str, precision: str = "fp32", optimized: bool = False) -> dict[str, Path]:
    """The two files of one precision: {"encoder": path, "decoder": path}"""
    return {part: Path(folder) / graph_file(model, part, precision, optimized) for part in PARTS}


def sidecar(graph: Path) -> Path:
    """The file with the weights of a graph that is too large for one file: `<name>.onnx.data` beside it."""
    return graph.with_name(graph.name + ".data")


def rejected(graph: Path) -> Path:
    """The name of a graph that failed a gate; still ending in .onnx, so that Netron opens it."""
    return graph.with_name(f"{graph.stem}.rejected.onnx")


def runtime_folder(folder: str | Path, model: str) -> Path:
    """`<folder>/<model>_runtime/`: tokenizer, preprocessor and generation config for a runtime without transformers."""
    return Path(folder) / f"{model}_runtime"
