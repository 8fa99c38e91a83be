"""whisper-nano from nothing to the folder that ships, in one command, from seeds.

    python -m training.make_nano --digits DIR

speaks a corpus, trains on it, then once more with other voices and sentences from where the first round ended;
publishes, evaluates and writes the model card. Every stage keeps its result in --work: a run that was stopped goes on
where it was. DIR holds the human digits (training/README.md says where to get them).
"""

from dataclasses import dataclass
from pathlib import Path

from training import corpus, evaluate, publish, train
from whisper_lab import checkpoints, console


@dataclass(frozen=True)
class Round:
    """One corpus and the training on it."""

    scale: float  # of the corpus; 1 is 45 hours
    steps: int
    batch_size: int
    learning_rate: float
    warmup: int


ROUNDS = (Round(0.35, 3400, 48, 2e-3, 300), Round(0.5, 2900, 32, 1.3e-3, 150))


def one_round(number: int, round_: Round, init: Path | None, output: Path, args) -> tuple[Path, Path]:
    """Corpus, training, published weights; returns the folders of corpus and run."""
    folder, run, seed = args.work / f"corpus-{number}", args.work / f"run-{number}", args.seed + number
    if not (folder / "index.json").exists():
        corpus.build(folder, args.digits, round_.scale * args.share, set(corpus.HELD_OUT_SPEAKERS), seed)
    more = {"--steps": round(round_.steps * args.share), "--batch-size": round_.batch_size, "--seed": seed,
            "--learning-rate": round_.learning_rate, "--warmup": round_.warmup,
            "--threads": args.threads, "--init": init, "--device": args.device}  # fmt: skip
    options = [str(part) for pair in more.items() if pair[1] is not None for part in pair]
    train.main(["--corpus", str(folder), "--output-dir", str(run), *options])
    publish.publish(run, folder, output, clips=40, seed=seed)
    return folder, run


def main(argv: list[str] | None = None) -> int:
    flags = ("seed", "threads", "output_dir", "quiet", "log_level")
    parser = console.parser(__doc__, *flags, output_dir="whisper_model_dir/whisper-nano")
    parser.add_argument("--digits", type=Path, metavar="DIR", help="human spoken digits (default: none)")
    parser.add_argument("--work", type=Path, default="training/work", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--share", type=float, default=1.0, help="of corpus and steps, for a trial (default: all)")
    parser.add_argument("--clips", type=int, default=150, help="of each material to evaluate (default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    args = console.parse(parser, argv)
    init, output = None, Path(args.output_dir)
    for number, round_ in enumerate(ROUNDS):
        last = number == len(ROUNDS) - 1
        target = output if last else args.work / f"whisper-nano-{number}"
        folder, run = one_round(number, round_, init, target, args)
        init = target
    report = evaluate.evaluate(checkpoints.resolve(str(output)), folder, clips=args.clips, seed=args.seed)
    publish.write_card(output, report, evaluate.table(report))
    console.result(evaluate.table(report))
    return 0


if __name__ == "__main__":
    console.run(main)
