"""What is not asked about, because nothing in it could be speech: and that no speech is taken for it."""

import numpy as np
import pytest

from whisper_lab import audio
from whisper_lab.silence import is_silent

RATE = 16_000  # Hz


def noise(seconds: float, dbfs: float, slope: float = 0.0) -> np.ndarray:
    """Noise of `dbfs` RMS whose spectrum falls as frequency ** slope: 0 white, -0.5 pink, -1 brown."""
    n = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(3).normal(0, 1, n))
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    frequencies[0] = 1
    samples = np.fft.irfft(spectrum * frequencies ** slope, n)
    return (samples / samples.std() * 10 ** (dbfs / 20)).astype(np.float32)


@pytest.mark.parametrize("seconds", [2.0, 10.0, 30.0])
@pytest.mark.parametrize("slope", [0.0, -0.5, -1.0])
@pytest.mark.parametrize("dbfs", [-60, -25])
def test_steady_noise_is_silence_however_loud(dbfs, slope, seconds):
    assert is_silent(noise(seconds, dbfs, slope))


def test_nothing_and_hum_and_a_click_are_silence():
    assert is_silent(np.zeros(0, np.float32)) and is_silent(np.zeros(RATE, np.float32))
    time = np.arange(10 * RATE) / RATE
    assert is_silent((0.1 * np.sin(2 * np.pi * 50 * time)).astype(np.float32))
    click = noise(10, -60)
    click[5 * RATE:5 * RATE + 160] += 0.05  # 10 ms
    assert is_silent(click)


@pytest.mark.parametrize("clip", ["digits.wav", "kitchen.wav", "nederlands.wav", "time.wav", "hello.wav", "long.flac"])
@pytest.mark.parametrize("worse_db", [60, 5, 0])
def test_speech_is_not_silence_even_in_noise_as_loud(clip, worse_db):
    samples = audio.load(f"media/{clip}").samples
    level = 20 * np.log10(samples.std())
    assert not is_silent(samples + noise(len(samples) / RATE, level - worse_db)[:len(samples)])


def test_a_comparison_passes_over_windows_without_speech():
    from whisper_lab.compare.heard import MOST_CLIPS, with_speech

    speech, silence = audio.load("media/digits.wav").samples, np.zeros(RATE, np.float32)
    assert with_speech([silence, speech, noise(4, -30), speech]) == [1, 3]
    assert with_speech([silence, silence]) == [0, 1]
    assert with_speech([speech] * (MOST_CLIPS + 1)) == list(range(MOST_CLIPS))


def test_one_short_word_in_half_a_minute_is_heard():
    word = audio.load("media/digits.wav").samples[RATE // 2:RATE // 2 + 6000]  # 0.4 s
    sound = noise(30, -60)
    sound[20 * RATE:20 * RATE + len(word)] += word
    assert not is_silent(sound)


def test_a_steady_vowel_is_not_thrown_away():
    """Shorter than 2 s, and steady: the end of a word may be like that."""
    time = np.arange(RATE) / RATE
    assert not is_silent((0.1 * np.sin(2 * np.pi * 200 * time)).astype(np.float32))
