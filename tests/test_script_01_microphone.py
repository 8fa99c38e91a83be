"""01 --cli: through PortAudio on a virtual device of ALSA, and through a stream that behaves as badly as needed."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisper_lab import flags, microphone

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "01-record-audio-app.py"
RATE = 16_000  # Hz
DEVICE_RATE = 44_100  # Hz; PortAudio's default for ALSA devices
ALSA = "/usr/share/alsa/alsa.conf"


def pitch(path):
    """The strongest frequency of a file that must be 16 kHz, mono, 16-bit; in Hz."""
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    samples = soundfile.read(path)[0]
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


# PortAudio itself ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def virtual(tmp_path_factory):
    """The environment of an ALSA with one microphone, which plays a tone of 500 Hz from a file (and never waits)."""
    loads = [sys.executable, "-c", "import sounddevice"]
    if subprocess.run(loads, capture_output=True).returncode and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "libportaudio2"], capture_output=True, timeout=120)
    if subprocess.run(loads, capture_output=True).returncode:
        pytest.skip("no PortAudio here: apt-get install libportaudio2")
    if not Path(ALSA).is_file():
        pytest.skip(f"no {ALSA}: this system has no ALSA")
    folder = tmp_path_factory.mktemp("alsa")
    t = np.arange(20 * DEVICE_RATE) / DEVICE_RATE
    (8192 * np.sin(2 * np.pi * 500 * t)).astype("<i2").tofile(folder / "tone.raw")
    (folder / "asound.conf").write_text(
        f'<{ALSA}>\npcm.virtual {{ type file\n slave.pcm "null"\n file "/dev/null"\n format "raw"\n'
        f' infile "{folder / "tone.raw"}" }}\n')
    return {"ALSA_CONFIG_PATH": str(folder / "asound.conf")}


def test_portaudio_records_from_a_virtual_device(run_script, virtual, tmp_path):
    for seconds in (1.5, 2):
        run = run_script(SCRIPT, "--cli", "--seconds", seconds, "--json", "a.json", cwd=tmp_path, **virtual)
        assert run.returncode == 0, run.stderr
    assert "microphone: 0 virtual (the system's default" in run.stderr and "recording: " in run.stderr
    assert abs(pitch(tmp_path / "speech.wav") - 500) < 1
    assert soundfile.info(tmp_path / "speech.wav").frames == pytest.approx(2 * RATE, abs=2)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["dropouts"] == 0 and document["duration_s"] == 2 and str(tmp_path) not in json.dumps(document)
    assert document["level"]["peak_dbfs"] == pytest.approx(20 * np.log10(0.25), abs=0.5)
    kept = [path.name for path in (tmp_path / "recordings").iterdir()]
    assert [document["previous"]] == [f"recordings/{name}" for name in kept]
    assert soundfile.info(tmp_path / "recordings" / kept[0]).frames == pytest.approx(1.5 * RATE, abs=2)


def test_portaudio_lists_and_refuses_devices(run_script, virtual, tmp_path):
    listed = run_script(SCRIPT, "--list-devices", cwd=tmp_path, **virtual)
    assert listed.returncode == 0 and re.search(r"0 \(default\)\s+virtual", listed.stdout)
    for wrong in ("nobody", "7"):
        run = run_script(SCRIPT, "--cli", "--microphone", wrong, "--seconds", "1", cwd=tmp_path, **virtual)
        assert run.returncode == 1 and run.stdout == "" and "--list-devices" in run.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_portaudio_options_of_the_exercise(run_script, virtual, tmp_path):
    run = run_script(SCRIPT, "--cli", "--seconds", "1", "--latency", "0.01", "--blocksize", "64",
                     "--microphone", "virtual", cwd=tmp_path, **virtual)
    assert run.returncode == 0 and "(--microphone asks for it)" in run.stderr, run.stderr
    assert abs(pitch(tmp_path / "speech.wav") - 500) < 1


def test_a_machine_without_a_microphone(run_script, virtual, tmp_path):
    (tmp_path / "none.conf").write_text(f"<{ALSA}>\n")
    for command in (["--cli"], ["--list-devices"]):
        run = run_script(SCRIPT, *command, cwd=tmp_path, ALSA_CONFIG_PATH=str(tmp_path / "none.conf"))
        if run.returncode == 0:
            pytest.skip("this machine has a real microphone")
        assert "error: PortAudio finds no microphone on this machine\n  try: record in a browser instead: python " \
            in run.stderr


@pytest.mark.parametrize(("code", "said"), [("raise OSError('PortAudio library not found')", "libportaudio2"),
                                            ("raise ImportError('no module')", "requirements.txt")])
def test_without_portaudio_the_browser_is_named(run_script, tmp_path, code, said):
    (tmp_path / "sounddevice.py").write_text(code)
    run = run_script(SCRIPT, "--cli", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert run.returncode == 1 and re.fullmatch(r"error: .*\n  try: .*\n", run.stderr)
    assert said in run.stderr and "python 01-record-audio-app.py" in run.stderr


# A stream that behaves badly -----------------------------------------------------------------------------------------

class Status:
    def __init__(self, input_overflow=False):
        self.input_overflow = input_overflow


class FakeDevice:
    """The part of sounddevice that 01 uses. `play` yields (block, overflowed) as the device would deliver them."""

    class PortAudioError(Exception):
        pass

    class CallbackStop(Exception):
        pass

    default = types.SimpleNamespace(device=[0, 0])

    def __init__(self, play, channels=1, opens=True):
        self.play, self.channels, self.opens = play, channels, opens

    def query_devices(self, device=None, kind=None):
        one = {"index": 0, "name": "fake", "default_samplerate": float(RATE), "max_input_channels": self.channels}
        return one if kind else [one]

    def check_input_settings(self, channels, **_):
        if channels != self.channels:
            raise self.PortAudioError("Invalid number of channels")

    def InputStream(self, callback, **settings):  # noqa: N802 (the name in sounddevice)
        if not self.opens:
            raise self.PortAudioError("Error opening InputStream: Device unavailable [PaErrorCode -9985]")
        self.settings = settings
        return FakeStream(self, callback)


class FakeStream:
    latency = 0.02  # s

    def __init__(self, device, callback):
        self.device, self.callback, self.active, self.wanted = device, callback, False, True

    def __enter__(self):
        self.active = True
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def run(self):
        try:
            for block, overflowed in self.device.play():
                if not self.wanted:
                    break
                self.callback(block, len(block), None, Status(overflowed))
                block[:] = 12345  # PortAudio uses its memory again: who did not copy has noise now
        except FakeDevice.CallbackStop:
            pass
        self.active = False

    def stop(self):
        self.wanted = False
        self.thread.join()


def blocks(seconds, size=1600, channels=1, hertz=500, overflows=(), pause=0.0):
    """A generator function of a tone in blocks; `overflows`: numbers of blocks before which sound was lost."""
    def play():
        t = np.arange(size) / RATE
        for i in range(round(seconds * RATE / size)):
            tone = 8192 * np.sin(2 * np.pi * hertz * (t + i * size / RATE))
            yield np.repeat(tone[:, None], channels, axis=1).astype(np.int16), i in overflows
            time.sleep(pause)

    return play


@pytest.fixture
def record(monkeypatch, tmp_path, call_script):
    """A function (fake device, *arguments) -> (exit status, stdout, stderr); speech.wav goes to tmp_path."""
    def call(device, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(microphone, "import_sounddevice", lambda: device)
        monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 (its end is not Enter)
        return call_script(SCRIPT, "--cli", *arguments)

    return call


def test_everything_that_was_delivered_is_in_the_file(record, tmp_path):
    status, out, err = record(FakeDevice(blocks(3)))
    assert status == 0 and "dropouts    0" in out
    samples = soundfile.read(tmp_path / "speech.wav", dtype="int16")[0]
    expected = np.concatenate([block[:, 0] for block, _ in blocks(3)()])
    np.testing.assert_allclose(samples, expected, atol=1)


def test_dropouts_are_counted(record):
    status, out, err = record(FakeDevice(blocks(1, overflows=(2, 5, 6))))
    assert status == 0 and "dropouts    3" in out
    assert "warning: 3 dropouts: the processor came too late" in err and "--blocksize" in err


def test_a_disk_that_is_too_slow_is_counted_too(record, monkeypatch):
    script = importlib.import_module(SCRIPT.removesuffix(".py"))
    monkeypatch.setattr(script, "LONGEST_QUEUE", 0.25)  # s
    slow = microphone.Bar.show
    monkeypatch.setattr(microphone.Bar, "show", lambda *args: (time.sleep(0.05), slow(*args)))
    status, out, err = record(FakeDevice(blocks(1)))
    lost = int(re.search(r"dropouts    (\d+)", out)[1])
    assert status == 0 and 0 < lost < 9 and f"{lost} blocks lost: the disk was too slow" in err


def test_a_microphone_that_only_has_two_channels(record, tmp_path):
    device = FakeDevice(blocks(1, channels=2), channels=2)
    status, out, _ = record(device)
    assert status == 0 and device.settings["channels"] == 2 and "2 channels averaged" in out
    assert abs(pitch(tmp_path / "speech.wav") - 500) < 1


def test_the_exercise_reaches_portaudio(record):
    device = FakeDevice(blocks(1))
    record(device, "--latency", "low", "--blocksize", "128")
    assert (device.settings["latency"], device.settings["blocksize"], device.settings["dtype"]) == ("low", 128, "int16")
    record(device, "--latency", "0.005")
    assert (device.settings["latency"], device.settings["blocksize"]) == (0.005, 0)


@pytest.mark.parametrize("how", ["Enter", "Ctrl-C"])
def test_it_ends_when_told_to(tmp_path, how):
    """In a process of its own with a microphone that never ends: what was spoken until then is saved."""
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import importlib
import test_script_01_microphone as fake
from whisper_lab import console
fake.microphone.import_sounddevice = lambda: fake.FakeDevice(fake.blocks(600, pause=0.1))
console.run(lambda: importlib.import_module("01-record-audio-app").main(["--cli"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stderr:
        if line.startswith("recording"):
            break
    time.sleep(1)
    if how == "Ctrl-C":
        process.send_signal(2)
    out, err = process.communicate("\n" if how == "Enter" else None, timeout=20)
    assert process.returncode == 0 and "saved       speech.wav" in out, err
    assert 0.3 < soundfile.info(tmp_path / "speech.wav").duration < 15 and abs(pitch(tmp_path / "speech.wav") - 500) < 2


def test_an_unplugged_microphone_ends_the_recording(record, monkeypatch, tmp_path):
    monkeypatch.setattr(microphone, "SILENT_DEVICE", 0.2)

    def play():
        yield from blocks(1)()
        time.sleep(1)

    status, out, err = record(FakeDevice(play))
    assert status == 0 and "unplugged?" in err and soundfile.info(tmp_path / "speech.wav").duration == 1


def test_nothing_came_and_nothing_is_changed(record, tmp_path):
    (tmp_path / "speech.wav").write_bytes(b"old")
    status, _, err = record(FakeDevice(blocks(0)))
    assert status == 1 and "not one sample came from fake" in err
    status, _, err = record(FakeDevice(blocks(1), opens=False))
    assert status == 1 and "error: cannot record from fake: Error opening InputStream: Device unavailable\n" in err
    assert (tmp_path / "speech.wav").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_the_file_on_disk_is_whole_while_recording(record, tmp_path):
    """A killed recorder leaves what it had: the header is right at every moment."""
    seen = []

    def play():
        for i, one in enumerate(blocks(3)()):
            yield one
            time.sleep(0.02)
            if i == 20:
                seen.extend(soundfile.info(path).frames for path in tmp_path.glob(".*/*.wav"))

    assert record(FakeDevice(play))[0] == 0
    assert len(seen) == 1 and seen[0] > RATE


def test_a_long_recording_costs_no_memory(record, tmp_path):
    play = blocks(1200, size=RATE, pause=0.001)
    record(FakeDevice(blocks(1)))  # imports
    tracemalloc.start()
    try:
        assert record(FakeDevice(play))[0] == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert soundfile.info(tmp_path / "speech.wav").duration > 1100  # a busy machine may lose a block, and says so
    assert peak < 10e6  # bytes; the recording has 38 million


def test_the_level_meter():
    assert microphone.bar(None) == "[" + " " * 30 + "] "
    assert microphone.bar(-30.0).count("#") == 15 and microphone.bar(-200.0).count("#") == 0
    assert microphone.bar(0.0) == "[" + "#" * 30 + "]!"


def test_the_meter_is_shown_on_a_terminal_only(monkeypatch, capsys):
    flags.parse(flags.parser("", "quiet", "log_level"), [])
    for terminal in (True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        bar = microphone.Bar()
        bar.show(np.full(100, 0.5, np.float32), 1.0)
        bar.end()
        assert ("-6.0 dBFS" in capsys.readouterr().err) == terminal
