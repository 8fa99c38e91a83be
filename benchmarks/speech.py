"""What people do with speech, for benchmarks/run.py: short clips, commands, one long recording, a cold start.

    choose(corpora.read(folder)[0])       # the clips of each kind of work
    Speech(...).measure(ready, minutes)   # every system in turn, round after round, in fresh processes

Each system hears the same WAV files with its own features, search and text. Short clips: one greedy pass. The long
recording: the system's own way through it, greedy. Cold: a process from its start to the text of one clip, and the most
memory that it held. The words are counted as benchmarks/accuracy.py counts them.
"""

import functools
import json
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import corpora
import idle
import prepare
import scoring

from whisper_lab import audio, console, files
from whisper_lab.console import LabError

TIMEOUT = 900  # s for one process
SHORT, COMMAND = (2, 12), (2, 4)  # s of sound, shortest and longest
CLIPS = 24  # of SHORT
COLD = 11  # s of sound, about
LONG = (600, 900)  # s; a corpus without such a recording has one joined of its clips
PAUSE = 0.7  # s between two clips that are joined
PARTS = ("clips", "cold", "long")  # in this order; `clips` are short ones, with the commands among them
KINDS = {"short": "clips", "commands": "clips", "long": "long", "cold": "cold"}  # kind of work -> its part


@dataclass(frozen=True)
class Sound:
    """A clip as every system hears it; seconds: its length."""

    clip: corpora.Clip
    wav: Path
    seconds: float

    def told(self, part: str) -> dict:
        """What a system's process is told of it."""
        return {"id": self.clip.id, "wav": str(self.wav), "language": self.clip.language, "long": part == "long"}


@dataclass(frozen=True)
class Works:
    """The sounds of each part; `joined`: the long recording is made of so many clips, 0 where it is one recording."""

    clips: list[Sound]
    cold: list[Sound]
    long: list[Sound]
    joined: int

    def of(self, kind: str) -> list[Sound]:
        """The sounds of one kind of work."""
        found = getattr(self, KINDS[kind])
        return [sound for sound in found if within(sound, COMMAND)] if kind == "commands" else found

    def describe(self, scorer: scoring.Scorer) -> dict:
        """Numbers of clips, seconds and words; no names and no text: a corpus may not be ours to publish."""
        return {kind: {"clips": len(sounds := self.of(kind)), "seconds": round(sum(one.seconds for one in sounds), 1),
                       "words": sum(scorer(one.clip, "").words for one in sounds)} for kind in KINDS} \
            | {"joined": self.joined}


# Choosing ------------------------------------------------------------------------------------------------------------

def choose(clips: list[corpora.Clip], folder: Path) -> Works:
    """The works that a corpus has English clips for; folder: where WAV files go. Raises LabError where it has none."""
    sounds = [Sound(clip, *corpora.as_wav(clip, folder)) for clip in clips if clip.language == "en"]
    short = [sound for sound in sounds if within(sound, SHORT)]
    if not short:
        raise LabError(f"the corpus has no English clip of {SHORT[0]} to {SHORT[1]} s",
                       "leave out --corpus, which takes those in media, or take another folder")
    long, joined = long_recording(sounds, folder)
    return Works(spread(short, CLIPS), [min(short, key=lambda sound: abs(sound.seconds - COLD))], [long], joined)


def within(sound: Sound, limits: tuple[float, float]) -> bool:
    """Is it that long?"""
    return limits[0] <= sound.seconds <= limits[1]


def spread(sounds: list[Sound], number: int) -> list[Sound]:
    """So many of them, from the shortest to the longest at equal steps; all where there are fewer."""
    ordered = sorted(sounds, key=lambda sound: (sound.seconds, sound.clip.id))
    number = min(number, len(ordered))
    return [ordered[round(i * (len(ordered) - 1) / max(1, number - 1))] for i in range(number)]


def long_recording(sounds: list[Sound], folder: Path) -> tuple[Sound, int]:
    """The longest recording of LONG, and 0; where there is none, clips joined up to that length, and their number."""
    if whole := [sound for sound in sounds if within(sound, LONG)]:
        return max(whole, key=lambda sound: sound.seconds), 0
    parts, seconds = [], 0.0
    for sound in sorted(sounds, key=lambda sound: (prepare.short_digest(sound.clip.id), sound.clip.id)):
        if seconds + sound.seconds + PAUSE <= LONG[1] and seconds < LONG[0]:
            parts.append(sound)
            seconds += sound.seconds + PAUSE
    path = joined([part.wav for part in parts], folder)
    text = " ".join(part.clip.text for part in parts)
    clip = corpora.Clip(path.name, path, text, "en", "joined")
    return Sound(clip, *corpora.as_wav(clip, folder)), len(parts)


def joined(paths: list[Path], folder: Path) -> Path:
    """One recording of several, with pauses; made once."""
    import numpy as np

    path = folder / f"joined-{prepare.short_digest(' '.join(one.name for one in paths))}.wav"
    if not path.is_file():
        pause = np.zeros(round(PAUSE * audio.SAMPLE_RATE), np.float32)
        audio.write_wav(path, np.concatenate([part for one in paths for part in (audio.load(one).samples, pause)]))
    return path


