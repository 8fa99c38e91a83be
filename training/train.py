"""Train whisper-nano from scratch: cross-entropy on the decoder, CTC on the encoder, seeded and resumable.

    python -m training.train --corpus training/work/corpus --output-dir training/work/run --steps 20000

A run that is stopped (Ctrl-C, --max-minutes) goes on where it was when the same command is given again.
"""

import json
import math
import random
import time
from copy import deepcopy
from pathlib import Path

import torch

from training import blank, corpus
from training.clips import CHARACTERS, IGNORE, Planner, collate
from training.mixing import Mixer
from training.validate import validate
from training.voices import SAMPLE_RATE
from whisper_lab import console, files

WINDOW = blank.WINDOW_S * SAMPLE_RATE


class Batches(torch.utils.data.Dataset):
    """Batch number i is always the same: drawn from a generator seeded with it."""

    def __init__(self, planner: Planner, size: int, seed: int, pad: int):
        self.planner, self.size, self.seed, self.pad = planner, size, seed, pad

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.seed}/{step}")
        batch = collate([self.planner.draw(rng) for _ in range(self.size)], self.pad)
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class Trainer:
    """Model, CTC head, optimizer and averaged weights; `state` holds all that a resumed run needs."""

    def __init__(self, args, device: str):
        self.args, self.device = args, device
        self.model, self.tokenizer = blank.make(Path(args.output_dir) / "blank", args.seed)
        self.model.to(device).train()
        self.ctc_head = torch.nn.Linear(self.model.config.d_model, len(CHARACTERS) + 1).to(device)
        self.average = deepcopy(self.model).eval()
        self.step = 0
        decayed = [p for p in self._parameters() if p.ndim > 1]
        other = [p for p in self._parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": other, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98), fused=device == "cuda")

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in (*self.model.parameters(), *self.ctc_head.parameters()) if p.requires_grad]

    def update(self, features: torch.Tensor, batch: dict[str, torch.Tensor]) -> float:
        """One step of optimization; returns the loss."""
        rate = self.args.learning_rate * _schedule(self.step, self.args.warmup, self.args.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = self._loss(features, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._follow()
        return loss.detach()

    def _loss(self, features: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden = self.model.model.encoder(features).last_hidden_state  # [clips, positions, d_model]
        decoded = self.model.model.decoder(input_ids=batch["inputs"], encoder_hidden_states=hidden, use_cache=False)
        logits = self.model.proj_out(decoded.last_hidden_state).float()  # [clips, tokens, vocab]
        answer = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE, label_smoothing=0.05
        )
        characters = self.ctc_head(hidden).float().log_softmax(-1).transpose(0, 1)  # [positions, clips, classes]
        lengths = torch.full((hidden.shape[0],), hidden.shape[1], device=self.device)
        heard = torch.nn.functional.ctc_loss(
            characters, batch["characters"], lengths, batch["character_counts"], reduction="none", zero_infinity=True
        )
        known = batch["character_counts"] > 0  # clips without speech, or with half a sentence, have no CTC answer
        heard = (heard / batch["character_counts"].clamp(min=1))[known].mean() if known.any() else 0.0
        return answer + self.args.ctc_weight * heard

    @torch.no_grad()
    def _follow(self) -> None:
        """Exponential moving average of the weights: what is published."""
        decay = min(self.args.ema, (1 + self.step) / (10 + self.step))
        theirs = [p for p in self.average.state_dict().values() if p.is_floating_point()]
        ours = [p for p in self.model.state_dict().values() if p.is_floating_point()]
        torch._foreach_lerp_(theirs, ours, 1 - decay)

    def save(self, path: Path) -> None:
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average", "ctc_head", "optimizer")}
        with files.atomic(path) as temporary:
            torch.save({"step": self.step, **parts}, temporary)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("model", "average", "ctc_head", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def _schedule(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, steps - warmup))))


def train(args, device: str) -> Trainer:
    """Train to `args.steps`, or as far as `args.max_minutes` lets it."""
    output, began = Path(args.output_dir), time.monotonic()
    trainer = Trainer(args, device)
    if (output / "state.pt").exists():
        trainer.load(output / "state.pt")
        console.note("step", trainer.step, f"resumed from {output / 'state.pt'}")
    utterances, audio = corpus.load(Path(args.corpus))
    planner = Planner(utterances, trainer.tokenizer, WINDOW, trainer.model.config.max_target_positions)
    extractor = blank.extractor()
    mixer = Mixer(audio, extractor.mel_filters, WINDOW, device)
    batches = Batches(planner, args.batch_size, args.seed, trainer.tokenizer.eos_token_id)
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(trainer.step, args.steps), num_workers=args.workers,
        prefetch_factor=4 if args.workers else None, pin_memory=device == "cuda",
    )  # fmt: skip
    bar = console.progress(loader, description="training", total=len(loader), unit="step")
    losses = []
    for batch in bar:
        batch = {name: array.to(device, non_blocking=True) for name, array in batch.items()}
        mixer.generator.manual_seed(args.seed * 1_000_003 + trainer.step)  # a resumed run degrades the same way
        losses.append(trainer.update(mixer.render(batch), batch))
        if trainer.step % args.log_every == 0:
            loss = float(torch.stack(losses).mean())
            losses.clear()
            minutes = (time.monotonic() - began) / 60
            console.log.info("step %d  loss %.3f  %.1f min", trainer.step, loss, minutes)
            if minutes > args.max_minutes:
                break
        if trainer.step % args.save_every == 0:
            trainer.save(output / "state.pt")
    trainer.save(output / "state.pt")
    report = validate(trainer.average, trainer.tokenizer, utterances, mixer, args.seed, args.validation_clips)
    report |= {"step": trainer.step, "minutes": round((time.monotonic() - began) / 60, 1), "device": device}
    files.write_json(output / "validation.json", report)
    console.result(json.dumps(report, indent=2))
    return trainer


def arguments():
    parser = console.parser(__doc__, "seed", "output_dir", "quiet", "log_level", output_dir="training/work/run")
    parser.add_argument("--corpus", default="training/work/corpus", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="default: %(default)s")
    parser.add_argument("--warmup", type=int, default=1000, help="steps (default: %(default)s)")
    parser.add_argument("--ctc-weight", type=float, default=0.3, help="default: %(default)s")
    parser.add_argument("--ema", type=float, default=0.9995, help="averaging (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw clips (default: %(default)s)")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="stop and save (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=2000, help="steps (default: %(default)s)")
    parser.add_argument("--log-every", type=int, default=100, help="steps (default: %(default)s)")
    parser.add_argument("--validation-clips", type=int, default=256, help="of each kind (default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = console.parse(arguments(), argv)
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    console.note("device", device, "asked for" if args.device != "auto" else "the fastest that is here")
    trainer = train(args, device)
    trainer.average.save_pretrained(Path(args.output_dir) / "average")
    return 0


if __name__ == "__main__":
    console.run(main)
