"""Reading, writing and judging sound: right samples, or one error that says what to do."""

import json
import os
import re
import resource
import shutil
import stat
import tracemalloc

import numpy as np
import pytest
import soundfile

from whisper_lab import audio, loudness
from whisper_lab.console import LabError

RATE = 16_000


def tone(rate: int = RATE, seconds: float = 1.0, hertz: float = 440.0, gain: float = 0.5) -> np.ndarray:
    """A sine, float64 [n]."""
    return gain * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def assert_is_tone(samples, gain=0.5, hertz=440.0, tolerance=2e-3):
    """Away from both ends (a resampler's filter rings there) the samples are the 16 kHz sine of that gain."""
    assert samples.dtype == np.float32 and samples.ndim == 1
    expected = tone(RATE, len(samples) / RATE, hertz, gain)
    middle = slice(800, -800)
    np.testing.assert_allclose(samples[middle], expected[middle], atol=tolerance)


# Formats, rates and channels


@pytest.mark.parametrize("subtype, said, tolerance", [
    ("PCM_U8", "Unsigned 8 bit PCM", 8e-3), ("PCM_16", "Signed 16 bit PCM", 5e-5),
    ("PCM_24", "Signed 24 bit PCM", 1e-6), ("PCM_32", "Signed 32 bit PCM", 1e-6),
    ("FLOAT", "32 bit float", 1e-6), ("DOUBLE", "64 bit float", 1e-6),
])
def test_every_sample_width(tmp_path, subtype, said, tolerance):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype)
    sound = audio.load(tmp_path / "a.wav")
    assert_is_tone(sound.samples, tolerance=tolerance)
    assert (sound.duration, sound.source_rate, sound.source_channels) == (1.0, RATE, 1)
    assert sound.notes == [f"{said} read as 32-bit float"] and sound.source_format == f"WAV (Microsoft), {said}"


def test_sixteen_bit_samples_are_exact(tmp_path):
    steps = np.arange(-32768, 32768, 7, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", steps, RATE)
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav").samples * 32768, steps)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate), rate, "PCM_24")
    sound = audio.load(tmp_path / "a.wav")
    assert_is_tone(sound.samples)
    assert abs(len(sound.samples) - RATE) <= 1
    assert (f"{rate} Hz -> 16000 Hz (soxr HQ)" in sound.notes) == (rate != RATE)


def test_tones_above_8_khz_do_not_come_back_as_lower_ones(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(44_100, hertz=10_000.0), 44_100, "PCM_24")
    assert np.abs(audio.load(tmp_path / "a.wav").samples[800:-800]).max() < 1e-4  # -74 dB of the tone


def test_blocks_join_as_if_resampled_at_once(tmp_path):
    import soxr

    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 44_100).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 44_100, "FLOAT")
    at_once = soxr.resample(noise, 44_100, RATE, "HQ")
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav").samples, at_once, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
    gains = np.linspace(0.1, 0.9, channels)  # mean 0.5
    soundfile.write(tmp_path / "a.wav", tone(48_000, gain=1.0)[:, None] * gains, 48_000, "PCM_24")
    sound = audio.load(tmp_path / "a.wav")
    assert_is_tone(sound.samples)
    assert sound.source_channels == channels and f"{channels} channels averaged" in sound.notes


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg", "a.aiff", "a.au"])
def test_formats_of_libsndfile(tmp_path, name):
    soundfile.write(tmp_path / name, tone(), RATE)
    assert_is_tone(audio.load(tmp_path / name).samples, tolerance=0.03)


def write_with_pyav(path, codec, sound=True, video=False, rate=48_000, samples=None):
    """A container that only FFmpeg reads: a stereo tone (or `samples`) and/or five black pictures."""
    import av

    samples = tone(rate, 2.0) if samples is None else samples

    with av.open(str(path), "w") as container:
        if video:
            pictures = container.add_stream("mpeg4", rate=5)
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
        if sound:
            track = container.add_stream(codec, rate=rate, layout="stereo")
        if video:
            for _ in range(5):
                black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                container.mux(pictures.encode(black))
            container.mux(pictures.encode())
        if sound:
            planes = np.tile(samples.astype(np.float32), (2, 1))
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
            frame.sample_rate = rate
            container.mux(track.encode(frame))
            container.mux(track.encode())