# Measuring -----------------------------------------------------------------------------------------------------------

class Speech:
    """The systems that are measured, and what came out: `rows`, by name."""

    def __init__(self, works: Works, scorer: scoring.Scorer, threads: int, folder: Path, host: idle.Host):
        """folder: where the list of clips is written that a process reads."""
        self.works, self.scorer, self.threads, self.host = works, scorer, threads, host
        self.rows, self.finished = {}, {}
        self.lists = {part: folder / f"speech-{part}.json" for part in PARTS}
        for part, path in self.lists.items():
            files.write_json(path, [sound.told(part) for sound in getattr(works, part)])

    def measure(self, ready: list, rounds: int, minutes: dict[str, float]) -> None:
        """ready: (peer, job) pairs; minutes: when each part has to be over, counted from now.

        The first round of each part is always whole. A later one begins only where the last one says that there is
        time for it, and leaves out the systems that are slow in this part (`peer.once`).
        """
        began = time.monotonic()
        for part in PARTS:
            hearing = [(peer, job) for peer, job in ready if part not in peer.cannot]
            for number in range(rounds):
                turns = [(peer, job) for peer, job in hearing if not number or part not in peer.once]
                before = time.monotonic()
                for peer, job in console.progress(turns, description=f"{part}, round {number + 1}", unit="process"):
                    self.hear(peer, job, part)
                now = time.monotonic()
                self.finished[part] = number + 1
                if now - began + (now - before) > 60 * minutes[part]:
                    break
            console.note(f"speech, {part}", console.count(self.finished[part], "round"),
                         f"{(time.monotonic() - began) / 60:.1f} minutes so far")

    def hear(self, peer, job: dict, part: str) -> None:
        """One fresh process of a system on one part; what it says goes into its row."""
        row = self.rows.setdefault(peer.name, {"reasons": {}, "heard": {}})
        try:
            lines = self.host.quiet(functools.partial(run, peer, job, self.lists[part], part, self.threads))
            heard = {line["clip"]: line for line in lines if "clip" in line}
            if missing := [one.clip.id for one in getattr(self.works, part) if one.clip.id not in heard]:
                raise ValueError(f"{len(missing)} clips without an answer")
        except (subprocess.TimeoutExpired, ValueError, OSError) as error:
            row["reasons"][part] = f"no result within {TIMEOUT} s" if isinstance(error, subprocess.TimeoutExpired) \
                else str(error)
            console.warn(f"{peer.name}, {part}: {row['reasons'][part]}")
            return
        row["heard"].setdefault(part, []).append(heard)

    def results(self) -> dict[str, dict]:
        """name -> {"reasons": {part: text}, kind of work: {"words", and one a round of "seconds", "errors", "loops"}}.

        All clips of the kind together; `cold` has `peak_rss_bytes` too. Errors of each round, because some systems draw
        at random where a text looks wrong, and write another one each time.
        """
        return {name: {"reasons": row["reasons"]} | {kind: self._kind(kind, row["heard"][part])
                                                     for kind, part in KINDS.items() if row["heard"].get(part)}
                for name, row in self.rows.items()}

    def _kind(self, kind: str, rounds: list[dict]) -> dict:
        sounds = self.works.of(kind)
        counts = [[self.scorer(one.clip, heard[one.clip.id]["text"]) for one in sounds] for heard in rounds]
        found = {"seconds": [round(sum(heard[one.clip.id]["seconds"] for one in sounds), 4) for heard in rounds],
                 "words": sum(count.words for count in counts[0]),
                 "errors": [sum(count.errors for count in once) for once in counts],
                 "loops": [sum(count.loops for count in once) for once in counts]}
        if kind == "cold":
            found["peak_rss_bytes"] = [heard[sounds[0].clip.id]["peak_rss_bytes"] for heard in rounds]
        return found


def greedy(peer):
    """The peer as it hears here: without the beams that some take for a long recording where no one asks."""
    return replace(peer, setting=peer.setting | {"long": {"beam_size": 1}}) if "compute_type" in peer.setting else peer


def run(peer, job: dict, listed: Path, part: str, threads: int) -> Iterable[dict]:
    """The lines of JSON that a system's process prints. Raises ValueError, with its last line, where it fails."""
    told = {"clips": str(listed.resolve()), "checkpoint": job["checkpoint"], "artefact": job["artefact"],
            "setting": greedy(peer).setting, "threads": threads, "repeats": 1, "packages": [], "cold": part == "cold"}
    command = [job["python"], str(Path(__file__).resolve().parent / "peers" / peer.script)]
    done = subprocess.run([*command, json.dumps(told | {"started": time.time()})], capture_output=True, text=True,
                          timeout=TIMEOUT, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    if done.returncode:
        raise ValueError(f"exit status {done.returncode}: {prepare.last_line(done.stderr)}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
