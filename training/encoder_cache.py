"""What a frozen encoder hears in many clips, computed once and kept: the projector then trains without an encoder.

    python -m training.encoder_cache --model nano --corpus training/work/corpus --output-dir training/work/heard

Writes `held-out.npz` and `part-0000.npz`, ...: encoder states of all clips of a part behind each other (float16
[positions, d_model]), where each clip begins, and what is said in it. Only positions of the recording are kept, none of
the padding. A run that is stopped goes on with the first part that is missing.
"""

import json
import math
import random
from pathlib import Path

import numpy as np
import torch

from training import corpus
from training.audio_augmentation import Augmenter
from training.batches import POSITION
from training.examples import Plan, Planner, collate
from training.train import encode
from whisper_lab import checkpoints, console, features, files, flags
from whisper_lab.console import LabError
from whisper_lab.speech_llm import miniature

KINDS = {"sentences": 70, "synthetic digits": 14, "human digits": 8, "nothing": 4}
PART = 1024  # clips in one file
BATCH = 16
FULL_WINDOWS = 0.25  # of the batches are padded to the whole window, as at inference; the others cost a third


class Heard:
    """Encoder states with their transcripts, over all parts of a cache folder."""

    def __init__(self, paths: list[Path]):
        self.states, self.starts, self.texts = [], [], []
        for path in paths:
            with np.load(path) as part:
                self.states.append(part["states"])
                self.starts.append(part["starts"])
                self.texts += json.loads(str(part["texts"]))
        self.places = [(part, i) for part, starts in enumerate(self.starts) for i in range(len(starts) - 1)]

    def __len__(self) -> int:
        return len(self.places)

    def positions(self, clip: int) -> int:
        part, i = self.places[clip]
        return int(self.starts[part][i + 1] - self.starts[part][i])

    def batch(self, clips: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """(states float32 [clips, longest, d_model], positions [clips], transcripts)."""
        rows = []
        for part, i in (self.places[clip] for clip in clips):
            rows.append(torch.from_numpy(self.states[part][self.starts[part][i] : self.starts[part][i + 1]]).float())
        lengths = torch.tensor([len(row) for row in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, True), lengths, [self.texts[clip] for clip in clips]


class Listener:
    """A frozen Whisper encoder that hears plans of clips."""

    def __init__(self, checkpoint: checkpoints.Checkpoint, audio: np.ndarray):
        # bfloat16 and attention written out: three times as fast where the processor has it, 0.7 % off.
        model = checkpoints.load_model(checkpoint, dtype=torch.bfloat16, attn_implementation="eager")
        self.encoder = model.model.encoder
        self.spec = features.FeatureSpec.from_folder(checkpoint.folder)
        filters = features.mel_filters(self.spec.n_mels, self.spec.n_fft, self.spec.sampling_rate).T
        self.augmenter = Augmenter(np.ascontiguousarray(filters), "cpu")
        self.audio = audio

    @torch.no_grad()
    def hear(self, plans: list[Plan], degraded: bool, full: bool, seed: int) -> list[np.ndarray]:
        """float16 [positions, d_model] for each plan; `full`: padded to the whole window."""
        longest = max(plan.recorded for plan in plans)
        window = self.spec.n_samples if full else min(self.spec.n_samples, math.ceil(longest / POSITION) * POSITION)
        batch = {name: torch.from_numpy(array) for name, array in collate(plans, self.audio, 0, window).items()}
        self.augmenter.generator.manual_seed(seed)
        states = encode(self.encoder, self.augmenter.render(batch, degraded).to(self.encoder.dtype))
        kept = [math.ceil(plan.recorded / POSITION) for plan in plans]
        return [row[:n].half().numpy() for row, n in zip(states, kept, strict=True)]


def draw(planner: Planner, rng: random.Random, dutch: float) -> tuple[Plan, str]:
    """A plan whose sentences all end within the window, and its transcript."""
    while True:
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        plan = planner.draw(rng, kind, dutch, part=-1)
        language = plan.segments[0].language if plan.segments else "en"
        if all(s.end <= planner.window for s in plan.segments) and (language == "en" or dutch > 0):
            return plan, " ".join(s.text for s in plan.segments)


def write_part(path: Path, listener: Listener, planner: Planner, clips: int, dutch: float, seed: str,
               degraded: float) -> None:
    """Draw `clips` clips, hear them in batches of like length, write them in one file."""
    rng = random.Random(seed)
    drawn = sorted((draw(planner, rng, dutch) for _ in range(clips)), key=lambda pair: pair[0].recorded)
    batches = [drawn[i : i + BATCH] for i in range(0, clips, BATCH)]
    states = []
    for batch in console.progress(batches, description=path.stem, unit="batch"):
        dirty, full = rng.random() < degraded, rng.random() < FULL_WINDOWS
        states += listener.hear([plan for plan, _ in batch], dirty, full, rng.randrange(2**31))
    starts = np.cumsum([0, *map(len, states)])
    with files.atomic(path) as temporary:
        np.savez(temporary, states=np.concatenate(states), starts=starts, texts=json.dumps([text for _, text in drawn]))


def check_encoder(folder: Path, encoder: Path) -> None:
    """Note whose ears the cache has; raises LabError where it was filled by another encoder."""
    stamp, ours = folder / "encoder.json", {"encoder_sha256": miniature.fingerprint(encoder)}
    if not stamp.exists() and not list(folder.glob("*.npz")):
        files.write_json(stamp, ours)
    elif not stamp.exists() or json.loads(stamp.read_text(encoding="utf-8")) != ours:
        raise LabError(f"{folder} holds what another encoder heard than {encoder}", "choose an empty folder for it")


def main(argv: list[str] | None = None) -> int:
    common = ("model", "seed", "threads", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, model="nano", output_dir="training/work/heard")
    parser.add_argument("--corpus", type=Path, default="training/work/corpus", metavar="DIR",
                        help="default: %(default)s")
    parser.add_argument("--parts", type=int, default=20, help=f"files of {PART} clips (default: %(default)s)")
    parser.add_argument("--dutch", type=float, default=0.0, help="share of Dutch sentences (default: %(default)s)")
    args = flags.parse(parser, argv)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    utterances, audio = corpus.load(args.corpus)
    checkpoint, output = checkpoints.resolve(args.model), Path(args.output_dir)
    check_encoder(output, checkpoint.folder)
    listener = Listener(checkpoint, audio)
    tokenizer = checkpoints.import_transformers().WhisperTokenizer.from_pretrained(checkpoint.folder)
    for number in range(-1, args.parts):
        path = output / ("held-out.npz" if number < 0 else f"part-{number:04d}.npz")
        if not path.exists():
            planner = Planner(utterances, tokenizer, listener.spec.n_samples, 10**6, held_out=number < 0)
            write_part(path, listener, planner, 512 if number < 0 else PART, args.dutch, f"{args.seed}/{number}",
                       0.0 if number < 0 else 0.5)
            console.note("written", path, f"part {number + 1} of {args.parts}")
    return 0


if __name__ == "__main__":
    console.run(main)
