"""Whisper from two ONNX graphs, with onnxruntime, NumPy, tokenizers and soundfile/soxr alone: no torch.

    python -m whisper_lab.onnx_whisper clip.wav --model nano --precision int8
    python -m whisper_lab.onnx_whisper lecture.mp3 --model base --format srt > lecture.srt

    runtime = OnnxWhisper("whisper_model_dir", "whisper-nano", "int8")
    print(long_form.transcribe(runtime, audio.load("speech.wav").samples).text)

The same small interface as torch_whisper.py: the token rules, the search and the windows are shared, so what differs
between the two are the numbers alone.
"""

import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np

from whisper_lab import checkpoints, console, int8_decoder
from whisper_lab.console import LabError
from whisper_lab.decoding import FALLBACK_TEMPERATURES, Options
from whisper_lab.export import naming
from whisper_lab.features import FeatureSpec
from whisper_lab.onnx_session import check_runtime_files, export_command, find_pair, open_pair
from whisper_lab.tokens import TokenRules

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
               "tensor(uint8)": np.uint8}


class OnnxWhisper:
    """Two onnxruntime sessions behind the interface of decoding.Runtime.

    Arrays go in and come out without a copy: onnxruntime computes on NumPy's memory and hands out its own.
    """

    def __init__(self, folder: str | Path = "whisper_model_dir", name: str = "whisper-nano", precision: str = "fp32",
                 threads: int | None = None, optimized: bool = False, shared_pool: bool = False):
        """folder, name, precision: as 03 wrote them; threads: None takes all cores; shared_pool: one pool of threads
        for this whole process, a little faster where nobody else in it uses onnxruntime.

        Raises LabError where a file is missing, cannot be read, or does not belong to the others.
        """
        from tokenizers import Tokenizer

        self.command = export_command(folder, name, precision, optimized)
        find_pair(folder, name, precision, optimized)  # without graphs the files beside them say nothing
        files = naming.runtime_folder(folder, name)
        try:
            self.rules, self.spec = TokenRules.from_folder(files), FeatureSpec.from_folder(files)
            self.tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        except Exception as error:  # tokenizers raises a bare Exception for a file it cannot read
            raise LabError(f"the graphs' runtime files cannot be read: {getattr(error, 'problem', error)}",
                           f"write them again: {self.command}") from error
        self.encoder, self.decoder, self.facts = open_pair(folder, name, precision, optimized, threads,
                                                           shared_pool)
        check_runtime_files(self.facts, self.rules, self.spec, files, self.command)
        self._read_signature()

    def _read_signature(self) -> None:
        """Which output feeds which input: names alone tell, `present_x` of one call is `past_x` of the next."""
        inputs = {value.name: value for value in self.decoder.get_inputs()}
        past = [name for name in inputs if name.startswith("past_")]
        made = [value.name for value in self.encoder.get_outputs() if value.name.replace("present", "past", 1) in past]
        self._features = self.encoder.get_inputs()[0].name
        self.cross_outputs = made
        self._cross_inputs = [name.replace("present", "past", 1) for name in made]
        self._self_inputs = [name for name in past if name not in self._cross_inputs]
        self._self_outputs = [name.replace("past", "present", 1) for name in self._self_inputs]
        self._int8_cross = naming.cross_scale("past") in inputs  # then the last array of `cross` holds the scales
        self._empty = [((inputs[name].shape[1], 0, inputs[name].shape[3]), NUMPY_TYPES[inputs[name].type])
                       for name in self._self_inputs]

    @property
    def has_attention(self) -> bool:
        """Whether the decoder was exported with --alignment-heads, which word timestamps need."""
        return any(output.name == "cross_attention" for output in self.decoder.get_outputs())

    def encode(self, features: np.ndarray) -> list[np.ndarray]:
        """float32 [audio, n_mels, n_frames] -> per layer key and value [audio, heads, positions, head_dim]"""
        return self.encoder.run(self.cross_outputs, {self._features: np.ascontiguousarray(features)})

    def step(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None
             ) -> tuple[np.ndarray, list[np.ndarray]]:
        """int64 [batch, sequence] -> float32 logits [batch, sequence, vocab] and self caches longer by sequence.

        batch = audio x beams; the cross caches are those of the audios, so beams share them.
        """
        if self._int8_cross:
            return int8_decoder.step(self.decoder, self.feeds(input_ids, cross, cache), self.rules.vocab_size)
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


# The command line ----------------------------------------------------------------------------------------------------

def main(argv: list[str] | None = None) -> int:
    """Transcribe the clips, print each, write the JSON document if asked for."""
    args = arguments(argv)
    from whisper_lab import audio

    clips = audio.find(args.clips or args.audio)
    started = time.perf_counter()
    runtime = open_runtime(args)
    console.note("graphs", f"{runtime.facts['model']} {args.precision}{' optimized' if args.optimized else ''}",
                 f"opened in {time.perf_counter() - started:.2f} s")
    if runtime.facts["random_weights"]:
        console.warn("the checkpoint was never trained: sizes and speeds are real, its transcripts mean nothing")
    if args.timestamps == "word" and not runtime.has_attention:
        raise LabError("word timestamps need a decoder with the output cross_attention",
                       f"write one: {runtime.command} --alignment-heads")
    documents = [transcribe(runtime, clip, args, named=len(clips) > 1) for clip in clips]
    if args.format == "json":
        console.result(json.dumps(_document(runtime, documents, args), indent=2, ensure_ascii=False))
    if args.output_json:
        from whisper_lab import files

        files.write_json(args.output_json, _document(runtime, documents, args))
    return 0


