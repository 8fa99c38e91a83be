"""Train the miniature's projector: the only part that learns, between a frozen encoder and a frozen text decoder.

    python -m training.train_projector --corpus training/work/corpus --output-dir training/work/miniature

Makes what it needs and does not find: the text decoder (training.train_text_decoder) and what the encoder hears
(training.encoder_cache). A run that is stopped goes on where it was; one that was finished only publishes again.
"""

import json
import random
import shutil
from pathlib import Path

import torch

from training import encoder_cache, loop, train_text_decoder
from training.train_text_decoder import MARKERS, PROMPT, schedule
from whisper_lab import checkpoints, console, files, flags
from whisper_lab.console import LabError
from whisper_lab.speech_llm import miniature

BEAMS = 4  # a small decoder that takes one wrong turn may repeat itself to the end; beams find the way back
SHARPNESS = 12.0  # a cosine of 1 counts this much in the CTC loss


def build(encoder: Path, decoder: Path, projector: str, rate: int, hidden: int | None, seed: int):
    """(model, processor): both frozen parts loaded, the projector untrained."""
    from whisper_lab.speech_llm import ASRConfig, ASRModel, ASRProcessor

    transformers = checkpoints.import_transformers()
    config = ASRConfig.from_parts(
        encoder, decoder, audio_downsample_rate=rate, projector_type=projector, projector_hidden_dim=hidden,
        prompt=PROMPT, audio_token=MARKERS[0], end_token=MARKERS[-1], transcript_beams=BEAMS)
    hearing = transformers.AutoFeatureExtractor.from_pretrained(encoder, trust_remote_code=False)
    processor = ASRProcessor.for_config(config, hearing,
                                        transformers.AutoTokenizer.from_pretrained(decoder, trust_remote_code=False))
    torch.manual_seed(seed)
    return ASRModel(config), processor


