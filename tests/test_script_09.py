"""09 as a program: files, pipes, Ctrl-C, the report; and whisper-nano heard live as well as at once."""

import importlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import nano_pair, pseudo_terminal
from whisper_lab import audio, decoding, metrics, transcribe

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "09-stream-microphone.py"


@pytest.fixture(scope="module")
def graphs(nano_export, tmp_path_factory) -> Path:
    """whisper-nano's float32 graphs, with the attention that word times are made of."""
    return nano_pair.take(nano_export, tmp_path_factory.mktemp("stream") / "graphs")


@pytest.fixture
def command(graphs, tmp_path) -> list[str]:
    return [sys.executable, str(SCRIPT), "--model", "nano", "--model-dir", str(graphs), "--threads", "1",
            "--output-dir", str(tmp_path / "reports")]


@pytest.fixture(scope="module")
def runtime(graphs):
    from whisper_lab.onnx_whisper import OnnxWhisper

    return OnnxWhisper(graphs, "whisper-nano", threads=1)


def run(command: list[str], *arguments: object, **settings) -> subprocess.CompletedProcess:
    settings = {"stdin": subprocess.DEVNULL} | settings if "input" not in settings else settings
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, timeout=120, **settings)


def report(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "reports" / "stream-whisper-nano.json").read_text(encoding="utf-8"))


def streamed(runtime, samples: np.ndarray, language: str | None):
    """The stream of a recording, as fast as it goes."""
    from whisper_lab.stream import sources
    from whisper_lab.stream.hypothesis import Recognizer
    from whisper_lab.stream.screen import Screen

    script, clock = importlib.import_module("09-stream-microphone"), sources.Clock()
    stream = script.Stream(runtime, Recognizer(runtime, language), clock, Screen(open(os.devnull, "w")), 0.5, 0.6)
    script.listen(sources.Played(samples, False, clock, threading.Event()), stream)
    return stream


# The text ------------------------------------------------------------------------------------------------------------

def test_live_text_is_at_most_two_points_worse_than_batch(runtime, references):
    reasons = []
    for name, reference in references.items():
        samples = audio.load(ROOT / "media" / name).samples
        stream = streamed(runtime, samples, reference["language"])
        batch = transcribe.transcribe(runtime, samples, decoding.Options(language=reference["language"])).text
        live, whole = (metrics.word_errors(reference["text"], text).wer for text in (" ".join(stream.log.lines), batch))
        assert live <= whole + 0.02, f"{name}: {stream.log.lines}"
        assert len(stream.log.lines) == len(reference["segments"]), stream.log.lines
        reasons += [commit.reason for commit in stream.log.commits]
    assert reasons.count("agreement") >= 0.85 * len(reasons)  # what is in doubt may wait for the pause


def test_speech_with_hardly_a_pause(runtime, references):
    """The long clip with its pauses shortened to a quarter of a second: windows fill up before one is long enough."""
    samples, pieces = audio.load(ROOT / "media" / "long.flac").samples, []
    for segment in references["long.flac"]["segments"]:
        start, end = (round(segment[key] * audio.SAMPLE_RATE) for key in ("start_s", "end_s"))
        pieces += [samples[start:end], np.zeros(4000, np.float32)]
    dense = np.concatenate(pieces)
    stream = streamed(runtime, dense, "en")
    assert 3 <= len(stream.log.lines) <= 12
    batch = transcribe.transcribe(runtime, dense, decoding.Options(language="en")).text
    live, whole = (metrics.word_errors(references["long.flac"]["text"], text).wer
                   for text in (" ".join(stream.log.lines), batch))
    assert live <= whole + 0.02, stream.log.lines


def test_a_full_window_is_cut_at_the_models_timestamps(runtime):
    """Windows without any pause: the drone of a fan under the speech, which no energy detector sees through."""
    samples = audio.load(ROOT / "media" / "long.flac").samples[:20 * audio.SAMPLE_RATE]
    noise = np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32) * 0.02
    from whisper_lab.stream.voice import Span

    script = importlib.import_module("09-stream-microphone")
    from whisper_lab.stream import sources
    from whisper_lab.stream.hypothesis import Recognizer
    from whisper_lab.stream.screen import Screen

    stream = script.Stream(runtime, Recognizer(runtime, "en"), sources.Clock(), Screen(open(os.devnull, "w")), 0.5, 0.6)
    span = Span(0, 0, len(samples), len(samples))  # one utterance, whatever is heard
    stream.mel.append(samples + noise)
    stream.voice.spans.append(span)
    stream.finish()
    assert sum(commit.reason == "full window" for commit in stream.log.commits) >= 5
    assert stream.log.spans == [(0, len(samples))] and len(stream.log.utterances) >= 3


