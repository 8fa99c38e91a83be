"""Word error rate of a finished checkpoint per condition, the way a user meets it: sound file to text.

    python -m training.evaluate --model nano --corpus training/work/corpus

Held-out voices, sentences and speakers of the corpus, degraded by means that training does not use (real codecs, a
Butterworth telephone band); then a minute of silence and noise, in which every word is a false one. Writes
`evaluation.json` and `evaluation.md` into the output folder, from which docs/benchmarks.md and the model card take
their tables.
"""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training import corpus
from training.examples import Planner, mix
from whisper_lab import checkpoints, console, features, files, flags, machine
from whisper_lab.spoken.voices import SAMPLE_RATE

Wave = np.ndarray


def noise(decibel: float) -> Callable[[Wave, np.random.Generator], Wave]:
    """Pink noise, `decibel` below the loudness of the clip."""
    def add(wave: Wave, draw: np.random.Generator) -> Wave:
        return wave + pink(len(wave), draw) * loudness(wave) * 10 ** (-decibel / 20)
    return add


def pink(n: int, draw: np.random.Generator, slope: float = 0.5) -> Wave:
    """Noise of unit loudness whose amplitude falls with frequency to the power `slope` (0 white, 1 brown)."""
    spectrum = np.fft.rfft(draw.standard_normal(n)) * (np.arange(n // 2 + 1) + 20.0) ** -slope
    wave = np.fft.irfft(spectrum, n)
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def loudness(wave: Wave) -> float:
    return float(np.sqrt(np.mean(wave[np.abs(wave) > 0.01 * np.abs(wave).max()] ** 2)))


def room(wave: Wave, draw: np.random.Generator) -> Wave:
    """Reverberation time (T60) 0.4 s, reverberant sound 6 dB below the direct sound."""
    n = int(0.4 * SAMPLE_RATE)
    echo = draw.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n)
    echo *= 0.5 / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    return np.convolve(wave, echo)[: len(wave)].astype(np.float32)


def telephone(wave: Wave, draw: np.random.Generator) -> Wave:
    """300 to 3400 Hz at 8 kHz, through G.711 mu-law."""
    import soundfile
    import soxr

    narrow = soxr.resample(wave, SAMPLE_RATE, 8000)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 1 / 8000)
    narrow = np.fft.irfft(spectrum * ((hertz > 300) & (hertz < 3400)), len(narrow))
    file = io.BytesIO()
    soundfile.write(file, 0.5 * narrow / np.abs(narrow).max(), 8000, format="WAV", subtype="ULAW")
    file.seek(0)
    return soxr.resample(soundfile.read(file, dtype="float32")[0], 8000, SAMPLE_RATE)


