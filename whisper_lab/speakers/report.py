"""What script 10 shows and writes: the output in its format, the error rate, the page, the shapes and the picture."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import audio, console, files, machine, web
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.speakers import models, words
from whisper_lab.speakers.turns import COLLAR, Errors, Turn
from whisper_lab.speakers.voice import CHUNK
from whisper_lab.speakers.words import Line


@dataclass(frozen=True)
class Heard:
    """One recording after the four steps."""

    clip: Path
    samples: np.ndarray  # float32 [n] at 16 kHz
    stretches: list
    likely: np.ndarray | None  # [chunks], None where voice activity was judged by level
    pieces: list[list]  # of each stretch; empty where there was nothing to tell apart
    fingerprints: np.ndarray | None  # [pieces, 192]
    turns: list[Turn]
    lines: list[words.Line]
    names: list[str]

    @property
    def duration(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def names(found: list[Turn], given: list[str]) -> list[str]:
    """What the speakers are called, in order of appearance: as given, then `Speaker 3`. Warns of names left over."""
    count = len({turn.speaker for turn in found})
    if len(given) > count:
        console.warn(f"{len(given)} names for {count} speaker{'s' * (count != 1)}: {', '.join(given[count:])} left out")
    if given and len(given) < count:
        console.note("names", f"{len(given)} for {count} speakers", "the others are called by their number")
    made = list(given[:count])
    for number in range(len(made) + 1, count + 1):
        name = f"Speaker {number}"
        made.append(name if name not in made else f"{name} (unnamed)")
    return made


def why(asked: int | None, found: list[str], turns: list[Turn]) -> str:
    """The reason for their number."""
    if not turns:
        return "no one speaks in it"
    if asked and len(found) < asked:
        return f"--speakers asks for {asked}, and there is not enough speech to tell as many apart"
    return "--speakers asks for them" if asked else "found; --speakers sets the number"


def publish(heard: Heard, document: dict, errors: Errors | None, kind: str) -> None:
    """Print the output; kind: text, json, srt, vtt or rttm."""
    if kind == "text":
        show_speakers(heard)
    if kind != "text" or heard.lines:
        console.result(words.formatted(kind, document, heard.turns, heard.lines, heard.names))
    elif not heard.turns:
        console.result("No one speaks in it.")
    else:  # turns without words
        console.result("\n".join(f"{turn.start:8.2f} {turn.end:8.2f}  {heard.names[turn.speaker]}"
                                 for turn in heard.turns))
    if errors and kind == "text":
        console.result("\n" + in_words(errors))


def save_page(heard: Heard, folder: Path) -> None:
    """A page with the sound, a lane for each speaker, and the words."""
    path = folder / f"who-{heard.clip.stem}.html"
    about = f"{console.count(len(heard.names), 'speaker')}, {heard.duration:.0f} s"
    write_page(path, heard.clip.name, heard.samples, heard.turns, words.paragraphs(heard.lines), heard.names, about)
    console.note("page", path, "sound, lanes and words; it needs nothing else")


def document_of(heard: Heard, model: dict | None, errors: Errors | None, seconds: dict, threads: int | None) -> dict:
    """The JSON document."""
    found = words.as_document(heard.clip.name, heard.duration, heard.turns, heard.lines, heard.names, errors)
    return {"schema": words.SCHEMA, "machine": machine.card(threads), "whisper": model, "models": models.cards(),
            "collar_s": COLLAR, **{key: round(value, 3) for key, value in seconds.items()}, **found}


def show_speakers(heard: Heard) -> None:
    """A row for each speaker."""
    spoken = [sum(turn.length for turn in heard.turns if turn.speaker == i) for i in range(len(heard.names))]
    columns, rows = ["speaker", "s of speech", "% of speech", "turns"], []
    for i, name in enumerate(heard.names):
        share, count = 100 * spoken[i] / sum(spoken), sum(turn.speaker == i for turn in heard.turns)
        rows.append([name, f"{spoken[i]:.1f}", f"{share:.0f}", count])
    if heard.lines:
        columns.append("words")
        for i, row in enumerate(rows):
            row.append(sum(len(line.words) for line in heard.lines if line.speaker == i))
    if rows:
        console.table(f"Who spoke in {heard.clip.name}", columns, rows)


def in_words(errors: Errors) -> str:
    """The diarization error rate with its three parts."""
    parts = [f"{name} {100 * seconds / errors.total:.1f} %" for name, seconds in
             (("missed", errors.missed), ("false alarm", errors.false_alarm), ("wrong speaker", errors.confused))]
    return (f"Diarization error rate {100 * errors.rate:.1f} %: {', '.join(parts)} of {errors.total:.1f} s "
            f"(collar {COLLAR:g} s, overlap counted)")


# --explain -----------------------------------------------------------------------------------------------------------

def explain(heard: Heard, limits: dict, folder: Path, asked: int | None) -> None:
    """Print the shapes of every step, and draw who-CLIP.png. asked: --speakers, None where they were found."""
    from whisper_lab.speakers import encoder

    voices = ("as many as --speakers asks for" if asked else
              f"whose pieces are more than {limits['APART']:g} apart (1 - cosine)")
    written = sum(len(line.words) for line in heard.lines)
    shape = lambda array: "none" if array is None else list(array.shape)  # noqa: E731
    rows = [["sound: samples in -1..1, 16,000 a second", list(heard.samples.shape)],
            [f"1 voice activity: probability of speech, one for {CHUNK} samples", shape(heard.likely)],
            [f"  stretches of speech: above {limits['ON']:g}, until below {limits['OFF']:g}", [len(heard.stretches)]],
            [f"2 pieces of {encoder.SECONDS:.1f} s, as frames of log-mel energies",
             [sum(map(len, heard.pieces)), encoder.FRAMES, 80]],
            ["  fingerprints: one vector of length 1 for each piece", shape(heard.fingerprints)],
            [f"3 clustering: speakers, {voices}", [len(heard.names)]],
            ["  turns: speaker, start, end", [len(heard.turns), 3]],
            *([["4 words, each with the speaker of its turn", [written]]] if written else [])]
    console.table("Shapes and units", ["what comes out of each step", "shape"], rows)
    path = folder / f"who-{heard.clip.stem}.png"
    draw(heard, limits, path)
    console.result(f"Picture: {path}")


def draw(heard: Heard, limits: dict, path: Path) -> None:
    """The sound, the probability of speech, who speaks; and how much every two fingerprints are alike."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2.2, 1])
    rows = left.subplots(3, 1, sharex=True, height_ratios=[1, 1, 1.2])
    _draw_time(rows, heard, limits)
    square = right.subplots()
    if heard.fingerprints is not None and len(heard.fingerprints):
        order = np.argsort(_speakers_of_pieces(heard), kind="stable")
        alike = heard.fingerprints[order] @ heard.fingerprints[order].T
        shown = square.imshow(alike, vmin=-0.2, vmax=1, cmap="magma")
        right.colorbar(shown, ax=square, location="bottom", label="cosine of two fingerprints")
    square.set_title("2, 3. How alike the pieces are")
    square.set_xlabel("piece, those of a speaker together")
    left.suptitle(web.drawn(heard.clip.name))
    with files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _draw_time(rows, heard: Heard, limits: dict) -> None:
    step = max(1, len(heard.samples) // 4000)
    whole = heard.samples[:len(heard.samples) // step * step].reshape(-1, step)
    rows[0].fill_between(np.linspace(0, heard.duration, len(whole)), whole.min(1), whole.max(1), color="#57606a")
    rows[0].set_title("Sound", loc="left")
    if heard.likely is not None:
        rows[1].plot(np.arange(len(heard.likely)) * CHUNK / SAMPLE_RATE, heard.likely, color="#225ea8", linewidth=0.8)
        for name, style in (("ON", "-"), ("OFF", ":")):
            rows[1].axhline(limits[name], color="#d1242f", linestyle=style, linewidth=0.8)
    for stretch in heard.stretches:
        rows[1].axvspan(stretch.start, stretch.end, color="#225ea8", alpha=0.15, linewidth=0)
    rows[1].set_title("1. Probability of speech, and the stretches", loc="left")
    for turn in heard.turns:
        rows[2].barh(turn.speaker, turn.length, left=turn.start, color=f"C{turn.speaker % 10}")
    rows[2].set_yticks(range(len(heard.names)), [web.drawn(name) for name in heard.names])
    rows[2].invert_yaxis()
    rows[2].set_title("3. Turns", loc="left")
    rows[2].set_xlabel("seconds")


def _speakers_of_pieces(heard: Heard) -> np.ndarray:
    """int [pieces]: whose turn the middle of each piece lies in."""
    middles = [piece.middle for parts in heard.pieces for piece in parts]
    return np.array([min(heard.turns, key=lambda turn: max(turn.start - at, at - turn.end, 0)).speaker
                     for at in middles])


# The page -------------------------------------------------------------------------------------------------------------

# Who said what, when, as one web page that needs nothing else: sound, a lane for each speaker, words to click on.

TEMPLATE = Path(__file__).with_name("page.html")
LONG = 600.0  # s; longer sound goes into the page as MP3: an hour of WAV would make it 150 MB


def write_page(path: Path, clip: str, samples: np.ndarray, turns: Sequence[Turn], lines: Sequence[Line],
          names: Sequence[str], about: str) -> None:
    """Write the page, whole or not at all. samples: float32 [n] at 16 kHz; about: one line below the title."""
    data = {"clip": clip, "about": about, "sound": sound_as_url(samples),
            "seconds": round(len(samples) / audio.SAMPLE_RATE, 3),
            "speakers": [{"name": name, "seconds": round(sum(turn.length for turn in turns if turn.speaker == i), 2)}
                         for i, name in enumerate(names)],
            "turns": [[turn.speaker, round(turn.start, 3), round(turn.end, 3)] for turn in turns],
            "lines": [{"speaker": line.speaker, "start": round(line.start, 3),
                       "words": [[word.text, round(word.start, 3), round(word.end, 3)] for word in line.words]}
                      for line in lines]}
    text = TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", web.script(json.dumps(data)))
    files.write_text(path, text.replace("@POLICY@", web.policy(text)))


def sound_as_url(samples: np.ndarray) -> str:
    """The recording as an address that holds it."""
    if len(samples) <= LONG * audio.SAMPLE_RATE:
        return "data:audio/wav;base64," + base64.b64encode(audio.wav_bytes(samples)).decode()
    import soundfile

    with io.BytesIO() as file:
        soundfile.write(file, samples, audio.SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
        return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode()
