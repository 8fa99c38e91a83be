"""Word error rate of the miniature beside whisper-nano's own, and beside the control: the same model untrained.

    python -m training.evaluate_miniature --corpus training/work/corpus --speech-llm training/work/miniature/nano-asr

The same clips for all three: held-out voices, sentences and speakers of the corpus, degraded as in training.evaluate.
Writes evaluation.json and the model card, README.md, into the miniature's folder.
"""

import json
from pathlib import Path

import numpy as np

from training import corpus
from training.evaluate import CONDITIONS, MATERIAL, Judge, _clips, score
from training.examples import Planner
from whisper_lab import checkpoints, console, files, flags, machine
from whisper_lab.speech_llm import ASRError, miniature

SPOKEN = [name for name in MATERIAL if not name.startswith("Dutch")]  # the miniature is trained on English alone


class MiniatureJudge:
    """Transcribes waves with the encoder-projector-decoder model, in batches."""

    def __init__(self, folder: Path, untrained: bool, seed: int):
        self.model, self.processor = miniature.load(folder, untrained, seed)

    def transcribe(self, waves: list[np.ndarray], language: str, batch: int = 16) -> list[str]:
        said = []
        for start in range(0, len(waves), batch):
            ids = self.model.generate(**self.processor([np.asarray(w, np.float32) for w in waves[start:start + batch]]))
            said += self.processor.batch_decode(ids)
        return said


def evaluate(folder: Path, corpus_folder: Path, clips: int, seed: int, conditions: list[str]) -> dict:
    """WER of the three systems per material and condition; the control only on clean sound."""
    import torch

    utterances, audio = corpus.load(corpus_folder)
    config = miniature.configuration(folder)
    nano = Judge(checkpoints.resolve(config.audio_model_id))
    judges = {"miniature": MiniatureJudge(folder, False, seed), "whisper-nano": nano,
              "untrained projector": MiniatureJudge(folder, True, seed)}
    planner = Planner(utterances, nano.processor.tokenizer, nano.spec.n_samples,
                      nano.model.config.max_target_positions, True)
    rows = []
    for material in console.progress(SPOKEN, description="evaluating", unit="material"):
        kind, language = MATERIAL[material]
        if kind == "human digits" and not planner.human:
            continue
        drawn = _clips(planner, audio, kind, language, clips, seed)
        truth = [text for _, text in drawn]
        for condition in conditions:
            draw = np.random.default_rng(seed)
            waves = [CONDITIONS[condition](wave, draw) for wave, _ in drawn]
            for name, judge in judges.items():
                if name != "untrained projector" or condition == "clean":
                    said = judge.transcribe(waves, language)
                    rows.append({"system": name, "material": material, "condition": condition, **score(truth, said)})
    first = [row for row in rows if row["material"] == SPOKEN[0] and row["condition"] == "clean"]
    return {"schema": "whisper-lab/evaluation-miniature/1", "seed": seed, "wer_of": f"{SPOKEN[0]}, clean",
            "wer": {row["system"]: row["wer"] for row in first}, "rows": rows,
            "machine": machine.card(torch.get_num_threads())}


def table(report: dict) -> str:
    """The report as Markdown: system and material by condition, in percent."""
    names = list(dict.fromkeys(row["condition"] for row in report["rows"]))
    wer = {(row["system"], row["material"], row["condition"]): row for row in report["rows"]}
    lines = ["| WER in % | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for system, material in dict.fromkeys((row["system"], row["material"]) for row in report["rows"]):
        cells = [f"{100 * wer[system, material, n]['wer']:.1f}" if (system, material, n) in wer else "–" for n in names]
        words = wer[system, material, names[0]]["words"]
        lines.append(f"| {system}: {material} ({words} words) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\nMeasured on {machine.one_line(report['machine'])}, seed {report['seed']}.\n"


def card(folder: Path, report: dict) -> str:
    """The model card: what it is, how it was trained, measured values, limits; numbers from the folder's own files."""
    config = miniature.configuration(folder)
    model, _ = miniature.load(folder)
    training, lesson = (json.loads((folder / name).read_text(encoding="utf-8"))
                        for name in ("training.json", "text_decoder/training.json"))
    ear, between, pen = (f"{sum(p.numel() for p in part.parameters()):,} parameters"
                         for part in (model.audio_encoder, model.audio_projector, model.text_decoder))
    stacked = f"{config.encoder_dim} x {config.audio_downsample_rate} -> {config.llm_dim}"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"""---
license: cc-by-sa-4.0
language: [en]
pipeline_tag: automatic-speech-recognition
---
# nano-asr

An encoder-projector-decoder model in miniature: the frozen encoder of whisper-nano, a projector, and a frozen Qwen2 of
{pen} that never heard a sound. It exists to be taken apart in a lesson
(`workbook/architecture`). Nothing of OpenAI's or Qwen's weights is in it.

| | |
|---|---|
| audio encoder (frozen) | {Path(config.audio_model_id).name}, {ear}, not in this folder |
| projector (trained) | {config.projector_type}, {stacked}, {between} |
| text decoder (frozen) | Qwen2, {pen}, vocabulary {config.text_config.vocab_size} |
| this folder | {size / 1e6:.1f} MB |
| training of the text decoder | {lesson['steps']} steps on text, {lesson['minutes']:.0f} minutes on one core |
| training of the projector | {training['steps']} steps over {training['training_clips']:,} clips, \
{training['minutes']:.0f} minutes on one core |

## Measured

{table(report)}
The voices, the human speaker and the sentences were kept out of all training. The untrained projector is the control:
the same two frozen parts with random numbers between them.

## How the decoder could be frozen

A language model of billions of parameters has seen so much stretched, misspelt and noisy text that it reads what a
projector says at once. This one learnt that on purpose, from text alone: `training/simulated_projector.py` writes a
sentence of the grammar token by token, stretched, with pauses, blurred and with slips, as embeddings in the place of
the sound; the decoder writes the sentence down. Then it was frozen, and the projector learnt to tell it what the
encoder hears.

## What it cannot do

Anything but the English sentences of `whisper_lab/spoken/grammar.py`, in clips of at most ten seconds. No Dutch, no
timestamps.
A projector fits the encoder it was trained with: when whisper-nano is trained further, train it again
(`python -m training.train_projector`).
"""


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "seed", "threads", "quiet", "log_level")
    parser.add_argument("--corpus", type=Path, default="training/work/corpus", metavar="DIR",
                        help="default: %(default)s")
    parser.add_argument("--speech-llm", type=Path, default="training/work/miniature/nano-asr", metavar="DIR",
                        help="default: %(default)s")
    parser.add_argument("--clips", type=int, default=150, help="of each material (default: %(default)s)")
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), metavar="NAME",
                        help=f"of {', '.join(CONDITIONS)} (default: all)")
    args = flags.parse(parser, argv)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    try:
        report = evaluate(args.speech_llm, args.corpus, args.clips, args.seed, args.conditions)
    except ASRError as error:
        raise console.LabError(error.problem, error.remedy) from error
    files.write_json(args.speech_llm / "evaluation.json", report)
    files.write_text(args.speech_llm / "README.md", card(args.speech_llm, report))
    console.result(table(report))
    return 0


if __name__ == "__main__":
    console.run(main)