def mp3(wave: Wave, draw: np.random.Generator) -> Wave:
    """MPEG layer III at the encoder's strongest compression, and back."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, 0.5 * wave / np.abs(wave).max(), SAMPLE_RATE, format="MP3", compression_level=0.99)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0][: len(wave)]


CONDITIONS: dict[str, Callable] = {
    "clean": lambda wave, draw: wave,
    "noise 20 dB below": noise(20),
    "noise 10 dB below": noise(10),
    "room, 0.4 s": room,
    "telephone": telephone,
    "MP3": mp3,
    "quiet, -30 dB": lambda wave, draw: wave * 10 ** (-30 / 20),
}
MATERIAL = {  # what is said -> kind of clip, language
    "English sentences, unknown voices": ("sentences", "en"),
    "Dutch sentences, unknown voices": ("sentences", "nl"),
    "digit strings, unknown human speaker": ("human digits", "en"),
}


class Judge:
    """Transcribes waves with the checkpoint as script 02 does, in batches."""

    def __init__(self, checkpoint: checkpoints.Checkpoint):
        transformers = checkpoints.import_transformers()
        self.model = checkpoints.load_model(checkpoint)
        self.processor = transformers.WhisperProcessor.from_pretrained(checkpoint.folder)
        self.spec = features.FeatureSpec.from_folder(checkpoint.folder)

    def transcribe(self, waves: list[Wave], language: str, batch: int = 16) -> list[str]:
        import torch

        said = []
        for start in range(0, len(waves), batch):
            mel = np.stack([features.log_mel(wave, self.spec) for wave in waves[start : start + batch]])
            with torch.no_grad():
                tokens = self.model.generate(torch.from_numpy(mel), language=language, task="transcribe")
            said += self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in said]


def evaluate(checkpoint: checkpoints.Checkpoint, folder: Path, clips: int, seed: int) -> dict:
    """WER per material and condition, and false words in silence and noise."""
    import torch

    utterances, audio = corpus.load(folder)
    judge = Judge(checkpoint)
    tokenizer = judge.processor.tokenizer
    planner = Planner(utterances, tokenizer, judge.spec.n_samples, judge.model.config.max_target_positions, True)
    rows = []
    for material, (kind, language) in console.progress(MATERIAL.items(), description="evaluating", unit="material"):
        if kind == "human digits" and not planner.human:
            continue
        drawn = _clips(planner, audio, kind, language, clips, seed)
        for condition, degrade in CONDITIONS.items():
            draw = np.random.default_rng(seed)
            said = judge.transcribe([degrade(wave, draw) for wave, _ in drawn], language)
            truth = [text for _, text in drawn]
            rows.append({"material": material, "condition": condition, **score(truth, said)})
    return {
        "schema": "whisper-lab/evaluation/1", "model": checkpoint.name, "seed": seed, "conditions": rows,
        "false_words_per_minute": false_words(judge, seed), "machine": machine.card(torch.get_num_threads()),
    }  # fmt: skip


def _clips(planner: Planner, audio, kind: str, language: str, count: int, seed: int) -> list[tuple[Wave, str]]:
    """`count` clips of one window at most with what is said in them."""
    rng, drawn = random.Random(f"evaluate/{seed}"), []
    while len(drawn) < count:
        plan = planner.draw(rng, kind, dutch=float(language == "nl"))
        if plan.segments and all(s.end <= planner.window for s in plan.segments):
            text = " ".join(s.text for s in plan.segments)
            drawn.append((mix(plan.placements, audio, planner.window)[: plan.recorded], text))
    return drawn


def score(truth: list[str], said: list[str]) -> dict:
    """Pooled WER with the number of words, and the first few clips that came out wrong."""
    import jiwer

    words = sum(len(text.split()) for text in truth)
    wrong = [{"said": t, "heard": s} for t, s in zip(truth, said, strict=True) if t != s]
    return {"wer": jiwer.wer(truth, said), "words": words, "clips": len(truth), "examples": wrong[:5]}


def false_words(judge: Judge, seed: int) -> dict[str, int]:
    """Words heard in a minute, cut into windows, of each kind of nothing."""
    draw = np.random.default_rng(seed)
    n, window = 60 * SAMPLE_RATE, judge.spec.n_samples
    time = np.arange(n) / SAMPLE_RATE
    minutes = {
        "digital silence": np.zeros(n, np.float32),
        "white noise": 0.05 * pink(n, draw, 0.0),
        "pink noise": 0.05 * pink(n, draw, 0.5),
        "brown noise": 0.05 * pink(n, draw, 1.0),
        "mains hum": (0.05 * np.sin(2 * np.pi * 50 * time)).astype(np.float32) + 0.002 * pink(n, draw, 0.0),
    }
    heard = {}
    for name, wave in minutes.items():
        said = judge.transcribe([wave[start : start + window] for start in range(0, n, window)], "en")
        heard[name] = sum(len(text.split()) for text in said)
    return heard


def table(report: dict) -> str:
    """The report as Markdown: material by condition, in percent, then false words."""
    materials = list(dict.fromkeys(row["material"] for row in report["conditions"]))
    names = list(dict.fromkeys(row["condition"] for row in report["conditions"]))
    wer = {(row["material"], row["condition"]): row for row in report["conditions"]}
    lines = ["| WER in % | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for material in materials:
        cells = [f"{100 * wer[material, name]['wer']:.1f}" for name in names]
        words = wer[material, names[0]]["words"]
        lines.append(f"| {material} ({words} words) | " + " | ".join(cells) + " |")
    nothing = report["false_words_per_minute"]
    lines += ["", "False words in a minute: " + ", ".join(f"{name} {count}" for name, count in nothing.items()) + ".",
              "", f"Measured on {machine.one_line(report['machine'])}, seed {report['seed']}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    common = ("model", "seed", "threads", "output_dir", "quiet", "log_level")
    parser = flags.parser(__doc__, *common, model="nano", output_dir="training/work/evaluation")
    parser.add_argument("--corpus", type=Path, default="training/work/corpus", metavar="DIR",
                        help="default: %(default)s")
    parser.add_argument("--clips", type=int, default=150, help="of each material (default: %(default)s)")
    args = flags.parse(parser, argv)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    report = evaluate(checkpoints.resolve(args.model), args.corpus, args.clips, args.seed)
    files.write_json(Path(args.output_dir) / "evaluation.json", report)
    files.write_text(Path(args.output_dir) / "evaluation.md", table(report))
    console.result(table(report))
    return 0


if __name__ == "__main__":
    console.run(main)
