"""Whisper from the graphs of 03 on the command line: what 02 does, without torch and transformers.

    python -m whisper_lab clip.wav --model nano --precision int8
    python -m whisper_lab lecture.mp3 --model base --format srt > lecture.srt
    python -m whisper_lab archive FOLDER --output-dir OUT      # every sound file below it, also on many machines
"""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError

with console.importing(__name__):
    from whisper_lab import audio, confidence, flags, lanes, names, precisions, transcribe, transcripts
    from whisper_lab.batching import Batcher
    from whisper_lab.onnx_whisper import OnnxWhisper


def main(argv: list[str] | None = None) -> int:
    """Transcribe the clips, print each, write the JSON document if asked for."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["archive"]:
        from whisper_lab.archive import cli

        return cli.main(argv[1:], open_runtime)
    args = arguments(argv)
    clips = audio.find(args.audio)
    runtime = open_for(clips, args)
    options = transcripts.options(args)
    prompt = runtime.rules.checked_prompt(runtime.tokenizer, args.prompt, args.language, args.task)

    if args.condition_on_previous and args.batch_size != 1:
        console.note("a long recording", "one window after the other",
                     "--condition-on-previous gives each the text before it")
    heard: list[transcribe.Transcript] = []

    def hear(recordings: list, done: Callable[[float], object]) -> list[transcribe.Transcript]:
        found = transcribe.transcribe_many(runtime, recordings, options, words=args.timestamps == "word", prompt=prompt,
                                           condition_on_previous=args.condition_on_previous, batch_size=args.batch_size,
                                           progress=done)
        heard.extend(found)
        return found

    results = transcripts.Results(clips, transcripts.output(args), runtime.described,
                                  transcripts.settings(args, "audio_context", "batch_size"), threads=args.threads)
    status = results.run(Batcher(clips, hear, args.batch_size * runtime.lanes, runtime.spec.window_s, results.has))
    transcripts.tell_windows(heard, args.audio_context)
    return status


def open_for(clips: list[Path], args) -> OnnxWhisper:
    """As open_runtime; where that fails, which of the clips would have failed next is said as well."""
    try:
        return open_runtime(args, clips)
    except LabError:
        for clip in clips:
            try:
                audio.check(clip)
            except LabError as error:
                console.error(error)
        raise


def open_runtime(args, clips: Iterable[Path] = ()) -> OnnxWhisper:
    """The graphs that the command line asks for, and notes about them; clips: what is to be heard."""
    started, name = time.perf_counter(), names.chosen_name(args.model, args.model_dir)
    precision = precisions.choose(args.model_dir, name, args.precision, args.optimized, args.provider)
    runtime = OnnxWhisper(args.model_dir, name, precision, args.threads, args.optimized, shared_pool=True,
                          verify=not args.no_verify, provider=args.provider, keep=True,
                          lanes=lanes.wanted(args, clips))
    args.batch_size = args.batch_size or transcribe.windows_at_once(runtime)
    optimized = " optimized" if runtime.facts["optimized"] else ""
    console.note("graphs", f"{runtime.facts['model']} {precision}{optimized}",
                 f"opened in {time.perf_counter() - started:.2f} s")
    if runtime.lanes > 1:
        console.note("lanes", f"{runtime.lanes}, each with a thread and {args.batch_size} windows of its own",
                     "there is enough sound for all of them")
    if runtime.facts["random_weights"]:
        console.warn("the checkpoint was never trained: sizes and speeds are real, its transcripts mean nothing")
    confidence.tell_what_it_knows(runtime.facts["model"], args.language)
    if isinstance(args.audio_context, float) and not runtime.takes_short_windows:
        raise LabError(f"these graphs hear nothing but whole windows, not a sound and {args.audio_context:g} s",
                       f"leave out --audio-context, or write them again: {runtime.command}")
    if args.timestamps == "word" and not runtime.has_attention:
        raise LabError("word timestamps need a decoder with the output cross_attention",
                       f"write one: {runtime.command} --alignment-heads")
    return runtime


def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "audio", "model", "language", "task", "timestamps", "format", "output_dir",
                          "output_json", "threads", "beams", "temperature", "fallback", "condition_on_previous",
                          "prompt", "audio_context", "batch_size", "seed", "force", "quiet", "log_level",
                          prog="python -m whisper_lab")
    add_graph_flags(parser)
    args = flags.parse(parser, argv)
    flags.refuse_mistyped(parser, args.audio, ["archive"])
    transcripts.check(parser, args)
    return args


def add_graph_flags(parser) -> None:
    """Which graphs `open_runtime` opens."""
    flags.add_flags(parser, "precision", "model_dir", "provider", "optimized")
    more = flags.rare(parser)
    more.add_argument("--no-verify", action="store_true",
                      help="open graphs and files beside them that have changed since 03 wrote them, or are damaged")


if __name__ == "__main__":
    console.run(main)
