"""Turns: who speaks from when to when. And RTTM, the file format in which they are exchanged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from whisper_lab import files
from whisper_lab.console import LabError
from whisper_lab.speakers.voice import Stretch
from whisper_lab.subtitles import CONTROL

PAUSE = 1.0  # s; who goes on after a shorter pause, and no one spoke in it, still has the turn


@dataclass(frozen=True)
class Turn:
    """`speaker` is a number from 0 on, in order of appearance, or a name; times in s."""

    speaker: int | str
    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


def of(stretches: Sequence[Stretch], wanted: Sequence[Sequence[Stretch]], voices: Sequence[int]) -> list[Turn]:
    """The turns of a recording.

    wanted: the pieces of each stretch; voices: of all these pieces, in their order. Where the voice changes within a
    stretch, one turn ends halfway between the middles of the two pieces.
    """
    made: list[Turn] = []
    remaining = iter(voices)
    for stretch, parts in zip(stretches, wanted, strict=True):
        middles = [part.middle for part in parts]
        cuts = [stretch.start, *np.mean([middles[:-1], middles[1:]], axis=0).tolist(), stretch.end]
        for start, end in zip(cuts, cuts[1:], strict=False):
            turn = Turn(int(next(remaining)), start, end)
            if made and made[-1].speaker == turn.speaker and turn.start - made[-1].end < PAUSE:
                made[-1] = replace(made[-1], end=turn.end)
            else:
                made.append(turn)
    return made


# RTTM ----------------------------------------------------------------------------------------------------------------

def rttm(turns: Sequence[Turn], recording: str, names: Sequence[str]) -> str:
    """The turns as lines of RTTM (NIST, "The Rich Transcription 2009 evaluation plan", appendix A).

    Its fields are separated by spaces, so none may contain one.
    """
    return "".join(f"SPEAKER {_field(recording)} 1 {turn.start:.3f} {turn.length:.3f} <NA> <NA> "
                   f"{_field(name_of(turn, names))} <NA> <NA>\n" for turn in turns)


def name_of(turn: Turn, names: Sequence[str]) -> str:
    """What a turn's speaker is called."""
    return turn.speaker if isinstance(turn.speaker, str) else names[turn.speaker]


def _field(text: str) -> str:
    return CONTROL.sub("", "_".join(text.split())) or "<NA>"


def read_rttm(path: Path) -> list[Turn]:
    """The turns in an RTTM file, by their start; of other kinds of lines nothing is read.

    Raises LabError where it cannot be read, holds a malformed line, no turn, or turns of several recordings.
    """
    remedy = "give a file of lines such as: SPEAKER meeting 1 12.40 3.25 <NA> <NA> Ann <NA> <NA>"
    try:
        lines = files.read_text(path, errors="replace").splitlines()
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}", remedy) from error
    found, recordings = [], set()
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if fields[:1] == ["SPEAKER"]:
            found.append(_turn(fields, f"{path}, line {number}", remedy))
            recordings.add(fields[1])
    if not found:
        raise LabError(f"{path} holds no turn: no line begins with SPEAKER", remedy)
    if len(recordings) > 1:
        raise LabError(f"{path} holds turns of {len(recordings)} recordings, such as {sorted(recordings)[0]}",
                       "give a file with the turns of this recording only")
    return sorted(found, key=lambda turn: turn.start)


def _turn(fields: list[str], place: str, remedy: str) -> Turn:
    try:
        start, length = float(fields[3]), float(fields[4])
        if not 0 <= start < float("inf") or not 0 <= length < float("inf"):
            raise ValueError(f"a turn at {start:g} s of {length:g} s")
        return Turn(fields[7], start, start + length)
    except (IndexError, ValueError) as error:
        raise LabError(f"{place} is not a turn: {error}", remedy) from error


# Diarization error rate ----------------------------------------------------------------------------------------------

COLLAR = 0.25  # s on both sides of every start and end in the reference that are not judged: those were set by ear


@dataclass(frozen=True)
class Errors:
    """s of speech: `missed`, heard where no one spoke (`false_alarm`), given to the wrong speaker (`confused`)."""

    missed: float
    false_alarm: float
    confused: float
    total: float  # in the reference; where two speak at once both count

    @property
    def rate(self) -> float:
        """The diarization error rate; above 1 where more is wrong than there was."""
        return (self.missed + self.false_alarm + self.confused) / self.total


def errors(reference: Sequence[Turn], found: Sequence[Turn], collar: float = COLLAR) -> Errors:
    """Compare turns with a reference: speakers are mapped one to one so that most is right; overlap counts.

    By simpleder, the smallest kept library that does (pyannote.metrics needs scikit-learn and pandas; the two agree,
    as a test shows where both are installed). Raises LabError where the collar leaves nothing to judge.
    """
    from simpleder import DER

    rows = [[(str(turn.speaker), turn.start, turn.end) for turn in turns if turn.length > 0]
            for turns in (reference, found)]
    said = DER(*rows, collar=collar, detailed=True) if rows[0] else {"ref_length": 0.0}
    if not said["ref_length"]:
        raise LabError(f"the reference holds no speech farther than {collar:g} s from where a turn begins or ends",
                       "give a reference with longer turns")
    return Errors(said["miss"], said["false_alarm"], said["confusion"], said["ref_length"])