def test_no_encoder_runs_for_silence(runtime):
    hiss = np.random.default_rng(0).standard_normal(20 * audio.SAMPLE_RATE).astype(np.float32) * 1e-3  # -60 dBFS
    for sound in (np.zeros_like(hiss), hiss):
        stream = streamed(runtime, sound, None)
        assert stream.recognizer.encoder_runs == 0 and stream.log.lines == []


def test_a_fan_that_is_switched_on_says_nothing(runtime):
    """Louder than the room was, so that the level takes it for speech; but steady, so it is not."""
    fan = np.random.default_rng(0).standard_normal(8 * audio.SAMPLE_RATE).astype(np.float32) * 0.02
    sound = np.concatenate([fan * 1e-2, fan, fan * 1e-2])
    stream = streamed(runtime, sound, "en")
    assert stream.log.lines == [] and stream.recognizer.encoder_runs <= 4  # until it has lasted for 2 s


def test_the_language_is_detected_once_something_is_said(runtime):
    stream = streamed(runtime, audio.load(ROOT / "media" / "nederlands.wav").samples, None)
    assert stream.recognizer.language.code == "nl" and stream.recognizer.language.probability > 0.5


# The program ---------------------------------------------------------------------------------------------------------

def test_into_a_pipe_go_committed_lines_only(command, tmp_path, references):
    done = run(command, ROOT / "media" / "kitchen.wav", "--reference", ROOT / "media" / "references.json",
               "--json", tmp_path / "copy.json")
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 1 and "\x1b" not in lines[0]
    document = report(tmp_path)
    assert document == json.loads((tmp_path / "copy.json").read_text(encoding="utf-8"))
    assert document["schema"] == "whisper-onnx-lab/stream/1" and document["machine"]["cpu_quota"] is not NotImplemented
    assert document["model"]["name"] == "whisper-nano" and document["model"]["precision"] == "fp32"
    clip = document["clips"][0]
    assert clip["utterances"] == lines and clip["dropouts"] == 0 and clip["hypotheses_skipped"] == 0
    assert [commit["text"] for commit in clip["commits"]] == [f" {word}" for word in lines[0].split()]
    assert clip["reference"]["text"] == references["kitchen.wav"]["text"]
    assert clip["batch"]["wer"] <= 0.3 and clip["real_time_factor"] > 0
    times = clip["latency"]
    assert times["words"] >= 4 and 0 < times["waited_p50_s"] <= times["waited_p95_s"] < 3
    assert times["latency_p50_s"] is None and "real time" in times["reason"]
    assert (tmp_path / "reports" / "stream-whisper-nano.txt").read_text(encoding="utf-8").splitlines() == lines
    notes = done.stderr.decode()
    for words in ("no int8 graphs", "real-time factor", "waited", "against batch", "against the reference", "dropouts"):
        assert words in notes


def test_standard_input_says_what_the_file_says(command, tmp_path):
    samples = audio.load(ROOT / "media" / "time.wav").samples
    done = run(command, "--stdin", "--quiet", input=audio.to_pcm16(samples))
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()
    clip = report(tmp_path)["clips"][0]
    assert clip["source"] == "standard input" and clip["duration_s"] == pytest.approx(len(samples) / 16_000, abs=1e-3)
    assert metrics.word_errors("wake me up at six thirty", done.stdout.decode()).wer <= 0.2


def test_a_pipe_without_sound_is_compared_with_nothing(command, tmp_path):
    done = run(command, "--stdin", input=b"")
    notes = done.stderr.decode()
    assert done.returncode == 0 and "no sound came" in notes and "WER" not in notes and "comparing" not in notes
    clip = report(tmp_path)["clips"][0]
    assert (clip["batch"], clip["reason"], clip["real_time_factor"]) == (None, "no sound came", None)