def open_runtime(args) -> OnnxWhisper:
    """The graphs that the command line asks for."""
    name = chosen_name(args.model, args.model_dir)
    return OnnxWhisper(args.model_dir, name, args.precision, args.threads, args.optimized, shared_pool=True)


def graph_name(model: str) -> str:
    """`nano`, `openai/whisper-base` or a folder -> the name in the graphs' file names, as 03 chose it."""
    size = model.removeprefix("whisper-")
    if size == "nano":
        return "whisper-nano"
    folder = Path(checkpoints.PUBLISHED.get(size, model)).expanduser()
    return checkpoints.name_of(folder) if size not in checkpoints.PUBLISHED and folder.is_dir() else folder.name


def chosen_name(model: str | None, folder: str | Path) -> str:
    """The name in the graphs' file names: `model`, else $WHISPER_LAB_MODEL, else base, else nano.

    nano stands in for base where nobody named a model and `folder` holds no graph of base; that is noted.
    """
    named = model or os.environ.get("WHISPER_LAB_MODEL")
    name = graph_name(named or checkpoints.DEFAULT)
    if named or any(Path(folder).glob(f"{name}_*.onnx")):
        return name
    console.note("graphs", "of whisper-nano", f"no graphs of {name}, the default, in {folder}")
    return "whisper-nano"


def transcribe(runtime: OnnxWhisper, clip: Path, args, named: bool) -> dict:
    """One clip: read, decode, print; returns its entry for the JSON document."""
    from whisper_lab import audio, long_form, subtitles, transcripts

    sound = audio.load(clip)
    console.note("loaded", f"{clip.name}, {sound.duration:.2f} s", "; ".join([sound.source_format, *sound.notes]))
    level = audio.level(sound.samples)
    if level.advice:
        console.warn(f"{clip.name}: {level.advice}")
    options = Options(language=args.language, task=args.task, timestamps=args.timestamps != "none", beams=args.beams,
                      temperatures=FALLBACK_TEMPERATURES if args.fallback else (args.temperature,), seed=args.seed)
    prompt = runtime.rules.prompt_tokens(runtime.tokenizer, args.prompt or "")
    started = time.perf_counter()
    recordings = [] if level.silent else [sound.samples]  # for silence Whisper tends to invent words: do not ask it
    with _bar(sound.duration, clip.name) as bar:
        found = long_form.transcribe_many(runtime, recordings, options, words=args.timestamps == "word", prompt=prompt,
                                          progress=bar and bar.update)
    seconds = time.perf_counter() - started
    transcript = found[0] if found else long_form.Transcript(language=args.language, duration=sound.duration)
    console.note("transcribed", f"{seconds:.2f} s", f"{sound.duration:.2f} s of sound, {args.threads or 'all'} threads")
    if args.format == "text":
        console.result(("\n" + clip.name + "\n" if named else "") + transcripts.as_text(transcript, args.timestamps))
    elif args.format != "json":
        console.result(getattr(subtitles, args.format)(transcript.segments).rstrip("\n"))
    return transcripts.as_json(transcript, clip) | {"transcribe_s": round(seconds, 4)}


def _bar(duration: float, name: str):
    """A progress bar over the seconds of sound; None where tqdm, which this runtime can do without, is not there."""
    try:
        return console.progress(description=name, total=round(duration), unit="s")
    except ImportError:
        return contextlib.nullcontext()


def _document(runtime: OnnxWhisper, clips: list[dict], args) -> dict:
    from whisper_lab import machine

    facts = {key: runtime.facts[key] for key in ("model", "revision", "random_weights", "weights_sha256", "precision")}
    return {"schema": "whisper-onnx-lab/transcripts/1", "machine": machine.card(args.threads),
            "model": {"name": facts.pop("model"), **facts, "optimized": args.optimized}, "clips": clips}


def arguments(argv: list[str] | None):
    """The command line."""
    parser = console.parser(__doc__, "model", "audio", "language", "threads", "seed", "output_json", "quiet",
                            "log_level")
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="sound files or folders, as with --audio")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--precision", choices=naming.PRECISIONS, default="fp32", help="(default: %(default)s)")
    parser.add_argument("--optimized", action="store_true", help="the pair that 03 --optimize wrote")
    parser.add_argument("--task", choices=["transcribe", "translate"], default="transcribe",
                        help="translate writes English whatever is spoken (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=1, metavar="N",
                        help="width of the beam search (default: 1, greedy)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="above 0: sample instead of taking the likeliest token (default: %(default)s)")
    parser.add_argument("--fallback", action="store_true",
                        help="try higher temperatures where a window's text repeats itself or is unlikely")
    parser.add_argument("--timestamps", choices=["none", "segment", "word"], default="none",
                        help="show when each segment or word was said (default: %(default)s)")
    parser.add_argument("--prompt", metavar="TEXT", help="text put before every window, such as names to expect")
    parser.add_argument("--format", choices=["text", "json", "srt", "vtt"], default="text",
                        help="of the output (default: %(default)s)")
    args = console.parse(parser, argv)
    if args.beams < 1 or args.temperature < 0:
        parser.error("--beams starts at 1, --temperature at 0")
    if args.beams > 1 and args.temperature > 0:
        parser.error("choose --beams (search) or --temperature (sampling), not both")
    if args.format in ("srt", "vtt") and args.timestamps == "none":
        args.timestamps = "segment"
    return args


if __name__ == "__main__":
    console.run(main)
