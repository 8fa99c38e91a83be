"""Whisper from the graphs of 03 on the command line: what 02 does, without torch and transformers.

    python -m whisper_lab clip.wav --model nano --precision int8
    python -m whisper_lab lecture.mp3 --model base --format srt > lecture.srt
"""

import contextlib
import json
import time
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError
from whisper_lab.decoding import Options, temperatures
from whisper_lab.export import naming
from whisper_lab.onnx_whisper import OnnxWhisper, chosen_name


def main(argv: list[str] | None = None) -> int:
    """Transcribe the clips, print each, write the JSON document if asked for."""
    args = arguments(argv)
    from whisper_lab import audio, confidence

    clips = audio.find(args.clips or args.audio)
    started = time.perf_counter()
    runtime = open_runtime(args)
    console.note("graphs", f"{runtime.facts['model']} {args.precision}{' optimized' if args.optimized else ''}",
                 f"opened in {time.perf_counter() - started:.2f} s")
    if runtime.facts["random_weights"]:
        console.warn("the checkpoint was never trained: sizes and speeds are real, its transcripts mean nothing")
    confidence.tell_what_it_knows(runtime.facts["model"], args.language)
    if args.timestamps == "word" and not runtime.has_attention:
        raise LabError("word timestamps need a decoder with the output cross_attention",
                       f"write one: {runtime.command} --alignment-heads")
    documents = transcribe_all(runtime, clips, args)
    if args.format == "json":
        console.result(json.dumps(_document(runtime, documents, args), indent=2, ensure_ascii=False))
    if args.output_json:
        from whisper_lab import files

        files.write_json(args.output_json, _document(runtime, documents, args))
    return 0 if len(documents) == len(clips) else 1


def open_runtime(args) -> OnnxWhisper:
    """The graphs that the command line asks for."""
    name = chosen_name(args.model, args.model_dir)
    return OnnxWhisper(args.model_dir, name, args.precision, args.threads, args.optimized, shared_pool=True,
                       verify=not args.no_verify)


def transcribe_all(runtime: OnnxWhisper, clips: list[Path], args) -> list[dict]:
    """The entries of the clips for the JSON document; of several clips those that fail are named and left out."""
    documents = []
    for clip in clips:
        try:
            documents.append(transcribe(runtime, clip, args, named=len(clips) > 1))
        except LabError as error:
            if len(clips) == 1:
                raise
            console.error(error)
    return documents


def transcribe(runtime: OnnxWhisper, clip: Path, args, named: bool) -> dict:
    """One clip: read, decode, print; returns its entry for the JSON document."""
    from whisper_lab import audio, transcripts
    from whisper_lab import transcribe as long_form

    sound = audio.load(clip)
    console.note("loaded", f"{clip.name}, {sound.duration:.2f} s", "; ".join([sound.source_format, *sound.notes]))
    level = audio.level(sound.samples)
    if level.advice:
        console.warn(f"{clip.name}: {level.advice}")
    options = Options(language=args.language, task=args.task, timestamps=args.timestamps != "none", beams=args.beams,
                      temperatures=temperatures(args.temperature, args.fallback), seed=args.seed)
    prompt = runtime.rules.prompt_tokens(runtime.tokenizer, args.prompt or "")
    started = time.perf_counter()
    with _bar(sound.duration, clip.name) as bar:
        transcript = long_form.transcribe(runtime, sound.samples, options, words=args.timestamps == "word",
                                          condition_on_previous=args.condition_on_previous, prompt=prompt,
                                          progress=bar and bar.update)
    seconds = time.perf_counter() - started
    if transcript.language_probability is not None:
        console.note("language", transcript.language, f"detected, probability {transcript.language_probability:.3f}; "
                     "--language sets it")
    console.note("transcribed", f"{seconds:.2f} s", f"{sound.duration:.2f} s of sound, "
                 f"{console.count(args.threads, 'thread') if args.threads else 'all threads'}")
    if args.format == "text":
        heading = f"\n{console.plain(clip.name, one_line=True)}\n" if named else ""
        console.result(heading + transcripts.as_text(transcript, args.timestamps))
    elif args.format != "json":
        console.result(getattr(transcripts, args.format)(transcript.segments).rstrip("\n"))
    transcripts.warn_of_doubt(transcript, clip, runtime.facts["model"])
    return transcripts.as_json(transcript, clip, runtime.facts["model"]) | {"transcribe_s": round(seconds, 4)}


def _bar(duration: float, name: str):
    """A progress bar over the seconds of sound; None where tqdm, which this runtime can do without, is not there."""
    try:
        return console.progress(description=name, total=round(duration), unit="s")
    except ImportError:
        return contextlib.nullcontext()


def _document(runtime: OnnxWhisper, clips: list[dict], args) -> dict:
    from whisper_lab import machine, transcripts

    facts = {key: runtime.facts[key] for key in ("model", "revision", "random_weights", "weights_sha256", "precision")}
    return {"schema": transcripts.SCHEMA, "machine": machine.card(args.threads),
            "model": {"name": facts.pop("model"), **facts, "optimized": args.optimized}, "clips": clips}


def arguments(argv: list[str] | None):
    """The command line."""
    parser = console.parser(__doc__, "model", "audio", "language", "threads", "seed", "output_json", "quiet",
                            "log_level")
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="sound files or folders, as with --audio")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--precision", choices=naming.PRECISIONS, default="fp32", help="(default: %(default)s)")
    parser.add_argument("--optimized", action="store_true", help="the pair that 03 --optimize wrote")
    parser.add_argument("--no-verify", action="store_true",
                        help="open graphs and files beside them that have changed since 03 wrote them, or are damaged")
    parser.add_argument("--task", choices=["transcribe", "translate"], default="transcribe",
                        help="translate writes English whatever is spoken (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=1, metavar="N",
                        help="width of the beam search (default: 1, greedy)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="above 0: sample instead of taking the likeliest token (default: %(default)s)")
    console.add_flags(parser, "fallback", "condition_on_previous")
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
