"""08 --input wav: a graph that reads a WAV file itself, as soundfile does, and says what it cannot read."""

import io
import re
import struct

import numpy as np
import onnx
import pytest
import soundfile

from tests.helpers.single_nano import part, script, written
from tests.test_single import MEDIA, pair_says
from whisper_lab import audio
from whisper_lab.features import FeatureSpec
from whisper_lab.single import graph
from whisper_lab.single import wav as single_wav
from whisper_lab.single.blocks import FLOAT, UINT8

NOISE = (0.4 * np.random.default_rng(0).standard_normal(3000)).clip(-1, 1 - 2**-15)


@pytest.fixture(scope="module")
def read():
    """The bytes of a file -> samples, by the graph's own nodes."""
    spec = FeatureSpec(80, 400, 160, 16000, 480000)
    graph = part(lambda block, given: single_wav.samples(block, given, spec), UINT8, ["bytes"], FLOAT, [1, "n"])
    return lambda data: graph(np.frombuffer(data, np.uint8))


def wav(samples=NOISE, rate=16000, subtype="PCM_16", form="WAV") -> bytes:
    with io.BytesIO() as file:
        soundfile.write(file, samples, rate, subtype=subtype, format=form)
        return file.getvalue()


def chunk(name: bytes, contents: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(contents) if size is None else size) + contents + bytes(len(contents) % 2)


def parts(data: bytes = wav()) -> tuple[bytes, bytes]:
    """The contents of the chunks fmt and data of a plain file."""
    assert (data[12:16], data[36:40]) == (b"fmt ", b"data")
    return data[20:36], data[44:]


def riff(*chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)


def test_every_sample_as_soundfile_reads_it(read):
    every = np.arange(-32768, 32768) / 32768
    for data in (wav(), wav(every), wav(NOISE[:1]), wav(np.stack([NOISE, -NOISE / 2], 1)), wav(form="WAVEX"),
                 wav(np.tile(NOISE[:600, None], 6), form="WAVEX")):
        expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].mean(1)
        np.testing.assert_allclose(read(data)[0], expected, atol=1e-6)
    np.testing.assert_array_equal(read(wav(every))[0], every.astype(np.float32))
    assert read(wav(NOISE[:0])).shape == (1, 0)


def test_chunks_stand_in_any_place_and_sizes_may_be_wrong(read):
    form, data = parts()
    expected = read(wav())
    odd, fmt, sound = chunk(b"LIST", b"INFOabc"), chunk(b"fmt ", form), chunk(b"data", data)
    for made in (riff(odd, fmt, odd, sound), riff(fmt, odd, sound, odd), riff(chunk(b"JUNK", b"data" * 9), fmt, sound),
                 riff(sound, fmt), riff(fmt, chunk(b"data", data, 0xFFFFFFFF))):
        np.testing.assert_array_equal(read(made), expected)
    np.testing.assert_array_equal(read(riff(fmt, sound)[:-1001]), expected[:, :-501])  # cut off within a sample


@pytest.mark.parametrize(("data", "words"), [
    (b"", "the bytes must be those of a WAV file"),
    (b"RIFF", "the bytes must be those of a WAV file"),
    (b"this is a text, and no sound at all" * 9, "the bytes must be those of a WAV file"),
    (wav(form="FLAC"), "the bytes must be those of a WAV file"),
    (wav(rate=44100), "the WAV file must have 16000 samples a second"),
    (wav(subtype="PCM_24"), "the WAV file must hold 16-bit PCM"),
    (wav(subtype="PCM_U8"), "the WAV file must hold 16-bit PCM"),
    (wav(subtype="FLOAT"), "the WAV file must hold 16-bit PCM"),
    (wav()[:22] + b"\0\0" + wav()[24:], "the WAV file must hold 16-bit PCM"),  # no channels
    (wav()[:30], "the WAV file ends within its header"),
    (riff(chunk(b"fmt ", parts()[0])), "the WAV file has no chunk data"),
    (riff(chunk(b"data", parts()[1])), "the WAV file has no chunk fmt"),
])
def test_what_it_cannot_read_it_says(read, data, words):
    with pytest.raises(Exception, match="(?s).*") as caught:
        read(data)
    assert message(caught.value).startswith(words)


def message(error: Exception) -> str:
    """What a failing node of ours says of itself: its name begins with `error: `."""
    return re.search(r"Name:'error: ([^']+)'", str(error)).group(1)


def test_nano_from_file_to_text(nano_export, call_script):
    nano = written(nano_export)
    command = ("08-single-onnx-model.py", "--model", "nano", "--precision", "int8", "--input", "wav", "--model-dir",
               nano.folder)
    status, out, err = call_script(*command)
    assert status == 0 and "end_to_end_wav_int8.onnx" in out, err
    path = graph.path_of(nano.folder, "whisper-nano", "int8", "wav")
    assert graph.operators(path) == "standard"
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = graph.open_graph(path, 1)
    assert [(value.name, value.type) for value in session.get_inputs()] == [("wav", "tensor(uint8)")]
    for clip in sorted(MEDIA.glob("*.wav")):
        text, tokens = session.run(None, {"wav": np.fromfile(clip, np.uint8)})
        expected = pair_says(nano.whisper, audio.load(clip).samples)
        assert (list(text), tokens.tolist()) == ([expected.text], expected.tokens)
    status, out, err = call_script(command[0], "run", MEDIA / "kitchen.wav", *command[1:])
    expected = pair_says(nano.whisper, audio.load(MEDIA / "kitchen.wav").samples).text
    assert (status, out) == (0, f"{script().FEW_LINES}\n{expected}\n"), err
    status, out, err = call_script(command[0], "run", MEDIA / "kitchen.wav", path, "--quiet")  # whatever --input says
    assert (status, out) == (0, f"{expected}\n"), err
