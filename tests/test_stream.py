"""The parts of streaming: features as sound comes, voice activity, the policy, sources that lose nothing."""

import importlib
import io
import threading

import numpy as np
import pytest

from whisper_lab import console
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec, log_mel
from whisper_lab.stream import choose, sources
from whisper_lab.stream.ear import Hypothesis, Unit
from whisper_lab.stream.mel import LiveMel
from whisper_lab.stream.report import latency, percentile
from whisper_lab.stream.screen import GREY, Screen
from whisper_lab.stream.voice import Voice

script = importlib.import_module("09-stream-microphone")
NANO_LIKE = FeatureSpec(64, 400, 160, 16_000, 160_000)


def speech(seconds: float, dbfs: float = -20.0) -> np.ndarray:
    """Noise in syllables of 0.2 s with gaps of 0.1 s: to an energy detector, somebody speaks."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time)) * 10 ** (dbfs / 20)
    return (noise * np.where(time % 0.3 < 0.2, 1.0, 0.01)).astype(np.float32)


def drone(seconds: float) -> np.ndarray:
    """Somebody who never draws breath: dips of 40 ms, too short for a pause, long enough for the noise floor."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time)) * 0.1
    return (noise * np.where(time % 0.3 < 0.26, 1.0, 0.01)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


# Features ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec", [NANO_LIKE, FeatureSpec(80, 400, 160, 16_000, 480_000),
                                  FeatureSpec(13, 250, 70, 8_000, 7_000)], ids=["nano", "base", "odd"])