@pytest.mark.parametrize("name, codec, video", [
    ("a.webm", "libopus", False), ("a.m4a", "aac", False), ("a.mp4", "aac", True), ("a.aac", "aac", False),
])
def test_containers_only_ffmpeg_reads(tmp_path, name, codec, video):
    write_with_pyav(tmp_path / name, codec, video=video)
    sound = audio.load(tmp_path / name)
    assert sound.duration == pytest.approx(2.0, abs=0.05)
    assert 20 * np.log10(np.sqrt(np.mean(sound.samples[2000:-2000] ** 2))) == pytest.approx(-9.03, abs=0.2)
    spectrum = np.abs(np.fft.rfft(sound.samples[:RATE]))  # bins of 1 Hz
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert (sound.source_rate, sound.source_channels) == (48_000, 2)
    assert any("decoded by FFmpeg" in note for note in sound.notes) and not any("warning" in n for n in sound.notes)


def test_a_bare_aac_stream_is_no_cut_file(tmp_path):
    """FFmpeg takes its length from the bit rate of the start: a soft start promises far more than there is."""
    samples = 0.3 * np.random.default_rng(0).standard_normal(6 * 48_000)
    samples[: 3 * 48_000] = 0.0
    write_with_pyav(tmp_path / "a.aac", "aac", samples=samples)
    sound = audio.load(tmp_path / "a.aac")
    assert sound.duration == pytest.approx(6.0, abs=0.05) and not any("warning" in note for note in sound.notes)


# Unusual samples


@pytest.mark.parametrize("peak", [1.5, 20_000.0])
def test_louder_than_full_scale_is_scaled_not_cut(tmp_path, peak):
    soundfile.write(tmp_path / "a.wav", tone(gain=peak), RATE, "FLOAT")
    sound = audio.load(tmp_path / "a.wav")
    assert np.abs(sound.samples).max() == pytest.approx(1.0)
    assert_is_tone(sound.samples, gain=1.0)
    assert f"scaled down by {20 * np.log10(peak):.1f} dB" in sound.notes[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, bad):
    samples = tone(seconds=3.0)
    samples[40_000] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    with pytest.raises(LabError, match=r"NaN or infinity, first at 2\.500 s"):
        audio.load(tmp_path / "a.wav")


def test_pure_silence_is_read_and_recognized(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    sound = audio.load(tmp_path / "a.wav")
    assert len(sound.samples) == RATE and not sound.samples.any()
    assert loudness.level(sound.samples).all_zero


def test_one_hour(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 8000, 1, "PCM_U8") as out:
        for _ in range(60):
            out.write(tone(8000, 60.0))
    sound = audio.load(tmp_path / "a.wav")
    assert sound.duration == pytest.approx(3600.0, abs=0.001)
    assert_is_tone(sound.samples[-RATE:], tolerance=1e-2)


def test_memory_is_that_of_the_result(tmp_path):
    """20 s of 192 kHz 5.1: 92 MB as float32, 1.28 MB as 16 kHz mono."""
    second = (np.tile(tone(192_000), (6, 1)).T * 32767).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 192_000, 6, "PCM_16") as out:
        for _ in range(20):
            out.write(second)
    del second
    tracemalloc.start()
    try:
        assert audio.load(tmp_path / "a.wav").duration == pytest.approx(20.0, abs=0.001)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 20 * RATE * 4 + 4e6


# Bad files


def expect_error(path, problem, remedy):
    with pytest.raises(LabError, match=problem) as caught:
        audio.load(path)
    assert remedy in caught.value.remedy
    assert str(path) in caught.value.problem and "\n" not in caught.value.problem + caught.value.remedy


