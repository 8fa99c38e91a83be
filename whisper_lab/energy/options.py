"""The options of 06-profile-energy.py and which of them go together."""

import argparse

DEFAULT_SAMPLES = {"benchmark": 3, "single": 1}


def add(parser: argparse.ArgumentParser) -> None:
    """Add every option but the common ones."""
    _add_model(parser.add_argument_group("model"))
    _add_sound(parser.add_argument_group("what is transcribed"))
    _add_run(parser.add_argument_group("how it is measured"))
    _add_energy(parser.add_argument_group("energy"))


def _add_model(group) -> None:
    group.add_argument("--nano", action="store_true",
                       help="speech that whisper-nano understands, whatever the model; without --model also that model")
    group.add_argument("--backend", choices=["torch", "onnx"], default="torch",
                       help="PyTorch, or the graphs that 03 wrote (default: %(default)s)")
    group.add_argument("--precision", metavar="NAME", choices=["fp32", "fp16", "int8", "int4", "int8_optimized"],
                       help="of the graphs: fp32, fp16, int8, int4 or int8_optimized (default: fp32)")
    group.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR",
                       help="where 03 wrote the graphs (default: %(default)s)")
    group.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="(default: %(default)s)")
    group.add_argument("--dtype", choices=["auto", "float16", "float32", "bfloat16"],
                       help="precision of PyTorch (default: auto, float32 on cpu and float16 on cuda)")


def _add_sound(group) -> None:
    group.add_argument("--benchmark", action="store_true", help="several samples: 3 unless --num-samples says else")
    group.add_argument("--num-samples", type=int, metavar="N",
                       help="how many samples; the four classes (short, medium, long, technical) take turns "
                            "(default: 3 with --benchmark or --use-dataset, else 1)")
    group.add_argument("--use-dataset", nargs="?", const="", metavar="DIR",
                       help="LibriSpeech instead, fetched; or from a folder in its layout")
    group.add_argument("--audio-file", metavar="PATH", help="a sound file instead")
    group.add_argument("--reference", metavar="TEXT", help="what is said in --audio-file, for its word error rate")
    group.add_argument("--generate-audio", action="store_true",
                       help="generated tones instead: for smoke tests only, they are no speech")
    group.add_argument("--audio-duration", type=float, metavar="SECONDS", help="of --generate-audio (default: 30)")
    group.add_argument("--shipped-samples", action="store_true",
                       help="the clips of media/profile even where espeak-ng is installed: the same bits everywhere")
    group.add_argument("--language", metavar="CODE", help="language spoken (default: the sample's own, else detected)")
    group.add_argument("--timestamps", action="store_true", help="when each word was said")


def _add_run(group) -> None:
    group.add_argument("--batch-size", type=_sizes, default=[1], metavar="N,N",
                       help="samples decoded together; several sizes are measured one after the other (default: 1)")
    group.add_argument("--repeats", type=int, default=5, metavar="N", help="timed passes (default: %(default)s)")
    group.add_argument("--min-seconds", type=float, default=0.0, metavar="S",
                       help="go on repeating until the timed window is this long (default: %(default)s)")
    group.add_argument("--warm-up", type=int, default=1, metavar="N",
                       help="passes over the first samples that are not counted (default: %(default)s)")
    group.add_argument("--tokens", type=int, metavar="N",
                       help="exactly N tokens in every window: the same work for every model; the texts then mean "
                            "nothing (default: as many as are said; 64 with random weights)")
    group.add_argument("--output-file", "--output-json", metavar="FILE", help="write the results as JSON")


def _add_energy(group) -> None:
    from whisper_lab.energy.meters import SOURCES

    group.add_argument("--meter", choices=["auto", *SOURCES, "none"], default="auto", metavar="SOURCE",
                       help="of the joules: %(choices)s (default: auto, the best one that sees the device)")
    group.add_argument("--power-file", metavar="CSV",
                       help="log of an external meter: seconds since 1970, watts; may still be growing")
    group.add_argument("--assume-watts", metavar="W", help="estimate with this power, or a range such as 10-25, where "
                                                           "nothing can be measured")
    group.add_argument("--idle-seconds", type=float, default=5.0, metavar="S",
                       help="idle time measured before and after, where there is a meter (default: %(default)s)")
    group.add_argument("--interval-ms", type=float, default=50.0, metavar="MS",
                       help="between readings (default: %(default)s)")
    group.add_argument("--trace", metavar="CSV", help="write time, power, clocks, temperature, load of every reading")
    group.add_argument("--cross-check", action="store_true",
                       help="let zeus and codecarbon, where installed, measure the same window")


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of sizes such as 1,2,4") from error
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError("sizes start at 1")
    return sizes


def check(parser: argparse.ArgumentParser, args) -> None:
    """Fill in what depends on other options; wrong combinations end with exit status 2."""
    given = {"--use-dataset": args.use_dataset is not None, "--audio-file": args.audio_file,
             "--generate-audio": args.generate_audio}
    instead = [name for name, value in given.items() if value]
    if len(instead) > 1:
        parser.error(f"choose one of {' and '.join(instead)}")
    if args.backend == "onnx" and (args.device == "cuda" or args.dtype):
        parser.error("--backend onnx runs on the processor in the --precision of its graphs: no --device cuda, no "
                     "--dtype")
    if args.backend == "torch" and args.precision:
        parser.error("--precision is that of graphs: add --backend onnx, or choose --dtype")
    if args.audio_duration is not None and not args.generate_audio:
        parser.error("--audio-duration goes with --generate-audio")
    if args.reference and not args.audio_file:
        parser.error("--reference goes with --audio-file")
    if args.timestamps and args.tokens:
        parser.error("with --tokens the texts mean nothing, and so would their --timestamps")
    _check_numbers(parser, args)
    args.precision, args.dtype = args.precision or "fp32", args.dtype or "auto"
    args.audio_duration = args.audio_duration or 30.0
    args.single = bool(args.audio_file or args.generate_audio) and not args.benchmark
    many = args.benchmark or args.use_dataset is not None
    args.num_samples = args.num_samples or DEFAULT_SAMPLES["benchmark" if many else "single"]
    if args.nano and args.model is None:
        args.model = "nano"


def _check_numbers(parser: argparse.ArgumentParser, args) -> None:
    least = {"num_samples": 1, "repeats": 1, "warm_up": 0, "tokens": 1, "min_seconds": 0, "idle_seconds": 0,
             "interval_ms": 1}
    for name, value in least.items():
        if (given := getattr(args, name)) is not None and given < value:
            parser.error(f"--{name.replace('_', '-')} starts at {value}")
    if args.audio_duration is not None and args.audio_duration <= 0:
        parser.error("--audio-duration must be above 0")