def test_live_features_equal_those_of_the_same_window(spec):
    generator = np.random.default_rng(1)
    total = spec.n_samples * 2
    samples = (generator.standard_normal(total) * np.geomspace(1e-4, 0.3, total)).astype(np.float32)
    mel, compared = LiveMel(spec), 0
    while mel.end < total:
        mel.append(samples[mel.end:mel.end + int(generator.integers(1, spec.n_samples // 5))])
        start = int(generator.integers(-(-mel.begin // spec.hop_length), mel.end // spec.hop_length)) * spec.hop_length
        for end in {min(mel.end, start + spec.n_samples), int(generator.integers(start, mel.end)), start}:
            end = min(end, start + spec.n_samples)
            np.testing.assert_allclose(mel.window(start, end), log_mel(samples[start:end], spec), atol=1e-6)
            compared += 1
        if compared % 5 == 0:
            mel.forget(start)
    assert compared > 15 and mel.begin > 0


def test_a_frame_is_computed_once():
    mel = LiveMel(NANO_LIKE)
    for block in np.split(speech(3), 30):
        mel.append(block)
        mel.window(0, mel.end)
    assert mel.frames <= 3 * SAMPLE_RATE // NANO_LIKE.hop_length


# Voice activity ------------------------------------------------------------------------------------------------------

def spans(samples: np.ndarray, block: int = 1600, pause: float = 0.6) -> list[tuple[float, float]]:
    voice = Voice(SAMPLE_RATE, pause, 30 * SAMPLE_RATE)
    for start in range(0, len(samples), block):
        voice.append(samples[start:start + block])
    voice.finish()
    return [(span.start / SAMPLE_RATE, span.end / SAMPLE_RATE) for span in voice.spans]


def test_two_sentences_are_two_spans_however_the_sound_is_cut():
    sound = np.concatenate([silence(1), speech(2), silence(1), speech(2), silence(1)])
    found = spans(sound)
    assert len(found) == 2
    for (start, end), (begin, over) in zip(found, [(1, 3), (4, 6)], strict=True):
        assert begin - 0.5 <= start <= begin - 0.3 and over + 0.3 <= end <= over + 0.7
    assert all(spans(sound, block) == found for block in (1, 17, 333, 10**6)[1:])


def test_a_short_pause_does_not_end_a_sentence():
    assert len(spans(np.concatenate([speech(1), silence(0.4), speech(1), silence(1)]))) == 1


@pytest.mark.parametrize("room_dbfs", [-70, -50, -35])
def test_the_floor_follows_the_room(room_dbfs):
    sound = np.concatenate([silence(8), speech(2, -15), silence(4)])
    sound += (np.random.default_rng(3).standard_normal(len(sound)) * 10 ** (room_dbfs / 20)).astype(np.float32)
    found = [span for span in spans(sound) if span[1] > 5]  # a loud room is learnt in the first 4 s
    assert len(found) == 1 and found[0][0] <= 8 and 10 <= found[0][1] <= 11


def test_the_fuller_the_window_the_shorter_a_pause_will_do():
    gaps = [piece for _ in range(8) for piece in (speech(2), silence(0.4))]
    voice = Voice(SAMPLE_RATE, 0.6, 10 * SAMPLE_RATE)
    voice.append(np.concatenate(gaps))
    lengths = [(span.end - span.start) / SAMPLE_RATE for span in voice.spans if span.closed]
    assert len(lengths) >= 2 and all(2.4 < length < 9 for length in lengths)


def test_silence_and_clicks_are_no_speech():
    assert spans(silence(5)) == []
    clicks = silence(5)
    clicks[::SAMPLE_RATE] = 1
    assert spans(clicks) == []


# The policy ----------------------------------------------------------------------------------------------------------

class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self):
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Ear:
    """Hears a word every half second of the sound, `w0 w1 ...`, the last one cut off; each look costs time."""

    def __init__(self, clock, cost: float = 0.05):
        self.clock, self.cost, self.encoder_runs = clock, cost, 0
        self.windows, self.said, self.language = [], [], "en"

    def listen(self, features, seconds, given=(), before=()):
        self.encoder_runs += 1
        self.clock.sleep(self.cost)
        count = int(seconds / 0.5)
        units = [Unit(f" w{i}", [i]) for i in range(len(given), count)]
        if count > len(given):
            units[-1] = Unit(f" cut{self.encoder_runs}", [99])  # what is cut off is heard differently every time
        self.said.append([unit.text for unit in [*given, *units]])
        return Hypothesis([*given, *units], ends=[0.0] * (len(given) + len(units)), seconds=seconds)

    def segments(self, features, seconds, given, before, voice_from_s):
        self.encoder_runs += 1
        self.clock.sleep(self.cost)
        self.windows.append((seconds, list(before)))
        return Hypothesis([*given, *(Unit(f" w{i}", [i]) for i in range(len(given), int(seconds / 0.5) - 1))]), \
            seconds - 0.5

    def sentence(self, before, units):
        return [*before, *(token for unit in units for token in unit.tokens)]

    def settle(self):
        pass


class Runtime:
    spec = NANO_LIKE


def streamed(sound: np.ndarray, cost: float = 0.05, realtime: bool = True):
    clock = Clock()
    stream = script.Stream(Runtime, Ear(clock, cost), clock, Screen(io.StringIO()), 0.5, 0.6)
    source = sources.Played(sound, realtime, clock, threading.Event())
    script.listen(source, stream)
    return stream, source


def test_the_longest_common_prefix():
    one, two = ([Unit(text, []) for text in words] for words in (["a", "b", "c"], ["a", "b", "d", "e"]))
    assert [unit.text for unit in script.agreed(one, two)] == ["a", "b"]
    assert script.agreed([], two) == [] and script.agreed(two, []) == []


def test_text_is_committed_only_when_two_successive_hypotheses_agree():
    stream, _ = streamed(np.concatenate([silence(0.5), speech(4), silence(1)]))
    commits, said = stream.log.commits, stream.ear.said
    agreed = [commit for commit in commits if commit.reason == "agreement"]
    assert len(agreed) >= 6 and commits[:len(agreed)] == agreed
    for i, commit in enumerate(agreed):
        assert any(earlier[i:i + 1] == later[i:i + 1] == [commit.unit.text]
                   for earlier, later in zip(said, said[1:], strict=False)), commit
    # What is cut off never repeats itself: it is committed when the pause ends the utterance, and called so.
    assert commits[-1].reason == "pause" and commits[-1].unit.text.startswith(" cut")
    assert not any(commit.unit.text.startswith(" cut") for commit in agreed)


def test_what_the_model_may_have_guessed_is_held_back():
    units = [Unit(f" w{i}", [i]) for i in range(5)]
    assert len(Hypothesis(units, [0.5, 1.0, 1.5, 1.95, 2.0], 2.0).firm) == 3  # heard 0.4 s before the end, or earlier
    assert Hypothesis(units, None, 2.0).firm == units[:3] and Hypothesis(units[:1], None, 2.0).firm == []


def test_silence_costs_nothing():
    stream, _ = streamed(silence(30))
    assert stream.ear.encoder_runs == 0 and stream.log.lines == []
    assert len(stream.mel._samples) < 3 * SAMPLE_RATE  # and is not kept
    spoken, _ = streamed(np.concatenate([silence(1), speech(2), silence(1)]))
    longer, _ = streamed(np.concatenate([silence(1), speech(2), silence(30)]))
    assert longer.ear.encoder_runs == spoken.ear.encoder_runs > 0


def test_a_slow_model_gets_fewer_hypotheses_and_all_of_the_sound(caplog, monkeypatch):
    """Each look takes six hops. Nothing is lost, it is said, and every word is there."""
    warnings = []
    monkeypatch.setattr(console, "warn", warnings.append)
    sound = np.concatenate([silence(0.5), speech(6), silence(1), speech(6), silence(1)])
    fast, _ = streamed(sound)
    assert not warnings and fast.log.skipped == 0
    slow, source = streamed(sound, cost=3.0)
    assert len(warnings) == 1 and "falling behind" in warnings[0]
    assert slow.log.skipped >= 5 and slow.ear.encoder_runs < fast.ear.encoder_runs / 2
    assert source.largest_backlog >= 2.9 * SAMPLE_RATE
    np.testing.assert_array_equal(slow.log.heard, sound)
    count = [sum(len(utterance) for utterance in stream.log.utterances) for stream in (slow, fast)]
    assert count[0] == count[1] and slow.log.spans == fast.log.spans
    assert slow.log.busy_s > fast.log.busy_s


def test_a_full_window_is_cut_and_the_sentence_goes_on_as_prompt():
    stream, _ = streamed(np.concatenate([drone(25), silence(1)]))
    windows = stream.ear.windows
    assert len(windows) >= 2 and all(9 < seconds <= 10 for seconds, _ in windows)
    assert windows[0][1] == [] and len(windows[1][1]) > 10  # the committed words of the sentence
    assert len(stream.log.spans) == 1  # one utterance all the same
    assert any(commit.reason == "full window" for commit in stream.log.commits)


def test_a_backlog_longer_than_the_window_is_worked_off():
    stream, source = streamed(np.concatenate([drone(45), silence(1)]), cost=14.0)
    assert source.largest_backlog > 10 * SAMPLE_RATE
    assert stream.log.spans[0][1] > 45 * SAMPLE_RATE
    assert 85 < sum(map(len, stream.log.utterances)) < 95  # a word every half second


def test_hypotheses_in_circles_agree_with_nothing(monkeypatch):
    monkeypatch.setattr(Ear, "listen", lambda self, features, seconds, given=(), before=():
                        Hypothesis([*given, Unit(" la", [1])] * 9, doubtful=True))
    stream, _ = streamed(np.concatenate([speech(2), silence(1)]))
    assert stream.log.lines == []


# Sources -------------------------------------------------------------------------------------------------------------

def test_a_file_in_real_time_takes_its_time():
    clock = Clock()
    source = sources.Played(speech(2), True, clock, threading.Event())
    blocks = []
    while (block := source.take(0.5)) is not None:
        blocks.append(len(block) / SAMPLE_RATE)
        clock.sleep(0.7 if len(blocks) == 1 else 0)
    assert clock.now() == pytest.approx(102, abs=0.01)
    assert blocks == pytest.approx([0.5, 0.7, 0.5, 0.3], abs=0.01)  # late once: more at once, nothing lost
    assert source.arrival(SAMPLE_RATE) == 101


def test_stop_ends_a_file():
    stop = threading.Event()
    source = sources.Played(speech(60), True, sources.Clock(), stop)
    threading.Timer(0.2, stop.set).start()
    assert source.take(60) is None


def test_a_live_source_keeps_what_nobody_takes_and_passes_errors_on():
    def blocks():
        for i in range(10):
            yield np.full(1600, i, np.float32)
        raise LabError("unplugged", "plug it in")

    source = sources.Live(blocks(), sources.Clock(), threading.Event())
    source._thread.join()
    with pytest.raises(LabError, match="unplugged"):
        source.take(0.1)
    source = sources.Live((np.full(1600, i, np.float32) for i in range(10)), sources.Clock(), threading.Event())
    source._thread.join()
    assert source.take(0.1).tolist() == np.repeat(np.arange(10.0), 1600).tolist()
    assert source.take(0.1) is None and source.largest_backlog == SAMPLE_RATE


@pytest.mark.parametrize("rate, channels", [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_raw_samples_become_mono_16_khz(rate, channels):
    time = np.arange(rate) / rate
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * time)).astype("<i2")
    data = np.repeat(tone[:, None], channels, axis=1).tobytes()

    class Dribble(io.BytesIO):
        def read1(self, size=-1):
            return super().read(777)  # an odd number: samples are torn apart

    samples = np.concatenate(list(sources._pcm_blocks(Dribble(data), rate, channels)))
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=5)
    wanted = 8000 / 32768 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / SAMPLE_RATE)
    np.testing.assert_allclose(samples[200:-200], wanted[200:-200], atol=2e-3)


def test_a_wav_on_standard_input_is_refused():
    with pytest.raises(LabError, match="not raw samples"):
        list(sources._pcm_blocks(io.BytesIO(b"RIFF1234WAVEfmt "), 16_000, 1))


def test_the_microphone_counts_what_was_lost(monkeypatch):
    """A device of 48 kHz stereo: all of its blocks arrive as 16 kHz mono, and one overflow is counted."""
    from whisper_lab.record import microphone

    class Status:
        input_overflow = False

    class Overflow:
        input_overflow = True

    class Sounddevice:
        class PortAudioError(Exception):
            pass

        class InputStream:
            latency, active = 0.01, False  # all has come already

            def __init__(self, callback, channels, **_):
                self.callback, self.channels = callback, channels

            def __enter__(self):
                for i in range(10):
                    self.callback(np.full((4800, self.channels), 3277, np.int16), 4800, None,
                                  Overflow if i == 3 else Status)

            def __exit__(self, *_):
                pass

            def stop(self):
                pass

    monkeypatch.setattr(microphone, "import_sounddevice", lambda: Sounddevice)
    losses, chosen = microphone.Losses(), microphone.Microphone(0, "test", 48_000, 2)
    source = sources.Live(choose._microphone_blocks(chosen, losses, threading.Event()), sources.Clock(),
                          threading.Event(), losses)
    source._thread.join()
    samples = source.take(0.1)
    assert source.dropouts == 1 and len(samples) == pytest.approx(SAMPLE_RATE, abs=5)
    assert np.median(samples) == pytest.approx(0.1, abs=1e-3)


# What is shown and told ----------------------------------------------------------------------------------------------

class Terminal(io.StringIO):
    def isatty(self):
        return True


FIXED, MAYBE = [Unit(" turn", [1]), Unit(" on", [2])], [Unit(" the", [3]), Unit(" light", [4])]


def test_tentative_text_is_grey_and_committed_text_is_not(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    Screen(out).show(FIXED, MAYBE)
    assert out.getvalue().endswith(f"turn on {GREY}the light\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Screen(out).show(FIXED, MAYBE)
    assert out.getvalue().endswith("turn on [the light]") and GREY not in out.getvalue()


def test_a_pipe_gets_final_lines_only():
    out = io.StringIO()
    screen = Screen(out)
    screen.show(FIXED, MAYBE)
    screen.close(FIXED + MAYBE)
    screen.close([])
    screen.end()
    assert out.getvalue() == "turn on the light\n"


def test_latency_is_that_of_words_both_have():
    class Commit:
        def __init__(self, text, at, heard_s):
            self.unit, self.at, self.heard = Unit(text, []), at, round(heard_s * SAMPLE_RATE)

    source = sources.Played(speech(3), True, Clock(), threading.Event())
    source.take(0.1)
    start = source.arrival(0)
    commits = [Commit(" Turn", start + 1.5, 1.4), Commit(" of", start + 2, 1.9), Commit(" it", start + 2.5, 2.4)]
    found = latency(commits, [("turn", 1.0), ("off", 1.5), ("it", 2.0)], source)
    assert found["words"] == 2 and found["latencies_s"] == [0.5, 0.5] and found["waited_p95_s"] == 0.4
    assert latency(commits, [("turn", None), ("it", 2.0)], source)["words"] == 1
    empty = latency([], [], source)
    assert empty["latency_p50_s"] is None and empty["words"] == 0


def test_percentiles_are_values_that_occurred():
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0 and percentile(list(range(1, 101)), 95) == 95.0
    assert percentile([], 50) is None
