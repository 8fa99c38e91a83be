"""The sound that is profiled: speech with a known text, in four classes of length and vocabulary; not tones.

    for sample in samples.built_in(10, seed=0, language_set="english"):
        sample.load()       # float32 [n], 16 kHz

A Whisper that hears no speech invents some, more or less of it every time: how long it then takes, and how many
joules, is chance. So the clips are spoken by espeak-ng, the same ones for the same seed and the same version of
espeak-ng; where it is not installed, clips that it spoke earlier (media/profile) take their place.
"""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from whisper_lab import audio, console, transcripts
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError

# class -> shortest and longest clip, in s of sound
CLASSES = {"short": (5.0, 10.0), "medium": (15.0, 30.0), "long": (45.0, 60.0), "technical": (10.0, 30.0)}
MEDIA = Path(__file__).resolve().parents[2] / "media"
SHIPPED, DIALOGUE = MEDIA / "profile", MEDIA / "long.flac"
VOICES = ("en-us", "en-gb", "en-us+f2", "en-gb+m3", "en-us+m2", "en-gb+f3")
LIBRISPEECH = "https://www.openslr.org/12"
WORDS = {"english": "English sentences", "nano": "sentences that whisper-nano understands"}


@dataclass(frozen=True)
class Sample:
    """A clip and what is known about it. Either `path` or `sound` is set."""

    name: str
    kind: str  # a class of CLASSES, "dataset", "file" or "tones"
    reference: str | None  # what is said in it
    language: str | None
    source: str  # who spoke it, or where it is from
    path: Path | None = None
    sound: np.ndarray | None = None  # float32 [n], 16 kHz
    speech: bool = True

    def load(self) -> np.ndarray:
        """The sound, float32 [n], 16 kHz. Raises LabError for a file that cannot be read."""
        return self.sound if self.path is None else audio.load(self.path).samples


def built_in(count: int, seed: int = 0, language_set: str = "english", shipped: bool = False) -> list[Sample]:
    """`count` clips, the classes in turn. language_set: english, or nano for what whisper-nano understands.

    shipped: take those of media/profile even where espeak-ng is installed: the same bits on every machine. They are
    four; from the fifth on they come again.
    """
    kinds = [list(CLASSES)[i % len(CLASSES)] for i in range(count)]
    if not shipped and shutil.which("espeak-ng"):
        console.note("samples", f"{count} spoken by espeak-ng", f"seed {seed}; {WORDS[language_set]}")
        return [synthesize(kind, i, seed, language_set) for i, kind in enumerate(kinds)]
    why = "--shipped-samples asks for them" if shipped else "espeak-ng is not installed here"
    again = f", used {-(-count // len(CLASSES))} times" if count > len(CLASSES) else ""
    chosen = f"{min(count, len(CLASSES))} clips of media/profile{again}"
    console.note("samples", chosen, f"{why}; {WORDS[language_set]}")
    listed = json.loads((SHIPPED / "references.json").read_text(encoding="utf-8"))
    return [_shipped(f"{language_set}-{kind}.ogg", listed) for kind in kinds]


def _shipped(name: str, listed: dict) -> Sample:
    entry = listed[name]
    return Sample(name, entry["class"], entry["text"], entry["language"], entry["source"], SHIPPED / name)


def synthesize(kind: str, number: int, seed: int, language_set: str) -> Sample:
    """One clip of a class, spoken by espeak-ng: sentence after sentence until it is long enough.

    The same for the same arguments, as far as espeak-ng stays the same.
    """
    from whisper_lab.spoken.voices import Voice, speak

    draw = random.Random(f"{seed}/{language_set}/{number}/{kind}")
    voice = Voice("espeak-ng", draw.choice(VOICES), "en", round(draw.uniform(0.95, 1.1), 2), draw.randint(40, 60))
    pause = np.zeros(int((0.4 if language_set == "english" else 1.0) * SAMPLE_RATE), np.float32)
    shortest, longest = (int(seconds * SAMPLE_RATE) for seconds in CLASSES[kind])
    pieces, said = [pause], []
    for text in sentences(draw, kind, language_set):
        spoken = speak(voice, [text])[0].astype(np.float32) / 32768
        length = sum(map(len, pieces))
        if length + len(spoken) + len(pause) > longest:
            continue
        pieces += [spoken / max(float(np.abs(spoken).max()), 1e-6) * 0.5, pause]
        said.append(text)
        if length + len(spoken) + len(pause) >= shortest:
            break
    return Sample(f"{language_set}-{kind}-{number}", kind, " ".join(said), "en", f"espeak-ng, voice {voice.name}",
                  sound=np.concatenate(pieces))


