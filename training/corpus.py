"""The corpus on disk: every utterance once, clean and trimmed; clips are mixed from it during training.

    python -m training.corpus --digits DIR --output-dir training/work/corpus

writes `audio.npy` (int16, 16 kHz, one utterance after the other) and `index.json` (one record an utterance).
Human digits: a folder of `{digit}_{speaker}_{index}.wav` as in the Free Spoken Digit Dataset.
"""

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training import word_substitution
from whisper_lab import console, files, flags, machine
from whisper_lab.spoken import grammar, voices

FILLERS = {"en": ("um", "uh", "hmm", "er"), "nl": ("euh", "hmm")}
CHUNK = 20  # sentences that one voice speaks, one unit of work
HELD_OUT_SPEAKERS = ("theo",)  # of the human digits


@dataclass
class Utterance:
    """`kind`: a kind of the grammar, "digit" (one isolated digit) or "um" (a filler: its right answer is nothing)."""

    kind: str
    language: str
    text: str
    translation: str
    voice: str
    human: bool
    held_out: bool
    start: int = 0
    length: int = 0


def build(output_dir: Path, digits: Path | None, hours_scale: float, held_out_speakers: set[str], seed: int,
          alter: float = 0.0) -> None:
    """Speak and collect everything; `hours_scale` 1 is about 45 hours, `alter` the share of sentences not as written.

    Only of English ones, and only of those to learn from.
    """
    voices.require_synthesizers()
    jobs = _plan(hours_scale, seed, alter)
    utterances, sounds = [], []
    with ProcessPoolExecutor(machine.usable_cores()) as pool:
        done = pool.map(_speak_job, jobs, chunksize=4)
        for made in console.progress(done, description="synthesizing", total=len(jobs), unit="voice"):
            for utterance, samples in made:
                utterances.append(utterance)
                sounds.append(samples)
    for utterance, samples in human_digits(digits, held_out_speakers) if digits else ():
        utterances.append(utterance)
        sounds.append(samples)
    _write(output_dir, utterances, sounds)


def _plan(scale: float, seed: int, alter: float) -> list[tuple]:
    """(voice, sentences to draw, language, held out, altered, seed): training voices, then a few held-out ones."""
    draw = random.Random(seed)
    jobs = []
    for language, held_out, count in (("en", False, 3600), ("nl", False, 1000), ("en", True, 60), ("nl", True, 20)):
        for _ in range(max(1, round(count * scale))):
            voice = voices.random_voice(draw, language, held_out)
            jobs.append((voice, CHUNK, language, held_out, 0 if held_out or language != "en" else alter, draw.random()))
    return jobs


def _speak_job(job: tuple) -> list[tuple[Utterance, np.ndarray]]:
    """One voice speaks its sentences, the ten digits one by one, and a filler."""
    voice, count, language, held_out, alter, seed = job
    draw = random.Random(seed)
    sentences = []
    while len(sentences) < count:
        made = grammar.sentence(draw, language)
        if alter and draw.random() < alter:
            made = _altered(draw, made)
        if made.held_out == held_out:  # held-out voices speak held-out sentences only, and training voices none
            sentences.append(made)
    name = grammar.english_number if language == "en" else grammar.dutch_number
    sentences += [grammar.Sentence("digit", language, name(d), grammar.english_number(d)) for d in range(10)]
    spoken = [s.text for s in sentences] + [draw.choice(FILLERS[language])]
    sentences.append(grammar.Sentence("um", language, "", ""))
    made = []
    for s, samples in zip(sentences, voices.speak(voice, spoken), strict=True):
        # Nothing, or longer than any window: a voice that failed on this text.
        if 0.05 * voices.SAMPLE_RATE < len(samples) < 9.5 * voices.SAMPLE_RATE:
            utterance = Utterance(s.kind, language, s.text, s.translation, voice.label, False, held_out)
            made.append((utterance, samples))
    return made


def _altered(draw: random.Random, sentence: grammar.Sentence) -> grammar.Sentence:
    """An English sentence with words changed, or words in any order."""
    if draw.random() < 0.5:
        text = word_substitution.substitute(draw, sentence.text, "en")
    else:
        text = word_substitution.random_words(draw, "en")
    return grammar.Sentence("altered", "en", text, text)


def human_digits(folder: Path, held_out_speakers: set[str]) -> list[tuple[Utterance, np.ndarray]]:
    """Every `{digit}_{speaker}_{index}.wav` below a folder, trimmed."""
    import soundfile
    import soxr

    made = []
    for path in sorted(Path(folder).rglob("[0-9]_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        samples, rate = soundfile.read(path, dtype="float32")
        samples = voices.trim(soxr.resample(samples, rate, voices.SAMPLE_RATE), floor_db=-35.0)
        text = grammar.english_number(int(digit))
        utterance = Utterance("digit", "en", text, text, f"human/{speaker}", True, speaker in held_out_speakers)
        made.append((utterance, (np.clip(samples, -1, 1) * 32767).astype(np.int16)))
    if not made:
        raise console.LabError(
            f"no spoken digits named DIGIT_SPEAKER_INDEX.wav under {folder}",
            "training/README.md says where to get the Free Spoken Digit Dataset",
        )
    return made


def _write(output_dir: Path, utterances: list[Utterance], sounds: list[np.ndarray]) -> None:
    start = 0
    for utterance, samples in zip(utterances, sounds, strict=True):
        utterance.start, utterance.length = start, len(samples)
        start += len(samples)
    with files.atomic(output_dir / "audio.npy") as temporary:
        np.save(temporary, np.concatenate(sounds))
    files.write_text(output_dir / "index.json", json.dumps([asdict(u) for u in utterances], ensure_ascii=False))
    hours = start / voices.SAMPLE_RATE / 3600
    console.note("corpus", f"{len(utterances)} utterances, {hours:.1f} hours", "clean; clips are mixed from it later")


def load(folder: Path) -> tuple[list[Utterance], np.ndarray]:
    """The records and the samples (memory-mapped) of a corpus folder."""
    records = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return [Utterance(**record) for record in records], np.load(folder / "audio.npy", mmap_mode="r")


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "seed", "output_dir", "quiet", "log_level", output_dir="training/work/corpus")
    parser.add_argument("--digits", type=Path, metavar="DIR", help="human spoken digits (default: none)")
    parser.add_argument("--held-out-speakers", nargs="*", default=HELD_OUT_SPEAKERS, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is about 45 hours (default: %(default)s)")
    parser.add_argument("--alter", type=float, default=0.0, metavar="SHARE",
                        help="of the sentences are said with other words than the grammar's (default: %(default)s)")
    args = flags.parse(parser, argv)
    build(Path(args.output_dir), args.digits, args.scale, set(args.held_out_speakers), args.seed, args.alter)
    return 0


if __name__ == "__main__":
    console.run(main)
