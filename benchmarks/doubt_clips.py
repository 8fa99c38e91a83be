"""Clips for benchmarks/doubt.py: sentences that whisper-nano knows, and others by the same voices.

    python benchmarks/doubt_clips.py work/synthetic --texts corpus/references.json --digits FOLDER

espeak-ng says sentences of nano's grammar in the voices that were kept out of its training, and in the same voices the
texts of a corpus, cut to twelve words. So what differs between the two groups is what is said, not who says it. Human
digits ({digit}_{speaker}_{index}.wav, the Free Spoken Digit Dataset) of the speaker kept out of training become
strings of three to six. Writes WAV files and a references.json that doubt.py reads.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.corpus import HELD_OUT_SPEAKERS  # noqa: E402
from whisper_lab import audio, console, files, flags  # noqa: E402
from whisper_lab.spoken import grammar, voices  # noqa: E402

PAUSE_S = 0.3  # before, after and between what is said
MOST_WORDS = 12  # of a text: it has to fit into nano's window of 10 s


def main(argv: list[str] | None = None) -> int:
    """Speak, write, list."""
    args = arguments(argv)
    draw, rows = random.Random(args.seed), []
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for language in ("en", "nl"):
        texts = [grammar.sentence(draw, language).text for _ in range(args.count)]
        rows += speak(folder, f"grammar_{language}", language, texts, draw)
    if args.texts:
        for language, texts in corpus_texts(Path(args.texts), args.count, draw).items():
            rows += speak(folder, f"free_{language}", language, texts, draw)
    if args.digits:
        rows += digit_strings(folder, Path(args.digits), args.count, draw)
    files.write_json(folder / "references.json", rows)
    console.result(f"{len(rows)} clips in {folder}")
    return 0


def corpus_texts(path: Path, count: int, draw: random.Random) -> dict[str, list[str]]:
    """At most `count` texts of each language, cut to MOST_WORDS words."""
    found: dict[str, list[str]] = {}
    for row in json.loads(path.read_text(encoding="utf-8")):
        if row["text"]:  # long recordings may have none
            found.setdefault(row["language"], []).append(" ".join(row["text"].split()[:MOST_WORDS]))
    return {language: draw.sample(texts, min(count, len(texts))) for language, texts in found.items()}


def speak(folder: Path, group: str, language: str, texts: list[str], draw: random.Random) -> list[dict]:
    """One file for each text, each in a voice of its own; returns the rows of references.json."""
    rows = []
    for i, text in enumerate(texts):
        known = language in voices.ESPEAK_ACCENTS
        accent = draw.choice(voices.ESPEAK_ACCENTS[language] if known else [language])
        voice = voices.Voice("espeak-ng", f"{accent}+{draw.choice(sorted(voices.HELD_OUT_VARIANTS))}", language,
                             round(draw.uniform(0.8, 1.25), 2), draw.randint(25, 75))
        sound = voices.speak(voice, [text])[0]
        rows.append(_write(folder, f"{group}_{i:03}.wav", [sound], text, language, group))
    return rows


def digit_strings(folder: Path, digits: Path, count: int, draw: random.Random) -> list[dict]:
    """Strings of human digits, by the speakers that nano never heard."""
    spoken: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(digits.rglob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        if speaker in HELD_OUT_SPEAKERS:
            spoken.setdefault((speaker, digit), []).append(path)
    speakers, rows = sorted({speaker for speaker, _ in spoken}), []
    for i in range(count if speakers else 0):
        speaker, values = draw.choice(speakers), [draw.randrange(10) for _ in range(draw.randint(3, 6))]
        sounds = [audio.load(draw.choice(spoken[speaker, str(value)])).samples for value in values]
        text = " ".join(map(grammar.english_number, values))
        rows.append(_write(folder, f"human_digits_{i:03}.wav", sounds, text, "en", "human_digits"))
    return rows


def _write(folder: Path, name: str, sounds: list[np.ndarray], text: str, language: str, group: str) -> dict:
    """int16 or float32 sounds, with pauses between them, as one file."""
    pause = np.zeros(round(PAUSE_S * audio.SAMPLE_RATE), np.float32)
    parts = [pause]
    for sound in sounds:
        parts += [sound / np.float32(32768) if sound.dtype == np.int16 else sound, pause]
    audio.write_wav(folder / name, np.concatenate(parts).astype(np.float32))
    return {"file": name, "text": text, "language": language, "group": group}


def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__, "seed")
    parser.add_argument("folder", metavar="FOLDER", help="where the clips go")
    parser.add_argument("--texts", metavar="FILE", help="references.json of a corpus, for sentences nano does not know")
    parser.add_argument("--digits", metavar="DIR", help="human digits (default: none)")
    parser.add_argument("--count", type=flags.whole(1), default=40, metavar="N",
                        help="clips in each group (default: %(default)s)")
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
