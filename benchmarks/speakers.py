"""How well script 10 tells speakers apart, and whether Silero hears speech better than the level tells.

    python benchmarks/speakers.py --corpus FOLDER              # speakers.json, and the tables here
    python benchmarks/speakers.py --corpus FOLDER --hour       # also the time and memory of an hour of sound

FOLDER has a references.json: a list of rows with `file` and `speaker`, and for recordings of several people `rttm`.
Clips of single speakers are joined, two or three speakers a file, three clips each, in random order, with pauses of 0.3
to 1.5 s between them: the reference is where each clip begins and ends. The files that are judged are made of the
group of rows with most speakers (by the folder of its files); the limit that tells one voice from two is chosen on
files made of all other speakers. A telephone is imitated: 300 to 3400 Hz at 8000 samples a second.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from whisper_lab import audio, console, files, flags, machine  # noqa: E402
from whisper_lab.audio import SAMPLE_RATE  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402
from whisper_lab.speakers import clusters, encoder, models, turns, voice  # noqa: E402
from whisper_lab.stream import voice as level  # noqa: E402

HERE = Path(__file__).resolve().parent
SCHEMA = "whisper-onnx-lab/speakers-benchmark/1"
CLIPS = 3  # of each speaker in a file
PAUSE = (0.3, 1.5)  # s between clips
LIMITS = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)  # of clusters.APART, tried
NOISES_DB = (20, 10, 5, 0)  # speech over noise
LINE_RATE = 8000  # Hz, of a telephone
BREAK = 0.6  # s of silence that end an utterance in 09
LATEST = 1.0  # s; an onset that was not noticed by then was missed
FRAME = 0.01  # s; how finely two detectors are compared


def main(argv: list[str] | None = None) -> int:
    """Measure, show, write."""
    args = arguments(argv)
    rows = read(args.corpus)
    detector = voice.SpeechDetector(models.obtain("silero-vad"))
    lab = detector, encoder.SpeakerEncoder(models.obtain("campplus"), 1)
    judged, others = groups(rows)
    made = [join(args.corpus, judged, seed) for seed in range(args.files)]
    calibration = [join(args.corpus, others, seed) for seed in range(args.files)]
    over_line = [(telephone(sound), truth) for sound, truth in made]
    meetings = [(row["file"], audio.load(args.corpus / row["file"]).samples,
                 turns.read_rttm(args.corpus / row["rttm"])) for row in rows if "rttm" in row]
    document = {
        "schema": SCHEMA, "machine": machine.card(1), "models": models.cards(), "collar_s": turns.COLLAR,
        "limit": clusters.APART,
        "limits": try_limits(lab, {"calibration": calibration, "judged": made, "telephone": over_line}),
        "files": [judge(lab, f"joined {i}", *each) for i, each in enumerate(made)],
        "telephone": [judge(lab, f"telephone {i}", *each) for i, each in enumerate(over_line)],
        "meetings": [judge(lab, *each) for each in meetings],
        "voice_activity": compare_detectors(detector, made)}
    if args.hour:
        document["hour"] = hour(args.corpus)
    files.write_json(args.output, document)
    show(document)
    return 0


def read(corpus: Path) -> list[dict]:
    """The rows of references.json. Raises LabError where there are none."""
    try:
        return json.loads((corpus / "references.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{corpus} has no references.json that can be read: {error}",
                       "name a folder with one: rows of file and speaker") from error


def groups(rows: list[dict]) -> tuple[dict, dict]:
    """Speaker -> files of at least 2 s: those of the group with most speakers, and all others with CLIPS files."""
    found: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("speaker") and 2 <= row.get("seconds", 0) <= 60:
            name = row["speaker"].partition(" (")[0]  # what is in parentheses says how, not who
            found[row["file"].split("/")[0]][name].append(row["file"])
    whole = {group: {name: paths for name, paths in speakers.items() if len(paths) >= CLIPS}
             for group, speakers in found.items()}
    most = max(whole, key=lambda group: len(whole[group]))
    names = set(whole[most])
    rest = {name: paths for group, speakers in whole.items() if group != most
            for name, paths in speakers.items() if name not in names}
    return whole[most], rest


def join(corpus: Path, speakers: dict, seed: int) -> tuple[np.ndarray, list[turns.Turn]]:
    """Sound float32 [n] at 16 kHz, and who speaks when in it."""
    choose = random.Random(seed)
    names = choose.sample(sorted(speakers), 2 + seed % 2)
    clips = [(name, path) for name in names for path in choose.sample(speakers[name], CLIPS)]
    choose.shuffle(clips)
    parts, truth, end = [], [], 0
    for name, path in clips:
        pause = np.zeros(round(choose.uniform(*PAUSE) * SAMPLE_RATE), np.float32)
        spoken = audio.load(corpus / path).samples
        start, end = end + len(pause), end + len(pause) + len(spoken)
        parts += [pause, spoken]
        truth.append(turns.Turn(name, start / SAMPLE_RATE, end / SAMPLE_RATE))
    return np.concatenate(parts), truth


def telephone(samples: np.ndarray) -> np.ndarray:
    """What is left of it on a line: 8000 samples a second, 300 to 3400 Hz, 8 bits each by mu-law (ITU-T G.711)."""
    import soxr

    line = soxr.resample(samples, SAMPLE_RATE, LINE_RATE)
    hertz = np.fft.rfftfreq(len(line), 1 / LINE_RATE)
    band = np.fft.irfft(np.fft.rfft(line) * ((hertz >= 300) & (hertz <= 3400)), len(line))
    loud = np.sign(band) * np.log1p(255 * np.minimum(np.abs(band), 1)) / np.log(256)
    steps = np.round(loud * 127) / 127
    heard = soxr.resample(np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255, LINE_RATE, SAMPLE_RATE)
    return (np.round(heard * 32768) / 32768).astype(np.float32)  # as a file of 16 bits has it


# Speakers ------------------------------------------------------------------------------------------------------------

def listen(lab, samples: np.ndarray) -> tuple:
    """(stretches, pieces of each, fingerprints) of a recording."""
    detector, speaker_encoder = lab
    stretches = voice.stretches(detector.probabilities(samples), len(samples) / SAMPLE_RATE)
    pieces = [encoder.pieces(stretch) for stretch in stretches]
    return stretches, pieces, speaker_encoder.fingerprints(samples, [piece for parts in pieces for piece in parts])


def judge(lab, name: str, samples: np.ndarray, truth: list[turns.Turn]) -> dict:
    """One recording: errors, number of speakers, and what it cost."""
    before = time.process_time()
    stretches, pieces, prints = listen(lab, samples)
    found = turns.of(stretches, pieces, clusters.voices(prints))
    seconds = time.process_time() - before
    wrong = turns.errors(truth, found)
    return {"name": name, "duration_s": round(len(samples) / SAMPLE_RATE, 2), "der": round(wrong.rate, 4),
            "missed_s": round(wrong.missed, 2), "false_alarm_s": round(wrong.false_alarm, 2),
            "confused_s": round(wrong.confused, 2), "judged_s": round(wrong.total, 2),
            "speakers": len({turn.speaker for turn in truth}), "found": len({turn.speaker for turn in found}),
            "processor_s": round(seconds, 2)}


def try_limits(lab, sets: dict[str, list]) -> list[dict]:
    """For each limit and each set of files: in how many the number of speakers is right."""
    heard = {name: [(listen(lab, sound)[2], len({turn.speaker for turn in truth})) for sound, truth in made]
             for name, made in sets.items()}
    kept, rows = clusters.APART, []
    try:
        for limit in LIMITS:
            clusters.APART = limit
            rows.append({"limit": limit} | {name: sum(len(set(clusters.voices(prints))) == count
                                                      for prints, count in found) for name, found in heard.items()})
    finally:
        clusters.APART = kept
    return rows


# Voice activity ------------------------------------------------------------------------------------------------------

def compare_detectors(detector: voice.SpeechDetector, made: list) -> list[dict]:
    """Silero and the level on the joined files, clean and in white noise, against Silero's on the clean sound.

    No one marked the pauses inside a clip: what counts as speech is where both hear it in the clean sound, as silence
    where neither does; the rest is not judged. Both speak on over pauses of less than BREAK, as 09 does by default. The
    delay is that of the first frame after a pause of a second.
    """
    rows = []
    for decibels in (None, *NOISES_DB):
        counts: dict[str, list] = {"silero": [], "energy": []}
        for seed, (clean, _) in enumerate(made):
            truth = [heard_by_silero(detector, clean)[0], heard_by_energy(clean)[0]]
            noisy = clean if decibels is None else add_noise(clean, decibels, seed)
            counts["silero"].append(against(truth, heard_by_silero(detector, noisy)))
            counts["energy"].append(against(truth, heard_by_energy(noisy)))
        for name, found in counts.items():
            missed, false, speech, silence, delays = (sum(column, []) if isinstance(column[0], list) else sum(column)
                                                      for column in zip(*found, strict=True))
            rows.append({"detector": name, "noise_db": decibels, "missed": round(missed / speech, 4),
                         "false_alarms": round(false / silence, 4),
                         "delay_s": round(float(np.median(delays)), 3) if delays else None,
                         "onsets": len(delays)})
    return rows


def add_noise(samples: np.ndarray, decibels: float, seed: int) -> np.ndarray:
    """White noise `decibels` below the power of the sound."""
    noise = np.random.default_rng(seed).standard_normal(len(samples)).astype(np.float32)
    return samples + noise * np.sqrt(np.mean(samples**2) / 10 ** (decibels / 10))


def frames(found: list[voice.Stretch], samples: int) -> np.ndarray:
    """bool [n]: whether each FRAME lies in a stretch."""
    marks = np.zeros(round(samples / SAMPLE_RATE / FRAME) + 1, bool)
    for one in found:
        marks[round(one.start / FRAME):round(one.end / FRAME)] = True
    return marks


def heard_by_silero(detector: voice.SpeechDetector, samples: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Marks, and when each onset was known: at the end of the chunk that crossed the threshold."""
    likely = detector.probabilities(samples)
    step = voice.CHUNK / SAMPLE_RATE
    known = [(i + 1) * step for i in range(1, len(likely)) if likely[i] >= voice.ON > likely[i - 1]]
    found = voice.bridged(voice.stretches(likely, len(samples) / SAMPLE_RATE), BREAK)
    return frames(found, len(samples)), known


