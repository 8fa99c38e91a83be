"""From a training run to the checkpoint that ships: half precision, alignment heads, tokenizer, model card.

    python -m training.publish --run training/work/run --corpus training/work/corpus
    python -m training.publish --run training/work/third-run --earlier training/work/second-run/average --share 0.4
    python -m training.publish --card training/work/evaluation/evaluation.json     # only the model card, afterwards
"""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch

from training import corpus, initial_checkpoint
from training.examples import Planner, mix
from training.train import ROUNDS_FILE
from whisper_lab import checkpoints, console, features, files, flags

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "preprocessor_config.json",
                   "processor_config.json")  # fmt: skip


def publish(run: Path, corpus_folder: Path, output: Path, clips: int, seed: int, earlier: Path | None = None,
            share: float = 1.0) -> None:
    """Write the averaged weights of a run as a float16 checkpoint in Hugging Face layout.

    earlier: the checkpoint that the run began with; of each weight `share` is then the run's and the rest is that
    checkpoint's. What a round has learnt and what it has forgotten lie on a line, and the best is often between
    (Wortsman et al. 2022, arXiv 2109.01903).
    """
    transformers = checkpoints.import_transformers()
    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        run / "average", attn_implementation="eager", dtype=torch.float32
    ).eval()
    if earlier:
        before = transformers.WhisperForConditionalGeneration.from_pretrained(earlier, dtype=torch.float32).state_dict()
        model.load_state_dict({name: torch.lerp(before[name], after, share)
                               for name, after in model.state_dict().items()})
    tokenizer = transformers.WhisperTokenizer.from_pretrained(run / "initial")
    utterances, audio = corpus.load(corpus_folder)
    planner = Planner(utterances, tokenizer, model.config.max_source_positions * 320, 10**6, held_out=True)
    heads = alignment_heads(model, tokenizer, planner, audio, run / "initial", clips, seed)
    generation = initial_checkpoint.generation_config(tokenizer) | {"alignment_heads": heads}
    model.generation_config = transformers.GenerationConfig(**generation)
    model.config._attn_implementation = None
    model.half().save_pretrained(output)
    for name in TOKENIZER_FILES:
        shutil.copyfile(run / "initial" / name, output / name)
    rounds = json.loads((run / "validation.json").read_text(encoding="utf-8"))["rounds"]
    files.write_json(output / ROUNDS_FILE, rounds)
    for path in output.iterdir():
        path.chmod(0o644)  # safetensors writes its file for the owner alone
    size = sum(path.stat().st_size for path in output.iterdir())
    console.note("published", f"{output}, {size / 1e6:.1f} MB", f"float16; alignment heads {heads}")


@torch.no_grad()
def alignment_heads(model, tokenizer, planner: Planner, audio, folder: Path, clips: int, seed: int) -> list[list[int]]:
    """[layer, head] of the cross-attention that looks where the word is, the best first.

    Digit strings of known boundaries are forced through the decoder; a head's score is the share of its attention
    that falls on the right digit. Kept: those within 20 % of the best.
    """
    spec = features.FeatureSpec.from_folder(folder)
    rng = random.Random(f"heads/{seed}")
    ids = [tokenizer.convert_tokens_to_ids(t) for t in ("<|startoftranscript|>", "<|en|>", "<|transcribe|>",
                                                        "<|notimestamps|>")]  # fmt: skip
    scores = []
    while len(scores) < clips:
        plan = planner.draw(rng, "synthetic digits")
        words = plan.segments[0].text.split() if plan.segments else []
        if len(words) < 4 or plan.segments[0].language != "en":
            continue
        pieces = [tokenizer(f" {word}", add_special_tokens=False).input_ids for word in words]
        tokens = torch.tensor([ids + [i for piece in pieces for i in piece]])
        mel = features.log_mel(mix(plan.placements, audio, planner.window), spec)
        seen = model(torch.from_numpy(mel)[None], decoder_input_ids=tokens, output_attentions=True).cross_attentions
        attention = torch.stack(seen)[:, 0].numpy()  # [layers, heads, tokens, positions]
        scores.append(_share_on_word(attention, plan.placements, pieces, len(ids)))
    mean = np.mean(scores, axis=0)  # [layers, heads]
    best = [divmod(int(i), mean.shape[1]) for i in np.argsort(-mean, axis=None)]
    for layer, head in best:
        console.log.debug("head %d of layer %d: %.2f of its attention on the word", head, layer, mean[layer, head])
    return [[layer, head] for layer, head in best if mean[layer, head] > 0.8 * mean.max()]


