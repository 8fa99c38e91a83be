"""How late, how fast, how right: a stream beside the batch transcript of the same sound."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import audio, confidence, console, files, machine, transcribe
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.decoding import Options
from whisper_lab.metrics import normalize, real_time_factor, word_errors
from whisper_lab.stream.hypothesis import Unit
from whisper_lab.stream.sources import Clock
from whisper_lab.transcripts import read_reference

SCHEMA = "whisper-onnx-lab/stream/1"


class Report:
    """Collects the streams of one run; notes at the end of each, files at the end of all."""

    def __init__(self, runtime, settings: dict, output_dir: str | Path, output_json: str | None = None,
                 references: dict[str, str] | None = None, batch: bool = True, threads: int | None = None):
        """settings: for the JSON document; references: what is said, by a file's name; batch: compare with the
        transcript of the whole."""
        self.runtime, self.settings, self.references, self.batch = runtime, settings, references or {}, batch
        self.folder, self.copy, self.threads = Path(output_dir), output_json, threads
        self.clips: list[dict] = []
        self.load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # of the last minute
        self._texts: list[tuple[str, list[str]]] = []  # two files may have one name
        facts = runtime.facts
        self.stem = f"stream-{facts['model']}"
        if facts["random_weights"]:
            console.warn("the checkpoint was never trained: sizes and speeds are real, its transcripts mean nothing")

    def save_text(self, label: str, stream) -> None:
        """What was committed so far, to <output-dir>/stream-<model>.txt; before anything else can go wrong.

        The text of an earlier run stays, under the time at which it was written: what was said live is not said again.
        """
        if not stream.log.count:
            return
        self._texts.append((label, stream.log.lines))
        several = len(self._texts) > 1
        blocks = ["\n".join([f"# {name}"] * several + lines) for name, lines in self._texts]
        path, text = self.folder / f"{self.stem}.txt", "\n\n".join(blocks) + "\n"
        with keeping_earlier(path, text) if len(self._texts) == 1 else contextlib.nullcontext():
            files.write_text(path, text)
        console.note("saved", path, "the committed text")

    def add(self, label: str, source, stream) -> None:
        """Compare with the batch transcript and say what was measured."""
        log, recognizer = stream.log, stream.recognizer
        heard = log.heard
        duration = log.count / SAMPLE_RATE
        if not log.count:
            console.warn(f"no sound came from {label}")
        entry = {
            "source": label, "duration_s": round(duration, 3), "realtime": source.realtime,
            "language": recognizer.language.code, "text": " ".join(log.lines), "utterances": log.lines,
            "doubtful": [confidence.is_doubtful(likely, self.runtime.facts["model"]) for likely in log.likely],
            "commits": [{"text": commit.unit.text, "heard_s": round(commit.heard / SAMPLE_RATE, 3),
                         "reason": commit.reason} for commit in log.commits],
            "commit_reasons": {reason: sum(commit.reason == reason for commit in log.commits)
                               for reason in ("agreement", "pause", "full window")},
            **{count: getattr(recognizer, count) for count in
               ("encoder_runs", "shortened", "heard_again", "searched_again")},
            "hypotheses": log.hypotheses, "hypotheses_skipped": log.skipped,
            "hypothesis_median_s": rounded(np.median(log.hypothesis_s)) if log.hypothesis_s else None,
            "real_time_factor": rounded(real_time_factor(log.busy_s, duration)), "busy_s": rounded(log.busy_s),
            "largest_backlog_s": round(source.largest_backlog / SAMPLE_RATE, 3), "dropouts": source.dropouts,
        }
        entry |= self._compare(label, heard, source, stream)
        self.clips.append(entry)
        for line in in_words(entry):
            console.note(*line)

    def _compare(self, label: str, heard: np.ndarray, source, stream) -> dict:
        """The batch transcripts, the streamed text's errors against them and against --reference, and the latency."""
        nothing = {"batch": None, "batch_by_utterance": None, "latency": None, "reference": None}
        if not self.batch:
            return nothing | {"reason": "--no-batch"}
        if not stream.log.count:
            return nothing | {"reason": "no sound came"}
        if stream.log.count > len(heard):
            return nothing | {"reason": f"it lasted longer than {KEPT_S / 60:g} minutes: its sound was not kept"}
        log, language = stream.log, stream.recognizer.language.code
        text = " ".join(log.lines)
        try:
            console.note("comparing", "the whole recording transcribed at once", "Ctrl-C or --no-batch leaves it out")
            whole = self._batch(heard, language)
            parts = [self._batch(heard[start:end], language, start / SAMPLE_RATE) for start, end in log.spans]
        except KeyboardInterrupt:
            console.go_on()
            return nothing | {"reason": "Ctrl-C"}
        cut = {"text": " ".join(part["text"] for part in parts if part["text"]),
               "words": [word for part in parts for word in part["words"]]}
        found = {name: {"text": batch["text"], "wer": (errors := word_errors(batch["text"], text, language)).wer,
                        "words": errors.reference_words, "normalizer": errors.normalizer, "reason": errors.reason}
                 for name, batch in (("batch", whole), ("batch_by_utterance", cut))}
        found["latency"] = latency(log.commits, cut["words"], source) | {"word_ends_from": self._word_ends()}
        reference = self.references.get(label)
        found["reference"] = None if reference is None else {
            "text": reference, **{f"{name}_wer": word_errors(reference, said, language).wer for name, said in
                                  (("stream", text), ("batch", whole["text"]), ("batch_by_utterance", cut["text"]))}}
        return found

    def _batch(self, heard: np.ndarray, language: str | None, offset_s: float = 0.0) -> dict:
        """As 02 does it, window after window: the text, and (word, its end in s or None where it is not known)."""
        words = self.runtime.has_attention
        found = transcribe.transcribe(self.runtime, heard, Options(language=language), words=words)
        if words:
            ends = [(word.text, offset_s + word.end) for segment in found.segments for word in segment.words or []]
            return {"text": found.text, "words": ends}
        timed = transcribe.transcribe(self.runtime, heard, Options(language=language, timestamps=True))
        ends = []
        for segment in timed.segments:
            *inside, last = segment.text.split() or [""]
            ends += [*((word, None) for word in inside), (last, offset_s + segment.end)]
        return {"text": found.text, "words": ends}

    def _word_ends(self) -> str:
        if self.runtime.has_attention:
            return "cross-attention of the batch transcript"
        return "timestamps of the batch transcript, last words of its segments only (03 --alignment-heads: every word)"

    def finish(self) -> None:
        """The JSON document, in <output-dir> and where --json wants it."""
        facts = self.runtime.facts
        document = {
            "schema": SCHEMA, "machine": machine.card(self.threads), "load_before": self.load,
            "model": {"name": facts["model"], **{key: facts[key] for key in ("revision", "random_weights",
                                                                           "weights_sha256", "precision")}},
            "settings": self.settings, "clips": self.clips}
        for path in filter(None, (self.folder / f"{self.stem}.json", self.copy)):
            files.write_json(path, document)
            console.note("report", path, "every commit with its time")


