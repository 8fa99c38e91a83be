"""Whisper from two ONNX graphs, with onnxruntime, NumPy, tokenizers and soundfile/soxr alone: no torch.

    python -m whisper_lab clip.wav --model nano --precision int8
    python -m whisper_lab lecture.mp3 --model base --format srt > lecture.srt

    runtime = OnnxWhisper("whisper_model_dir", "whisper-nano", "int8")
    print(transcribe.transcribe(runtime, audio.load("speech.wav").samples).text)

The same small interface as torch_whisper.py: the token rules, the search and the windows are shared, so what differs
between the two are the numbers alone.
"""

import itertools
import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np

from whisper_lab import console, external_data, machine, names, openvino, seals
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec
from whisper_lab.tokens import TokenRules

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
               "tensor(uint8)": np.uint8}
RUNTIME_FILES = ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json")


class OnnxWhisper:
    """Two onnxruntime sessions behind the interface of decoding.Runtime.

    Arrays go in and come out without a copy: onnxruntime computes on NumPy's memory and hands out its own.
    """

    def __init__(self, folder: str | Path = "whisper_model_dir", name: str = "whisper-nano", precision: str = "fp32",
                 threads: int | None = None, optimized: bool = False, shared_pool: bool = False, verify: bool = True,
                 provider: str = "cpu"):
        """folder, name, precision: as 03 wrote them; threads: None takes all cores; shared_pool: one pool of threads
        for this whole process, a little faster where nobody else in it uses onnxruntime; verify: refuse files that
        have changed since 03 wrote them; provider: `openvino` takes the float32 encoder and runs it there.

        Raises LabError where a file is missing, cannot be read, has changed, or does not belong to the others, and
        where the provider is not installed.
        """
        if provider == "openvino":
            openvino.require()
            openvino.tell(precision, optimized)
            optimized = False  # its decoder reads int8 caches, and the float32 encoder makes float32 ones
        self.command = export_command(folder, name, precision, optimized, provider)
        # Found first: without graphs the files beside them say nothing.
        paths = find_pair(folder, name, precision, optimized, provider)
        checks = begin_checks(paths) if verify else {}  # hashed while the tokenizer is read
        files = names.runtime_folder(folder, name)
        if verify:
            seals.check_files(files, RUNTIME_FILES, seals.sealed(paths["decoder"]) is not None, self.command)
        self._read_runtime_files(files)
        encoder, decoder, self.facts = open_pair(folder, name, precision, optimized, threads, shared_pool, checks,
                                                 provider)
        check_runtime_files(self.facts, self.rules, self.spec, files, self.command)
        try:
            self._connect(encoder, decoder)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise LabError(f"the graphs of {name} have other inputs and outputs than 03 gives them: {error}",
                           f"write both again: {self.command}") from error

    @classmethod
    def of_sessions(cls, encoder, decoder, like=None) -> "OnnxWhisper":
        """The same runtime over two sessions that are already open, such as graphs that 03 has yet to check.

        like: the runtime whose rules, spec and tokenizer it takes; None: it computes numbers and knows no text.
        """
        made = cls.__new__(cls)
        made.rules, made.spec, made.tokenizer = (getattr(like, key, None) for key in ("rules", "spec", "tokenizer"))
        made._connect(encoder, decoder)
        return made

    def _read_runtime_files(self, files: Path) -> None:
        """What the checkpoint says of tokens and sound."""
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
            self.rules, self.spec = TokenRules.from_folder(files, self.tokenizer), FeatureSpec.from_folder(files)
        except Exception as error:  # tokenizers raises a bare Exception for a file it cannot read
            raise LabError(f"the graphs' runtime files cannot be read: {getattr(error, 'problem', error)}",
                           f"write them again: {self.command}") from error

    def _connect(self, encoder, decoder) -> None:
        """Which output feeds which input: names alone tell, `present_x` of one call is `past_x` of the next."""
        self.encoder, self.decoder = encoder, decoder
        inputs = {value.name: value for value in self.decoder.get_inputs()}
        past = [name for name in inputs if name.startswith("past_")]
        made = [value.name for value in self.encoder.get_outputs() if value.name.replace("present", "past", 1) in past]
        self._features, self._hidden = self.encoder.get_inputs()[0].name, self.encoder.get_outputs()[0].name
        self.cross_outputs = made
        self._cross_inputs = [name.replace("present", "past", 1) for name in made]
        self._self_inputs = [name for name in past if name not in self._cross_inputs]
        self._self_outputs = [name.replace("past", "present", 1) for name in self._self_inputs]
        self.int8_cross = names.cross_scale("past") in inputs  # then the last array of `cross` holds the scales
        self._blocks = Blocks()
        self._vocabulary = self.decoder.get_outputs()[0].shape[-1]
        self._empty = [((inputs[name].shape[1], 0, inputs[name].shape[3]), NUMPY_TYPES[inputs[name].type])
                       for name in self._self_inputs]

    @property
    def takes_short_windows(self) -> bool:
        """Whether the encoder hears windows of any length, or always the whole one."""
        return not isinstance(self.encoder.get_inputs()[0].shape[2], int)

    @property
    def silence_s(self) -> float | None:
        """How much silence a shorter window needs behind the sound, as 03 found it; None: it has to be whole."""
        found = getattr(self, "facts", {}).get("silence_s")
        return float(found) if type(found) in (int, float) and 0 <= found < float("inf") else None

    @property
    def described(self) -> dict:
        """Which graphs these are, for documents."""
        return {"name": self.facts["model"], **{key: self.facts[key] for key in (
            "revision", "random_weights", "weights_sha256", "precision", "optimized", "provider")}}

    @property
    def fewest_positions(self) -> int:
        """How many positions a window has at least: as many as a text has tokens, for the operator that reads int8."""
        return self.rules.max_positions + 2 if self.int8_cross else 1

    @property
    def has_attention(self) -> bool:
        """Whether the decoder was exported with --alignment-heads, which word timestamps need."""
        return any(output.name == "cross_attention" for output in self.decoder.get_outputs())

    def encode(self, features: np.ndarray) -> list[np.ndarray]:
        """float32 [audio, n_mels, frames] -> per layer key and value [audio, heads, positions, head_dim]

        One window after the other: several in one run take as long, and as much more memory.
        """
        self._blocks = Blocks()  # what the last decoding used is free meanwhile
        runs = (self.encoder.run(self.cross_outputs, {self._features: np.ascontiguousarray(features[i:i + 1])})
                for i in range(len(features)))
        made = next(runs)
        if len(features) > 1:
            made = [np.concatenate([array, np.empty((len(features) - 1, *array.shape[1:]), array.dtype)])
                    for array in made]
        for i, arrays in enumerate(runs, 1):
            for whole, array in zip(made, arrays, strict=True):
                whole[i] = array[0]
        return made

    def hidden_states(self, features: np.ndarray) -> np.ndarray:
        """float32 [audio, n_mels, n_frames] -> what the encoder ends with [audio, positions, d_model]"""
        return self.encoder.run([self._hidden], {self._features: np.ascontiguousarray(features)})[0]

    def hidden_and_cross(self, features: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Both that `hidden_states` and `encode` give, from one run of the encoder."""
        hidden, *cross = self.encoder.run([self._hidden, *self.cross_outputs],
                                          {self._features: np.ascontiguousarray(features)})
        return hidden, cross

    def step(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None
             ) -> tuple[np.ndarray, list[np.ndarray]]:
        """int64 [batch, sequence] -> float32 logits [batch, sequence, vocab] and self caches longer by sequence.

        batch = audio x beams; the cross caches are those of the audios, so beams share them.
        """
        if self.int8_cross:
            return int8_step(self.decoder, self.feeds(input_ids, cross, cache), self._vocabulary, self._blocks)
        logits, *cache = self.decoder.run(["logits", *self._self_outputs], self.feeds(input_ids, cross, cache))
        return logits, cache

    def feeds(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None) -> dict:
        """The decoder's inputs by name; arguments as of `step`."""
        if cache is None:
            cache = [np.zeros((len(input_ids), *shape), dtype) for shape, dtype in self._empty]
        return {"input_ids": np.ascontiguousarray(input_ids), **dict(zip(self._self_inputs, cache, strict=True)),
                **dict(zip(self._cross_inputs, cross, strict=True))}

    def reorder(self, cache: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """The self caches of these rows."""
        return _rows(cache, rows)

    def select(self, cross: list[np.ndarray], audios: np.ndarray) -> list[np.ndarray]:
        """The cross caches of these audios."""
        return _rows(cross, audios)

    def attention(self, input_ids: np.ndarray, cross: list[np.ndarray]) -> np.ndarray:
        """Cross-attention weights of the alignment heads for one audio: float32 [heads, sequence, positions].

        Raises LabError where the graph has no such output.
        """
        if not self.has_attention:
            raise LabError("this decoder has no output cross_attention, which word timestamps are made of",
                           f"write it with one: {self.command} --alignment-heads")
        return self.decoder.run(["cross_attention"], self.feeds(input_ids, cross, None))[0][0]


def _rows(arrays: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    """arrays[rows] on the first axis; neighbours in their order are a view, so that nothing is copied."""
    rows = np.asarray(rows, np.int64)
    if len(rows) and (np.diff(rows) == 1).all():
        return [array[rows[0]:rows[-1] + 1] for array in arrays]
    return [np.take(array, rows, axis=0) for array in arrays]


# Names ---------------------------------------------------------------------------------------------------------------

def graph_name(model: str) -> str:
    """`nano`, `openai/whisper-base` or a folder -> the name in the graphs' file names, as 03 chose it."""
    return names.name_for(model)


def chosen_name(model: str | None, folder: str | Path) -> str:
    """The name in the graphs' file names: `model`, else $WHISPER_LAB_MODEL, else base, else nano.

    nano stands in for base where nobody named a model and `folder` holds no graph of base; that is noted.
    """
    named = model or os.environ.get("WHISPER_LAB_MODEL")
    name = graph_name(named or names.DEFAULT)
    if named or any(Path(folder).glob(f"{name}_*.onnx")):
        return name
    console.note("graphs", "of whisper-nano", f"no graphs of {name}, the default, in {folder}")
    return "whisper-nano"


# Opening two graphs ---------------------------------------------------------------------------------------------------

# Two ONNX graphs opened as they should be: threads that do not fight, and proof that they belong together.
#
# onnxruntime alone; neither torch nor transformers nor onnx is imported.

# The first onnxruntime that opens the graphs of a precision; benchmarks/OLD-RUNTIMES.md has what was tried. int4 keeps
# the embedding in 8 bits, which MatMulNBits knows since 1.22; the optimized pair has an int8 cross cache for
# GroupQueryAttention, which knows it since 1.30.
OLDEST = {"fp32": (1, 17), "fp16": (1, 17), "int8": (1, 17), "int4": (1, 22), "int8 optimized": (1, 30)}
NEEDED = ("model", "revision", "random_weights", "weights_sha256", "precision", "format", "cache_types")
SHA256 = re.compile("[0-9a-f]{64}")


def open_pair(folder: str | Path, name: str, precision: str, optimized: bool = False, threads: int | None = None,
              shared_pool: bool = False, checks: dict[str, seals.Check] | None = None, provider: str = "cpu"):
    """Encoder and decoder session, and their metadata with values read from JSON: (encoder, decoder, facts).

    threads: None takes all cores; shared_pool: see session_options; checks: of `begin_checks`, {} to open what is
    damaged; provider: as of OnnxWhisper.

    Raises LabError where a graph is missing, cannot be read, is not as 03 wrote it, or where the two were not
    made together.
    """
    paths = find_pair(folder, name, precision, optimized, provider)
    command = export_command(folder, name, precision, optimized, provider)
    check_version(f"{precision} optimized" if optimized else precision)
    checks, sessions = begin_checks(paths) if checks is None else checks, {}
    # First the one that takes more to open: meanwhile the other takes no room. OpenVINO compiles its own copy.
    for part in ("encoder", "decoder") if provider == "openvino" else ("decoder", "encoder"):
        if part in checks:
            checks[part].require(command)
        where = openvino.settings(threads) if (provider, part) == ("openvino", "encoder") else CPU
        sessions[part] = _open(paths[part], session_options(part, threads, shared_pool), command, where)
        machine.give_back_memory()
    facts = {part: _facts(paths[part], sessions[part], part, command) for part in paths}
    _check_together(facts, paths, command, provider)
    if checks and any(seals.sealed(path) is None for path in paths.values()):
        console.warn(f"the graphs of {name} were written before this lab sealed graphs: damage to them cannot be "
                     f"noticed; to write them again: {command}")
    both = facts["encoder"] | facts["decoder"] | {"provider": provider, "optimized": optimized}
    return sessions["encoder"], sessions["decoder"], both


def begin_checks(paths: dict[str, Path]) -> dict[str, seals.Check]:
    """Start to compare the content of both graphs with their seals."""
    return {part: seals.Check(path) for part, path in paths.items()}


def find_pair(folder: str | Path, name: str, precision: str, optimized: bool = False, provider: str = "cpu"
              ) -> dict[str, Path]:
    """{"encoder": path, "decoder": path}. Raises LabError, with the command that writes them, where one is missing."""
    on_openvino = provider == "openvino"
    paths = openvino.pair(folder, name, precision) if on_openvino else names.pair(folder, name, precision, optimized)
    for part, path in paths.items():
        if not path.is_file():
            made = "fp32" if on_openvino and part == "encoder" else precision
            raise LabError(f"there is no {part} {path}", f"write it: {export_command(folder, name, made, optimized)}")
    return paths


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
        return " && ".join(export_command(folder, name, made) for made in ("fp32", precision))
    wanted = "" if precision == "fp32" and not optimized else f" --precision {precision}"
    place = "" if Path(folder) == Path("whisper_model_dir") else f" --output-dir {shlex.quote(str(folder))}"
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


def _make_pool(threads: int) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    try:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _pool.append(threads)
    except Fail:
        _pool.append(None)


CPU = ["CPUExecutionProvider"]


def _open(path: Path, options, command: str, providers: list = CPU):
    import onnxruntime

    _check_places(path, command)
    try:  # without fallback: it would try the same once more, and say so on stdout
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise _open_failure(path, str(error), command) from error


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
        raise LabError(f"{path} cannot be opened as a graph: {error.problem}",
                       f"{error.remedy}; or write it again: {command}") from error


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
    if types[0] != types[1]:
        raise LabError(f"{paths['encoder'].name} makes {types[0]} caches and {paths['decoder'].name} wants {types[1]}",
                       f"write both again: {command}")


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


# One step with int8 cross caches --------------------------------------------------------------------------------------

# One step of a decoder whose cross caches are int8 (the _optimized pair): read in place, one recording at a time.
#
# The graph hands the caches out again as it got them (export/int8_cache.py). Bound to the memory of the inputs they
# cost nothing; in memory of their own they would be copied at every step. onnxruntime and NumPy alone.

class Blocks:
    """Memory for a step's self caches, used again once no one holds the arrays that were in it.

    A step makes them all again, one token longer. In arrays of their own each step would pay for fresh pages, which
    glibc hands back to the system at once: with four windows after a long prompt as much as for the step itself.
    """

    ROOM = 64  # positions; so many steps fit before a block is too small

    def __init__(self):
        self._made: list[np.ndarray] = []
        (self._free,) = self._references([np.empty(0, np.uint8)])  # of a block that no array is in

    @staticmethod
    def _references(blocks: list[np.ndarray]) -> list[int]:
        return [sys.getrefcount(block) for block in blocks]

    def take(self, shape: tuple[int, int, int, int], dtype: np.dtype, count: int) -> list[np.ndarray]:
        """`count` arrays of undefined content [rows, heads, positions, head_dim]."""
        rows, heads, positions, width = shape
        size, room = dtype.itemsize * rows * heads * width, self.ROOM
        used = [references > self._free for references in self._references(self._made)]
        free = [block for block, is_used in zip(self._made, used, strict=True)
                if not is_used and block.nbytes >= size * positions][:count]
        if len(free) < count:
            free += [np.empty(size * (positions + room), np.uint8) for _ in range(count - len(free))]
            self._made = [*itertools.compress(self._made, used), *free]  # what is free and too small is given up
        return [block[:size * positions].view(dtype).reshape(shape) for block in free]


def int8_step(session, feeds: dict[str, np.ndarray], vocabulary: int, blocks: Blocks | None = None
              ) -> tuple[np.ndarray, list[np.ndarray]]:
    """The decoder's inputs by name -> logits float32 [batch, sequence, vocabulary], self caches longer by sequence.

    onnxruntime's operator takes several queries for one recording, or one query each for several. Beams and the tokens
    of a prompt are queries, so with those the recordings of a batch are run in turn.
    """
    ids = feeds["input_ids"]
    audios = next(len(array) for name, array in feeds.items() if is_cross(name))
    if audios == 1 or ids.size == audios:
        return _run(session, feeds, vocabulary, blocks)
    beams, found = len(ids) // audios, []
    for i in range(audios):
        part = {name: array[i:i + 1] if is_cross(name) else array[i * beams:(i + 1) * beams]
                for name, array in feeds.items()}
        found.append(_run(session, part, vocabulary))
    logits, caches = zip(*found, strict=True)
    return np.concatenate(logits), [np.concatenate(arrays) for arrays in zip(*caches, strict=True)]


def is_cross(name: str) -> bool:
    """Does this input belong to the recording, not to the tokens?"""
    return "_cross" in name


def _run(session, feeds: dict[str, np.ndarray], vocabulary: int, blocks: Blocks | None = None
         ) -> tuple[np.ndarray, list[np.ndarray]]:
    feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
    rows, sequence = feeds["input_ids"].shape
    outputs = {"logits": np.empty((rows, sequence, vocabulary), np.float32)}
    caches = {name: past for name, past in feeds.items() if "_self_" in name}
    past = next(iter(caches.values()))  # all have one shape
    shape = (*past.shape[:2], past.shape[2] + sequence, past.shape[3])
    longer = blocks.take(shape, past.dtype, len(caches)) if blocks else \
        [np.empty(shape, past.dtype) for _ in caches]
    outputs |= {name.replace("past", "present", 1): array for name, array in zip(caches, longer, strict=True)}
    for name, past in feeds.items():
        if past.dtype == np.int8:
            outputs[name.replace("past", "present", 1)] = past  # the same memory: in place
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, feeds), (binding.bind_output, outputs)):
        for name, array in arrays.items():
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    return outputs["logits"], [array for name, array in outputs.items() if "_self_" in name]


if __name__ == "__main__":  # the command line's older name
    import runpy

    runpy.run_module("whisper_lab", run_name="__main__")