def test_in_real_time_the_clock_is_reported(command, tmp_path):
    done = run(command, ROOT / "media" / "digits.wav", "--realtime", "--no-batch")
    assert done.returncode == 0 and report(tmp_path)["clips"][0]["batch"] is None
    done = run(command, ROOT / "media" / "digits.wav", "--realtime")
    times = report(tmp_path)["clips"][0]["latency"]
    assert times["words"] >= 4 and times["latency_p50_s"] > 0 and len(times["latencies_s"]) == times["words"]
    assert "latency: p50" in done.stderr.decode()


def test_ctrl_c_ends_with_the_text_saved(command, tmp_path):
    clip = str(ROOT / "media" / "long.flac")
    process = subprocess.Popen([*command, clip, "--realtime", "--language", "en"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    first = process.stdout.readline().strip()
    time.sleep(1.5)  # in the middle of the second sentence
    process.send_signal(signal.SIGINT)
    rest, notes = process.communicate(timeout=60)
    assert process.returncode == 0, notes
    assert "Traceback" not in notes and first
    saved = (tmp_path / "reports" / "stream-whisper-nano.txt").read_text(encoding="utf-8").splitlines()
    assert saved == [first, *rest.splitlines()] and len(saved) == 2
    clip = report(tmp_path)["clips"][0]
    assert clip["duration_s"] < 20 and clip["batch"]["text"]


def test_ctrl_c_ends_a_pipe_that_stays_open(command, tmp_path):
    process = subprocess.Popen([*command, "--stdin", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               stdin=subprocess.PIPE)
    process.stdin.write(audio.to_pcm16(audio.load(ROOT / "media" / "time.wav").samples))
    process.stdin.flush()
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    notes = process.stderr.read()
    process.stdin.close()
    assert process.returncode == 0 and notes == b"" and line.strip()
    assert (tmp_path / "reports" / "stream-whisper-nano.txt").read_bytes() == line


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_shows_what_may_still_change(command, no_color):
    """Grey, or in brackets where colours are not wanted."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **({"NO_COLOR": "1"} if no_color else {})}
    if not no_color:
        environment.pop("NO_COLOR", None)
    process = subprocess.Popen([*command, str(ROOT / "media" / "kitchen.wav"), "--no-batch", "--quiet"],
                               stdout=theirs, stdin=subprocess.DEVNULL, env=environment)
    text = pseudo_terminal.shown(process, ours, theirs)
    assert ("\x1b[90m" in text) != no_color and ("[" in text.replace("\x1b[", "")) == no_color
    last = text.rstrip().split("\x1b[J")[-1]
    assert last and "\x1b" not in last and "[" not in last  # in the end all stands, and plainly


def test_neither_torch_nor_transformers_is_imported(graphs, tmp_path):
    code = ("import importlib, sys\n"
            f"importlib.import_module('09-stream-microphone').main(['--model', 'nano', '--model-dir', {str(graphs)!r}, "
            f"'media/digits.wav', '--quiet', '--output-dir', {str(tmp_path)!r}])\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments, status, words", [
    (["--model", "nano", "--model-dir", "nowhere", "media/digits.wav"], 1, "03-export-encoder-decoder.py --model nano"),
    (["nowhere.wav"], 1, "no such file"),
    (["media/digits.wav", "--language", "xx"], 1, "does not know the language"),
    (["--realtime"], 2, "name one"),
    (["--reference", "x", "--stdin"], 2, "name one"),
    (["media/digits.wav", "--reference", "{tmp_path}/other.json"], 1, "no reference for 'digits.wav'"),
    (["--rate", "8000"], 2, "--stdin"),
    (["--stdin", "--rate", "0"], 2, "--rate"),
    (["--stdin", "--channels", "0"], 2, "--channels: 1 to 64"),
    (["--hop", "0"], 2, "--hop"),
    (["--stdin", "x.wav"], 2, "not allowed"),
])
def test_errors_say_what_to_do(call_script, graphs, tmp_path, arguments, status, words):
    (tmp_path / "other.json").write_text('{"other.wav": "x"}')
    arguments = [argument.format(tmp_path=tmp_path) for argument in arguments]
    given = [] if "--model-dir" in arguments else ["--model", "nano", "--model-dir", graphs]
    code, out, err = call_script(SCRIPT.name, *given, "--output-dir", tmp_path, *arguments)
    assert code == status and words in err and "Traceback" not in err and out == ""


def test_one_bad_file_among_several(call_script, graphs, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    status, out, err = call_script(SCRIPT.name, "--model", "nano", "--model-dir", graphs, "--output-dir",
                                   tmp_path / "reports", "--no-batch", "--quiet", bad,
                                   ROOT / "media" / "digits.wav")
    clip, = report(tmp_path)["clips"]
    assert status == 1 and clip["source"] == "digits.wav" and clip["utterances"] == out.splitlines()
    assert err.startswith("error: ") and err.count("\n") == 2 and "bad.wav" in err


def test_two_files_of_one_name_are_both_kept(call_script, graphs, tmp_path):
    for folder, clip in (("a", "digits.wav"), ("b", "time.wav")):
        (tmp_path / folder).mkdir()
        shutil.copy(ROOT / "media" / clip, tmp_path / folder / "clip.wav")
    status, out, _ = call_script(SCRIPT.name, "--model", "nano", "--model-dir", graphs, "--output-dir",
                                 tmp_path / "reports", "--no-batch", "--quiet", tmp_path / "a" / "clip.wav",
                                 tmp_path / "b" / "clip.wav")
    first, second = out.splitlines()
    saved = (tmp_path / "reports" / "stream-whisper-nano.txt").read_text(encoding="utf-8").splitlines()
    assert status == 0 and saved == ["# clip.wav", first, "", "# clip.wav", second]


def test_a_wav_in_the_pipe_is_refused(command):
    done = run(command, "--stdin", input=(ROOT / "media" / "digits.wav").read_bytes())
    assert done.returncode == 1 and b"not raw samples" in done.stderr and done.stdout == b""


def test_help_in_under_a_second(run_script):
    begin = os.times().children_user
    assert run_script(SCRIPT.name, "--help").returncode == 0
    assert os.times().children_user - begin < 1


@pytest.mark.parametrize("links", [True, False])
def test_the_text_of_an_earlier_run_stays(tmp_path, capsys, monkeypatch, links):
    from whisper_lab import console, files
    from whisper_lab.stream import report

    if not links:
        monkeypatch.setattr(os, "link", lambda *names: os.open(tmp_path / "nowhere", os.O_RDONLY))
    console.set_up_notes(20)
    path = tmp_path / "stream-whisper-nano.txt"
    for text in ("what was said\n", "what was said\n"):  # there is none; then the same once more
        with report.keeping_earlier(path, text):
            files.write_text(path, text)
        assert [one.name for one in tmp_path.iterdir()] == [path.name]
    os.utime(path, (0, 0))
    with pytest.raises(ZeroDivisionError), report.keeping_earlier(path, "new\n"):
        1 / 0  # noqa: B018
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and path.read_text() == "what was said\n"
    with report.keeping_earlier(path, "new\n"):
        files.write_text(path, "new\n")
    (kept,) = set(tmp_path.iterdir()) - {path}
    assert re.fullmatch(r"stream-whisper-nano-(1969-12-31|1970-01-01)-\d{6}\.txt", kept.name)
    assert kept.read_text() == "what was said\n" and path.read_text() == "new\n"
    assert "the text of an earlier run" in capsys.readouterr().err


def test_where_no_sound_came_the_text_of_an_earlier_run_is_left_alone(graphs, tmp_path):
    (tmp_path / "stream-whisper-nano.txt").write_text("what was said\n")
    done = subprocess.run([sys.executable, str(SCRIPT), "--stdin", "--model", "nano", "--model-dir", str(graphs),
                           "--output-dir", str(tmp_path)], input=b"", capture_output=True, cwd=ROOT, timeout=120)
    assert b"no sound came from standard input" in done.stderr
    assert (tmp_path / "stream-whisper-nano.txt").read_text() == "what was said\n"
    assert [path.name for path in tmp_path.glob("*.txt")] == ["stream-whisper-nano.txt"]


@pytest.mark.parametrize("timed", [True, False])
def test_graphs_that_cannot_time_words_say_what_that_costs_and_which_can(graphs, monkeypatch, caplog, timed):
    from whisper_lab.onnx_whisper import OnnxWhisper
    from whisper_lab.stream import opening

    monkeypatch.setattr(OnnxWhisper, "has_attention", timed)
    opening.open_graphs("nano", str(graphs), "fp32", False, 1, "cpu", "en")
    assert ("03 --alignment-heads" in caplog.text) != timed