class Trainer:
    """Model, optimizers and the averaged projector; everything that a resumed run needs is in `save`."""

    def __init__(self, args, heard: encoder_cache.Heard):
        self.args, self.heard = args, heard
        encoder = checkpoints.resolve(args.model).folder
        self.model, self.processor = build(encoder, args.decoder, args.projector, args.rate, args.hidden, args.seed)
        self.model.train()
        self.average = {name: w.clone() for name, w in self.model.audio_projector.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        weights = list(self.model.audio_projector.parameters())
        flat = [p for p in weights if p.ndim == 2]
        self.optimizers = [
            torch.optim.Muon(flat, lr=1.0, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([p for p in weights if p.ndim != 2], lr=1.0, betas=(0.9, 0.98), weight_decay=0.0)]

    def clips(self, step: int) -> list[int]:
        """Numbers of the clips of a batch: of like length, drawn anew for every step."""
        draw = random.Random(f"{self.args.seed}/{step}")
        size = self.args.batch_size
        drawn = sorted((draw.randrange(len(self.heard)) for _ in range(8 * size)), key=self.heard.positions)
        # Short clips first: what stands where is easier to find out in them.
        first = draw.randrange(1 + round(7 * min(1.0, step / self.args.easy_steps))) * size
        return drawn[first : first + size]

    def loss(self, states, positions, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(cross-entropy of what the decoder writes, CTC of the audio vectors against its token embeddings)."""
        spoken = [f" {text}" if text else "" for text in texts]
        tokens = self.processor.tokens([PROMPT] * len(texts), spoken)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bfloat16):
            vectors, counts = self.model.project(states, positions)
            made = self.model.insert(tokens["input_ids"], tokens["attention_mask"], vectors, counts, tokens["labels"])
            written = self.model.text_decoder(**made, use_cache=False).loss
        table = self.model.text_decoder.get_input_embeddings().weight
        near = torch.nn.functional.normalize(vectors.float(), dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        wanted = [self.processor.tokenizer(text, add_special_tokens=False).input_ids for text in spoken]
        lengths = torch.tensor([len(row) for row in wanted])
        # Tokens are told one after the other, and <audio>, the decoder's silence, lies between them.
        heard = torch.nn.functional.ctc_loss(
            (SHARPNESS * near).log_softmax(-1).transpose(0, 1), torch.tensor([i for row in wanted for i in row]),
            counts, lengths, blank=self.model.config.audio_token_id, reduction="none", zero_infinity=True)
        return written, (heard / (lengths + counts / 4)).mean()

    def update(self) -> tuple[float, float]:
        written, heard = self.loss(*self.heard.batch(self.clips(self.step)))
        done = min(1.0, self.step / self.args.easy_steps)
        (written + (1 + (self.args.ctc_weight - 1) * done) * heard).backward()
        torch.nn.utils.clip_grad_norm_(self.model.audio_projector.parameters(), 1.0)
        rate = self.args.learning_rate * schedule(self.step, 30, self.args.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        keep = min(0.995, self.step / (10 + self.step))
        for name, weight in self.model.audio_projector.state_dict().items():
            self.average[name].lerp_(weight, 1 - keep)
        return float(written.detach()), float(heard.detach())

    def save(self, path: Path) -> None:
        with files.atomic(path) as temporary:
            torch.save({"step": self.step, "seconds": self.seconds, "average": self.average,
                        "projector": self.model.audio_projector.state_dict(),
                        "optimizers": [o.state_dict() for o in self.optimizers]}, temporary)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.audio_projector.load_state_dict(state["projector"])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def finish(self) -> None:
        """Take the averaged projector, which is what is published."""
        self.model.audio_projector.load_state_dict(self.average)
        self.model.eval()


@torch.no_grad()
def validate(model, processor, heard: encoder_cache.Heard, clips: int, batch: int = 32) -> dict:
    """WER on clips that were heard before (held-out voices and sentences), and some examples."""
    import jiwer

    order = sorted(range(min(clips, len(heard))), key=heard.positions)
    truth, said = [], []
    for i in range(0, len(order), batch):
        states, positions, texts = heard.batch(order[i : i + batch])
        ids = model.generate(**processor.tokens([PROMPT] * len(texts)), encoder_states=states,
                             encoder_positions=positions)
        truth, said = truth + texts, said + processor.batch_decode(ids)
    kept = [(t, s) for t, s in zip(truth, said, strict=True) if t]
    return {"wer": jiwer.wer([t for t, _ in kept], [s for _, s in kept]), "clips": len(kept),
            "false_words": sum(len(s.split()) for t, s in zip(truth, said, strict=True) if not t),
            "examples": [f"{t} -> {s}" for t, s in kept if t != s][:8]}


def train(args, heard: encoder_cache.Heard, held_out: encoder_cache.Heard) -> Trainer:
    """Train to `args.steps`, or as far as `args.max_minutes` lets it."""
    trainer, state = Trainer(args, heard), Path(args.output_dir) / "projector.pt"
    loop.resume(trainer, state)
    steps = range(trainer.step, args.steps)
    loop.run(trainer, state, args, steps, lambda _: trainer.update(), ("loss", "ctc"), "projector")
    trainer.finish()
    report = {"steps": trainer.step, "minutes": round(trainer.seconds / 60, 1), "training_clips": len(heard),
              "encoder_sha256": miniature.fingerprint(trainer.model.config.audio_model_id),
              **validate(trainer.model, trainer.processor, held_out, args.validation_clips)}
    files.write_json(Path(args.output_dir) / "validation.json", report)
    console.result(json.dumps(report, indent=2))
    return trainer


def publish(trainer: Trainer, folder: Path, training: Path) -> None:
    """The whole miniature in one folder: projector, text decoder, tokenizer, code; the encoder is named."""
    shutil.copytree(trainer.args.decoder, folder / "text_decoder", dirs_exist_ok=True)
    trainer.model.config.text_model_id = str(folder / "text_decoder")
    trainer.processor.save_pretrained(folder)
    trainer.model.save_pretrained(folder, dtype=torch.float16)
    shutil.copyfile(training, folder / "training.json")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    console.note("published", f"{folder}, {size / 1e6:.2f} MB", "text decoder and projector in float16")


def prepare(args) -> tuple[encoder_cache.Heard, encoder_cache.Heard]:
    """(training, held-out) clips as the encoder hears them; makes them and the text decoder where they are missing."""
    common = ["--seed", str(args.seed), "--log-level", args.log_level, *(["--quiet"] if args.quiet else []),
              *(["--threads", str(args.threads)] if args.threads else [])]
    if not (args.decoder / "model.safetensors").is_file():
        console.note("text decoder", "trained now", f"there is none in {args.decoder}")
        train_text_decoder.main(["--output-dir", str(args.decoder.parent), "--model", args.model, *common])
    if not (args.heard / "held-out.npz").exists() or len(list(args.heard.glob("part-*.npz"))) < args.parts:
        encoder_cache.main(["--model", args.model, "--corpus", str(args.corpus), "--output-dir", str(args.heard),
                            "--parts", str(args.parts), *common])
    encoder_cache.check_encoder(args.heard, checkpoints.resolve(args.model).folder)
    parts = sorted(args.heard.glob("part-*.npz"))[: args.parts]
    if not parts:
        raise LabError(f"no clips in {args.heard}", "give --parts 1 or more")
    return encoder_cache.Heard(parts), encoder_cache.Heard([args.heard / "held-out.npz"])


def arguments():
    common = ("model", "seed", "threads", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, model="nano", output_dir="training/work/miniature")
    for name, default, text in (("--corpus", "training/work/corpus", "what was spoken"),
                                ("--heard", "training/work/heard", "what the encoder heard of it"),
                                ("--decoder", "training/work/text-decoder/final", "the frozen text decoder")):
        parser.add_argument(name, type=Path, default=Path(default), metavar="DIR", help=f"{text} (default: {default})")
    parser.add_argument("--bundle", type=Path, metavar="DIR",
                        help="where the finished model goes (default: nano-asr in the output folder)")
    parser.add_argument("--parts", type=int, default=20, help="files of 1024 clips to train on (default: %(default)s)")
    parser.add_argument("--projector", default="mlp", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--rate", type=int, default=5, help="encoder positions to a vector (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=512, help="width inside the projector (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--easy-steps", type=int, default=300, help="with short clips first (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=48, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="default: %(default)s")
    parser.add_argument("--ctc-weight", type=float, default=0.3, help="after the easy steps (default: %(default)s)")
    loop.add_arguments(parser, save_every=100, log_every=50)
    parser.add_argument("--validation-clips", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--bfloat16", action="store_true", help="forward and backward pass in bfloat16")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = flags.parse(arguments(), argv)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    heard, held_out = prepare(args)
    trainer = train(args, heard, held_out)
    publish(trainer, args.bundle or Path(args.output_dir) / "nano-asr", Path(args.output_dir) / "validation.json")
    return 0


if __name__ == "__main__":
    console.run(main)