def sentences(draw: random.Random, kind: str, language_set: str) -> Iterator[str]:
    """Sentences of a class in a drawn order: those of sentences.py, or drawn from whisper-nano's grammar."""
    if language_set == "english":
        from whisper_lab.energy.sentences import english

        listed = english(kind)
        yield from draw.sample(listed, len(listed))
        return
    from whisper_lab.spoken import grammar

    for _ in range(100):
        if kind == "technical":  # its only terms: codes and numbers
            yield grammar.digits(draw, draw.randint(4, 7))[0] if draw.random() < 0.5 else grammar.number(draw, 9999)[0]
        else:
            yield grammar.sentence(draw).text


def tones(duration_s: float, seed: int = 0) -> Sample:
    """Harmonics with a slow tremor over faint noise: for smoke tests only. It is not speech, and says so."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = rng.uniform(110, 220)  # Hz
    sound = sum(np.sin(2 * np.pi * pitch * n * t + rng.uniform(0, 2 * np.pi)) / n for n in range(1, 6))
    sound = sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)) + 0.02 * rng.standard_normal(len(t))
    return Sample(f"tones-{duration_s:g}s", "tones", None, None, f"generated tones, seed {seed}: NOT speech",
                  sound=(0.3 * sound / np.abs(sound).max()).astype(np.float32), speech=False)


def from_files(paths: Sequence[str | Path], reference: str | None = None) -> list[Sample]:
    """The user's own files; texts from a references.json beside them, where it names them.

    Raises LabError for what cannot be read.
    """
    found, known = [], {}
    for path in audio.find(paths):
        if path.parent not in known:
            known[path.parent] = transcripts.references_of_folder(path.parent)
        entry = transcripts.reference_of_clip(known[path.parent], path.parent, path) or {}
        found.append(Sample(path.name, "file", reference or entry.get("text"), entry.get("language"), "file", path))
    return found


def dialogue() -> list[Sample]:
    """The clip of media/ in which two voices speak in turn."""
    return [replace(sample, kind="dialogue", source="flite, two voices") for sample in from_files([DIALOGUE])]


def librispeech(count: int, folder: str | None = None) -> list[Sample]:
    """The first utterances of LibriSpeech: of a folder in its layout, else of validation.clean through `datasets`."""
    return _from_folder(count, Path(folder)) if folder else _from_hub(count)


def _from_folder(count: int, folder: Path) -> list[Sample]:
    """SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac beside SPEAKER-CHAPTER.trans.txt, anywhere below `folder`."""
    listed = []
    for transcript in sorted(folder.rglob("*.trans.txt")):
        for line in transcript.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(" ")
            path = next((transcript.parent / f"{name}{suffix}" for suffix in (".flac", ".wav")
                         if (transcript.parent / f"{name}{suffix}").exists()), transcript.parent / f"{name}.flac")
            listed.append(Sample(name, "dataset", text.strip(), "en", f"LibriSpeech, {folder.name}", path))
            if len(listed) == count:
                return listed
    if not listed:
        raise LabError(f"{folder} contains no LibriSpeech: no *.trans.txt anywhere in it",
                       f"unpack dev-clean.tar.gz of {LIBRISPEECH} and name its folder, LibriSpeech/dev-clean")
    console.warn(f"{folder} contains {console.count(len(listed), 'utterance')}, fewer than the {count} asked for")
    return listed


def _from_hub(count: int) -> list[Sample]:
    """validation.clean, streamed: only what is used is fetched."""
    from whisper_lab import hub

    remedy = (f"fetch dev-clean.tar.gz of {LIBRISPEECH} elsewhere, unpack it, and --use-dataset LibriSpeech/dev-clean; "
              "or leave out --use-dataset")
    if obstacle := hub.out_of_reach():
        raise LabError(f"LibriSpeech cannot be fetched, the Hub is not within reach: {obstacle}", remedy)
    try:
        import datasets

        rows = datasets.load_dataset("openslr/librispeech_asr", "clean", split="validation", streaming=True)
        rows = rows.cast_column("audio", datasets.Audio(decode=False))  # our own reader decodes the FLAC bytes
        return [_from_row(row) for row, _ in zip(rows, range(count), strict=False)]
    except LabError:
        raise
    except Exception as error:  # datasets passes on errors of many libraries
        raise LabError(f"LibriSpeech cannot be fetched: {type(error).__name__}: {error}".splitlines()[0], remedy) \
            from error


def _from_row(row: dict) -> Sample:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        file.write(row["audio"]["bytes"])
        file.flush()
        sound = audio.load(file.name).samples
    return Sample(str(row["id"]), "dataset", row["text"], "en", "LibriSpeech, validation.clean", sound=sound)
