"""Two ONNX graphs opened as they should be: threads that do not fight, and proof that they belong together.

onnxruntime alone; neither torch nor transformers nor onnx is imported.
"""

import contextlib
import functools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from whisper_lab import console, external_data, machine, names, openvino, prepared, seals
from whisper_lab.console import LabError

# The first onnxruntime that opens the graphs of a precision; benchmarks/OLD-RUNTIMES.md has what was tried. int4 and
# the optimized pair have weights of 8 bits in blocks, which MatMulNBits knows since 1.22.
OLDEST = {"fp32": (1, 17), "fp16": (1, 17), "int8": (1, 17), "int4": (1, 22), "int8 optimized": (1, 22)}
FASTEST_FIRST = ("int8", "fp32", "fp16", "int4")  # int4 is smaller, and its text not as good
NEEDED = ("model", "revision", "random_weights", "weights_sha256", "precision", "format", "cache_types")
SHA256 = re.compile("[0-9a-f]{64}")


def open_pair(folder: str | Path, name: str, precision: str, optimized: bool = False, threads: int | None = None,
              shared_pool: bool = False, checks: dict[str, seals.Check] | None = None, provider: str = "cpu",
              kept: dict[str, prepared.Kept | None] | None = None):
    """Encoder and decoder session, and their metadata with values read from JSON: (encoder, decoder, facts).

    threads: None takes all cores; shared_pool: see session_options; checks: of `begin_checks`, {} to open what is
    damaged; provider: as of OnnxWhisper; kept: per part that is to be kept, what `prepared` has of it.

    Raises LabError where a graph is missing, cannot be read, is not as 03 wrote it, or where the two were not
    made together.
    """
    paths = find_pair(folder, name, precision, optimized, provider)
    command = export_command(folder, name, precision, optimized, provider)
    check_version(f"{precision} optimized" if optimized else precision)
    checks, sessions, kept = begin_checks(paths) if checks is None else checks, {}, kept or {}
    # First the one that takes more to open: meanwhile the other takes no room. OpenVINO compiles its own copy.
    for part in ("encoder", "decoder") if provider == "openvino" else ("decoder", "encoder"):
        where = openvino.settings(threads) if (provider, part) == ("openvino", "encoder") else CPU
        options = functools.partial(session_options, part, threads, shared_pool)
        sessions[part] = kept[part].open(options()) if kept.get(part) else None
        if sessions[part] is None:
            sessions[part] = _open_checked(paths[part], options, command, where, checks.get(part), part in kept)
        machine.give_back_memory()
    prepared.tell([paths[part] for part, entry in kept.items() if entry is None])
    facts = {part: _facts(paths[part], sessions[part], part, command) for part in paths}
    _check_together(facts, paths, command, provider)
    if checks and any(seals.sealed(path) is None for path in paths.values()):
        console.warn(f"the graphs of {name} were written before this lab sealed graphs: damage to them cannot be "
                     f"noticed; to write them again: {command}")
    _warn_of_16_bits(name, facts, command)
    both = facts["encoder"] | facts["decoder"] | {"provider": provider, "optimized": optimized}
    return sessions["encoder"], sessions["decoder"], both


def begin_checks(paths: dict[str, Path], kept: dict[str, prepared.Kept | None] | None = None) -> dict[str, seals.Check]:
    """Start to compare the content of both graphs with their seals; of what is kept only when it turns out unfit."""
    return {part: seals.Check(path, at_once=not (kept or {}).get(part)) for part, path in paths.items()}


def find_pair(folder: str | Path, name: str, precision: str, optimized: bool = False, provider: str = "cpu"
              ) -> dict[str, Path]:
    """{"encoder": path, "decoder": path}.

    Raises LabError, with the command that writes them, where one is missing, and for an optimized pair other than int8.
    """
    if optimized and precision != "int8":
        raise LabError(f"there is no optimized {precision} pair: 03 --optimize makes one of int8",
                       "add --precision int8, or leave out --optimized")
    on_openvino = provider == "openvino"
    paths = (openvino if on_openvino else names).pair(folder, name, precision, optimized)
    missing = [part for part, path in paths.items() if not path.is_file()]
    if missing:
        plain = on_openvino and missing[0] == "encoder"
        raise _missing(missing, paths,
                       export_command(folder, name, *(("fp32",) if plain else (precision, optimized))))
    return paths


def _missing(parts: list[str], paths: dict[str, Path], command: str) -> LabError:
    path = paths[parts[0]]
    if path.parent.exists() and not path.parent.is_dir():
        return LabError(f"{path.parent} is a file, not the folder where 03 wrote the graphs", "name the folder")
    both = f" and no {paths[parts[1]].name}" if len(parts) > 1 else ""
    return LabError(f"there is no {parts[0]} {path}{both}", f"write {'them' if both else 'it'}: {command}")


