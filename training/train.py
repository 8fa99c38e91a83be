"""Train whisper-nano from scratch: cross-entropy on the decoder, CTC on the encoder, seeded and resumable.

    python -m training.train --corpus training/work/corpus --output-dir training/work/run --steps 3400

A run that is stopped (Ctrl-C, --max-minutes) goes on where it was when the same command is given again. With --init
CHECKPOINT it begins at finished weights instead of random ones, and without the gentle start that random ones need;
--decoder-only then leaves the encoder as it is.
"""

import argparse
import json
import math
from copy import deepcopy
from pathlib import Path

import torch

from training import corpus, initial_checkpoint, loop
from training.audio_augmentation import Augmenter
from training.batches import WINDOW, Batches, ease
from training.examples import CHARACTERS, IGNORE, Planner
from training.validate import validate
from whisper_lab import console, files, flags

SAVED = ("model", "average", "ctc_head", "muon", "adam")
MUON_RATE = 3.0  # times the rate of AdamW
HEAD_ALONE = 200  # steps in which the CTC head, new in every round, reads a trained encoder without moving it
ROUNDS_FILE = "training.json"  # beside published weights: steps, minutes and device of each round


class Trainer:
    """Model, CTC head, optimizer and averaged weights; `state` holds all that a resumed run needs."""

    def __init__(self, args, device: str):
        self.args, self.device = args, device
        self.model, self.tokenizer = initial_checkpoint.make(Path(args.output_dir) / "initial", args.seed)
        if args.init:
            weights = type(self.model).from_pretrained(args.init, dtype=torch.float32).state_dict()
            self.model.load_state_dict(weights)
        self.model.to(device).train()
        self.model.model.encoder.requires_grad_(not args.decoder_only)
        self.ctc_head = torch.nn.Linear(self.model.config.d_model, len(CHARACTERS) + 1).to(device)
        # The forward and backward pass run in bfloat16 on a copy; the weights themselves stay float32.
        self.working = deepcopy(self.model).to(torch.bfloat16) if args.bfloat16 else self.model
        self.average = deepcopy(self.model).eval()
        self.step, self.seconds = 0, 0.0  # seconds of training, over all runs that were resumed
        self.muon, self.adam = self._optimizers()

    def _optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Muon for the matrices inside the layers (half the steps of AdamW to the same loss), AdamW for the rest."""
        inner = [p for name, p in self.model.named_parameters()
                 if ".layers." in name and p.ndim == 2 and p.requires_grad]
        chosen = {id(p) for p in inner}
        rest = [p for p in self._parameters() if id(p) not in chosen]
        rate = self.args.learning_rate
        muon = torch.optim.Muon(inner, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        return muon, torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in (*self.model.parameters(), *self.ctc_head.parameters()) if p.requires_grad]

    def update(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One step of optimization; returns the loss."""
        rate = self.args.learning_rate * _schedule(self.step, self.args.warmup, self.args.steps)
        for group in self.adam.param_groups:
            group["lr"] = rate
        for group in self.muon.param_groups:
            group["lr"] = MUON_RATE * rate
        loss = self._loss(batch)
        loss.backward()
        self._collect_gradients()
        torch.nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        for optimizer in (self.muon, self.adam):
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self._follow()
        return loss.detach()

    def _loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        model = self.working
        with torch.set_grad_enabled(not self.args.decoder_only):
            hidden = encode(model.model.encoder, batch["features"].to(model.dtype))
        decoded = model.model.decoder(input_ids=batch["inputs"], encoder_hidden_states=hidden, use_cache=False)
        logits = model.proj_out(decoded.last_hidden_state).float()  # [clips, tokens, vocab]
        answer = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE, label_smoothing=0.05
        )
        if self.args.decoder_only:
            return answer
        # CTC leads at first: what it teaches the encoder is what the cross-attention then finds.
        return answer + (1 + (self.args.ctc_weight - 1) * ease(self.step, self.args)) * self._spelling(hidden, batch)

    def _spelling(self, hidden: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor | float:
        """CTC loss a character: how well the letters can be read from the encoder alone."""
        heard_by = hidden.detach() if self.args.init and self.step < HEAD_ALONE else hidden
        characters = self.ctc_head(heard_by.float()).log_softmax(-1).transpose(0, 1)  # [positions, clips, classes]
        lengths = torch.full((hidden.shape[0],), hidden.shape[1], device=self.device)
        heard = torch.nn.functional.ctc_loss(
            characters, batch["characters"], lengths, batch["character_counts"], reduction="none", zero_infinity=True
        )
        known = batch["character_counts"] > 0  # clips without speech, or with half a sentence, have no CTC answer
        return (heard / batch["character_counts"].clamp(min=1))[known].mean() if known.any() else 0.0

    def _collect_gradients(self) -> None:
        """Hand the working copy's gradients to the float32 weights."""
        if self.working is self.model:
            return
        for ours, theirs in zip(self.model.parameters(), self.working.parameters(), strict=True):
            ours.grad = None if theirs.grad is None else theirs.grad.float()
            theirs.grad = None

    @torch.no_grad()
    def _follow(self) -> None:
        """Refresh the working copy and the moving average of the weights, which is what is published."""
        if self.working is not self.model:
            torch._foreach_copy_(list(self.working.parameters()), list(self.model.parameters()))
        decay = min(self.args.ema, (1 + self.step) / (10 + self.step))
        theirs = [p for p in self.average.state_dict().values() if p.is_floating_point()]
        ours = [p for p in self.model.state_dict().values() if p.is_floating_point()]
        torch._foreach_lerp_(theirs, ours, 1 - decay)

    def save(self, path: Path) -> None:
        parts = {name: getattr(self, name).state_dict() for name in SAVED}
        with files.atomic(path) as temporary:
            torch.save({"step": self.step, "seconds": self.seconds, **parts}, temporary)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in SAVED:
            getattr(self, name).load_state_dict(state[name])
        if self.working is not self.model:
            self.working.load_state_dict(state["model"])
        self.step, self.seconds = state["step"], state["seconds"]


def encode(encoder, features: torch.Tensor) -> torch.Tensor:
    """WhisperEncoder on any number of frames (its own forward insists on the full window).

    features [clips, n_mels, frames] -> [clips, frames / 2, d_model].
    """
    gelu = torch.nn.functional.gelu
    hidden = gelu(encoder.conv2(gelu(encoder.conv1(features)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        out = layer(hidden, None)
        hidden = out[0] if isinstance(out, tuple) else out
    return encoder.layer_norm(hidden)


def _schedule(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, steps - warmup))))


def train(args, device: str) -> Trainer:
    """Train to `args.steps`, or as far as `args.max_minutes` lets it."""
    output = Path(args.output_dir)
    trainer, state = Trainer(args, device), output / "state.pt"
    loop.resume(trainer, state)
    utterances, audio = corpus.load(Path(args.corpus))
    planner = Planner(utterances, trainer.tokenizer, WINDOW, trainer.model.config.max_target_positions)
    augmenter = Augmenter(initial_checkpoint.extractor().mel_filters, device)
    batches = Batches(planner, audio, augmenter, args, trainer.tokenizer.eos_token_id)
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(trainer.step, args.steps), num_workers=args.workers,
        prefetch_factor=4 if args.workers else None, pin_memory=device == "cuda",
    )  # fmt: skip

    def advance(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
        batch = {name: array.to(device, non_blocking=True) for name, array in batch.items()}
        if "features" not in batch:
            batch = batches.render(batch, trainer.step)
        return (trainer.update(batch),)

    loop.run(trainer, state, args, loader, advance, ("loss",), "training")
    report = {"step": trainer.step, "minutes": round(trainer.seconds / 60, 1), "device": device}
    report["rounds"] = [*earlier_rounds(args.init), dict(report)]
    if clips := args.validation_clips:
        report |= validate(trainer.average, trainer.tokenizer, utterances, audio, augmenter, args.seed, clips)
    files.write_json(output / "validation.json", report)
    console.result(json.dumps(report, indent=2))
    return trainer


def earlier_rounds(init: str | None) -> list[dict]:
    """How the checkpoint that this run begins with was trained, as far as it says."""
    path = Path(init or "") / ROUNDS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if init and path.exists() else []


def arguments():
    common = ("seed", "threads", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, output_dir="training/work/run")
    parser.add_argument("--corpus", default="training/work/corpus", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=3400, help="default: %(default)s")
    parser.add_argument("--init", metavar="DIR", help="checkpoint whose weights to begin with (default: random)")
    parser.add_argument("--decoder-only", action="store_true", help="leave the encoder of --init as it is")
    parser.add_argument("--batch-size", type=int, default=48, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument("--warmup", type=int, default=300, help="steps (default: %(default)s)")
    parser.add_argument("--ctc-weight", type=float, default=0.3, help="default: %(default)s")
    parser.add_argument("--ema", type=float, default=0.998, help="averaging (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw clips (default: %(default)s)")
    loop.add_arguments(parser, save_every=300, log_every=100)
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True, help="default: on")
    parser.add_argument("--validation-clips", type=int, default=256, help="of each kind (default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = arguments()
    args = flags.parse(parser, argv)
    if args.decoder_only and not args.init:
        parser.error("--decoder-only needs --init: a random encoder hears nothing")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    console.note("device", device, "asked for" if args.device != "auto" else "the fastest that is here")
    trainer, output = train(args, device), Path(args.output_dir)
    trainer.average.save_pretrained(output / "average")
    rounds = json.loads((output / "validation.json").read_text(encoding="utf-8"))["rounds"]
    files.write_json(output / "average" / ROUNDS_FILE, rounds)
    return 0


if __name__ == "__main__":
    console.run(main)
