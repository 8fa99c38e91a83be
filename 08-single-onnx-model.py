"""The next labs: the whole of Whisper in one ONNX graph, from samples to text; onnxruntime alone runs it.

    python 08-single-onnx-model.py --model nano --precision int8      # from 03's graphs; its table -> reports/
    python 08-single-onnx-model.py run media/kitchen.wav --model nano --precision int8
    python 08-single-onnx-model.py --input wav                        # the graph takes a WAV file, not samples

    1. features   samples -> log-mel: a convolution with cosines and sines, then a product  [mel bins, frames]
    2. search     the encoder once, then the decoder as the body of a Loop                  [tokens]
    3. text       tokens -> bytes -> characters, picked from a table
    4. check      the graph beside the pair on every clip; then into place
    5. use        the ten lines of Python that need nothing else

The graph takes `samples`, float32 [1, n] at 16 kHz, at most one window, and gives `text`, string [1], and `tokens`,
int64 [k]. A caller may add `language` (string [1]; empty: the model finds it), `task` (string [1]), `max_length`
(int64 [1], prompt included) and `audio_context` (float32 [1]; s of silence that are heard behind the sound).
"""

import time
from pathlib import Path

from whisper_lab import console, flags, names
from whisper_lab.console import LabError

REPEATS = 5  # timed runs of each, in turns; the median counts

# All that a program needs: numpy and onnxruntime. The severity hides remarks that the optional inputs are optional.
TEN_LINES = """\
import sys
import wave
import numpy
import onnxruntime
onnxruntime.set_default_logger_severity(3)
model, clip = sys.argv[1:]
with wave.open(clip) as sound:  # 16 kHz, mono, 16 bit
    samples = numpy.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype("float32") / 32768
text, tokens = onnxruntime.InferenceSession(model).run(["text", "tokens"], {"samples": samples[None]})
print(text[0])
"""

# The graph that is given a WAV file reads it itself.
FEW_LINES = """\
import sys
import numpy
import onnxruntime
onnxruntime.set_default_logger_severity(3)
model, clip = sys.argv[1:]
text, tokens = onnxruntime.InferenceSession(model).run(["text", "tokens"], {"wav": numpy.fromfile(clip, "uint8")})
print(text[0])
"""


# 1 to 3. Four parts become one graph ---------------------------------------------------------------------------------

def compose(pair: dict[str, Path], runtime: Path, given: str = "samples"):
    """samples -> log-mel -> encoder -> Loop(decoder) -> tokens -> text, each weight of 03's graphs once.

    `runtime`: the folder with the checkpoint's tokenizer and configuration that 03 wrote beside them. `given`: samples,
    or wav, of which the graph then makes samples.
    """
    from whisper_lab.export import graphs
    from whisper_lab.features import FeatureSpec
    from whisper_lab.single import graph, loop, mel, text, wav
    from whisper_lab.single.blocks import FLOAT, INT64, STRING, UINT8, Block, graph_input
    from whisper_lab.tokenizer import Tokenizer
    from whisper_lab.tokens import TokenRules

    tokenizer = Tokenizer.from_folder(runtime)
    rules, spec = TokenRules.from_folder(runtime, tokenizer), FeatureSpec.from_folder(runtime)
    model, decoder = graphs.load(pair["encoder"]), graphs.load(pair["decoder"])
    front, middle, back = (Block(model, name) for name in ("mel", "search", "text"))

    # 1. The windowed Fourier transform is a convolution with cosines and sines; the mel filters are a matrix product.
    samples = (wav.samples(front, graph_input(model, "wav", UINT8, ["bytes"]), spec) if given == "wav"
               else graph_input(model, "samples", FLOAT, [1, "n"]))
    features = mel.log_mel(front, samples, spec, graph.silence_s(model))  # of the sound and silence, not of a window
    cross = graph.feed_encoder(model, front, features)
    # 2. The decoder becomes the body of a Loop: the token it chose and the caches go into its next round.
    tokens = loop.search(middle, loop.take(decoder, model, cross), rules)
    # 3. Tokens are bytes, bytes are UTF-8, and each code point picks its character from a table of strings.
    written = text.text(back, tokens, text.token_bytes(tokenizer, rules))

    model.graph.extend([*middle.nodes, *back.nodes])
    graph.add_outputs(model, {"text": (written, STRING, [1]), "tokens": (tokens, INT64, ["k"])})
    graphs.drop_unused(model)
    return model


# 4. Check, then publish ----------------------------------------------------------------------------------------------

def export(name: str, precision: str, model_dir: str, given: str, verify: bool, seed: int, threads: int | None
           ) -> dict:
    """Compose, check, put into place; returns the row of the table. given: samples or wav."""
    from whisper_lab import sessions
    from whisper_lab.export import graphs, publish
    from whisper_lab.onnx_whisper import OnnxWhisper
    from whisper_lab.single import gates, graph

    pair = sessions.find_pair(model_dir, name, precision)
    # Opens both and compares their metadata: only graphs that were made together belong in one.
    whisper = OnnxWhisper(model_dir, name, precision, threads)
    console.note("pair", f"{pair['encoder'].name}, {pair['decoder'].name}",
                 f"what 03 wrote; its gates: {whisper.facts.get('verification', 'unknown')}")
    with publish.stage(model_dir, "--model-dir") as folder:
        path = graph.path_of(folder, name, precision, given)
        graphs.save(compose(pair, names.runtime_folder(model_dir, name), given), path)
        graph.describe(path, pair, verify, given)
        row = {"file": path.name, "precision": precision, "pair_bytes": sum(map(graphs.size, pair.values())),
               "gates": [], "seconds": None, "pair_seconds": None, "time_ratio": None, **graph.census(path)}
        if verify:
            session, found = gates.check(path, pair, whisper, precision, given, seed, threads)
            gates.refuse(path, pair, found, Path(model_dir))
            row |= {"gates": [gate.as_json() for gate in found], **compare_times(session, whisper, given)}
        placed = publish.publish([path], Path(model_dir))
    return row | {"size_bytes": graphs.size(placed[0])}  # as it now is, its seal included