def test_no_such_file_a_folder_and_an_empty_file(tmp_path):
    expect_error(tmp_path / "speech.wav", "no such file", "record one with python 01-record-audio-app.py")
    (tmp_path / "speach.wav").touch()
    expect_error(tmp_path / "speech.wav", r"speech\.wav; did you mean .*/speach\.wav\?", "record one with python")
    expect_error(tmp_path / "lecture.wav", r"no such file: .*/lecture\.wav$", "record one with python")
    expect_error(tmp_path, "is a folder", "name a sound file")
    (tmp_path / "empty.wav").touch()
    expect_error(tmp_path / "empty.wav", "is empty", "record it again")


def test_text_named_wav(tmp_path):
    (tmp_path / "a.wav").write_text("no sound here\n" * 100)
    expect_error(tmp_path / "a.wav", "not sound that can be read", "convert it to WAV")


def test_a_list_of_other_files_is_not_followed(tmp_path):
    write_with_pyav(tmp_path / "private.aac", "aac")
    (tmp_path / "a.wav").write_text("ffconcat version 1.0\nfile private.aac\n")
    expect_error(tmp_path / "a.wav", "not sound that can be read", "convert it to WAV")


def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    expect_error(tmp_path / "a.wav", "is a pipe", "save the sound to a file")


def test_video_without_sound(tmp_path):
    write_with_pyav(tmp_path / "a.mp4", None, sound=False, video=True)
    expect_error(tmp_path / "a.mp4", "has no sound track", "with sound in it")


def test_zero_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    expect_error(tmp_path / "a.wav", "holds no samples", "record it again")


@pytest.fixture
def ordinary_user():
    """Root may read everything: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable(tmp_path, request):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "a.wav").chmod(0)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    request.getfixturevalue("ordinary_user")
    expect_error(tmp_path / "a.wav", "cannot read .*Permission denied", "permissions")
    with pytest.raises(LabError, match="Permission denied"):
        audio.find([locked])


def cut(path, keep: int):
    path.write_bytes(path.read_bytes()[:keep])
    return path


def test_cut_wav_uses_what_is_there_and_warns(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", tone(seconds=2.0), RATE)
    whole = audio.load(tmp_path / "a.wav")
    sound = audio.load(cut(tmp_path / "a.wav", 44 + 2 * 12_000))
    np.testing.assert_array_equal(sound.samples, whole.samples[:12_000])
    assert "warning: cut short: the header promises 2.00 s, the file holds 0.75 s" in sound.notes
    assert "cut short" in caplog.text and not any("warning" in note for note in whole.notes)


@pytest.mark.parametrize("keep, problem", [
    (3, "not sound"), (12, "not sound"), (30, "not sound"), (43, "not sound|no samples"), (44, "holds no samples"),
])
def test_cut_header(tmp_path, keep, problem):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    expect_error(cut(tmp_path / "a.wav", keep), problem, "")


def test_wav_from_a_pipe_does_not_know_its_length_and_is_no_cut_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    header = bytearray((tmp_path / "a.wav").read_bytes())
    header[4:8] = header[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(header)
    sound = audio.load(tmp_path / "a.wav")
    assert sound.duration == 1.0 and not any("warning" in note for note in sound.notes)


@pytest.mark.parametrize("name, seconds", [("a.flac", 4.0), ("a.mp3", 4.0), ("a.webm", 2.0)])
def test_cut_compressed_file_uses_what_is_there_and_warns(tmp_path, name, seconds):
    if name == "a.webm":
        write_with_pyav(tmp_path / name, "libopus")
    else:
        soundfile.write(tmp_path / name, tone(seconds=seconds), RATE)
    whole = audio.load(tmp_path / name)
    sound = audio.load(cut(tmp_path / name, (tmp_path / name).stat().st_size // 2))
    assert 0.2 * whole.duration < sound.duration < 0.7 * whole.duration
    np.testing.assert_allclose(sound.samples[:4000], whole.samples[:4000], atol=1e-3)
    # A webm as a browser streams it carries no length, so nothing can be missed.
    assert name == "a.webm" or any("warning" in note for note in sound.notes)


# Limits


@pytest.mark.parametrize("rate", [1, 1999, 800_000, 2**31 - 1])
def test_a_rate_that_carries_no_speech_is_refused_before_anything_is_read(tmp_path, rate):
    """One second at 1 Hz would become 16 000 samples: 20 MB of file 640 GB."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(10_000_000, np.int16), RATE)
    data = path.read_bytes()
    path.write_bytes(data[:24] + rate.to_bytes(4, "little") + data[28:])
    tracemalloc.start()
    try:
        expect_error(path, "claims .* samples a second: speech needs 2000", "play it")
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_two_kilohertz_are_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2000), 2000)
    assert_is_tone(audio.load(tmp_path / "a.wav").samples, tolerance=5e-3)


