"""The command line of 06-profile-energy.py: its options, and which of them go together."""

import argparse

from whisper_lab import console, flags, names

DEFAULT_SAMPLES = {"benchmark": 3, "single": 1}
TASKS = ("transcribe", "diarize")


def parser(description: str) -> argparse.ArgumentParser:
    """The parser with every option; those that are seldom used are shown by --help-all alone."""
    made = flags.parser(description, "model")
    made.add_argument("audio", nargs="*", metavar="CLIP",
                      help="sound files or folders (default: a spoken clip with known text)")
    flags.renamed(made, "--audio-file", "CLIP without a flag", dest="former_audio", nargs=1)
    _add_work(made)
    made.add_argument("--json", "--output-file", dest="output_file", metavar="FILE", help="write the results as JSON")
    flags.renamed(made, "--output-json", "--json", dest="output_file")
    more = flags.rare(made)
    _add_model(more)
    _add_sound(more)
    _add_energy(more)
    flags.add_flags(made, "language", "threads", "seed", "quiet", "log_level")
    return made


def _add_work(made) -> None:
    made.add_argument("--task", choices=TASKS, default="transcribe", metavar="TASK",
                      help="transcribe (default), or diarize: who said what")
    made.add_argument("--backend", choices=["torch", "onnx"], default="torch", metavar="NAME",
                      help="torch, or onnx: graphs of 03 (default: torch)")
    made.add_argument("--benchmark", action="store_true", help="several clips with known text")
    made.add_argument("--num-samples", type=int, metavar="N",
                      help="of short, medium, long and technical ones in turn (default: 1; with --benchmark or "
                           "--use-dataset 3)")
    made.add_argument("--batch-size", type=_sizes, default=[1], metavar="N,N",
                      help="clips decoded together; several sizes in turn (default: 1)")
    made.add_argument("--repeats", type=int, default=5, metavar="N", help="timed passes (default: %(default)s)")
    made.add_argument("--assume-watts", type=_watts, metavar="W",
                      help="estimate with this power, or a range (10-25), where there is no meter")


def _add_model(more) -> None:
    more.add_argument("--nano", action="store_true",
                      help="speech that whisper-nano understands, whatever the model; without --model also that model")
    more.add_argument("--precision", metavar="NAME", choices=["fp32", "fp16", "int8", "int4", "int8_optimized"],
                      help="of the graphs: fp32, fp16, int8, int4 or int8_optimized (default: the fastest that is "
                           "there, int8 before fp32 before fp16 before int4)")
    flags.add_flags(more, "model_dir")
    more.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto",
                      help="where PyTorch computes (default: %(default)s)")
    more.add_argument("--dtype", choices=["auto", "float16", "float32", "bfloat16"],
                      help="precision of PyTorch (default: auto, float32 on cpu and float16 on cuda)")
    more.add_argument("--tokens", type=int, metavar="N",
                      help="exactly N tokens in every window: the same work for every model; the texts then mean "
                           "nothing (default: as many as are said; 64 with random weights)")
    more.add_argument("--timestamps", action="store_true", help="show when each word was said")
    flags.add_flags(more, "audio_context")


def _add_sound(more) -> None:
    more.add_argument("--use-dataset", nargs="?", const="", metavar="DIR",
                      help="LibriSpeech instead, fetched; or from a folder in its layout")
    more.add_argument("--reference", metavar="TEXT", help="what is said in CLIP, for its word error rate")
    more.add_argument("--generate-audio", action="store_true",
                      help="generated tones instead: for smoke tests only, they are not speech")
    more.add_argument("--audio-duration", type=float, metavar="SECONDS", help="of --generate-audio (default: 30)")
    more.add_argument("--shipped-samples", action="store_true",
                      help="the clips of media/profile even where espeak-ng is installed: the same bits everywhere")


def _add_energy(more) -> None:
    from whisper_lab.energy.meters import SOURCES

    more.add_argument("--min-seconds", type=float, default=0.0, metavar="S",
                      help="go on repeating until the timed window is this long (default: %(default)s)")
    more.add_argument("--warm-up", type=int, default=1, metavar="N",
                      help="passes over the first clips that are not counted (default: %(default)s)")
    more.add_argument("--meter", choices=["auto", *SOURCES, "none"], default="auto", metavar="SOURCE",
                      help="of the joules: %(choices)s (default: auto, the best one that sees the device)")
    more.add_argument("--power-file", metavar="CSV",
                      help="log of an external meter: seconds since 1970, watts; may still be growing")
    more.add_argument("--idle-seconds", type=float, default=5.0, metavar="S",
                      help="idle time measured before and after, where there is a meter (default: %(default)s)")
    more.add_argument("--interval-ms", type=float, default=50.0, metavar="MS",
                      help="between readings (default: %(default)s)")
    more.add_argument("--trace", metavar="CSV", help="write every reading: time, power, clocks, temperature, load")
    more.add_argument("--cross-check", action="store_true",
                      help="let zeus and codecarbon, where installed, measure the same window")


