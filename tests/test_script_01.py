"""01-record-audio-app.py without a browser: what happens to the sound, what is kept, what is refused."""

import importlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_audio import write_with_pyav

from tests.helpers.bad_sound import KINDS, bad_file
from tests.helpers.onnx_grain import NAME, exported
from whisper_lab import audio, console, locks, loudness, transcribe
from whisper_lab.console import LabError
from whisper_lab.decoding import Options
from whisper_lab.features import FeatureSpec
from whisper_lab.record import app, certificate, facts, picture, save, serve
from whisper_lab.record.listener import GRAPHS, PYTORCH, Listener
from whisper_lab.record.serve import Settings

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "01-record-audio-app.py"
RATE = 16_000  # Hz
LIMIT = 300  # s


def tone(rate=RATE, seconds=2.0, hertz=440.0, gain=0.25):
    return gain * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def pitch(samples):
    """The strongest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


@pytest.fixture(scope="module")
def lesson():
    return importlib.import_module(SCRIPT.removesuffix(".py"))


def saved_file(path):
    """Samples of a file that must be 16 kHz, mono, 16-bit."""
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.format) == (RATE, 1, "PCM_16", "WAV")
    return soundfile.read(path, dtype="float32")[0]


# What happens to the sound -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("rate", "subtype", "channels"), [
    (8_000, "PCM_U8", 1), (16_000, "PCM_16", 1), (44_100, "PCM_16", 2), (48_000, "PCM_24", 2), (96_000, "PCM_32", 1),
    (48_000, "FLOAT", 6), (192_000, "DOUBLE", 1)])
def test_every_kind_of_wav_becomes_the_same(lesson, tmp_path, rate, subtype, channels):
    soundfile.write(tmp_path / "in.wav", np.stack([tone(rate)] * channels, axis=1), rate, subtype)
    saved, samples = lesson.convert(tmp_path / "in.wav", tmp_path / "speech.wav", LIMIT)
    written = saved_file(tmp_path / "speech.wav")
    np.testing.assert_allclose(written, samples, atol=1 / 32768)
    assert len(written) == pytest.approx(2 * RATE, abs=2) and abs(pitch(written) - 440) < 1
    assert saved.level.peak_dbfs == pytest.approx(20 * np.log10(0.25), abs=0.3)  # as it came: not made louder
    assert (saved.source_rate, saved.source_channels, saved.dropouts) == (rate, channels, None)
    assert any(f"{rate} Hz -> 16000 Hz" in note for note in saved.notes) == (rate != RATE)
    assert any("channels averaged" in note for note in saved.notes) == (channels > 1)


@pytest.mark.parametrize(("name", "codec"), [("in.webm", "libopus"), ("in.m4a", "aac")])
def test_what_browsers_and_telephones_record(lesson, tmp_path, name, codec):
    write_with_pyav(tmp_path / name, codec)
    saved, _ = lesson.convert(tmp_path / name, tmp_path / "speech.wav", LIMIT)
    assert abs(pitch(saved_file(tmp_path / "speech.wav")) - 440) < 2
    assert saved.duration == pytest.approx(2, abs=0.05) and any("FFmpeg" in note for note in saved.notes)


def test_no_tone_above_8_khz_comes_back_as_another(lesson, tmp_path):
    soundfile.write(tmp_path / "in.wav", tone(48_000, hertz=10_000), 48_000)
    lesson.convert(tmp_path / "in.wav", tmp_path / "speech.wav", LIMIT)
    middle = saved_file(tmp_path / "speech.wav")[1000:-1000]  # the tone's sudden start and end are clicks
    assert loudness.level(middle).silent


@pytest.mark.parametrize("kind", [*KINDS, "hour"])
def test_bad_recordings_are_refused_and_the_old_one_stays(lesson, tmp_path, kind):
    (tmp_path / "speech.wav").write_bytes(b"old")
    with pytest.raises(LabError) as caught:
        lesson.convert(bad_file(kind, tmp_path), tmp_path / "speech.wav", LIMIT)
    assert (tmp_path / "speech.wav").read_bytes() == b"old" and not (tmp_path / save.KEPT).exists()
    assert kind != "hour" or "longer than 5 minutes" in caught.value.problem
    shown = facts.trouble(caught.value, str(tmp_path / f"{kind}.wav"))
    assert str(tmp_path) not in shown and "lab-advice" in shown  # where uploads lie is nobody's business


def test_a_recording_cut_short_is_saved_with_a_warning(lesson, tmp_path):
    soundfile.write(tmp_path / "in.wav", tone(), RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "in.wav").read_bytes()[:30_000])
    saved, _ = lesson.convert(tmp_path / "cut.wav", tmp_path / "speech.wav", LIMIT)
    assert any("cut short" in note for note in saved.notes) and saved.duration < 1


@pytest.mark.parametrize(("gain", "advice"), [(0.0, "pure silence"), (5e-4, "near silence"), (0.01, "move closer"),
                                              (4.0, "clipped"), (0.25, None)])
def test_advice(lesson, tmp_path, gain, advice):
    soundfile.write(tmp_path / "in.wav", np.clip(tone(gain=gain), -1, 1), RATE)
    saved, _ = lesson.convert(tmp_path / "in.wav", tmp_path / "speech.wav", LIMIT)
    assert advice in saved.level.advice if advice else saved.level.advice is None
    page, rows = facts.as_html(saved), dict(facts.rows(saved))
    assert (advice or "level: peak -12.0 dBFS, not clipped") in page and "good" not in page
    assert ("nothing above" in rows["silence"]) == (gain < 0.001) and (rows["clipping"] == "no") == (gain < 1)
    json.dumps(saved.document(), allow_nan=False)


def test_a_level_at_full_scale_is_not_praised(lesson, tmp_path):
    """One sample too loud is no reason for advice, but it is said; a peak of 0.0 dBFS was called a good level."""
    samples = tone()
    samples[1000] = 1.0
    soundfile.write(tmp_path / "in.wav", samples, RATE)
    saved, _ = lesson.convert(tmp_path / "in.wav", tmp_path / "speech.wav", LIMIT)
    assert saved.level.advice is None
    page = facts.as_html(saved)
    assert "level: peak 0.0 dBFS, 0.0031 % of the samples at full scale, too few to be heard" in page
    assert "good" not in page and "lab-advice" not in page


@pytest.mark.parametrize(("gain", "said"), [(0.99, "peak -0.1 dBFS, not clipped, but a louder word would be"),
                                            (0.5, "peak -6.0 dBFS, not clipped"), (0.0, "peak digital silence")])
def test_the_level_line_names_the_peak(gain, said):
    line = facts.level_line(loudness.level(tone(gain=gain).astype(np.float32)))
    assert line.startswith(f"level: {said}") and ("louder" in line) == (gain > 0.9)


# What is kept --------------------------------------------------------------------------------------------------------

def test_the_previous_recording_is_kept_under_the_time_it_was_made(tmp_path):
    path = tmp_path / "speech.wav"
    for content in (b"one", b"two", b"three"):
        with save.replacing(path) as place:
            place.temporary.write_bytes(content)
        os.utime(path, (1.7e9, 1.7e9))  # all in the same second
    kept = sorted((tmp_path / save.KEPT).iterdir())
    assert path.read_bytes() == b"three" and {one.read_bytes() for one in kept} == {b"one", b"two"}
    assert all(re.fullmatch(r"speech-2023-11-1[45]-\d{6}(-2)?\.wav", one.name) for one in kept)
    assert stat.S_IMODE(path.stat().st_mode) & 0o400 and len(list(tmp_path.iterdir())) == 2


def test_many_people_at_once_lose_nothing(lesson, tmp_path):
    for i in range(8):
        audio.write_wav(tmp_path / f"{i}.wav", tone(seconds=0.5, hertz=300 + 100 * i).astype(np.float32))
    threads = [threading.Thread(target=lesson.convert, args=(tmp_path / f"{i}.wav", tmp_path / "speech.wav", LIMIT))
               for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [tmp_path / "speech.wav", *(tmp_path / save.KEPT).iterdir()]
    assert sorted(round(pitch(saved_file(path)), -1) for path in found) == [300 + 100 * i for i in range(8)]


def test_killed_while_saving_there_is_the_old_or_the_new(tmp_path):
    """A process saves two recordings in turn, as fast as it can, and is killed at some moment; six times."""
    names = ["one", "two"]
    for name, hertz in zip(names, (300, 600), strict=True):
        audio.write_wav(tmp_path / f"{name}.wav", tone(seconds=20, hertz=hertz).astype(np.float32))
    code = ("import importlib, itertools, sys; from pathlib import Path\n"
            f"lesson = importlib.import_module('{SCRIPT.removesuffix('.py')}')\n"
            "for name in itertools.cycle(['one', 'two']):\n"
            "    lesson.convert(Path(name + '.wav'), Path('speech.wav'), 300)\n"
            "    print(flush=True)")
    whole = {(tmp_path / f"{name}.wav").read_bytes() for name in names}
    for i in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE,
                                   env={**os.environ, "PYTHONPATH": str(ROOT)})
        process.stdout.readline()
        time.sleep(0.011 * i)
        process.kill()
        process.communicate()
        assert (tmp_path / "speech.wav").read_bytes() in whole
        assert all(path.read_bytes() in whole for path in tmp_path.glob(f"{save.KEPT}/*.wav"))


def test_a_place_that_cannot_be_written_is_one_error(lesson, tmp_path):
    soundfile.write(tmp_path / "in.wav", tone(), RATE)
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot write"):
        lesson.convert(tmp_path / "in.wav", tmp_path / "file" / "speech.wav", LIMIT)
    (tmp_path / save.KEPT).write_text("not a folder")
    (tmp_path / "speech.wav").write_bytes(b"old")
    with pytest.raises(LabError, match="cannot keep the previous recording"):
        lesson.convert(tmp_path / "in.wav", tmp_path / "speech.wav", LIMIT)
    assert (tmp_path / "speech.wav").read_bytes() == b"old"


# Picture and transcript ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seconds", [0.05, 3, 25])
def test_the_picture_shows_the_whole_recording(nano, tmp_path, seconds):
    from matplotlib.image import imread

    spec, samples = FeatureSpec.from_folder(nano), tone(seconds=seconds).astype(np.float32)
    assert picture.features(samples, spec).shape == (spec.n_mels, round(seconds * 100))
    assert imread(picture.draw(samples, spec, "whisper-nano", tmp_path / "a.png")).shape == (750, 1200, 4)
    narrow = picture.draw(samples, spec, "whisper-nano", tmp_path / "b.png", picture.NARROW)
    assert imread(narrow).shape == (880, 728, 4)


def test_graphs_first_and_both_say_the_same(random_model, nano):
    work = exported(random_model, nano)
    listener = Listener(str(work / NAME), str(work / "graphs"), "en", 1)
    assert listener.choices() == [*(GRAPHS + precision for precision in ("int8", "fp32", "fp16", "int4")), PYTORCH]
    assert listener.spec()[0] == FeatureSpec.from_folder(work / NAME) and listener.spec()[1] == NAME
    samples = tone(seconds=0.9, gain=0.3).astype(np.float32)
    found = {choice: listener.transcribe(samples, choice) for choice in
             (GRAPHS + "fp32", PYTORCH)}
    assert found[GRAPHS + "fp32"].text == found[PYTORCH].text != ""
    assert all(f"{NAME}, " in heard.how and "0.90 s of sound" in heard.how for heard in found.values())
    for other in ("", "int8", GRAPHS + "../../x", GRAPHS + "fp32/../../x", None, ["fp32"]):
        with pytest.raises(LabError, match="not a way to transcribe"):
            listener.transcribe(samples, other)
        assert list(listener.opening(other)) == []
    silence = np.zeros(RATE, np.float32)
    assert listener.transcribe(silence, PYTORCH).text == ""


def test_without_graphs_the_checkpoint_transcribes(nano, references, tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_LAB_MODEL", "nano")
    listener = Listener(None, str(tmp_path), None, 1)
    assert listener.choices() == [PYTORCH] and listener.spec()[1] == "whisper-nano"
    samples = audio.load(ROOT / "media" / "kitchen.wav").samples
    weights = (nano / "model.safetensors").stat().st_size / 1e6
    assert list(listener.opening(PYTORCH)) == [
        "Looking for whisper-nano; what this machine does not have is fetched once ...",
        f"Loading whisper-nano, PyTorch: {weights:.0f} MB, once; then it stays loaded ...",
        "whisper-nano, PyTorch: listening ..."]
    heard = listener.transcribe(samples, PYTORCH)
    assert list(listener.opening(PYTORCH)) == ["whisper-nano, PyTorch: listening ..."]
    assert heard.text == references["kitchen.wav"]["text"] and "language en, detected" in heard.how
    forced = listener.transcribe(samples, PYTORCH, "nl")
    assert "detected" not in forced.how and "detected" in listener.transcribe(samples, PYTORCH, "").how
    with pytest.raises(LabError, match="xx"):
        listener.transcribe(samples, PYTORCH, "xx")
    assert listener.languages() == [("found by the model", ""), ("English", "en"), ("Dutch", "nl")]
    assert heard.files["txt"] == f"{heard.text}\n" and heard.files["vtt"].startswith("WEBVTT")
    runtime = listener._opened[PYTORCH][0]
    assert heard.text == transcribe.transcribe(runtime, samples, Options(language="en")).text


def test_the_languages_are_those_of_the_model_common_ones_first(random_model, nano, tmp_path, monkeypatch):
    work = exported(random_model, nano)
    graphs = Listener(str(work / NAME), str(work / "graphs"), None, 1)
    assert [code for _, code in graphs.languages()] == ["", "en", "nl"]
    monkeypatch.delenv("WHISPER_LAB_MODEL", raising=False)
    unknown = [code for _, code in Listener("large-v3", str(tmp_path), "gd", 1).languages()]
    assert unknown[:4] == ["", "en", "nl", "fr"] and {"gd", "cy", "sw"} < set(unknown) and len(unknown) > 90
    assert Listener("tiny.en", str(tmp_path), None, 1).languages() == [("English, the only one", "")]
    english = tmp_path / "english"
    shutil.copytree(nano, english)
    settings = json.loads((english / "generation_config.json").read_text())
    for key in ("lang_to_id", "task_to_id"):
        settings.pop(key)
    (english / "generation_config.json").write_text(json.dumps(settings | {"is_multilingual": False}))
    assert Listener(str(english), str(tmp_path), None, 1).languages() == [("English, the only one", "")]


def test_the_size_of_graphs_counts_what_lies_beside_them(random_model, nano):
    work = exported(random_model, nano)
    listener = Listener(str(work / NAME), str(work / "graphs"), None, 1)
    size = sum(path.stat().st_size for path in (work / "graphs").glob(f"{NAME}_*coder_int8.onnx*")) / 1e6
    lines = list(listener.opening(GRAPHS + "int8"))
    assert lines[0].startswith(f"Loading {NAME}, {GRAPHS}int8: {size:.0f} MB, once") and len(lines) == 2


# Who may come in -----------------------------------------------------------------------------------------------------

def test_a_password_wherever_others_can_come(monkeypatch):
    monkeypatch.delenv("WHISPER_LAB_AUTH", raising=False)
    assert serve.credentials(Settings()) is None
    made = [serve.credentials(Settings(**how)) for how in ({"share": True}, {"host": "0.0.0.0"}, {"host": "10.0.0.7"})]
    assert all(user == "lab" and len(password) >= 12 for user, password in made)
    assert len({password for _, password in made}) == 3
    monkeypatch.setenv("WHISPER_LAB_AUTH", "you:secret:word")
    assert serve.credentials(Settings()) == ("you", "secret:word")
    for weak in ("me", "me:short", ":long-enough", " :long-enough"):
        monkeypatch.setenv("WHISPER_LAB_AUTH", weak)
        with pytest.raises(LabError, match="at least 8"):
            serve.credentials(Settings())


def test_a_password_on_the_command_line_is_refused(run_script, tmp_path):
    for script in (SCRIPT, "workbook/quiz.py"):
        arguments = ("--page",) * (script != SCRIPT) + ("--auth", "me:long-enough", "--port", "0")
        run = run_script(script, *arguments, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert run.returncode == 1 and "can be read by everyone on this machine" in run.stderr
        assert "--auth-file" in run.stderr and "WHISPER_LAB_AUTH" in run.stderr and "long-enough" not in run.stderr


def test_a_password_is_asked_for_at_a_terminal(monkeypatch):
    monkeypatch.setattr(serve.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(serve.getpass, "getpass", lambda prompt: "long-enough" if "me" in prompt else "")
    assert serve.credentials(Settings(auth="me")) == ("me", "long-enough")
    with pytest.raises(LabError, match="at least 8"):
        serve.credentials(Settings(auth="you"))
    monkeypatch.setattr(serve.sys.stdin, "isatty", lambda: False)
    with pytest.raises(LabError, match="no terminal to type"):
        serve.credentials(Settings(auth="me"))


def test_a_password_from_a_file_that_only_its_owner_can_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("me:long-enough\nsecond line\n")
    secret.chmod(0o600)
    assert serve.credentials(Settings(auth_file=secret)) == ("me", "long-enough")
    with pytest.raises(LabError, match="both give"):
        serve.credentials(Settings(auth_file=secret, auth="me"))
    for mode in (0o640, 0o604, 0o660):
        secret.chmod(mode)
        with pytest.raises(LabError, match="others can read") as caught:
            serve.credentials(Settings(auth_file=secret))
        assert f"chmod 600 {secret}" in caught.value.remedy
    secret.chmod(0o600)
    secret.write_bytes(b"\xff\xfe")
    for bad in (secret, tmp_path / "none", tmp_path):
        with pytest.raises(LabError, match="cannot read"):
            serve.credentials(Settings(auth_file=bad))
    first, second = os.pipe()
    os.write(second, b"me:through-a-pipe\n")
    os.close(second)
    assert serve.credentials(Settings(auth_file=Path(f"/dev/fd/{first}"))) == ("me", "through-a-pipe")
    os.close(first)


def test_thirty_wrong_passwords_keep_nobody_else_out():
    check = serve.checker("me", "long-enough")
    assert not check("you", "long-enough") and not check("me", "long-enoug\u00e9")
    assert not any(check("me", f"guess-{i}") for i in range(30))
    assert check("me", "long-enough")


def test_a_voice_is_its_owners_alone(lesson, tmp_path):
    """Also a speech.wav and recordings/ of a version before; also for the moments in between."""
    soundfile.write(tmp_path / "in.wav", tone(), RATE)
    (tmp_path / "speech.wav").write_bytes(b"old")
    (tmp_path / save.KEPT).mkdir()
    (tmp_path / save.KEPT).chmod(0o755)
    (tmp_path / "speech.wav").chmod(0o644)
    seen, real = [], os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda one, two: (seen.append(stat.S_IMODE(os.stat(one).st_mode)), real(one, two)))
        for _ in range(2):
            lesson.convert(tmp_path / "in.wav", tmp_path / "speech.wav", LIMIT)
    files = [tmp_path / "speech.wav", *(tmp_path / save.KEPT).iterdir()]
    assert len(files) == 3 and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600} == set(seen)
    assert stat.S_IMODE((tmp_path / save.KEPT).stat().st_mode) == 0o700


def test_the_names_under_which_a_page_is_known():
    import socket

    here = serve.rules(Settings(), None)
    assert here.hosts == {"localhost", "127.0.0.1", "[::1]"} and not here.any_address and not here.tunnelled
    network = serve.rules(Settings(host="0.0.0.0", allow_host=["Lab.Example"]), None)
    assert network.any_address and {"lab.example", socket.gethostname().lower()} <= network.hosts
    one = serve.rules(Settings(host="10.0.0.7", share=True), None)
    assert "10.0.0.7" in one.hosts and not one.any_address and one.tunnelled


def test_only_uploads_are_opened(tmp_path):
    folder, outside = tmp_path / "sounds", tmp_path / "secret.wav"
    folder.mkdir()
    outside.write_bytes(b"secret")
    (folder / "link.wav").symlink_to(outside)
    (folder / "own.wav").write_bytes(b"own")
    assert app.own(str(folder / "own.wav"), folder) == folder / "own.wav"
    for path in (outside, folder / "link.wav", folder / ".." / "secret.wav", "/etc/passwd", "speech.wav"):
        with pytest.raises(LabError, match="not a recording made on this page"):
            app.own(str(path), folder)
    with pytest.raises(LabError, match="no recording yet"):
        app.own(None, folder)


def test_ports():
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(LabError, match=f"port {taken} is in use"):
            serve.choose_port("127.0.0.1", taken)
        assert serve.choose_port("127.0.0.1", 0) not in (0, taken)
    with pytest.raises(LabError, match="cannot listen on 192.0.2.1"):
        serve.choose_port("192.0.2.1", None)


def test_the_next_port_where_7860_is_in_use(monkeypatch):
    monkeypatch.setattr(serve, "_bind", lambda host, port: None if port < 7862 else port)
    assert serve.choose_port("127.0.0.1", None) == 7862
    monkeypatch.setattr(serve, "_bind", lambda host, port: None)
    with pytest.raises(LabError, match="7860 to 7879"):
        serve.choose_port("127.0.0.1", None)


def test_the_certificate_is_private_and_names_the_machine(tmp_path):
    if not certificate.shutil.which("openssl"):
        pytest.skip("no openssl command here: apt-get install openssl")
    key, made, fingerprint = certificate.make(tmp_path, "0.0.0.0")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shown = subprocess.run(["openssl", "x509", "-in", made, "-noout", "-text", "-fingerprint", "-sha256"],
                           capture_output=True, text=True, check=True).stdout
    assert f"Fingerprint={fingerprint}" in shown
    for name in ("DNS:localhost", "IP Address:127.0.0.1", *(f"IP Address:{one}" for one in certificate.outward())):
        assert name in shown


def test_without_openssl_the_other_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError) as caught:
        certificate.make(tmp_path, "0.0.0.0")
    assert "openssl" in caught.value.problem and "--share" in caught.value.remedy


def test_what_a_killed_app_left_behind_is_removed(tmp_path, monkeypatch):
    """Voices: at once, not when they are old. Those of a page that is still up stay."""
    monkeypatch.setattr(serve.tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / f"{serve.FOLDER}{locks.machine()}-abcdefgh.partial"
    dead.mkdir()
    (dead / "voice.wav").write_bytes(b"voice")
    with serve.own_folder() as living:
        (living / "voice.wav").write_bytes(b"voice")
        with serve.own_folder() as mine:
            assert not dead.exists() and (living / "voice.wav").exists()
            assert stat.S_IMODE(mine.parent.stat().st_mode) == 0o700
        assert (living / "voice.wav").exists() and not mine.exists()
    assert list(tmp_path.iterdir()) == []


# The command line ----------------------------------------------------------------------------------------------------

def test_help_in_under_a_second(run_script):
    run_script(SCRIPT, "--help")  # the first may have to write bytecode
    begin = os.times().children_user
    run = run_script(SCRIPT, "--help")
    assert run.returncode == 0 and os.times().children_user - begin < 1
    for flag in ("--share", "--host", "--https", "--cli", "--seconds", "--microphone", "--list-devices", "--output",
                 "--model", "--quiet"):
        assert flag in run.stdout
    assert len(run.stdout.splitlines()) <= 50
    rare = [flag for flag in ("--auth", "--auth-file", "--allow-host", "--latency", "--blocksize", "--limit")
            if flag not in run.stdout]
    everything = run_script(SCRIPT, "--help-all").stdout
    assert len(rare) == 6 and all(flag in everything for flag in rare)


def test_what_is_said_to_a_terminal_fits_80_columns(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    console.set_up_notes(20)
    serve.announce(Settings(), 7860, None, None)
    said = capsys.readouterr().err
    assert max(map(len, said.splitlines())) <= 80 and "ssh -L 7860:127.0.0.1:7860 user@this-machine" in said


@pytest.mark.parametrize("arguments", [
    ("--output", "speech.mp3"), ("--port", "70000"), ("--limit", "0"), ("--limit", "nan"),
    ("--cli", "--seconds", "-1"), ("--cli", "--seconds", "nan"), ("--cli", "--share"), ("--share", "--https"),
    ("--cli", "--latency", "soon"), ("--cli", "--blocksize", "-1")])
def test_wrong_usage(call_script, arguments):
    status, out, err = call_script(SCRIPT, *arguments)
    assert (status, out) == (2, "") and "usage:" in err and "Traceback" not in err


def test_a_port_in_use_is_two_lines(run_script, tmp_path):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = run_script(SCRIPT, "--port", other.getsockname()[1], "--model", "nano", cwd=tmp_path)
    assert run.returncode == 1 and re.fullmatch(r"error: port \d+ is in use\n  try: .*\n", run.stderr)


def test_no_public_address_is_one_line(capsys):
    serve.announce(Settings(share=True), 7860, None, ("lab", "made-up-word"))
    out, err = capsys.readouterr()
    assert out == "* Running on local URL:  http://127.0.0.1:7860\n  user lab, password made-up-word\n"
    serve.announce(Settings(share=True), 7860, "https://abc.gradio.live", None)
    assert capsys.readouterr().out.splitlines()[1] == "* Running on public URL: https://abc.gradio.live"


@pytest.mark.parametrize("number, status, how", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_stopped_while_starting(tmp_path, number, status, how):
    """Before the page is up it ends at once, and leaves nothing behind."""
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen([sys.executable, str(ROOT / SCRIPT), "--port", "0", "--model", "nano"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "TMPDIR": str(tmp_path / "tmp")})
    until = time.monotonic() + 30
    while not list(tmp_path.glob("tmp/*/*/sounds")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "") and f"stopped by {how}" in err, err
    assert list(tmp_path.glob("tmp/*")) == []


def test_a_library_that_swallows_the_signal_does_not_keep_it_alive(tmp_path, monkeypatch):
    """Importing Gradio runs code of a hundred packages, and some of it catches everything."""
    def swallow(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException:  # as somebody's `except:` does
            return None, {}

    monkeypatch.setattr(serve, "prepare", swallow)
    monkeypatch.setattr(serve, "launch", lambda *_: pytest.fail("the page came up"))
    monkeypatch.setattr(serve.tempfile, "gettempdir", lambda: str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(console.Stopped):
            serve.serve(Settings(port=0), lambda _: None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
