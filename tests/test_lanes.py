"""Long recordings on lanes: the same text as on one, soon over when something fails, and only where it is worth it."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.benchmark_files import BENCHMARKS
from tests.test_chunking import clips, speech
from tests.test_transcribe import RATE, ToneListener, regular_spans, tones
from whisper_lab import audio, lanes, sound_files
from whisper_lab.console import LabError
from whisper_lab.decoding import Options
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.transcribe import transcribe, transcribe_many

ROOT = Path(__file__).resolve().parent.parent
MEDIA = ROOT / "media"
SPANS, DURATION = regular_spans(70)


class Listener(ToneListener):
    """On lanes; notes the frames and number of windows of each batch, and the most that were heard at once."""

    def __init__(self, folder, number: int, short: bool = True):
        super().__init__(folder)
        self.lanes, self.takes_short_windows, self.silence_s = number, short, 1.0
        self.batches, self.inside, self.most = [], 0, 0
        self.lock, self.fails_at, self.before = threading.Lock(), None, lambda call: None

    def encode(self, features):
        with self.lock:
            self.batches.append((max(window.shape[-1] for window in features), len(features)))
            call, self.inside = len(self.batches), self.inside + 1
            self.most = max(self.most, self.inside)
        self.before(call)
        if call == self.fails_at:
            raise LabError("not a number", "export again")
        found = [self._listen(window) for window in features]
        with self.lock:
            self.inside -= 1
        return found


@pytest.fixture
def listener(nano):
    return lambda number, **how: Listener(nano, number, **how)


def recording() -> np.ndarray:
    return tones(*SPANS, duration=DURATION)


# The text

@pytest.mark.parametrize("short", [True, False])
def test_lanes_hear_what_one_hears(listener, short):
    one = listener(1, short=short)
    alone = transcribe(one, recording(), Options("en"), batch_size=3, words=short)
    for _ in range(3):
        two = listener(2, short=short)
        found = transcribe(two, recording(), Options("en"), batch_size=3, words=short)
        np.testing.assert_allclose([(part.start, part.end) for part in found.segments],
                                   [(part.start, part.end) for part in alone.segments], atol=0.06)
        assert found.text == alone.text and max(size for _, size in two.batches) <= 3
        if short:  # windows are decoded with the same others
            assert found == alone and sorted(two.batches) == sorted(one.batches)


def test_windows_of_different_lengths_have_the_same_neighbors_on_any_lanes(listener, monkeypatch):
    """In int8 a window's numbers hang on them, and so may a word."""
    monkeypatch.setattr("whisper_lab.transcribe.EACH_S", 20.0)
    batches = []
    for number in (1, 2, 3):
        listening = listener(number)
        listening.mixes_lengths = True
        transcribe(listening, recording(), Options("en"), batch_size=4)
        batches.append(sorted(listening.batches))
    assert batches[0] == batches[1] == batches[2] and len({size for _, size in batches[0]}) > 1


def test_a_few_short_windows_are_one_batch_where_there_are_no_lanes(listener):
    one = listener(1)
    one.mixes_lengths = True
    transcribe_many(one, [tones((0.5, 1), duration=4) for _ in range(6)], Options("en"))
    assert [size for _, size in one.batches] == [6]


def test_two_lanes_are_at_work_at_once(listener):
    """Whole windows too, of which there are few: each lane gets some."""
    for short in (True, False):
        two = listener(2, short=short)
        both = threading.Barrier(2)
        two.before = lambda call, both=both: both.wait(10) if call <= 2 else None
        transcribe(two, recording(), Options("en"))
        assert two.most == 2
    assert {size for _, size in two.batches[:2]} <= {2, 3}


@pytest.mark.parametrize("graphs", [("fp32", False), ("int8", False), ("int8", True)])
def test_whisper_nano_hears_the_same_on_two_lanes(nano_export, graphs):
    """Also where words are drawn: each window has random numbers of its own."""
    one, two = (OnnxWhisper(nano_export / "graphs", "whisper-nano", graphs[0], 1, graphs[1], lanes=number)
                for number in (1, 2))
    assert (one.lanes, two.lanes) == (1, 2)
    samples, _ = speech(60)
    for options in (Options("en"), Options("en", temperatures=(0.8,))):
        alone = transcribe(one, samples, options, batch_size=2)
        assert len(alone.text) > 100 and [transcribe(two, samples, options, batch_size=2).text for _ in range(2)] == \
            [alone.text] * 2