@contextlib.contextmanager
def keeping_earlier(path: Path, text: str) -> Iterator[None]:
    """Around the writing of `text`: what was in its place, unless that is this text or nothing, gets another name.

    It is the one that files.keep gives. Where the writing fails, all is as before.
    """
    kept = None
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is no file of ours
        before = path.stat()
        if before.st_size and not (before.st_size < files.LARGEST_TEXT and files.read_text(path, "replace") == text):
            kept = files.keep(path, path)
    try:
        yield
    except BaseException:
        if kept:
            kept.unlink(missing_ok=True)
        raise
    if kept:
        console.note("kept", kept, "the text of an earlier run")


def references(argument: str | None, paths: list[str]) -> dict[str, str]:
    """What is said in each file, by its name. Raises LabError where one is missing: before anything is heard."""
    given = read_reference(argument, audio.find(paths)) if argument else {}
    return {path.name: text for path, text in given.items()}


def latency(commits: list, words: list[tuple[str, float | None]], source) -> dict:
    """From the end of a word to its commit, over the words that stream and batch have in common.

    words: of the batch transcript, each with its end in s (None: unknown). `waited` is s of sound that the model had
    heard beyond the word, whatever computing cost; `latency` is by the clock, from when the word's end had arrived.
    """
    timed = [(part, end) for text, end in words for part in normalize(text).split()]
    said = [(part, commit) for commit in commits for part in normalize(commit.unit.text).split()]
    errors = word_errors(" ".join(text for text, _ in timed), " ".join(text for text, _ in said))
    i = j = 0
    waited, late = [], []
    for mark, reference, hypothesis in errors.alignment:
        if mark == "=" and timed[i][1] is not None:
            end, commit = timed[i][1], said[j][1]
            waited.append(commit.heard / SAMPLE_RATE - end)
            if (arrived := source.arrival(round(end * SAMPLE_RATE))) is not None:
                late.append(commit.at - arrived)
        i, j = i + (reference is not None), j + (hypothesis is not None)
    return {"words": len(waited), "waited_p50_s": percentile(waited, 50), "waited_p95_s": percentile(waited, 95),
            "latency_p50_s": percentile(late, 50), "latency_p95_s": percentile(late, 95), "latencies_s":
            [rounded(value) for value in late],
            **({} if late or not waited else {"reason": "not played in real time: the clock says nothing"})}