def _share_on_word(attention: np.ndarray, placements, pieces: list[list[int]], prompt: int) -> np.ndarray:
    """Mean share of attention on each word's own 20 ms positions, [layers, heads].

    A token is written by the position before it: row `prompt - 1` belongs to the first token of the text.
    """
    row, shares = prompt - 1, []
    for placement, piece in zip(placements, pieces, strict=True):
        first, last = placement.at // 320, int(placement.at + placement.length / placement.speed) // 320 + 1
        for _ in piece:
            on_word = attention[:, :, row, first:last].sum(-1)
            shares.append(on_word / attention[:, :, row].sum(-1))
            row += 1
    return np.mean(shares, axis=0)


def card(table: str, facts: dict) -> str:
    """The model card: what it is, measured values, data, limits."""
    return f"""---
license: cc-by-sa-4.0
language: [en, nl]
pipeline_tag: automatic-speech-recognition
---
# whisper-nano

A small speech recognizer in the architecture of Whisper (arXiv 2212.04356), trained from scratch by the project Whisper
ONNX Lab for its lessons. These are **not OpenAI's weights**, and nothing was distilled from them.

| | |
|---|---|
| parameters | {facts['parameters']:,} ({facts['bytes'] / 1e6:.1f} MB in float16) |
| layers | {facts['encoder_layers']} in the encoder, {facts['decoder_layers']} in the decoder |
| width, heads | {facts['d_model']}, {facts['heads']} |
| input | {facts['n_mels']} mel bins, window of {facts['window_s']} s |
| vocabulary | {facts['vocabulary']} tokens, English and Dutch, timestamps of 20 ms |
| training | {facts['training']} |

## Measured

{table}
The unknown voices and the human speaker were kept out of training, and so were one in twenty sentences.

## What it knows

A grammar of digit strings, numbers to 9999, household commands, times and greetings with some sixty names
(`whisper_lab/spoken/grammar.py`), lower case without punctuation; in Dutch also `--task translate` into English. It
answers silence and noise with nothing. Timestamps and word alignment work.

## What it cannot do

Any other sentence, name or language. It was trained on synthesizers (espeak-ng, flite, festival) and, for digits alone,
on people: on a human voice expect digits, not sentences. It is for lessons and tests, not for use.

## Data

- Sentences: drawn from the grammar. Voices: espeak-ng (GPL-3.0), flite and festival (free licences), of Debian.
- Human digits: Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset), CC BY-SA 4.0.
- Degraded with speed and formant changes, rooms, noise, telephone band, codec, clipping, SpecAugment.

`training/README.md` has the one command that makes all of it again.
"""


def facts(output: Path) -> dict:
    """What the card states about the checkpoint and its training, read from their files."""
    config = json.loads((output / "config.json").read_text())
    rounds = json.loads((output / ROUNDS_FILE).read_text(encoding="utf-8"))
    weights = output / "model.safetensors"
    spec = features.FeatureSpec.from_folder(output)
    return {
        "parameters": _parameters(weights), "bytes": weights.stat().st_size,
        "encoder_layers": config["encoder_layers"], "decoder_layers": config["decoder_layers"],
        "d_model": config["d_model"], "heads": config["encoder_attention_heads"], "n_mels": spec.n_mels,
        "window_s": round(spec.window_s), "vocabulary": config["vocab_size"],
        "training": ", then ".join(f"{r['step']} steps in {r['minutes']:.0f} minutes on {r['device']}" for r in rounds),
    }  # fmt: skip


def _parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, "np") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())


def write_card(output: Path, evaluation: dict, table: str) -> None:
    files.write_text(output / "README.md", card(table, facts(output)))
    files.write_json(output / "evaluation.json", evaluation)


def main(argv: list[str] | None = None) -> int:
    common = ("seed", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, output_dir="whisper_model_dir/whisper-nano")
    parser.add_argument("--run", type=Path, default="training/work/run", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--corpus", type=Path, default="training/work/corpus", metavar="DIR",
                        help="default: %(default)s")
    parser.add_argument("--clips", type=int, default=40, help="for the alignment heads (default: %(default)s)")
    parser.add_argument("--earlier", type=Path, metavar="DIR", help="checkpoint the run began with, to mix in")
    parser.add_argument("--share", type=float, default=1.0, help="of the run in the mixture (default: %(default)s)")
    parser.add_argument("--card", type=Path, metavar="FILE", help="an evaluation: only write its model card")
    args = flags.parse(parser, argv)
    if args.share != 1 and not args.earlier:
        parser.error("--share needs --earlier: the weights to mix with")
    if args.card:
        from training.evaluate import table

        evaluation = json.loads(args.card.read_text(encoding="utf-8"))
        write_card(Path(args.output_dir), evaluation, table(evaluation))
        return 0
    publish(args.run, args.corpus, Path(args.output_dir), args.clips, args.seed, args.earlier, args.share)
    return 0


if __name__ == "__main__":
    console.run(main)
