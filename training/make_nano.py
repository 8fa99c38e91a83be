"""whisper-nano from nothing to the folder that ships, in one command, from seeds.

    python -m training.make_nano --digits DIR

speaks the corpus, trains in two rounds, publishes, evaluates and writes the model card. Every stage keeps its result in
--work: a run that was stopped goes on where it was. DIR holds the human digits (training/README.md says where to get
them).
"""

from pathlib import Path

from training import corpus, evaluate, publish, train
from whisper_lab import checkpoints, console

SECOND_ROUND = ("--learning-rate", "7e-4", "--warmup", "100", "--batch-size", "32")


def main(argv: list[str] | None = None) -> int:
    flags = ("seed", "threads", "output_dir", "quiet", "log_level")
    parser = console.parser(__doc__, *flags, output_dir="whisper_model_dir/whisper-nano")
    parser.add_argument("--digits", type=Path, metavar="DIR", help="human spoken digits (default: none)")
    parser.add_argument("--work", type=Path, default="training/work", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=0.35, help="of the corpus; 1 is 45 hours (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs=2, default=(3400, 2400), metavar=("FIRST", "SECOND"),
                        help="of the two rounds of training (default: 3400 2400)")
    args = console.parse(parser, argv)
    folder, output = args.work / "corpus", Path(args.output_dir)
    if not (folder / "index.json").exists():
        corpus.build(folder, args.digits, args.scale, set(corpus.HELD_OUT_SPEAKERS), args.seed)
    first, run = args.work / "run", args.work / "second-run"
    common = ["--corpus", str(folder), "--log-level", args.log_level, *(["--quiet"] if args.quiet else []),
              *(["--threads", str(args.threads)] if args.threads else [])]  # fmt: skip
    train.main([*common, "--output-dir", str(first), "--steps", str(args.steps[0]), "--seed", str(args.seed)])
    train.main([*common, "--output-dir", str(run), "--steps", str(args.steps[1]), "--seed", str(args.seed + 1),
                "--init", str(first / "average"), *SECOND_ROUND])  # fmt: skip
    publish.publish(run, folder, output, clips=40, seed=args.seed)
    report = evaluate.evaluate(checkpoints.resolve(str(output)), folder, clips=150, seed=args.seed)
    publish.write_card(output, report, evaluate.table(report))
    console.result(evaluate.table(report))
    return 0


if __name__ == "__main__":
    console.run(main)
