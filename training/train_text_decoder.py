"""Train the miniature's text decoder: a small Qwen2 that reads garbled text and writes it down. It hears nothing.

    python -m training.train_text_decoder --output-dir training/work/text-decoder

Vocabulary: whisper-nano's byte pairs and four markers. A run that is stopped goes on where it was.
"""

import json
import math
import random
from pathlib import Path

import torch

from training import loop, simulated_projector
from whisper_lab import checkpoints, console, files, flags

MARKERS = ("<audio>", "<|user|>", "<|assistant|>", "<|end|>")
PROMPT = "<|user|><audio><|assistant|>"
IGNORE = -100
EASY_STEPS = 300  # over which texts grow longer and slips more frequent
STRETCHED = 100, 500  # from the first of these steps to the second the vectors spread in time
JUMBLED = 0.7, 0.3  # share of texts that are any words in any order, at first and at last


def make_tokenizer(nano: Path):
    """nano's byte-level BPE without Whisper's own tokens, with the chat's markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    bpe = Tokenizer(models.BPE.from_file(str(nano / "vocab.json"), str(nano / "merges.txt")))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = checkpoints.import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>", unk_token="<|end|>", padding_side="right",
        clean_up_tokenization_spaces=False)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS[:-1])})
    return tokenizer


def make_model(tokenizer, width: int, layers: int, seed: int):
    """A Qwen2 with random weights."""
    transformers = checkpoints.import_transformers()
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8 * width // 3 // 16 * 16,
        num_hidden_layers=layers, num_attention_heads=width // 48, num_key_value_heads=width // 48,
        max_position_embeddings=640, tie_word_embeddings=True, initializer_range=1 / math.sqrt(width),
        attn_implementation="eager", bos_token_id=None, eos_token_id=end, pad_token_id=end))


class Exercises:
    """Batch number i is always the same: drawn from a generator seeded with it."""

    def __init__(self, tokenizer, seed: int, batch_size: int, dutch: float):
        self.tokenizer, self.seed, self.batch_size, self.dutch = tokenizer, seed, batch_size, dutch
        self.pieces = simulated_projector.BpeDropout(tokenizer)
        self.characters = [len(tokenizer.decode([i])) for i in range(len(tokenizer))]
        self.audio, self.end = (tokenizer.convert_tokens_to_ids(token) for token in ("<audio>", "<|end|>"))
        self.before, self.after = (tokenizer(half, add_special_tokens=False).input_ids
                                   for half in PROMPT.split("<audio>"))

    def rows(self, step: int, held_out: bool = False) -> tuple[list, list[list[int]], torch.Tensor]:
        """(simulated projector output, answer, loudness of noise) of each row; texts of like length stand together."""
        draw = random.Random(f"{self.seed}/{step}/{held_out}")
        ease = 1.0 if held_out else min(1.0, step / EASY_STEPS)
        stretch = 1.0 if held_out else min(1.0, max(0.0, (step - STRETCHED[0]) / (STRETCHED[1] - STRETCHED[0])))
        jumbled = 0.0 if held_out else JUMBLED[0] + (JUMBLED[1] - JUMBLED[0]) * stretch
        texts = sorted((simulated_projector.text(draw, self.dutch, held_out, jumbled)
                        for _ in range(4 * self.batch_size)), key=len)
        first = draw.randrange(1 + round(3 * ease)) * self.batch_size
        told, answers = [], []
        for words in texts[first : first + self.batch_size]:
            left_out = draw.choice((0.0, 0.0, 0.1, 0.5, 1.0)) * ease
            cut = self.pieces.cut(draw, words, left_out)
            slips = draw.choice((0.0, 0.05, 0.15)) * ease
            lengths = [self.characters[i] for i in cut]
            told.append(simulated_projector.simulate(draw, cut, lengths, self.audio, slips, stretch))
            spoken = f" {words}" if words else ""
            answers.append([*self.tokenizer(spoken, add_special_tokens=False).input_ids, self.end])
        noise = torch.tensor([draw.choice((0.0, 0.3, 0.8)) * ease for _ in told])
        return told, answers, noise

    def batch(self, table: torch.Tensor, step: int, held_out: bool = False) -> dict[str, torch.Tensor]:
        """inputs_embeds, attention_mask and labels: prompt, simulated projector output, prompt, answer."""
        told, answers, noise = self.rows(step, held_out)
        vectors, counts = simulated_projector.vectors(told, table, noise)
        embeds, labels = [], []
        for row, count, answer in zip(vectors, counts.tolist(), answers, strict=True):
            tail = torch.tensor([*self.after, *answer])
            embeds.append(torch.cat([table[self.before], row[:count], table[tail]]))
            labels.append(torch.tensor([IGNORE] * (len(self.before) + count + len(self.after)) + answer))
        pad = torch.nn.utils.rnn.pad_sequence
        return {"inputs_embeds": pad(embeds, True), "labels": pad(labels, True, IGNORE),
                "attention_mask": pad([torch.ones(len(row)) for row in embeds], True)}


class Trainer:
    """Model and optimizers; everything that a resumed run needs is in `save`."""

    def __init__(self, args):
        self.args = args
        self.tokenizer = make_tokenizer(checkpoints.resolve(args.model).folder)
        self.model = make_model(self.tokenizer, args.width, args.layers, args.seed).train()
        self.exercises = Exercises(self.tokenizer, args.seed, args.batch_size, args.dutch)
        self.step, self.seconds = 0, 0.0
        inner = [p for name, p in self.model.named_parameters() if ".layers." in name and p.ndim == 2]
        rest = [p for name, p in self.model.named_parameters() if not (".layers." in name and p.ndim == 2)]
        self.muon = torch.optim.Muon(inner, lr=1.0, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        self.adam = torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.98), weight_decay=0.01)

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, float]:
        """Cross-entropy of the answers, and the share of their tokens that is right."""
        labels = batch.pop("labels")
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bfloat16):
            hidden = self.model.model(**batch, use_cache=False).last_hidden_state
            answering = labels[:, 1:] != IGNORE  # the position before a token writes it
            logits = self.model.lm_head(hidden[:, :-1][answering]).float()
        wanted = labels[:, 1:][answering]
        right = float((logits.argmax(-1) == wanted).float().mean())
        return torch.nn.functional.cross_entropy(logits, wanted), right

    def update(self) -> tuple[float, float]:
        loss, right = self.loss(self.exercises.batch(self.model.get_input_embeddings().weight, self.step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = self.args.learning_rate * schedule(self.step, 50, self.args.steps)
        for optimizer, factor in ((self.muon, 3.0), (self.adam, 1.0)):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return float(loss.detach()), right

    @torch.no_grad()
    def validate(self, batches: int = 8) -> dict[str, float]:
        """Loss and share of right tokens on sentences that were kept out of training."""
        self.model.eval()
        table = self.model.get_input_embeddings().weight
        seen = [self.loss(self.exercises.batch(table, step, held_out=True)) for step in range(batches)]
        self.model.train()
        return {"loss": sum(float(loss) for loss, _ in seen) / batches,
                "right_tokens": sum(right for _, right in seen) / batches}

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def save(self, path: Path) -> None:
        with files.atomic(path) as temporary:
            torch.save({"step": self.step, "seconds": self.seconds, **self.state()}, temporary)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("model", "muon", "adam"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]


def schedule(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then straight down to 2 %."""
    return min((step + 1) / warmup, max(0.02, 1 - (step - warmup) / max(1, steps - warmup)))