def compare_times(session, whisper, given: str = "samples") -> dict:
    """Median seconds from samples to text, of the single graph and of the pair with its NumPy mel, in turns."""
    import numpy as np

    from whisper_lab.decoding import Options, decode
    from whisper_lab.single import gates

    clips = gates.sounds(whisper.spec)
    samples, most = clips.get("kitchen", next(iter(clips.values()))), gates.ENOUGH
    prompt = len(whisper.rules.prompt(gates.any_language(whisper)))
    feeds = gates.feeds(samples, given) | {"max_length": np.array([most + prompt])}
    ways = {"seconds": lambda: session.run(None, feeds),
            "pair_seconds": lambda: decode(whisper, gates.heard(whisper, samples)[None], Options(max_tokens=most))}
    times = {way: [] for way in ways}
    for turn in range(REPEATS + 1):
        for way, work in ways.items():
            start = time.perf_counter()
            work()
            times[way] += [time.perf_counter() - start] if turn else []  # the first run allocates
    medians = {way: float(np.median(each)) for way, each in times.items()}
    return {**medians, "time_ratio": medians["seconds"] / medians["pair_seconds"]}


# 5. Use it -----------------------------------------------------------------------------------------------------------

def use(clip: Path, model: Path, show: bool) -> int:
    """Print what the ten lines (or those for a WAV file) make of a sound file; show: the lines as well."""
    from whisper_lab import audio
    from whisper_lab.single import graph

    facts, sound = graph.facts(model), audio.load(clip)
    if sound.duration > facts["window_s"]:
        raise LabError(f"{clip} lasts {sound.duration:.1f} s and the graph hears {facts['window_s']:g} s at once",
                       f"cut it, or let windows do it: {graph.pair_command(model, facts, clip)}")
    audio.tell(clip, sound)
    lines = FEW_LINES if facts["input"] == "wav" else TEN_LINES
    if show:
        console.result(lines)
    done = run_alone(lines, model, sound.samples)
    if done.returncode:
        raise LabError(f"these lines failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:300]}",
                       f"write the graph again: {graph.command(model)}")
    console.result(done.stdout.rstrip("\n"))
    return 0


def run_alone(lines: str, model: Path, samples):
    """The lines as a program of their own, with the graph and a WAV file of these samples."""
    import subprocess
    import sys
    import tempfile

    from whisper_lab import audio, locks
    from whisper_lab.single import graph

    with locks.folder(Path(tempfile.gettempdir()), "whisper-lab-run-") as folder:
        ready = folder / "clip.wav"
        audio.write_wav(ready, samples)
        return subprocess.run([sys.executable, "-c", lines, str(model), str(ready)], capture_output=True, text=True,
                              encoding="utf-8", env=graph.plain_environment())


def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__, "model", "model_dir", "threads", "seed", "output_json", "quiet", "log_level")
    parser.add_argument("run", nargs="*", metavar="run FILE", help="transcribe a sound file with the graph, or with "
                        "another one: run FILE GRAPH.onnx; shows the program")
    parser.add_argument("--precision", choices=names.PRECISIONS, help="of the pair; all but int4 need only standard "
                        "operators (default: the fastest that is there)")
    parser.add_argument("--input", choices=("samples", "wav"), default="samples",
                        help="sound, or the bytes of a 16-bit WAV file (default: %(default)s)")
    parser.add_argument("--no-verify", action="store_true", help="skip the gates; the graph's metadata says so")
    args = flags.parse(parser, argv)
    if args.run and (args.run[0] != "run" or not 2 <= len(args.run) <= 3):
        parser.error("run needs one sound file: run FILE [GRAPH.onnx]; without run the graph is written")
    if args.run and Path(args.run[1]).suffix == ".onnx":
        parser.error(f"{args.run[1]} is a graph, and the sound comes first: run FILE [GRAPH.onnx]")
    if len(args.run) == 3 and Path(args.run[2]).suffix != ".onnx":
        parser.error(f"run takes one sound file, and {args.run[2]} is no graph (.onnx)")
    return args


def main(argv: list[str] | None = None) -> int:
    """Write the graph, or use it."""
    args = arguments(argv)
    from whisper_lab import audio, precisions
    from whisper_lab.names import chosen_name
    from whisper_lab.single import graph

    if args.run:
        clip, *given = map(Path, args.run[1:])
        audio.check(clip)
        model = given[0] if given else graph.find(args.model_dir, chosen_name(args.model, args.model_dir),
                                                  args.precision, args.input)
        return use(clip, model, show=not args.quiet)
    name = chosen_name(args.model, args.model_dir)
    precision = precisions.choose(args.model_dir, name, args.precision)
    row = export(name, precision, args.model_dir, args.input, not args.no_verify, args.seed, args.threads)
    graph.report(row, name, args.model_dir, args.threads, args.output_json)
    return 0


if __name__ == "__main__":
    console.run(main)