def check_version(graphs: str) -> None:
    """Raises LabError where the onnxruntime that is installed is too old for `graphs`, a key of OLDEST."""
    import onnxruntime

    oldest, here = OLDEST.get(graphs), version_of(onnxruntime.__version__)
    if oldest is None or here is None or here >= oldest:
        return
    wanted = ".".join(map(str, oldest))
    instead = "leave out --optimized" if graphs.endswith("optimized") else "take --precision int8"
    raise LabError(f"the {graphs} graphs need onnxruntime {wanted} or newer, and this is {onnxruntime.__version__}",
                   f"pip install 'onnxruntime>={wanted}'" + (f", or {instead}" if here >= OLDEST["int8"] else ""))


def version_of(text: str) -> tuple[int, int] | None:
    """`1.22.1` -> (1, 22); None for what does not begin like that."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def export_command(folder: str | Path, name: str, precision: str, optimized: bool = False, provider: str = "cpu"
                   ) -> str:
    """The command that writes these graphs, as a shell takes it: --model is what the user gave for this name."""
    if provider == "openvino" and precision != "fp32":  # a float32 encoder and another decoder: one run for each
        return " && ".join(export_command(folder, name, *made) for made in (("fp32",), (precision, optimized)))
    wanted = "" if precision == "fp32" and not optimized else f" --precision {precision}"
    place = "" if Path(folder) == Path(names.MODEL_DIR) else f" --output-dir {shlex.quote(str(folder))}"
    model = shlex.quote(names.given(name))
    return f"python 03-export-encoder-decoder.py --model {model}{wanted}{' --optimize' if optimized else ''}{place}"


def session_options(part: str, threads: int | None, shared_pool: bool):
    """SessionOptions of one graph. Raises LabError for a number of threads that cannot be had.

    Threads of a pool spin (wait awake for work) for a while when theirs is done. Those of the encoder must not take
    the processor from the decoder that comes next: either both sessions share one pool, or the encoder's stop at once.
    onnxruntime makes the shared pool once per process, and from then on *every* session there has to use it, also
    those that other libraries open: so it is for programs that have their process to themselves. Python can ask for it
    since onnxruntime 1.23; below, two pools do.
    """
    import onnxruntime

    if threads is not None and threads < 1:
        raise LabError(f"--threads {threads} is not a number of threads",
                       "give 1 or more, or leave it out for all cores")
    if shared_pool and not _pool and hasattr(onnxruntime, "set_global_thread_pool_sizes"):
        _make_pool(threads or machine.usable_cores())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and told once
    # A pattern is one block for all inner values of a shape of input. It is kept beside the blocks of the first run,
    # which had none yet, and a window takes as long without: tests/test_published_weights.py holds what it would cost.
    options.enable_mem_pattern = False
    if _pool:
        if threads not in (None, *_pool):
            raise LabError(f"{console.count(threads, 'thread')} cannot be had: this process has a pool of "
                           f"{_pool[0] or 'unknown size'}, and onnxruntime makes only one",
                           "leave out the number, or use another process")
        options.use_per_session_threads = False
        return options
    options.intra_op_num_threads = threads or machine.usable_cores()
    if part == "encoder":
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


_pool: list[int | None] = []  # at most one entry: the threads of this process's shared pool; None: made elsewhere


def has_pool() -> bool:
    """Whether this process has a shared pool, which every session there has to use."""
    return bool(_pool)


def _make_pool(threads: int) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    try:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _pool.append(threads)
    except Fail:
        _pool.append(None)


CPU = ["CPUExecutionProvider"]
# Makes one node of the encoder's last Add and LayerNormalization, which takes longer than the two.
SLOWER = ["SkipLayerNormFusion"]


def _open(path: Path, options, command: str, providers: list = CPU):
    import onnxruntime

    _check_places(path, command)
    try:  # without fallback: it would try the same once more, and say so on stdout
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0,
                                            disabled_optimizers=SLOWER)
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise _open_failure(path, str(error), command) from error


def _open_checked(path: Path, new_options: Callable, command: str, providers: list, check: seals.Check | None,
                  keep: bool):
    """The session of a graph whose content was compared with its seal; keep: what it is prepared to as well."""
    if check:
        check.require(command)
    if keep:
        options = new_options()
        with contextlib.suppress(LabError), prepared.writing(path, options):  # which may fail: a disk that is full
            return _open(path, options, command)
    return _open(path, new_options(), command, providers)


TOO_OLD = (  # what an onnxruntime says to a graph that is newer than itself
    ("opset", re.compile(r"Opset (\d+) is under development.*?till opset (\d+)", re.DOTALL)),
    ("IR version", re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")))


def _open_failure(path: Path, said: str, command: str) -> LabError:
    """The error for a graph that onnxruntime does not open, by what it said."""
    import onnxruntime

    for what, pattern in TOO_OLD:
        if found := pattern.search(said):
            return LabError(f"onnxruntime {onnxruntime.__version__} is too old for {path}: it reads {what} up to "
                            f"{found[2]}, and the graph needs {what} {found[1]}",
                            "bring it up to date: python -m pip install --upgrade onnxruntime")
    reason = " ".join(said.split())  # whole: what matters may be at its end
    return LabError(f"{path} cannot be opened as a graph: {reason}", f"write it again: {command}")


def _check_places(path: Path, command: str) -> None:
    """Raises LabError for what is not a graph, and for weights in a place that is not acceptable."""
    try:
        external_data.check(path)
    except LabError as error:
        raise external_data.cannot_open(path, error, command) from error


def _facts(path: Path, session, part: str, command: str) -> dict:
    """A graph's metadata; JSON values read. Raises LabError where it is not a graph of 03's, or the other part."""
    try:
        found = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is damaged: its metadata is not text", f"write both again: {command}") from error
    if found.get("producer") != seals.PRODUCER:
        raise LabError(f"{path} was not written by this lab: it does not name its checkpoint", f"write it: {command}")
    if found.get("part") != part:
        raise LabError(f"{path} holds the {found.get('part')}, not the {part}", f"write both again: {command}")
    facts = {key: _value(text) for key, text in found.items()}
    if SHA256.fullmatch(digest := found.get("weights_sha256", "")):
        facts["weights_sha256"] = digest  # a text, also where it could be a number
    else:
        facts.pop("weights_sha256", None)  # absent is not equal to absent: the two may be of different checkpoints
    missing = [key for key in NEEDED if key not in facts]
    if missing or not isinstance(facts["cache_types"], dict) or "cross" not in facts["cache_types"]:
        raise LabError(f"{path} was not written whole: its metadata has no {(missing or ['cache_types'])[0]}",
                       f"write both again: {command}")
    return facts


def _value(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_together(facts: dict[str, dict], paths: dict[str, Path], command: str, provider: str) -> None:
    """Both graphs come from the same weights, in the same precision (on OpenVINO the encoder has its own), and the
    caches of one fit the other."""
    encoder, decoder = facts["encoder"], facts["decoder"]
    for key, what in (("weights_sha256", "weights"), ("precision", "precision"), ("format", "format of the metadata")):
        if key == "precision" and provider == "openvino":
            continue
        if encoder.get(key) != decoder.get(key):
            raise LabError(f"{paths['encoder'].name} and {paths['decoder'].name} were not made together: {what} "
                           f"{str(encoder.get(key))[:12]} and {str(decoder.get(key))[:12]}",
                           f"write both again: {command}")
    types = [part["cache_types"]["cross"] for part in (encoder, decoder)]
    if types[0] != types[1] and provider != "openvino":  # its float32 caches are rounded on the way
        raise LabError(f"{paths['encoder'].name} makes {types[0]} caches and {paths['decoder'].name} wants {types[1]}",
                       f"write both again: {command}")


def _warn_of_16_bits(name: str, facts: dict[str, dict], command: str) -> None:
    """An earlier 03 rounded int8 weights without regard to processors that add two products in 16 bits."""
    recipes = [part.get("recipe") for part in facts.values() if part["precision"] == "int8"]
    early = any(isinstance(recipe, dict) and "largest_pair" not in recipe for recipe in recipes)
    if early and machine.adds_in_16_bits():
        console.warn(f"the int8 graphs of {name} lose words on this processor, which has no VNNI and adds two products "
                     f"in 16 bits: an earlier 03 rounded them; to write them again: {command}")


def check_runtime_files(facts: dict, rules, spec, folder: Path, command: str) -> None:
    """The token rules and features in `folder` are those of the graphs' checkpoint. Raises LabError where not."""
    here = {
        "n_vocab": rules.vocab_size, "n_text_ctx": rules.max_positions, "sot": rules.start, "eot": rules.end,
        "no_timestamps": rules.no_timestamps, "no_speech": rules.no_speech, "all_language_codes": list(rules.languages),
        "n_mels": spec.n_mels, "n_fft": spec.n_fft, "hop_length": spec.hop_length, "sample_rate": spec.sampling_rate,
        "timestamp_step": rules.timestamp_step,
    }
    for key, value in here.items():
        if facts.get(key) != value:
            raise LabError(f"{folder} belongs to another checkpoint than the graphs: {key} is {value} there and "
                           f"{facts.get(key)} in their metadata", f"write both again: {command}")
