"""How every script takes its flags and tells of its errors."""

import argparse
import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import pytest
from conftest import NANO

import whisper_lab
from tests.helpers import pseudo_terminal
from whisper_lab import console, flags

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("02-whisper-huggingface x.wav", "03-export-encoder-decoder", "04-compare-precisions", "06-profile-energy",
           "07-explore-architecture", "08-single-onnx-model", "09-stream-microphone", "10-who-spoke x.wav")


# Flags ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_starts_without_a_thread(script, call_script):
    status, out, err = call_script(*script.split(), "--threads", "0")
    assert (status, out) == (2, "") and "argument --threads: starts at 1" in err


@pytest.mark.parametrize("wrong, words", [(("--threads", "-1"), "starts at 1"), (("--seed", "-1"), "starts at 0"),
                                          (("--threads", "two"), "invalid number value: 'two'"),
                                          (("--seed", "0.5"), "invalid number value: '0.5'")])
def test_numbers_that_are_none(wrong, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        flags.parse(flags.parser("", "threads", "seed"), list(wrong))
    assert f"argument {wrong[0]}: {words}" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1", "1e39", "1e-300"])
@pytest.mark.parametrize("script", ["02-whisper-huggingface", "whisper_lab.__main__"])
def test_temperatures_that_are_none(script, number, call_script):
    status, out, err = call_script(script, "x.wav", f"--temperature={number}")
    assert (status, out) == (2, "") and "--temperature is 0 or a number from 0.01 to 10" in err


def test_numbers_that_are():
    made = flags.parser("", "threads", "seed")
    assert flags.parse(made, []) == argparse.Namespace(threads=None, seed=0)
    assert flags.parse(made, ["--threads", "2", "--seed", "7"]) == argparse.Namespace(threads=2, seed=7)


def test_the_detail_of_the_notes_in_capitals_or_not():
    made = flags.parser("", "log_level")
    assert flags.parse(made, ["--log-level", "debug"]).log_level == "DEBUG"
    assert flags.parse(made, []).log_level == "INFO"


def given(*arguments, common=("audio", "model", "output_json", "seed")):
    made = flags.parser("What it is.\n\n    python x.py\n\nMore of it.", *common)
    made.add_argument("--precision", choices=["fp32", "int8"])
    return flags.parse(made, list(arguments))


@pytest.mark.parametrize("arguments, clips", [
    ([], ["speech.wav"]), (["a.wav"], ["a.wav"]), (["--model", "nano", "a.wav", "b.wav"], ["a.wav", "b.wav"]),
    (["a.wav", "--seed", "1", "b.wav", "--model", "nano", "c.wav"], ["a.wav", "b.wav", "c.wav"])])
def test_sound_may_stand_anywhere(arguments, clips):
    assert given(*arguments).audio == clips


def test_former_names_go_on_working_and_say_so_once(capsys):
    args = given("--audio", "a.wav", "b.wav", "--output-json", "out.json")
    assert (args.audio, args.output_json) == (["a.wav", "b.wav"], "out.json")
    assert not hasattr(args, "former_audio") and not hasattr(args, "former_names")
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "--audio: is CLIP without a flag now (the former name goes on working for a while)",
        "--output-json: is --json now (the former name goes on working for a while)"]
    assert given("c.wav", "--audio", "a.wav").audio == ["c.wav", "a.wav"]


@pytest.mark.parametrize("wrong, meant", [(["--precison", "int8"], "--precision"), (["--modle=nano"], "--model"),
                                          (["--precision", "int9"], "int8")])
def test_what_is_mistyped_gets_a_suggestion(wrong, meant, capsys):
    with pytest.raises(SystemExit, match="2"):
        given("a.wav", *wrong)
    usage, error, remedy = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: ") and error.startswith("error: ") and error.endswith(f"; did you mean {meant}?")
    assert remedy.startswith("  try: python ") and remedy.endswith(" --help")