def percentile(values: list[float], rank: float) -> float | None:
    """The value that `rank` % of all do not exceed; None of none."""
    return rounded(sorted(values)[max(0, math.ceil(rank / 100 * len(values)) - 1)]) if values else None


def rounded(value: float | None) -> float | None:
    """To the millisecond."""
    return None if value is None else round(float(value), 3)


def in_words(entry: dict) -> list[tuple[str, str, str]]:
    """The lines of the report: (what, value, remark)."""
    factor = entry["real_time_factor"]
    reasons = ", ".join(f"{count} by {reason}" for reason, count in entry["commit_reasons"].items() if count)
    lines = [("encoder runs", f"{entry['encoder_runs']} in {entry['duration_s']:.2f} s of sound",
              f"silence costs none; committed units: {reasons or 'none'}"),
             ("real-time factor", "unknown" if factor is None else f"{factor:.3f}",
              f"{entry['busy_s']:.2f} s of work; below 1 keeps up"),
             ("behind", f"{entry['largest_backlog_s']:.2f} s at most",
              f"{entry['hypotheses_skipped']} hypotheses left out, no sound lost; {entry['dropouts']} dropouts")]
    if entry["shortened"]:
        lines.insert(1, ("shorter windows", f"{entry['shortened']} of {entry['encoder_runs']} runs, "
                         f"{entry['heard_again']} heard again as a whole", "--audio-context full: always the whole"))
    if entry["searched_again"]:
        lines.insert(-2, ("searched again", f"{entry['searched_again']} of {entry['hypotheses']} hypotheses",
                          "by beams: a word was in doubt"))
    if entry["batch"] is None:
        return [*lines, ("comparison", "left out", entry["reason"])]
    times = entry["latency"]
    for what, remark in (("latency", "from a word's end to its commit, by the clock"),
                         ("waited", "the same in sound heard, computing not counted")):
        if times[f"{what}_p50_s"] is not None:
            lines.append((what, f"p50 {times[f'{what}_p50_s']:.2f} s, p95 {times[f'{what}_p95_s']:.2f} s",
                          f"{remark}; {console.count(times['words'], 'word')}; "
                          f"word ends from {times['word_ends_from']}"))
    lines.append(("against batch", f"WER {percent(entry['batch']['wer'])}",
                  f"and {percent(entry['batch_by_utterance']['wer'])} against batch transcripts of its utterances"))
    if reference := entry["reference"]:
        by_utterance = percent(reference["batch_by_utterance_wer"])
        lines.append(("against the reference", f"WER {percent(reference['stream_wer'])}",
                      f"batch {percent(reference['batch_wer'])}, by utterance {by_utterance}"))
    return lines