def test_longer_than_a_working_day_is_refused(tmp_path, monkeypatch):
    """Silence packs into nothing: a small file can last for weeks."""
    monkeypatch.setattr("whisper_lab.sound_files.LONGEST_S", 60.0)
    soundfile.write(tmp_path / "a.flac", np.zeros(61 * 8000), 8000)
    expect_error(tmp_path / "a.flac", "lasts longer than 1 minutes", "cut it")


def test_values_beyond_all_sound_are_refused(tmp_path):
    samples = tone(seconds=3.0)
    samples[40_000] = 3e38
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    expect_error(tmp_path / "a.wav", r"values up to 3e\+38 times full scale, first at 2\.500 s", "record it again")


@pytest.mark.parametrize("gain", [-1.0, -0.9])
def test_channels_of_opposite_phase(tmp_path, gain):
    """A cable soldered the wrong way round: in the average both are gone."""
    soundfile.write(tmp_path / "a.wav", np.stack([gain * tone(), tone()], axis=1), RATE, "PCM_24")
    sound = audio.load(tmp_path / "a.wav")
    assert_is_tone(sound.samples)
    assert "channel 2 alone" in sound.notes[1] and not loudness.level(sound.samples).silent


def test_channels_of_a_quarter_turn_are_averaged(tmp_path):
    turned = 0.5 * np.cos(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), turned], axis=1), RATE, "PCM_24")
    assert "2 channels averaged" in audio.load(tmp_path / "a.wav").notes


# stream


@pytest.mark.parametrize("write", [
    lambda path: soundfile.write(path, tone(44_100, 3.0), 44_100),
    lambda path: soundfile.write(path, 40 * np.stack([tone(), -tone()], axis=1), RATE, "FLOAT"),
    lambda path: write_with_pyav(path, "aac"),
], ids=["wav", "opposite", "aac"])
def test_a_stream_has_the_samples_of_the_whole(tmp_path, write, request):
    path = tmp_path / ("a.mp4" if "aac" in request.node.name else "a.wav")
    write(path)
    whole, parts = audio.load(path), audio.stream(path)
    assert len(parts) == len(whole.samples) and parts.notes == whole.notes and parts.duration == whole.duration
    taken, at = [], 0
    for count in [1, 1600, 7, 5000] * 100:
        taken.append(parts[at:min(at + count, len(parts))])
        at += len(taken[-1])
    np.testing.assert_allclose(np.concatenate(taken), whole.samples, atol=1e-7)
    with pytest.raises(ValueError, match="in order"):
        parts[0:10]


def test_a_stream_takes_the_memory_of_a_block(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as out:
        for _ in range(30):
            out.write(tone(seconds=60.0))
    tracemalloc.start()
    try:
        parts = audio.stream(tmp_path / "a.flac")
        for at in range(0, len(parts), RATE):
            parts[at:min(at + RATE, len(parts))]
        assert tracemalloc.get_traced_memory()[1] < 4e6  # all of it is 115 MB
        parts = audio.stream(tmp_path / "a.flac")
        kept = [parts[at:at + 100] for at in range(0, 60 * RATE, 100)]
        assert tracemalloc.get_traced_memory()[0] < 2 * sum(block.nbytes for block in kept) + 2e6
    finally:
        tracemalloc.stop()


# find


def test_the_suffix_raw_says_nothing(tmp_path):
    """libsndfile takes it for samples without a header, whatever the file holds."""
    path = tmp_path / "clip.raw"
    shutil.copy("media/digits.wav", path)
    np.testing.assert_array_equal(audio.load(path).samples, audio.load("media/digits.wav").samples)
    path.write_text("this is not sound\n" * 20)
    with pytest.raises(LabError, match="clip.raw is not sound that can be read"):
        audio.load(path)


def test_find_expands_folders_in_order_and_keeps_files(tmp_path):
    for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav", "c.webm"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub.wav").mkdir()
    odd = tmp_path / "notes.txt"
    assert audio.find([odd, tmp_path]) == [odd, tmp_path / "a.FLAC", tmp_path / "b.wav", tmp_path / "c.webm"]


