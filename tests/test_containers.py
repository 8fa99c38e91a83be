"""A file that ends too early says so, whatever its container; a header that never got its length costs nothing."""

import struct

import numpy as np
import pytest
import soundfile

from tests.helpers.bad_sound import patched
from whisper_lab import audio, containers

RATE = 16_000
SECONDS = 8.0
NOISE = 0.2 * np.clip(np.random.default_rng(0).standard_normal(round(SECONDS * RATE)), -3, 3)
OF_LIBSNDFILE = {"a.wav": ("WAV", None), "wavex.wav": ("WAVEX", None), "adpcm.wav": ("WAV", "MS_ADPCM"),
                 "a.aiff": ("AIFF", None), "float.aiff": ("AIFF", "FLOAT"), "a.au": ("AU", None),
                 "a.caf": ("CAF", None), "alac.caf": ("CAF", "ALAC_16"), "a.w64": ("W64", None),
                 "a.rf64": ("RF64", None),
                 "vorbis.ogg": ("OGG", "VORBIS"), "opus.ogg": ("OGG", "OPUS"), "a.flac": ("FLAC", None),
                 "a.mp3": ("MP3", None), "a.svx": ("SVX", None), "a.voc": ("VOC", None), "a.nist": ("NIST", None)}
OF_FFMPEG = {"a.webm": ("webm", "libopus", {}), "live.webm": ("webm", "libopus", {"live": "1"}),
             "a.mkv": ("matroska", "aac", {}),
             "fast.m4a": ("ipod", "aac", {"movflags": "faststart"}),
             "fragments.mp4": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
             "a.aac": ("adts", "aac", {}), "noxing.mp3": ("mp3", "libmp3lame", {"write_xing": "0"}),
             "a.avi": ("avi", "pcm_s16le", {})}


def write(path):
    """Eight seconds of noise in the container that the name asks for."""
    if path.name in OF_LIBSNDFILE:
        kind, subtype = OF_LIBSNDFILE[path.name]
        soundfile.write(path, NOISE, RATE, subtype, format=kind)
        return path
    import av

    kind, codec, options = OF_FFMPEG[path.name]
    with av.open(str(path), "w", format=kind, options=options) as container:
        track = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(NOISE[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        as_wanted = av.AudioResampler(format=track.codec_context.format.name, layout="mono", rate=48_000,
                                      frame_size=track.codec_context.frame_size or 1024)
        for piece in as_wanted.resample(frame) + as_wanted.resample(None):
            container.mux(track.encode(piece))
        container.mux(track.encode(None))
    return path


def warnings(sound):
    return [note for note in sound.notes if note.startswith("warning: ")]


@pytest.mark.parametrize("name", [*OF_LIBSNDFILE, *OF_FFMPEG])
def test_cut_in_the_middle_says_so_and_whole_does_not(tmp_path, name):
    path = write(tmp_path / name)
    whole = audio.load(path)
    assert whole.duration == pytest.approx(SECONDS, abs=0.1) and warnings(whole) == []
    data = path.read_bytes()
    for kept in (0.5, 0.93):
        path.write_bytes(data[:int(len(data) * kept)])
        sound = audio.load(path)
        said, = warnings(sound)
        assert "cut short" in said or "damaged after" in said
        assert f"{sound.duration:.2f} s" in said
        assert (kept - 0.15) * SECONDS < sound.duration < (kept + 0.05) * SECONDS


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.caf", "a.w64", "a.rf64"])
def test_of_linear_samples_the_warning_knows_what_is_missing(tmp_path, name):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    assert f"the header promises {SECONDS:.2f} s, the file holds" in warnings(audio.load(path))[0]


@pytest.mark.parametrize("name", ["a.wav", "wavex.wav", "a.aiff", "a.au", "a.caf", "a.w64", "a.rf64", "a.flac"])
def test_what_a_killed_recorder_leaves_is_read(tmp_path, name):
    """libsndfile writes the length when the file is closed."""
    writing = tmp_path / f"writing-{name}"
    kind, subtype = OF_LIBSNDFILE[name]
    with soundfile.SoundFile(writing, "w", RATE, 1, subtype, format=kind) as out:
        out.write(NOISE)
        (tmp_path / name).write_bytes(writing.read_bytes())
    sound = audio.load(tmp_path / name)
    assert sound.duration == pytest.approx(SECONDS, abs=0.1) and warnings(sound) == []
    np.testing.assert_allclose(sound.samples[:8000], NOISE[:8000], atol=1e-4)


@pytest.mark.parametrize("says", [0, 2_000_000_000, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB])
@pytest.mark.parametrize("riff", ["right", "with it"])
def test_a_length_that_is_none(tmp_path, says, riff):
    path = write(tmp_path / "a.wav")
    data = patched(path.read_bytes(), 40, struct.pack("<I", says))
    if riff == "with it":
        data = patched(data, 4, struct.pack("<I", min(says + 36, 0xFFFFFFFF) if says else 0))
    path.write_bytes(data)
    sound = audio.load(path)
    assert sound.duration == SECONDS and warnings(sound) == []
    assert any("knows no length" in note for note in sound.notes) == (says == 0)


def test_no_samples_and_a_title_are_no_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    with open(tmp_path / "a.wav", "ab") as file:
        file.write(b"LIST\x0c\x00\x00\x00INFOICMT\x00\x00\x00\x00")
    with pytest.raises(audio.LabError, match="holds no samples"):
        audio.load(tmp_path / "a.wav")


def test_a_title_after_the_sound_is_no_sound(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.wav", "w", RATE, 1) as out:
        out.write(NOISE)
        out.title = "a title"
    sound = audio.load(tmp_path / "a.wav")
    assert sound.duration == SECONDS and warnings(sound) == []


def test_the_lab_s_own_clips_are_whole():
    from pathlib import Path

    clips = audio.find([Path(__file__).resolve().parent.parent / "media"])
    assert clips
    for clip in clips:
        with open(clip, "rb") as file:
            ends = containers.examine(file)
        assert not ends.inside and ends.patch is None and ends.promised == ends.there
