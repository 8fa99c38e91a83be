"""Sound as it comes: features, voice activity, and sources that lose nothing."""

import io
import threading

import numpy as np
import pytest

from tests.helpers.stream_sounds import Clock, silence, speech
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec, log_mel
from whisper_lab.stream import sources
from whisper_lab.stream.mel import LiveMel
from whisper_lab.stream.voice import Voice

NANO_LIKE = FeatureSpec(64, 400, 160, 16_000, 160_000)


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


def test_a_live_source_is_stopped_before_any_sound_came():
    stop, late = threading.Event(), threading.Event()

    def blocks():
        late.wait(60)
        yield np.zeros(1600, np.float32)

    source = sources.Live(blocks(), sources.Clock(), stop)
    stop.set()
    assert source.take(0.1) is None and source.arrival(0) is None and source.realtime
    late.set()


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
        def read(self, size=-1):
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
    from whisper_lab import microphone

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
    source = sources.Live(sources._microphone_blocks(chosen, losses, threading.Event()), sources.Clock(),
                          threading.Event(), losses)
    source._thread.join()
    samples = source.take(0.1)
    assert source.dropouts == 1 and len(samples) == pytest.approx(SAMPLE_RATE, abs=5)
    assert np.median(samples) == pytest.approx(0.1, abs=1e-3)


def test_of_a_long_stream_only_the_count_is_kept(monkeypatch):
    """Hours of sound for a comparison that no one waits for."""
    from whisper_lab.stream import report

    monkeypatch.setattr(report, "KEPT_S", 2.0)
    diary = report.Log(Clock(), 0.5)
    for _ in range(20):
        with diary.work(speech(0.1)):
            pass
    assert len(diary.heard) == diary.count == 32_000
    with diary.work(speech(0.1)):
        pass
    assert len(diary.heard) == 0 and diary.count == 33_600
