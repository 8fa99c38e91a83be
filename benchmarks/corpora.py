"""Corpora to measure on: a folder of clips with what was said in them, or LibriSpeech and FLEURS through `datasets`.

    read("my/corpus")                 # a folder with references.json
    read("librispeech:test-other")    # fetched once into benchmarks/work/corpora, then a folder like any other
    read("fleurs:nl_nl", limit=50)

references.json is a list of rows with `file`, `text` and `language` (also `kind`, `digits`), or a mapping from file
names to such rows, as in media/.
"""

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import prepare

from whisper_lab import audio, console, files, transcripts
from whisper_lab.console import LabError

# name -> (repository on the Hub, arguments of load_dataset, column of the text)
LIBRISPEECH = {"test-clean": "clean", "test-other": "other", "dev-clean": "clean", "dev-other": "other"}
FLEURS_CODES = {"cmn": "zh", "fil": "tl", "nb": "no"}  # where FLEURS and Whisper differ
# WER % of greedy decoding on the full sets, Radford et al. 2022, table 8; other models and sets: not noted here.
PUBLISHED = {
    ("librispeech:test-clean", "whisper-base"): 5.0, ("librispeech:test-other", "whisper-base"): 12.4,
    ("librispeech:test-clean", "whisper-base.en"): 4.2, ("librispeech:test-other", "whisper-base.en"): 10.2,
    ("librispeech:test-clean", "whisper-tiny.en"): 5.6, ("librispeech:test-other", "whisper-tiny.en"): 14.6,
    ("librispeech:test-clean", "whisper-small.en"): 3.1, ("librispeech:test-other", "whisper-small.en"): 7.4,
}


@dataclass(frozen=True)
class Clip:
    """A recording and what was said in it."""

    id: str  # its file, relative to the corpus
    path: Path
    text: str
    language: str
    kind: str  # such as noisy, telephone; "" where the corpus does not say
    digits: str | None = None  # compared digit by digit

    @property
    def folder(self) -> str:
        """The first part of its id; "" for a corpus that has no folders."""
        return self.id.rpartition("/")[0]


def read(corpus: str, limit: int | None = None) -> tuple[list[Clip], list[str]]:
    """The clips, the first `limit` of them, and why others were left out.

    Raises LabError where the corpus cannot be had, or has no clip with a text.
    """
    folder = Path(corpus).expanduser()
    if not folder.exists() and ":" in corpus:
        folder = fetch(corpus, limit)
    rows = rows_of(folder)
    known = [row for row in rows if isinstance(row.get("text"), str) and row["text"].strip()]
    left_out = [f"{len(rows) - len(known)} of the corpus without a text"] if len(known) < len(rows) else []
    clips = [clip(folder, row) for row in known[:limit]]
    if not clips:
        raise LabError(f"no clip of {corpus} has a text to compare with",
                       'write references.json: [{"file": "a.wav", "text": "what was said", "language": "en"}]')
    if missing := next((clip for clip in clips if not clip.path.is_file()), None):
        raise LabError(f"{folder / 'references.json'} names {missing.id}, which is not there",
                       "take it out of references.json, or put the file in its place")
    return clips, left_out


def rows_of(folder: Path) -> list[dict]:
    """The rows of references.json in both shapes, each with its `file`."""
    path = folder / "references.json"
    if not path.is_file():
        raise LabError(f"{folder} is not a corpus: it has no {path.name}",
                       "give a folder with references.json such as media, or librispeech:test-other")
    return [{"file": name, **entry} for name, entry in transcripts.read_references(path).items()]


def clip(folder: Path, row: dict) -> Clip:
    """Language: en where a row says none."""
    return Clip(row["file"], folder / row["file"], row["text"], row.get("language") or "en", row.get("kind") or "",
                row.get("digits"))


# Sound --------------------------------------------------------------------------------------------------------------