def _watts(text: str) -> str:
    from whisper_lab.energy.meters import AssumedPower

    try:
        AssumedPower(text)
    except console.LabError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of watts: {error.remedy}") from error
    return text


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of sizes such as 1,2,4") from error
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError("sizes start at 1")
    return sizes


# Which go together ----------------------------------------------------------------------------------------------------

def check(parser: argparse.ArgumentParser, args) -> None:
    """Fill in what depends on other options; wrong combinations end with exit status 2."""
    _check_sound(parser, args)
    _check_model(parser, args)
    _check_numbers(parser, args)
    if args.task == "diarize":
        _check_diarize(parser, args)
    args.dtype = args.dtype or "auto"
    args.audio_duration = args.audio_duration or 30.0
    args.single = not args.benchmark and bool(args.audio or args.generate_audio or args.task == "diarize")
    many = args.benchmark or args.use_dataset is not None
    args.num_samples = args.num_samples or DEFAULT_SAMPLES["benchmark" if many else "single"]
    if args.nano and args.model is None:
        args.model = "nano"


def _check_sound(parser: argparse.ArgumentParser, args) -> None:
    given = {"--use-dataset": args.use_dataset is not None, "CLIP": args.audio,
             "--generate-audio": args.generate_audio}
    instead = [name for name, value in given.items() if value]
    if len(instead) > 1:
        parser.error(f"choose one of {' and '.join(instead)}")
    if args.audio_duration is not None and not args.generate_audio:
        parser.error("--audio-duration goes with --generate-audio")
    if args.reference and len(args.audio) != 1:
        parser.error("--reference is what is said in one CLIP: name one sound file")


def _check_model(parser: argparse.ArgumentParser, args) -> None:
    if args.backend == "onnx" and (args.device == "cuda" or args.dtype):
        parser.error("--backend onnx runs on the processor in the --precision of its graphs: no --device cuda, no "
                     "--dtype")
    if args.backend == "torch" and args.precision:
        parser.error("--precision is that of graphs: add --backend onnx, or choose --dtype")
    if args.backend == "torch" and args.model_dir != names.MODEL_DIR:
        parser.error("--model-dir is where graphs are: add --backend onnx, or leave it out")
    if args.timestamps and args.tokens:
        parser.error("with --tokens the texts mean nothing, and so would their --timestamps")


def _check_diarize(parser: argparse.ArgumentParser, args) -> None:
    """One error for everything that makes no sense where speakers are told apart."""
    clips = {"--benchmark": args.benchmark, "--num-samples": args.num_samples, "--generate-audio": args.generate_audio,
             "--use-dataset": args.use_dataset is not None}
    if named := [name for name, value in clips.items() if value]:
        parser.error(f"--task diarize takes recordings of several people, and the clips of {named[0]} have one speaker "
                     "each: name CLIP (without it, media/long.flac with two voices is taken)")
    if args.batch_size != [1]:
        parser.error("--task diarize takes one recording at a time: leave out --batch-size")
    if args.tokens:
        parser.error("--task diarize gives words to speakers, and with --tokens the words mean nothing")
    if args.device == "cuda":
        parser.error("--task diarize finds speakers on the processor: with Whisper on the GPU, each meter would see "
                     "only a part of the work; leave out --device cuda")
    if args.device == "auto":
        args.device = "cpu"
        console.note("device", "cpu", "--task diarize finds speakers there, and Whisper has to be where the meter sees "
                     "both")


def _check_numbers(parser: argparse.ArgumentParser, args) -> None:
    least = {"num_samples": 1, "repeats": 1, "warm_up": 0, "tokens": 1, "min_seconds": 0, "idle_seconds": 0,
             "interval_ms": 1}
    for name, value in least.items():
        if (given := getattr(args, name)) is not None and given < value:
            parser.error(f"--{name.replace('_', '-')} starts at {value}")
    if args.audio_duration is not None and args.audio_duration <= 0:
        parser.error("--audio-duration must be above 0")