def percent(rate: float | None) -> str:
    """0.025 -> 2.5 %"""
    return "unknown" if rate is None else f"{100 * rate:.1f} %"


# The log of a stream --------------------------------------------------------------------------------------------------

# What happened, and when: the diary of one stream, from which the report is made.

KEPT_S = 1800.0  # s of sound kept for the comparison, 115 MB; a longer stream is not compared


@dataclass
class Commit:
    """A unit of text that stands from now on."""

    unit: Unit
    at: float  # s by the clock
    heard: int  # samples that the model had heard
    reason: str  # agreement, pause (the utterance is over) or full window


@dataclass
class Log:
    """Counts, times and commits."""

    clock: Clock
    hop_s: float
    hypotheses: int = 0
    hypothesis_s: list[float] = field(default_factory=list)  # how long each took
    skipped: int = 0  # hypotheses left out because an earlier one took longer than a hop
    busy_s: float = 0.0
    utterances: list[list[Commit]] = field(default_factory=lambda: [[]])
    samples: list[np.ndarray] = field(default_factory=list)  # all the sound, for the comparison; none after KEPT_S
    count: int = 0  # samples heard
    spans: list[tuple[int, int]] = field(default_factory=list)  # the utterances, samples
    likely: list[float | None] = field(default_factory=list)  # mean log-probability of each line's tokens
    _goes_on: bool = False
    _known: int = 0  # samples that had come before the last block

    @contextlib.contextmanager
    def work(self, block: np.ndarray | None = None) -> Iterator[None]:
        """Around what is done when a block has come; waiting for it does not count."""
        if block is not None:
            self._known = self.count
            self.count += len(block)
            self.samples.append(block)
            if self.count > KEPT_S * SAMPLE_RATE:
                self.samples.clear()
        started = self.clock.now()
        yield
        self.busy_s += self.clock.now() - started

    @contextlib.contextmanager
    def hypothesis(self, new_from: int, end: int) -> Iterator[None]:
        """Around one hypothesis; new_from..end: the samples of speech that it is the first to hear.

        What of them had come before the last block was no reason to ask: a short pause, say.
        """
        started = self.clock.now()
        yield
        self.hypotheses += 1
        self.hypothesis_s.append(self.clock.now() - started)
        new_s = (end - max(new_from, self._known)) / SAMPLE_RATE
        late = max(0, int(new_s / self.hop_s) - 1)
        if late and not self.skipped:
            console.warn(f"falling behind: {new_s:.1f} s of new speech had come before the "
                         f"model was ready for it (it took {self.hypothesis_s[-1]:.2f} s); fewer hypotheses will be "
                         "made, and all of the sound is heard")
        self.skipped += late

    def commit(self, units: Sequence[Unit], heard: int, reason: str) -> None:
        """These units stand."""
        now = self.clock.now()
        self.utterances[-1] += [Commit(unit, now, heard, reason) for unit in units]

    def close(self, start: int, end: int, goes_on: bool, likely: float | None = None) -> None:
        """These samples are done with; goes_on: only the window was full, the utterance is not over.

        likely: mean log-probability of the tokens of its text.
        """
        if self._goes_on:
            start = self.spans.pop()[0]
        self.spans.append((start, end))
        self._goes_on = goes_on
        if self.utterances[-1]:
            if joined([commit.unit for commit in self.utterances[-1]]):
                self.likely.append(likely)
            self.utterances.append([])

    @property
    def commits(self) -> list[Commit]:
        """All of them in order."""
        return [commit for utterance in self.utterances for commit in utterance]

    @property
    def lines(self) -> list[str]:
        """The text, a line an utterance."""
        return [text for utterance in self.utterances if (text := joined([commit.unit for commit in utterance]))]

    @property
    def heard(self) -> np.ndarray:
        """All the sound, float32 [n]; nothing where it lasted longer than KEPT_S."""
        return np.concatenate([*self.samples, np.zeros(0, np.float32)])


def joined(units: Sequence[Unit]) -> str:
    """The text of units."""
    return "".join(unit.text for unit in units).strip()