def heard_by_energy(samples: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The same of 09's detector; it notices an onset ATTACK frames later."""
    found = level.by_level(samples, BREAK)
    return frames(found, len(samples)), [one.start + voice.MARGIN + level.ATTACK * level.FRAME for one in found]


def against(truth: list[np.ndarray], heard: tuple[np.ndarray, list[float]]) -> tuple:
    """(frames missed, false alarms, frames of speech, of silence, delays in s) of one detector in one file."""
    marks, known = heard
    speech, silence = truth[0] & truth[1], ~truth[0] & ~truth[1]
    quiet = round(1 / FRAME)
    onsets = [i for i in range(quiet, len(speech)) if speech[i] and not speech[i - quiet:i].any()]
    delays = [min((at - i * FRAME for at in known if at >= i * FRAME - 0.2), default=LATEST) for i in onsets]
    return (int((speech & ~marks).sum()), int((silence & marks).sum()), int(speech.sum()), int(silence.sum()),
            [min(max(delay, 0.0), LATEST) for delay in delays])


# Time and memory -----------------------------------------------------------------------------------------------------

def hour(corpus: Path) -> list[dict]:
    """100 s and an hour of sound, each in a process of its own: processor seconds and the largest memory."""
    found = []
    for seconds in (100, 3600):
        done = subprocess.run([sys.executable, __file__, "--corpus", str(corpus), "--one", str(seconds)],
                              capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    return found


def one(corpus: Path, seconds: int) -> dict:
    """Joined files, one after the other, until there is this much sound."""
    judged, _ = groups(read(corpus))
    sound, length, seed = np.zeros(seconds * SAMPLE_RATE, np.float32), 0, 0
    while length < len(sound):
        more = join(corpus, judged, seed)[0][:len(sound) - length]
        sound[length:length + len(more)] = more
        length, seed = length + len(more), seed + 1
    before, idle = time.process_time(), machine.peak_rss_bytes()
    lab = voice.SpeechDetector(models.obtain("silero-vad")), encoder.SpeakerEncoder(models.obtain("campplus"), 1)
    stretches, pieces, prints = listen(lab, sound)
    found = turns.of(stretches, pieces, clusters.voices(prints))
    return {"sound_s": seconds, "processor_s": round(time.process_time() - before, 2),
            "sound_mb": round(sound.nbytes / 1e6), "before_mb": round(idle / 1e6),
            "peak_mb": round(machine.peak_rss_bytes() / 1e6),
            "fingerprints": len(prints), "found": len({turn.speaker for turn in found})}


# Tables --------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Markdown: the errors of all recordings, pooled by kind."""
    lines = ["| recordings | DER % | missed | false alarm | confused | number of speakers right |",
             "|---|---|---|---|---|---|"]
    names = {"files": "two or three readers joined", "telephone": "the same over a telephone",
             "meetings": "meetings of two"}
    for key, name in names.items():
        rows = document[key]
        if not rows:
            continue
        total = sum(row["judged_s"] for row in rows)
        shares = [100 * sum(row[part] for row in rows) / total for part in ("missed_s", "false_alarm_s", "confused_s")]
        right = sum(row["found"] == row["speakers"] for row in rows)
        lines.append(f"| {name} | {sum(shares):.1f} | {' | '.join(f'{share:.1f}' for share in shares)} | "
                     f"{right} of {len(rows)} |")
    return "\n".join(lines)


def voice_table(document: dict) -> str:
    """Markdown: the two detectors side by side."""
    lines = ["| white noise | detector | missed % | false alarms % | median delay, s |", "|---|---|---|---|---|"]
    for row in document["voice_activity"]:
        noise = "none" if row["noise_db"] is None else f"{row['noise_db']} dB below speech"
        name = {"silero": "Silero", "energy": "by level"}[row["detector"]]
        delay = "–" if row["delay_s"] is None else f"{row['delay_s']:.2f}"
        lines.append(f"| {noise} | {name} | {100 * row['missed']:.1f} | {100 * row['false_alarms']:.1f} | {delay} |")
    return "\n".join(lines)


def costs(document: dict) -> str:
    """A sentence on time and memory, and the machine."""
    rows = document.get("hour") or []
    spent = "; ".join(f"{row['sound_s']:,} s of sound took {row['processor_s']:.1f} s of one processor and at most "
                      f"{row['peak_mb'] - row['sound_mb']} MB beside the sound" for row in rows)
    return f"{spent}{'. ' if spent else ''}{machine.one_line(document['machine'])}."


def show(document: dict) -> None:
    """The tables on stdout."""
    for kind in ("files", "telephone", "meetings"):
        rows = [[row["name"], row["duration_s"], f"{100 * row['der']:.1f}", row["missed_s"], row["false_alarm_s"],
                 row["confused_s"], row["speakers"], row["found"], row["processor_s"]] for row in document[kind]]
        console.table(kind, ["recording", "s", "DER %", "missed s", "false s", "confused s", "speakers", "found",
                             "processor s"], rows)
    for text in (table(document), voice_table(document), json.dumps(document["limits"]),
                 json.dumps(document.get("hour"))):
        console.result(text + "\n")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__, "package_index", "quiet", "log_level")
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="with a references.json")
    parser.add_argument("--files", type=flags.whole(1), default=10, metavar="N",
                        help="joined files of each set (default: %(default)s)")
    parser.add_argument("--hour", action="store_true", help="measure an hour of sound as well: a minute and more")
    parser.add_argument("--one", type=flags.whole(1), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=HERE / "speakers.json", metavar="FILE",
                        help="(default: benchmarks/speakers.json)")
    args = flags.parse(parser, argv)
    if args.one:
        console.result(json.dumps(one(args.corpus, args.one)))
        sys.exit(0)
    return args


if __name__ == "__main__":
    console.run(main)