def test_what_is_like_nothing_gets_none(capsys):
    for wrong in (["--zzzz"], ["--precision", "zzzz"]):
        with pytest.raises(SystemExit, match="2"):
            given(*wrong)
        assert "did you mean" not in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):  # no sound is wanted here
        given("a.wav", common=("seed",))
    assert "unrecognized arguments: a.wav" in capsys.readouterr().err


def test_help_shows_what_is_usual_and_help_all_the_rest(capsys):
    shown = []
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            given(flag)
        shown.append(capsys.readouterr().out)
    assert "--seed" not in shown[0] and "--audio" not in "".join(shown)
    assert "More of it" in shown[0]  # all of this fits a screen; of a longer one the first two paragraphs are shown
    assert "--seed" in shown[1] and "More of it" in shown[1] and "--model" in shown[0]


# In a terminal -------------------------------------------------------------------------------------------------------

def terminal(code: str, columns: int = 80, given: dict[str, str] | None = None) -> str:
    """What a Python program writes to a terminal of this width, on stdout and stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | (given or {})
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.DEVNULL, stdout=theirs,
                               stderr=theirs, cwd=ROOT, env={**environment, "TERM": "xterm"})
    return re.sub(r"\x1b\[[0-9;]*m", "", pseudo_terminal.shown(process, ours, theirs))


def test_notes_stand_above_a_bar_and_never_in_it():
    shown = terminal("""
        from whisper_lab import console, flags
        flags.parse(flags.parser("", "quiet"), [])
        with console.sound_bar("clip.wav", 60) as done:
            for second in range(6):
                done(10)
                console.note("language", "en", f"note {second}")
                console.result(f"result {second}")
        """)
    lines = [line.rpartition("\r")[2].strip() for line in shown.replace("\r\n", "\n").split("\n")]
    for second in range(6):
        assert f"language: en (note {second})" in lines and f"result {second}" in lines
    assert "of 60 s of sound" in shown


def test_a_bar_ends_where_the_sound_ends():
    """A length that is no whole number of seconds took it past its end, and the library warned."""
    shown = terminal("""
        from whisper_lab import console, flags
        flags.parse(flags.parser("", "quiet"), [])
        with console.sound_bar("clip.wav", 36.42) as done:
            done(30)
            done(6.42)
        """)
    assert "Warning" not in shown and "of 36 s of sound" in shown and "101 %" not in shown


def test_what_to_do_about_a_choice_stands_behind_its_reason(capsys):
    console.set_up_notes(20)
    console.note("runtime", "PyTorch", "no graphs", "to write some: python 03.py --model base")
    assert capsys.readouterr().err == "runtime: PyTorch (no graphs); to write some: python 03.py --model base\n"


def test_usage_is_folded_too():
    shown = terminal("""
        from whisper_lab import flags
        parser = flags.parser("", "quiet", prog="python 03.py")
        parser.add_argument("--precision", choices=["fp32", "fp16", "int8", "int4", "int8_optimized", "int4_optimized"])
        try:
            flags.parse(parser, ["--precision", "int5"])
        except SystemExit as end:
            assert end.code == 2
        """, 60)
    lines = shown.replace("\r\n", "\n").rstrip().split("\n")
    assert lines[0] == "usage: python 03.py [options]" and lines[1].startswith("error: argument --precision: invalid")
    assert lines[-1] == "  try: python 03.py --help" and all(len(line) <= 60 for line in lines) and len(lines) > 3


SAID = ("a remark that is much too long for one line of a terminal of sixty columns, and goes on; to write it again: "
        "python 03-export-encoder-decoder.py --model base --precision int8")


def test_a_long_note_is_folded_in_a_terminal_and_its_command_stays_whole():
    shown = terminal(f"""
        from whisper_lab import console, flags
        flags.parse(flags.parser("", "quiet"), [])
        console.note("graphs", "whisper-base", "short")
        console.warn({SAID!r})
        console.error(console.LabError("a fault " * 12, {SAID!r}))
        """, 60)
    assert SAID in terminal(f"from whisper_lab import console; console.result({SAID!r})", 60)  # data stays as it is
    assert "\r\n  sixty columns" in terminal(f"from whisper_lab import console; console.sentence({SAID!r})", 60)
    lines = shown.replace("\r\n", "\n").rstrip("\n").split("\n")
    command = SAID[SAID.index("python"):]
    assert lines[0] == "graphs: whisper-base (short)" and lines[1].startswith("warning: a remark")
    warned, told = lines[1:lines.index(f"  {command}") + 1], lines[lines.index(f"  {command}") + 1:]
    assert all(line.startswith("  ") for line in warned[1:]) and told[0].startswith("error: a fault")
    assert told[1].startswith("  fault a fault") and told[2].startswith("  try: a remark")
    assert told[-1] == f"    {command}"
    assert all(len(line) <= 60 or command in line for line in lines)
    assert " ".join(" ".join(warned).split()) == f"warning: {SAID}"


@pytest.mark.parametrize("line, shown", [
    ("python 02.py " + "a " * 20, "python 02.py " + "a " * 20),  # nothing but a command
    ("  try: python 02.py " + "a " * 10, "  try:\n    python 02.py " + "a " * 10),
    ("a note that says: pip it is", "a note that says:\n  pip it is"), ("a note", "a note"),
    ("say it as python -m x --help has it, or call", "say it as\n  python -m x --help has it,\n  or call"),
    ("to WAV (ffmpeg -i a b.wav) first of all", "to WAV\n  (ffmpeg -i a b.wav)\n  first of all"),
    ("record one with python 01-record.py, or name it", "record one with\n  python 01-record.py,\n  or name it"),
    ("make one of these: X=1 python 06.py sweep", "make one of these:\n  X=1 python 06.py sweep"),
    ("run pip install 'a; b' or export PLACE=FOLDER; or",
     "run\n  pip install 'a; b'\n  or\n  export PLACE=FOLDER;\n  or"),
    ("its own: cp '/a b' /c && mv /c /d", "its own:\n  cp '/a b' /c && mv /c /d"),
    ("till then sudo chmod a+r /sys/x", "till then\n  sudo chmod a+r /sys/x"),
    ("in an own python3.11 -m venv one", "in an own\n  python3.11 -m venv one"),
    ("make the virtual environment again", "make the virtual\n  environment again"),
    ("export it again, or name another", "export it again, or\n  name another"),
    ("a name_that_is_longer_than_the_terminal x", "a\n  name_that_is_longer_than_the_terminal\n  x")])
def test_lines_are_folded_between_words(line, shown):
    assert console.folded(line, 20) == shown and console.folded(line, None) == line


def test_a_long_note_in_a_pipe_is_one_line(capsys):
    flags.parse(flags.parser("", "quiet"), [])
    console.warn(SAID)
    assert capsys.readouterr().err == f"warning: {SAID}\n"


def test_long_work_counts_in_a_terminal_and_in_a_pipe(capsys, monkeypatch):
    flags.parse(flags.parser("", "quiet"), [])
    assert list(console.counted("abc", "work", "letter")) == [*"abc"] and capsys.readouterr().err == ""
    monkeypatch.setattr(console, "EVERY_S", 0)
    assert list(console.counted("abc", "work", "letter")) == [*"abc"]
    assert [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        "work: 1 of 3 letters done", "work: 2 of 3 letters done"]
    shown = terminal("""
        from whisper_lab import console, flags
        flags.parse(flags.parser("", "quiet"), [])
        list(console.counted("abc", "work", "letter"))
        """)
    assert "work" in shown and "/3" in shown and "done" not in shown


ROWS = [["whisper-base_decoder_int8_optimized.onnx", "1,234,567,890", "a remark that is long enough to be folded"],
        ["b", "12.5", "short"]]


@pytest.mark.parametrize("columns, folded", [(80, True), (200, False)])
def test_a_table_breaks_no_number_and_no_name(columns, folded):
    shown = terminal(f"""
        from whisper_lab import console
        console.table("Title", ["file", "bytes that were written", "what"], {ROWS!r})
        """, columns)
    lines = shown.replace("\r\n", "\n").split("\n")
    assert all(len(line) <= columns for line in lines)
    for row in ROWS:
        assert any(row[0] in line and row[1] in line for line in lines)
    assert (ROWS[0][2] in shown) != folded


def test_a_table_that_does_not_fit_becomes_blocks():
    shown = terminal(f"""
        from whisper_lab import console
        console.table("Title", ["file", "bytes", "what"], {ROWS!r})
        """, 50)
    assert "  whisper-base_decoder_int8_optimized.onnx\r\n    bytes: 1,234,567,890\r\n    what: a remark" in shown


def test_a_table_in_a_pipe_is_not_folded_at_all(capsys):
    console.table("Title", ["file", "what"], [["x" * 150, "y " * 80]])
    assert any("x" * 150 in line and ("y " * 80).strip() in line for line in capsys.readouterr().out.splitlines())


# Errors --------------------------------------------------------------------------------------------------------------

def ended(main, capsys) -> tuple[int, str]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    unraisable = sys.unraisablehook
    with pytest.raises(SystemExit) as end:
        console.run(main)
    sys.unraisablehook = unraisable
    for number, handler in before.items():  # a program that is stopped ignores them to its end
        signal.signal(number, handler)
    return end.value.code, capsys.readouterr().err


def broken() -> int:
    raise ValueError("no window 3..2\nin 0..2")


def test_what_nobody_foresaw_is_two_lines(capsys, monkeypatch):
    monkeypatch.setattr(console.log, "level", logging.ERROR)  # --quiet
    status, err = ended(broken, capsys)
    assert status == 1 and err.splitlines()[0].startswith("error: ValueError: no window 3..2 (test_console.py, line ")
    assert err.count("\n") == 2 and "\n  try: " in err and "--log-level DEBUG" in err
    status, err = ended({}.popitem, capsys)
    assert status == 1 and err.startswith("error: KeyError: 'popitem(): dictionary is empty' (")
    assert ended(lambda: [][0:0].index(None), capsys)[0] == 1


def test_debug_shows_where_it_happened(monkeypatch):
    monkeypatch.setattr(console.log, "level", logging.DEBUG)
    with pytest.raises(ValueError, match="no window"):
        console.run(broken)


def test_other_ends(capsys):
    def stopped():
        raise KeyboardInterrupt

    def foreseen():
        raise console.LabError("a", "b")

    status, err = ended(stopped, capsys)
    assert status == 130 and "stopped by Ctrl-C" in err
    for number, name, status in ((signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "SIGHUP", 129)):
        line = f"\nstopped by {name}; files are either complete or as they were before\n"
        assert ended(lambda number=number: signal.raise_signal(number), capsys) == (status, line)
        assert signal.getsignal(number) == signal.SIG_DFL
    assert ended(foreseen, capsys) == (1, "error: a\n  try: b\n")
    assert ended(lambda: None, capsys) == (0, "") and ended(lambda: 1, capsys) == (1, "")
    assert ended(lambda: sys.exit(2), capsys) == (2, "")


def test_a_signal_that_is_ignored_stays_so(capsys):
    """As after nohup: the terminal may be closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ended(lambda: signal.raise_signal(signal.SIGHUP), capsys) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