def train(args) -> Trainer:
    """Train to `args.steps`, or as far as `args.max_minutes` lets it."""
    trainer, state = Trainer(args), Path(args.output_dir) / "state.pt"
    loop.resume(trainer, state)
    steps = range(trainer.step, args.steps)
    loop.run(trainer, state, args, steps, lambda _: trainer.update(), ("loss", "right"), "text decoder")
    return trainer


def publish(trainer: Trainer, folder: Path) -> dict:
    """The finished decoder as a float16 checkpoint with its tokenizer, and what is known about it."""
    report = {"steps": trainer.step, "minutes": round(trainer.seconds / 60, 1), **trainer.validate(),
              "parameters": sum(p.numel() for p in trainer.model.parameters())}
    trainer.model.eval().half().save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes its file for the owner alone
    files.write_json(folder / "training.json", report)
    return report


def main(argv: list[str] | None = None) -> int:
    common = ("model", "seed", "threads", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, model="nano", output_dir="training/work/text-decoder")
    parser.add_argument("--steps", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=192, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument("--dutch", type=float, default=0.0, help="share of Dutch sentences (default: %(default)s)")
    loop.add_arguments(parser, save_every=100, log_every=50)
    parser.add_argument("--bfloat16", action="store_true", help="forward and backward pass in bfloat16")
    args = flags.parse(parser, argv)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    trainer = train(args)
    console.result(json.dumps(publish(trainer, Path(args.output_dir) / "final"), indent=2))
    return 0


if __name__ == "__main__":
    console.run(main)
