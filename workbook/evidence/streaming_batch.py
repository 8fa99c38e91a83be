"""How does streaming recognition differ from batch, and what does it cost?

Measured on one recording with script 09's own Stream: when text appears while somebody speaks, how much is computed and
how many words are wrong, against the whole recording at once, and against pieces cut without overlap. The sound
arrives by a virtual clock: waiting takes no time here, computing takes the time it takes.
"""

import importlib
import threading
import time

import numpy as np

from workbook.evidence import common

CUT_S = 2.0  # pieces without overlap
SCRIPT = importlib.import_module("09-stream-microphone")


class VirtualClock:
    """Real time, plus all the time that somebody would have slept."""

    def __init__(self):
        self.skipped = 0.0

    def now(self) -> float:
        return time.perf_counter() + self.skipped

    def sleep(self, seconds: float) -> None:
        self.skipped += seconds


class Nowhere:
    """In the place of the screen."""

    def show(self, committed, tentative) -> None: ...

    def close(self, committed, likely=None) -> None: ...


def recording(quick: bool) -> tuple[np.ndarray, str]:
    """The long clip, or its first three sentences."""
    clip = common.references()["long.flac"]
    if not quick:
        return common.samples("long.flac"), clip["text"]
    pieces = clip["segments"][:3]
    return (common.samples("long.flac")[:round((pieces[-1]["end_s"] + 0.5) * common.RATE)],
            " ".join(piece["text"] for piece in pieces))


def measure(evidence, args) -> None:
    from whisper_lab import transcribe
    from whisper_lab.decoding import Options

    runtime = common.onnx_runtime()
    sound, text = recording(args.quick)
    clip_s = len(sound) / common.RATE
    evidence.value("clip_s", clip_s, "s", stable=not args.quick)
    evidence.value("words", common.errors(text, "").reference_words, stable=not args.quick)
    transcribe.transcribe(runtime, sound[:common.RATE * 2], Options(language="en"))  # warm-up
    start = time.perf_counter()
    batch = transcribe.transcribe(runtime, sound, Options(language="en"))
    batch_s = time.perf_counter() - start
    stream, source = streamed(runtime, sound)
    log = stream.log
    piece = round(CUT_S * common.RATE)
    pieces = [transcribe.transcribe(runtime, sound[i:i + piece], Options(language="en")).text
              for i in range(0, len(sound), piece)]
    evidence.value("batch_compute_s", batch_s, "s")
    evidence.value("batch_first_text_s", clip_s + batch_s, "s")
    evidence.value("stream_compute_s", log.busy_s, "s")
    evidence.value("compute_ratio", log.busy_s / batch_s)
    evidence.value("stream_first_text_s", log.commits[0].at - source.arrival(0), "s")
    waits = delays(log.commits, source)
    evidence.value("stream_latency_s", float(np.median(waits)), "s")
    evidence.value("stream_latency_p95_s", float(np.quantile(waits, 0.95)), "s")
    for name, said in (("batch", batch.text), ("stream", " ".join(log.lines)), ("cut", " ".join(pieces))):
        evidence.value(f"wer_{name}_percent", wrong_percent(text, said), "%")
    evidence.value("chunk_s", SCRIPT.HOP_S, "s", stable=True)
    evidence.value("overlap_s", runtime.spec.window_s - SCRIPT.HOP_S, "s", stable=True)
    evidence.value("cut_s", CUT_S, "s", stable=True)
    evidence.value("encoder_runs", stream.recognizer.encoder_runs)
    evidence.series = {"shown": [(commit.at - source.arrival(0), i + 1) for i, commit in enumerate(log.commits)],
                       "batch": clip_s + batch_s}
    _claims(evidence)


def streamed(runtime, sound: np.ndarray):
    """(Stream, source) after the whole recording was spoken to it."""
    from whisper_lab.stream.hypothesis import Recognizer
    from whisper_lab.stream.sources import Played

    clock = VirtualClock()
    stream = SCRIPT.Stream(runtime, Recognizer(runtime, "en"), clock, Nowhere(), SCRIPT.HOP_S, SCRIPT.PAUSE_S)
    source = Played(sound, True, clock, threading.Event())
    SCRIPT.listen(source, stream)
    return stream, source


def delays(commits: list, source) -> list[float]:
    """Seconds from the end of a sentence's last word, as media/references.json knows it, to when that word stood."""
    from whisper_lab.stream.report import latency

    words = []
    for piece in common.references()["long.flac"]["segments"]:
        *inside, last = piece["text"].split()
        words += [*((word, None) for word in inside), (last, piece["end_s"])]
    return latency(commits, words, source)["latencies_s"]


def wrong_percent(reference: str, said: str) -> float:

    return 100 * common.errors(reference, said).wer


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("first_text", "A stream shows text while batch still waits for the end of the recording.",
                   "Een stream toont tekst terwijl batch nog op het einde van de opname wacht.",
                   values["stream_first_text_s"] < values["clip_s"], values["stream_first_text_s"])
    evidence.claim("costs", "The stream computes more than batch: the same sound is heard several times.",
                   "De stream rekent meer dan batch: hetzelfde geluid wordt meermaals gehoord.",
                   values["compute_ratio"] > 1, values["compute_ratio"])
    evidence.claim("cutting_hurts", "Pieces cut without overlap have more wrong words than the stream.",
                   "Stukken zonder overlap hebben meer foute woorden dan de stream.",
                   values["wer_cut_percent"] > values["wer_stream_percent"], values["wer_cut_percent"])


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    values, shown = evidence.values, evidence.series["shown"]
    left.step([0, *(at for at, _ in shown)], [0, *(count for _, count in shown)], where="post", color=common.BLUE,
              linewidth=2.5, label="stream")
    left.plot([0, evidence.series["batch"], evidence.series["batch"]], [0, 0, shown[-1][1]], color=common.GREY,
              linewidth=2.5, label="batch")
    left.axvline(values["clip_s"], color="black", linestyle=":", label="the recording ends")
    left.set(xlabel="time since speech began (s)", ylabel="words that stand", title="When text appears")
    left.legend()
    names = {"batch": common.GREY, "stream": common.BLUE, "cut": common.RED}
    bars = right.bar(["batch", "stream", f"cut every\n{values['cut_s']:g} s"],
                     [values[f"wer_{name}_percent"] for name in names], color=list(names.values()))
    right.bar_label(bars, fmt="%.0f %%")
    right.set(ylabel="word error rate (%)", title=f"Computing: {values['compute_ratio']:.1f} x batch")


def main(argv: list[str] | None = None) -> int:
    return common.run("streaming_batch", "2.09", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
