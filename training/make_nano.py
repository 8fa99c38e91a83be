"""whisper-nano from nothing to the folder that ships, in one command, from seeds.

    python -m training.make_nano --digits DIR

speaks the corpus, trains in three rounds, publishes, evaluates and writes the model card. Every stage keeps its result
in --work: a run that was stopped goes on where it was. DIR holds the human digits (training/README.md says where to get
them).
"""

from pathlib import Path

from training import corpus, evaluate, publish, train
from whisper_lab import checkpoints, console, flags

LATER_ROUNDS = ("--learning-rate", "7e-4", "--warmup", "100", "--batch-size", "32")
THIRD_SHARE = 0.4  # of the third round in what is published; the rest are the second's weights
ALTERED = 0.5  # of the English sentences of the third round: the decoder has to listen, it cannot guess them


def main(argv: list[str] | None = None) -> int:
    common = ("seed", "threads", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, output_dir="whisper_model_dir/whisper-nano")
    parser.add_argument("--digits", type=Path, metavar="DIR", help="human spoken digits (default: none)")
    parser.add_argument("--work", type=Path, default="training/work", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=0.35, help="of the corpus; 1 is 45 hours (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs=3, default=(3400, 2400, 1700), metavar=("FIRST", "SECOND", "THIRD"),
                        help="of the rounds of training (default: 3400 2400 1700)")
    args = flags.parse(parser, argv)
    folder, unguessable, output = args.work / "corpus", args.work / "altered", Path(args.output_dir)
    for place, seed, share in ((folder, args.seed, 0.0), (unguessable, args.seed + 7, ALTERED)):
        if not (place / "index.json").exists():
            corpus.build(place, args.digits, args.scale, set(corpus.HELD_OUT_SPEAKERS), seed, share)
    common = ["--log-level", args.log_level, *(["--quiet"] if args.quiet else []),
              *(["--threads", str(args.threads)] if args.threads else [])]  # fmt: skip
    rounds = [("run", folder, ()), ("second-run", folder, LATER_ROUNDS),
              ("third-run", unguessable, (*LATER_ROUNDS, "--decoder-only"))]
    run = None
    for number, (name, sounds, options) in enumerate(rounds):
        begun = ("--init", str(run / "average")) if run else ()
        run = args.work / name
        train.main([*common, "--corpus", str(sounds), "--output-dir", str(run), "--steps", str(args.steps[number]),
                    "--seed", str(args.seed + number), *begun, *options])  # fmt: skip
    publish.publish(run, folder, output, 40, args.seed, args.work / "second-run" / "average", THIRD_SHARE)
    report = evaluate.evaluate(checkpoints.resolve(str(output)), folder, clips=150, seed=args.seed)
    publish.write_card(output, report, evaluate.table(report))
    console.result(evaluate.table(report))
    return 0


if __name__ == "__main__":
    console.run(main)