def test_find_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    for paths in (["speech.wav"], ["."], ["notes.txt", "."], []):
        with pytest.raises(LabError) as caught:
            audio.find(paths)
        assert "record one with python 01-record-audio-app.py, or name a sound file" in caught.value.remedy


# write_wav


def test_write_wav_rounds_to_the_nearest_step_and_comes_back(tmp_path):
    samples = np.array([0.6, -0.6, 0.4, 100.4, -32768.0, 32767.0, 32768.0], np.float32) / 32768
    assert audio.write_wav(tmp_path / "a.wav", samples) == 0
    steps, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == RATE and soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    assert steps.tolist() == [1, -1, 0, 100, -32768, 32767, 32767]


def test_what_write_wav_wrote_comes_back_exactly(tmp_path):
    steps = np.random.default_rng(0).integers(-32768, 32768, 100_000)
    audio.write_wav(tmp_path / "a.wav", steps / 32768)
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav").samples * 32768, steps)


def test_write_wav_says_how_many_samples_it_clipped(tmp_path):
    assert audio.write_wav(tmp_path / "a.wav", np.array([1.5, -2.0, 0.5, 1.0]), 8000) == 2
    steps, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == 8000 and steps.tolist() == [32767, -32768, 16384, 32767]


def test_write_wav_leaves_the_old_file_when_it_fails(tmp_path):
    audio.write_wav(tmp_path / "a.wav", tone())
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(LabError, match="NaN"):
        audio.write_wav(tmp_path / "a.wav", np.append(tone(seconds=3.0), np.nan))
    assert (tmp_path / "a.wav").read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]
    with pytest.raises(ValueError, match="samples must be float"):
        audio.write_wav(tmp_path / "a.wav", np.zeros(3, np.int16))


def test_write_wav_into_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot write"):
        audio.write_wav(tmp_path / "file" / "a.wav", tone())


def test_write_wav_on_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on the size of files fails in the middle of writing, as a full disk does."""
    audio.write_wav(tmp_path / "a.wav", tone())
    before, limits = (tmp_path / "a.wav").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(LabError, match="cannot write"):
            audio.write_wav(tmp_path / "a.wav", tone(seconds=10.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a.wav").read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]


def test_write_wav_is_readable_by_others(tmp_path):
    audio.write_wav(tmp_path / "a.wav", tone())
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


# level


@pytest.mark.parametrize("samples, silent, advice", [
    (tone(), False, None),
    (np.zeros(RATE), True, "pure silence"),
    (np.zeros(0), True, "pure silence"),
    (tone(gain=3e-4), True, "near silence"),
    (tone(gain=0.01), False, "very quiet .*closer to the microphone"),
    (np.clip(tone(gain=3.0), -1, 1), False, "clipped"),
])
def test_level_advice(samples, silent, advice):
    found = loudness.level(samples)
    assert found.silent is silent and found.all_zero is (not samples.any())
    json.dumps(vars(found), allow_nan=False)
    if advice is None:
        assert found.advice is None
    else:
        assert re.search(advice, found.advice)


def test_level_values():
    found = loudness.level(tone(seconds=5.0))
    assert (found.rms_dbfs, found.peak_dbfs, found.clipped_fraction) == (-9.03, -6.02, 0.0)
    half = loudness.level(np.tile(np.float32([1.0, 0.0, -1.0, 0.0]), 20_000))
    assert (half.rms_dbfs, half.peak_dbfs, half.clipped_fraction) == (-3.01, 0.0, 0.5)
    nothing = loudness.level(np.zeros(10))
    assert nothing.rms_dbfs is None and nothing.peak_dbfs is None