def test_the_language_is_decided_before_others_are_heard(listener):
    """The first window is alone, whatever lanes there are."""
    two = listener(2)
    two.before = lambda call: time.sleep(0.1 if call == 1 else 0.02)
    found = transcribe(two, recording(), Options(logprob_threshold=None))
    assert found.language == "nl" and two.batches[0][1] == 1 and two.most == 2
    np.testing.assert_allclose([part.start for part in found.segments], [at for at, _ in SPANS], atol=0.04)


def test_recordings_of_one_window_have_lanes_too(listener):
    two = listener(2)
    two.before = lambda call: time.sleep(0.05)
    sounds = [tones((0.5, 1), duration=4) for _ in range(8)]
    assert [len(one.segments) for one in transcribe_many(two, sounds, Options("en"))] == [1] * 8
    assert [size for _, size in two.batches] == [4, 4] and two.most == 2


# Ends

def test_an_error_in_one_lane_stops_the_others(listener):
    whole = listener(2)
    transcribe(whole, recording(), Options("en"), batch_size=2)
    two = listener(2)
    two.fails_at, two.before = 3, lambda call: time.sleep(0.02)
    with pytest.raises(LabError, match="not a number"):
        transcribe(two, recording(), Options("en"), batch_size=2)
    assert len(two.batches) <= 4 < len(whole.batches)
    assert not any(thread.name.startswith("lane") for thread in threading.enumerate())


def test_progress_is_told_by_one_lane_at_a_time_and_sums_to_the_duration(listener):
    inside, moves = [], []

    def progress(seconds: float) -> None:
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.001)
        moves.append(seconds)
        inside.pop()

    transcribe(listener(3), recording(), Options("en"), progress=progress)
    assert sum(moves) == pytest.approx(DURATION, abs=0.1) and min(moves) > 0