def as_wav(clip: Clip, folder: Path) -> tuple[Path, float]:
    """The clip as 16 kHz, 16 bits, mono, so that every peer hears the same samples; and its length in s.

    Written once. The name follows from the file's place, size and time.
    """
    status = clip.path.stat()
    name = prepare.short_digest(f"{clip.path.resolve()} {status.st_size} {status.st_mtime_ns}")
    path = folder / f"{name}.wav"
    if not path.is_file():
        audio.write_wav(path, audio.load(clip.path).samples)
    with wave.open(str(path)) as file:
        return path, file.getnframes() / file.getframerate()


# Corpora by name ----------------------------------------------------------------------------------------------------

def fetch(corpus: str, limit: int | None) -> Path:
    """LibriSpeech or FLEURS as a folder with references.json; made once, whole or not at all."""
    folder = prepare.WORK / "corpora" / (corpus.replace(":", "-") + (f"-first-{limit}" if limit else ""))
    if (folder / "references.json").is_file():
        return folder
    rows = []
    for number, (name, language, text, sound) in enumerate(streamed(corpus)):
        if number == limit:
            break
        rows.append({"file": f"{name}.flac", "text": text, "language": language, "kind": corpus})
        write_flac(folder / rows[-1]["file"], sound)
    files.write_json(folder / "references.json", rows)  # last: its presence says that the clips are all there
    return folder


def streamed(corpus: str) -> Iterator[tuple[str, str, str, bytes]]:
    """(name, language, text, the file's bytes) of each clip. Raises LabError where the corpus cannot be had."""
    kind, _, part = corpus.partition(":")
    if kind == "librispeech" and part in LIBRISPEECH:
        where = ("openslr/librispeech_asr", LIBRISPEECH[part])
        settings, language, column = {"split": part.partition("-")[0].replace("dev", "validation")}, "en", "text"
    elif kind == "fleurs" and "_" in part:
        # The branch that the Hub makes of a dataset with a script; the library no longer runs those.
        where, settings = ("google/fleurs",), {"data_dir": part, "split": "test", "revision": "refs/convert/parquet"}
        language, column = FLEURS_CODES.get(part.split("_")[0], part.split("_")[0]), "transcription"
    else:
        raise LabError(f"there is no corpus called '{corpus}'",
                       f"one of librispeech:{', librispeech:'.join(LIBRISPEECH)}, fleurs:nl_nl, or a folder")
    for number, row in enumerate(load(where, settings)):
        yield f"{row.get('id', number)}-{number}", language, row[column], row["audio"]["bytes"]


def load(where: tuple[str, ...], settings: dict) -> Iterator[dict]:
    """Rows whose sound is not decoded: `datasets` wants another library for that.

    Raises LabError where the Hub cannot be reached, at the start or on the way.
    """
    try:
        import datasets
    except ImportError as error:
        raise LabError("corpora by name need the package datasets", "pip install datasets") from error
    try:
        rows = datasets.load_dataset(*where, streaming=True, **settings)
        yield from rows.cast_column("audio", datasets.Audio(decode=False))
    except Exception as error:  # each of its layers raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LabError(f"{where[0]} cannot be had from the Hub: {reason[:200]}",
                       "run it once with a network and without HF_HUB_OFFLINE, or give a folder with references.json"
                       ) from error


def write_flac(path: Path, sound: bytes) -> None:
    """The bytes of a sound file as FLAC, unchanged in rate and samples."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(sound), dtype="int16")
    with files.atomic(path) as temporary:
        soundfile.write(temporary, samples, rate)


def supported(clips: list[Clip], languages: set[str]) -> tuple[list[Clip], list[str]]:
    """The clips in a language that the checkpoint knows (none listed: English alone), and what was left out."""
    known = languages or {"en"}
    kept = [clip for clip in clips if clip.language in known]
    others = sorted({clip.language for clip in clips} - known)
    if not kept:
        raise LabError(f"the checkpoint knows none of the corpus's languages: {', '.join(others)}",
                       "choose a multilingual checkpoint with --model")
    if others:
        console.warn(f"{len(clips) - len(kept)} clips are in a language that the checkpoint does not know")
    return kept, [f"{len(clips) - len(kept)} in a language that the checkpoint does not know"] if others else []
