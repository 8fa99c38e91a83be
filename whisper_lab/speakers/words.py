"""Whisper's words laid over the turns: each word belongs to the speaker in whose turn it was said."""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from whisper_lab import checkpoints, console, names, precisions
from whisper_lab.alignment import Word
from whisper_lab.console import LabError
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.speakers.turns import PAUSE, Errors, Turn, name_of, rttm
from whisper_lab.subtitles import SUBTITLES
from whisper_lab.transcribe import Segment

SCHEMA = "whisper-onnx-lab/speakers/1"


@dataclass(frozen=True)
class Line:
    """Words in a row of one speaker; times in s."""

    speaker: int
    start: float
    end: float
    text: str
    words: list[Word] = field(default_factory=list)


def speaker_of(word: Word, turns: Sequence[Turn], starts: Sequence[float]) -> int:
    """The speaker in whose turn most of the word lies; of a word in none, that of the nearest turn.

    starts: where the turns begin, in order; turns do not overlap.
    """
    i = bisect_left(starts, word.end)
    near = turns[max(0, i - 3):i + 1]
    common = [min(word.end, turn.end) - max(word.start, turn.start) for turn in near]  # below 0: how far away
    return int(near[max(range(len(near)), key=common.__getitem__)].speaker)


def lines(segments: Sequence[Segment], turns: Sequence[Turn]) -> list[Line]:
    """What each speaker said, in order; a line ends where the speaker changes and where one of Whisper's segments does.

    Without a turn no one spoke, and there is no line: a Whisper may invent words for what is not speech.
    """
    if not turns:
        return []
    starts, made = [turn.start for turn in turns], []
    for segment in segments:
        row: list[Word] = []
        for word in segment.words or []:
            if row and speaker_of(word, turns, starts) != speaker_of(row[-1], turns, starts):
                made.append(_line(row, turns, starts))
                row = []
            row.append(word)
        if row:
            made.append(_line(row, turns, starts))
    return made


def _line(row: list[Word], turns: Sequence[Turn], starts: Sequence[float]) -> Line:
    return Line(speaker_of(row[0], turns, starts), row[0].start, row[-1].end, _text(row), row)


def _text(row: Sequence[Word]) -> str:
    return " ".join(" ".join(word.text for word in row).split())


def paragraphs(found: Sequence[Line]) -> list[Line]:
    """Lines of one speaker that follow each other within PAUSE s, joined."""
    made: list[Line] = []
    for line in found:
        if made and made[-1].speaker == line.speaker and line.start - made[-1].end < PAUSE:
            made[-1] = replace(made[-1], end=line.end, text=f"{made[-1].text} {line.text}",
                               words=[*made[-1].words, *line.words])
        else:
            made.append(line)
    return made


# Formats -------------------------------------------------------------------------------------------------------------

def as_text(found: Sequence[Line], names: Sequence[str]) -> str:
    """A line for each paragraph: start and end in s, the speaker, what was said."""
    width = max((len(name) for name in names), default=0)
    return "\n".join(f"{line.start:8.2f} {line.end:8.2f}  {names[line.speaker]:<{width}}  {line.text}"
                     for line in paragraphs(found))


def as_subtitles(found: Sequence[Line], names: Sequence[str], kind: str) -> str:
    """`srt` or `vtt` with the speaker's name in each cue."""
    segments = [Segment(line.start, line.end, line.text, [], line.words, speaker=names[line.speaker])
                for line in found]
    return SUBTITLES[kind](segments)


def as_document(clip: str, duration: float, turns: Sequence[Turn], found: Sequence[Line], names: Sequence[str],
                errors: Errors | None) -> dict:
    """Everything that was found, with units in the keys; `errors` is null where there was no reference."""
    return {
        "file": clip, "duration_s": round(duration, 3),
        "speakers": [{"name": name, "spoke_s": round(sum(turn.length for turn in turns if turn.speaker == i), 3),
                      "words": sum(len(line.words) for line in found if line.speaker == i)}
                     for i, name in enumerate(names)],
        "turns": [{"speaker": name_of(turn, names), "start_s": round(turn.start, 3), "end_s": round(turn.end, 3)}
                  for turn in turns],
        "lines": [{"speaker": names[line.speaker], "start_s": round(line.start, 3), "end_s": round(line.end, 3),
                   "text": line.text,
                   "words": [{"text": word.text, "start_s": round(word.start, 3), "end_s": round(word.end, 3)}
                             for word in line.words]} for line in found],
        "errors": errors and {"der": round(errors.rate, 4), "missed_s": round(errors.missed, 3),
                              "false_alarm_s": round(errors.false_alarm, 3), "confused_s": round(errors.confused, 3),
                              "judged_s": round(errors.total, 3)}}


def formatted(kind: str, document: dict, turns: Sequence[Turn], found: Sequence[Line], names: Sequence[str]) -> str:
    """The document in one of the formats text, json, srt, vtt and rttm."""
    if kind == "json":
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    if kind == "rttm":
        return rttm(turns, document["file"].rpartition(".")[0] or document["file"], names).rstrip("\n")
    if kind == "text":
        return as_text(found, names)
    return as_subtitles(found, names, kind).rstrip("\n")


# Which Whisper --------------------------------------------------------------------------------------------------------

# Which Whisper hears the words of step 4: graphs that know when a word was said, else the checkpoint in PyTorch.


def open_runtime(model: str | None, folder: str, wanted: str | None, threads: int | None):
    """(runtime, {name, precision, random_weights}); folder: of the graphs; wanted: their precision, None for the best.

    Raises LabError where the precision that is wanted is not there or knows no word times, where a folder other than
    the default was named and has no graphs, and where there is no checkpoint either.
    """
    name = names.chosen_name(model, folder)
    reason, then, there = "", "", [wanted] if wanted else precisions.written(folder, name)
    if not there and Path(folder) != Path(names.MODEL_DIR):
        problem = precisions.none_whole(Path(folder), name)
        raise LabError(problem.problem, f"leave out --model-dir, for PyTorch; or {problem.remedy} --alignment-heads")
    for precision in there:
        runtime = OnnxWhisper(folder, name, precision, threads, keep=True)
        if runtime.has_attention:
            console.note("graphs", f"{name} {precision}", "--precision asks for it" if wanted else
                         "the fastest here that can tell when a word was said")
            return runtime, _facts(name, precision, runtime.facts["random_weights"])
        command = f"{runtime.command} --alignment-heads"
        if wanted:
            raise LabError(f"the {precision} graphs of {name} cannot tell when a word was said",
                           f"write graphs that can: {command}")
        if not reason:
            reason = f"the graphs of {name} cannot tell when a word was said"
            then = f"to write some that can: {command}"
    return _pytorch(model, threads, reason or f"no graphs of {name} in {folder}", then)


def _pytorch(model: str | None, threads: int | None, reason: str, then: str):
    from whisper_lab.torch_whisper import TorchWhisper

    checkpoint = checkpoints.resolve(model)
    console.note("runtime", "PyTorch", reason, then)
    runtime = TorchWhisper.load(checkpoint)
    if threads:
        import torch

        torch.set_num_threads(threads)
    return runtime, _facts(checkpoint.name, "PyTorch, float32", checkpoint.random_weights)


def _facts(name: str, precision: str, random_weights: bool) -> dict:
    if random_weights:
        console.warn(f"{name} has random weights: its words mean nothing")
    return {"name": name, "precision": precision, "random_weights": random_weights}