@pytest.mark.skipif(os.name == "nt", reason="no signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 4])
def test_a_signal_ends_the_program_at_once_however_often_it_comes(number, times):
    """Also where each lane is in a call of half a minute: nobody waits for it, and Python does not abort."""
    program = f"""
import os, threading, time
from whisper_lab import console, lanes
def signals():
    for _ in range({times}):
        os.kill(os.getpid(), {int(number)})
        time.sleep(0.1)
def main():
    threading.Timer(0.3, signals).start()
    try:
        with lanes.Lanes(2) as both:
            for end in [both.begin(time.sleep, 30) for _ in range(400)]:
                end()
    finally:
        print("tidied up")
console.run(main)
"""
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (128 + number, "tidied up\n")
    assert ended.stderr.count("stopped by") == 1 and len(ended.stderr.splitlines()) == 2
    assert time.monotonic() - begun < 15


def test_lanes_that_are_to_end_leave_a_batch_between_two_steps(listener):
    """Not only where it ends: beams at every temperature may take half a minute."""
    slow = listener(2)
    slow.before = lambda call: time.sleep(0.02)
    seen = []

    def work(runtime) -> None:
        while True:
            seen.append(runtime.spec)
            time.sleep(0.01)

    with lanes.Lanes(2) as both:
        both.begin(work, both.watched(slow))
        while not seen:
            time.sleep(0.01)
    assert not any(thread.name.startswith("lane") for thread in threading.enumerate())


def test_an_error_is_told_though_an_earlier_batch_was_left(listener):
    """The second batch fails while the first is at work: what is raised is the error, not that the first was left."""
    two = listener(2)
    two.fails_at, two.before = 2, lambda call: time.sleep(0.3 if call == 1 else 0.0)
    with pytest.raises(LabError, match="not a number"):
        transcribe(two, recording(), Options("en"), batch_size=2)


# Whether there are lanes

@pytest.mark.parametrize(("threads", "batch_size", "seconds", "expected"), [
    (2, 4, 600, 2), (4, 4, 600, 4), (3, 2, 3 * lanes.EACH_S, 3), (1, 4, 600, 1), (5, 4, 600, 1), (64, 4, 600, 1),
    (2, 1, 600, 1), (2, 4, 2 * lanes.EACH_S - 1, 1), (4, 4, 3 * lanes.EACH_S, 1), (None, 4, 600, None),
])
def test_how_many_fit(monkeypatch, threads, batch_size, seconds, expected):
    monkeypatch.setattr("whisper_lab.machine.usable_cores", lambda: 3)
    assert lanes.fit(threads, batch_size, seconds) == (expected or 3)


def test_what_asks_for_lanes(tmp_path, monkeypatch):
    monkeypatch.setattr("whisper_lab.lanes.EACH_S", 5.0)
    long, *short = clips(tmp_path, 11, 4, 4, 4)

    def wanted(*paths: Path, **changes: object) -> int:
        args = {"threads": 2, "batch_size": 4, "provider": "cpu", "condition_on_previous": None} | changes
        return lanes.wanted(SimpleNamespace(**args), paths)

    assert wanted(long) == wanted(*short) == wanted(tmp_path / "none.wav", short[0], long) == 2
    assert wanted(*short[:2]) == wanted() == wanted(tmp_path) == 1
    assert wanted(long, provider="openvino") == wanted(long, condition_on_previous=True) == 1
    assert wanted(long, threads=1) == wanted(long, batch_size=1) == 1


def test_headers_promise_how_long_a_file_is(tmp_path):
    for path in sorted(MEDIA.glob("*.*")):
        if path.suffix in audio.SUFFIXES:
            assert sound_files.promised(path) == pytest.approx(audio.load(path).duration, abs=0.1), path.name
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.m4a").touch()
    assert not any(map(sound_files.promised, [tmp_path, *tmp_path.iterdir(), tmp_path / "none.mp3"]))


@pytest.mark.parametrize("kind", ["m4a", "webm", "aac"])
def test_so_do_those_that_ffmpeg_reads(tmp_path, kind):
    av = pytest.importorskip("av")
    path, codec = tmp_path / f"sound.{kind}", "libopus" if kind == "webm" else "aac"
    with av.open(str(path), "w", format={"m4a": "mp4", "aac": "adts"}.get(kind, kind)) as container:
        track = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 5 * 48_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48_000
        size = 960 if kind == "webm" else 1024
        for part in av.AudioResampler("s16" if kind == "webm" else "fltp", "mono", 48_000, size).resample(frame):
            container.mux(track.encode(part))
        container.mux(track.encode(None))
    assert sound_files.promised(path) == pytest.approx(5, rel=0.3)  # of AAC alone FFmpeg guesses it


def test_a_process_with_a_pool_has_no_lanes(nano_export):
    """And lanes leave all other sessions their own threads."""
    program = """
import sys
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab import sessions
folder = sys.argv[1]
first = OnnxWhisper(folder, "whisper-nano", threads=2, shared_pool=True, lanes=2)
assert first.lanes == 2 and not sessions.has_pool()
OnnxWhisper(folder, "whisper-nano", threads=2)
OnnxWhisper(folder, "whisper-nano", threads=2, shared_pool=True)
print(sessions.has_pool(), OnnxWhisper(folder, "whisper-nano", lanes=2).lanes)
"""
    done = subprocess.run([sys.executable, "-c", program, str(nano_export / "graphs")], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["True", "1"], ["False", "2"])  # before onnxruntime 1.23 there is no shared pool


def test_the_command_line_takes_lanes_for_what_is_long(call_script, nano_export, tmp_path, monkeypatch):
    monkeypatch.setattr("whisper_lab.lanes.EACH_S", 20.0)
    samples, _ = speech(50)
    for name, sound in (("long", samples), ("short", samples[:8 * RATE])):
        audio.write_wav(tmp_path / f"{name}.wav", sound)
    texts, model = {}, ("--model", "nano", "--model-dir", nano_export / "graphs", "--precision", "int8")
    for name, threads in (("long", 1), ("long", 2), ("short", 2)):
        status, out, err = call_script("whisper_lab.__main__", tmp_path / f"{name}.wav", *model, "--threads", threads)
        assert status == 0 and ("lanes: 2, each with a thread" in err) == ((name, threads) == ("long", 2))
        texts[name, threads] = out
    assert texts["long", 1] == texts["long", 2] != texts["short", 2]


# Benchmarks

def test_this_labs_process_has_lanes_where_all_its_clips_are_long(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    monkeypatch.setattr(importlib.import_module("harness"), "main", lambda *parts: None)
    monkeypatch.setattr("whisper_lab.lanes.EACH_S", 5.0)
    lab, paths = importlib.import_module("lab"), clips(tmp_path, 11, 4)

    def found(*lengths: int, **setting: object) -> int:
        told = tmp_path / "clips.json"
        told.write_text(json.dumps([{"wav": str(paths[i]), "language": "en", "long": i == 0} for i in lengths]))
        return lab.lanes_of({"clips": str(told), "threads": 2, "setting": setting})

    assert (found(0), found(0, beams=5)) == (2, 2)
    assert (found(1, 0), found(1), found(0, provider="openvino")) == (1, 1, 1)
