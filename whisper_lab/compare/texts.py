"""What was written: transcripts of every variant, word errors with alignments, and whether a difference is noise.

Two transcripts of the same words are a paired sample: only errors that one makes and the other does not tell them
apart (McNemar 1947). With b and c such errors, and no real difference, each falls on either side like a coin; the exact
p-value is the chance of a split at least this uneven. Words of one sentence are not independent, and several precisions
are compared at once, so a difference counts only from p = 0.01 on.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from whisper_lab import audio, console, files, transcripts
from whisper_lab.console import LabError
from whisper_lab.metrics import pooled, word_errors
from whisper_lab.transcripts import read_reference

CLEAR = 0.01  # p below which a difference counts as one
FEWEST_CHANGED = 8  # 2 * 0.5^8 = 0.008: fewer changed words never reach CLEAR
ENOUGH_WORDS = 800  # 8 words in 800: one percentage point can be told


@dataclasses.dataclass(frozen=True)
class Clip:
    """A recording and, where it is known, what is said in it and in which language."""

    name: str
    samples: np.ndarray  # float32 [n], 16 kHz
    duration: float  # s
    reference: str | None
    language: str | None
    path: Path | None = None


def read_clips(paths: list[str], reference: str | None, language: str | None) -> list[Clip]:
    """Read sound files, folders, or a manifest (JSON as in media/references.json; its clips are beside it).

    The references.json in a folder, or beside a file, is used where there is one. `reference`, a text or file, goes
    before both, and `language` before a manifest's. Raises LabError for what cannot be read.
    """
    listed = _listed(paths)
    if reference:
        said = read_reference(reference, list(listed))
        listed = {file: entry | {"text": said[file]} for file, entry in listed.items()}
    clips = []
    for file, entry in listed.items():
        sound = audio.load(file)
        clips.append(Clip(file.name, sound.samples, sound.duration, entry.get("text"),
                          language or entry.get("language"), file))
    known = sum(clip.reference is not None for clip in clips)
    console.note("clips", f"{len(clips)}, {sum(clip.duration for clip in clips):.1f} s",
                 f"{known} with a reference text")
    return clips


def _listed(paths: list[str]) -> dict[Path, dict]:
    """Sound file -> what is known of it, {"text", "language"} or nothing; the sounds are not read."""
    listed: dict[Path, dict] = {}
    for path in map(Path, paths):
        if path.suffix.lower() == ".json":
            listed |= manifest(path)
        else:
            folder = path if path.is_dir() else path.parent
            known = transcripts.references_of_folder(folder)
            listed |= {file: transcripts.reference_of_clip(known, folder, file) or {}
                       for file in audio.find([str(path)])}
    return listed


def with_languages(clips: list[Clip], found: list[str | None]) -> list[Clip]:
    """The clips with the languages that PyTorch `found` in them where no one named one."""
    return [dataclasses.replace(clip, language=clip.language or language)
            for clip, language in zip(clips, found, strict=True)]


def hear(runtime, clips: list[Clip], context: str | float = "auto") -> list:
    """What a runtime hears in each clip, greedily: a Transcript each; context: as of short_windows.heard_frames."""
    from whisper_lab.decoding import Options
    from whisper_lab.transcribe import transcribe

    return [transcribe(runtime, clip.samples, Options(clip.language, temperatures=(0.0,), audio_context=context))
            for clip in clips]


def manifest(path: Path) -> dict[Path, dict]:
    """{file: {"text", "language"}}"""
    try:
        made = {files.inside(path.parent, name): {key: entry[key] for key in ("text", "language")}
                for name, entry in transcripts.read_references(path).items()}
    except ValueError as error:
        raise LabError(f"cannot read references from {path}: {error}", transcripts.FORM) from error
    if not made:
        raise LabError(f"the manifest {path} names no clips", "add some, or name sound files")
    return made


def score(clips: list[Clip], texts: list[str], pytorch: list[str]) -> dict:
    """Word errors of a variant's texts against PyTorch's and, where there are references, against those."""
    against = {"pytorch": _pool(clips, pytorch, texts)}
    known = [i for i, clip in enumerate(clips) if clip.reference is not None]
    against["reference"] = _pool([clips[i] for i in known], [clips[i].reference for i in known],
                                 [texts[i] for i in known]) if known else None
    return {"texts": texts, **against}


def _pool(clips: list[Clip], right: list[str], test: list[str]) -> dict:
    """Errors of all clips together. A number counts as right in any spelling."""
    every = [word_errors(a, b, clip.language) for clip, a, b in zip(clips, right, test, strict=True)]
    errors = pooled(every)
    return {key: getattr(errors, key) for key in (
        "wer", "cer", "substitutions", "insertions", "deletions", "reference_words")} | {
        "normalizer": errors.normalizer or None, "alignments": [one.alignment for one in every]}


def difference(base: dict, test: dict) -> dict:
    """Is `test` really better or worse than `base`? Both as `score` has them, for the same right words."""
    more, fewer = changes(base["alignments"], test["alignments"])
    p = sign_test(more, fewer)
    return {"errors_more": more, "errors_fewer": fewer, "p_value": round(p, 4), "within_noise": p >= CLEAR}


def changes(base: list, test: list) -> tuple[int, int]:
    """(errors that only `test` makes, errors that only `base` makes); alignments clip by clip, of the same words.

    A word of the reference is right or wrong in each; inserted words have no partner, so a clip's surplus counts. The
    difference of the two is the difference of the two sums of errors.
    """
    more = fewer = 0
    for ours, theirs in zip(base, test, strict=True):
        for a, b in zip(_right(ours), _right(theirs), strict=True):
            more, fewer = more + (a and not b), fewer + (b and not a)
        surplus = _insertions(theirs) - _insertions(ours)
        more, fewer = more + max(surplus, 0), fewer + max(-surplus, 0)
    return more, fewer


def _right(alignment: list) -> list[bool]:
    """For each word of the reference: was it recognized?"""
    return [mark == "=" for mark, word, _ in alignment if word is not None]


def _insertions(alignment: list) -> int:
    return sum(mark == "I" for mark, _, _ in alignment)


def sign_test(one: int, other: int) -> float:
    """Chance of a split at least as uneven as this under a fair coin, two-sided and exact."""
    n, most = one + other, max(one, other)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n)


def few_words(words: int) -> str | None:
    """A warning where too few words were spoken to tell small differences, or None."""
    if words >= ENOUGH_WORDS:
        return None
    if words == 0:
        return "no word to compare: nothing can be said about the text"
    points = f" ({100 * FEWEST_CHANGED / words:.0f} points)" if words > FEWEST_CHANGED else ""
    return (f"only {console.count(words, 'word')}: one word is {100 / words:.1f} points of WER, and fewer than "
            f"{FEWEST_CHANGED} changed words{points} prove nothing; take {ENOUGH_WORDS} words or more")