# A module that is imported while a signal comes, and that turns what the handler raised into an error of its own.
HIDES = """import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(20)
except BaseException:
    raise {error} from None
"""
AS_C_DOES = 'ImportError("numpy.core.multiarray failed to import")'
AS_A_CATCH_ALL_DOES = 'AttributeError("partially initialized module")'


@pytest.mark.parametrize("number, status, name", [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
@pytest.mark.parametrize("error", [AS_C_DOES, AS_A_CATCH_ALL_DOES])
@pytest.mark.parametrize("module", ["onnxruntime", "soxr"])  # imported by `main`, and before it
def test_a_signal_during_an_import_ends_the_runtime_as_any_other(nano_export, tmp_path, module, error, number, status,
                                                                  name):
    (tmp_path / f"{module}.py").write_text(HIDES.format(number=int(number), error=error))
    done = subprocess.run([sys.executable, "-m", "whisper_lab", ROOT / "media" / "kitchen.wav", "--model", "nano",
                           "--model-dir", nano_export / "graphs", "--quiet"], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])})
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr == f"\nstopped by {name}; files are either complete or as they were before\n"


def test_what_the_signal_left_half_made_says_nothing(tmp_path):
    """Python writes what goes wrong in a __del__ to stderr, as the wave module's does after half an __init__."""
    program = ("import signal\nfrom whisper_lab import console\n\nclass Wave:\n"
               "    def __init__(self):\n        signal.raise_signal(signal.SIGTERM)\n        self.file = None\n"
               "    def __del__(self):\n        self.file\n\nconsole.run(Wave)\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    line = "\nstopped by SIGTERM; files are either complete or as they were before\n"
    assert (done.returncode, done.stderr) == (143, line)


def test_an_error_by_itself_is_no_stop(capsys):
    def fails():
        raise ImportError("no module")

    def later(sees: bool):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if sees:  # as 09 does, which Ctrl-C spares its comparison
            console.go_on()
        raise console.LabError("a", "b")

    assert ended(fails, capsys)[0] == 1
    assert ended(lambda: later(sees=True), capsys) == (1, "error: a\n  try: b\n")
    assert ended(lambda: later(sees=False), capsys)[0] == 130  # a library has caught it, and tripped over the half
    assert ended(fails, capsys)[0] == 1  # the stop of the run before is forgotten


# Foreign text --------------------------------------------------------------------------------------------------------

EVIL = "a\x1b[2J\x1b]0;title\x07\r\x9b31m\u202etxt\u2028b\x00\x7f\udc80"
SHOWN = r"a\u001b[2J\u001b]0;title\u0007\u000d\u009b31m\u202etxt\u2028b\u0000\u007f\udc80"


def test_what_a_terminal_obeys_is_written_out():
    assert console.plain(EVIL) == SHOWN and json.loads(f'"{SHOWN}"') == EVIL
    assert console.plain("a\nb\tc") == "a\nb\tc" and console.plain("a\nb\tc", one_line=True) == r"a\nb\tc"
    kept = "Nérine, \u4f60\u597d, \u0645\u0631\u062d\u0628\u0627\u200f, e\u0301, \U0001f600, \u00a0, \u200d"
    assert console.plain(kept, one_line=True) == kept


@pytest.mark.parametrize("say", [
    lambda text: console.note(text, text, text), console.warn, console.result,
    lambda text: console.error(console.LabError(text, text)), lambda text: console.log.error("error: %s", text),
    lambda text: console.table(text, [text, "b"], [[text, text]]),
    lambda text: flags.parser("", "seed").error(text)])
def test_it_never_reaches_a_terminal(say, capsys):
    flags.parse(flags.parser("", "seed"), [])
    try:
        say(EVIL)
    except SystemExit as end:
        assert end.code == 2
    both = "".join(capsys.readouterr())
    assert SHOWN[:12] in both.replace("\n", "") and not console.OBEYED.search(both)


@pytest.mark.parametrize("say", [
    lambda text: console.note(text, text, text), console.warn, lambda text: console.error(console.LabError(text, text)),
    lambda text: console.table(text, [text], [[text]]), lambda text: flags.parser("", "seed").error(text)])
def test_a_name_with_a_line_end_makes_no_line(say, capsys):
    flags.parse(flags.parser("", "seed"), [])
    try:
        say("x.wav\nerror: fake")
    except SystemExit:
        pass
    assert not any(line.startswith("error: fake") for line in "".join(capsys.readouterr()).splitlines())


def test_an_error_that_nobody_foresaw_is_written_out_too(capsys, monkeypatch):
    def fails():
        raise ValueError(EVIL)

    monkeypatch.setattr(console.log, "level", logging.ERROR)
    err = ended(fails, capsys)[1]
    assert r"ValueError: a\u001b[2J" in err and not console.OBEYED.search(err)
    monkeypatch.setattr(console.log, "level", logging.DEBUG)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(ValueError) as caught:
        console.run(fails)
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert SHOWN in (err := capsys.readouterr().err) and not console.OBEYED.search(err) and "Traceback" in err


def test_scripts_show_names_as_text(run_script, tmp_path, nano):
    clip = tmp_path / "a\x1b[31m\nerror: fake.wav"
    shutil.copy(NANO.parent.parent / "media" / "kitchen.wav", clip)
    done = run_script("02-whisper-huggingface.py", "--model", "nano", "--threads", "1", clip,
                      tmp_path / "no\x1b", cwd=tmp_path)
    again = run_script("02-whisper-huggingface.py", "--model", "nano", "--threads", "1", clip, cwd=tmp_path)
    for said in (done.stdout + done.stderr, again.stdout + again.stderr):
        assert "\x1b" not in said and not any(line.startswith("error: fake") for line in said.splitlines())
    assert "turn on the lights" in again.stdout


def test_live_text_is_text():
    from types import SimpleNamespace

    from whisper_lab.stream.screen import Screen

    out = io.StringIO()
    Screen(out).close([SimpleNamespace(text="a\x1b[2J")])
    assert out.getvalue() == "a\\u001b[2J\n"


@pytest.mark.parametrize("script", ("01-record-audio-app", "05-explore-in-netron",
                                    *(script.split()[0] for script in SCRIPTS)))
def test_every_script_tells_its_version(script, call_script):
    status, out, _ = call_script(script, "--version")
    assert status == 0 and out == f"Whisper ONNX Lab {whisper_lab.__version__}\n"


@pytest.mark.parametrize("script", ("01-record-audio-app", "05-explore-in-netron",
                                    *(script.split()[0] for script in SCRIPTS)))
def test_help_fits_eighty_columns(script, call_script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for flag in ("--help", "--help-all"):
        status, out, _ = call_script(script, flag)
        assert status == 0 and [line for line in out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("script", ("01-record-audio-app", "05-explore-in-netron",
                                    *(script.split()[0] for script in SCRIPTS)))
def test_a_command_in_the_help_can_be_copied(script, call_script, monkeypatch):
    """Also one that is folded: a pipe that ended in `python` opened a prompt, and the next line was no command."""
    monkeypatch.setenv("COLUMNS", "80")
    examples = re.findall(rf"^    (?!\d)(\S.*{script}\S* .*?)(?:  #.*)?$", (ROOT / f"{script}.py").read_text(), re.M)
    shown = re.sub(r" \\\n\s+", " ", call_script(script, "--help")[1])
    lines = [line.partition("  #")[0].rstrip() for line in shown.splitlines()]
    assert examples and [command for command in map(str.strip, examples) if f"    {command}" not in lines] == []


@pytest.mark.parametrize("script", ("01-record-audio-app", "02-whisper-huggingface", "03-export-encoder-decoder",
                                    "04-compare-precisions", "05-explore-in-netron", "06-profile-energy",
                                    "07-explore-architecture", "08-single-onnx-model", "09-stream-microphone",
                                    "10-who-spoke", "whisper_lab.__main__"))
def test_help_fits_a_screen(script, call_script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call_script(script, "--help")
    assert status == 0 and len(out.splitlines()) <= 45 and "--help-all" in out


def test_what_is_typed_is_whole_in_a_narrow_help(call_script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    _, out, _ = call_script("02-whisper-huggingface", "--help-all")
    assert "$WHISPER_LAB_PACKAGE_INDEX" in out and "generation_config.json" in out and "speech.wav" in out


def test_a_width_that_is_none_is_not_taken():
    for given in ("-5", "0", "abc"):
        shown = terminal("""
            from whisper_lab import console
            console.error(console.LabError("a problem", "a remedy"))
            """, given={"COLUMNS": given})
        assert [line.strip() for line in shown.splitlines()] == ["error: a problem", "try: a remedy"], given


def test_an_example_whose_remark_goes_above_it_is_measured_again():
    line = "    python -m whisper_lab archive recordings --shard 2/8      # the second of eight tasks"
    made = flags._folded(line, 50)
    assert made == ["    # the second of eight tasks", "    python -m whisper_lab archive recordings \\",
                    "        --shard 2/8"]
