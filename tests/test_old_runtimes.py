"""The oldest onnxruntime that works is a real wheel, run here; graphs that are too new for one are refused clearly."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import old_runtimes
from tests.helpers.nano_pair import NAME, take
from whisper_lab import doctor, sessions
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
OLDEST = ROOT / "locks" / "oldest.txt"


@pytest.fixture(scope="module")
def oldest() -> Path:
    """A folder with the wheels of locks/oldest.txt, kept in .old-runtimes for the next run; skips where none are."""
    from filelock import FileLock

    version = re.search(r"^onnxruntime==(\S+)", OLDEST.read_text(), re.MULTILINE)[1]
    folder = ROOT / ".old-runtimes" / f"{version}-python{sys.version_info[0]}.{sys.version_info[1]}"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        reason = old_runtimes.install(["--require-hashes", "-r", str(OLDEST)], folder)
    if reason and "HASH" in reason:
        pytest.fail(reason)
    if reason:
        pytest.skip(f"no old onnxruntime for this Python here: {reason}")
    return folder


def hear(folder: Path, graphs: Path, *arguments: str) -> subprocess.CompletedProcess:
    return old_runtimes.hear(["-m", "whisper_lab.onnx_whisper", "media/kitchen.wav", "--model", NAME, "--model-dir",
                              str(graphs), "--threads", "1", *arguments], folder)


@pytest.mark.parametrize("precision, suffix", [("fp32", ""), ("fp16", "_fp16"), ("int8", "_int8")])
def test_the_oldest_onnxruntime_hears_the_same(oldest, nano_export, tmp_path, precision, suffix):
    graphs = take(nano_export, tmp_path, suffix)
    texts = [hear(folder, graphs, "--precision", precision, "--quiet") for folder in (oldest, None)]
    assert texts[0].returncode == 0, texts[0].stderr
    assert texts[0].stdout == texts[1].stdout == "turn on the lights in the kitchen\n"


def test_the_oldest_onnxruntime_listens_too(oldest, nano_export, tmp_path):
    """09 has graphs of its own besides: it asks Silero's where someone speaks, if it is to be had."""
    graphs = take(nano_export, tmp_path, "_int8")
    done = old_runtimes.hear(["09-stream-microphone.py", "media/kitchen.wav", "--model", NAME, "--model-dir",
                              str(graphs), "--threads", "1", "--quiet", "--output-dir", str(tmp_path / "out")], oldest)
    assert (done.returncode, done.stdout) == (0, "turn on the lights in the kitchen\n"), done.stderr


def test_a_detector_opens_where_sessions_know_no_shared_pool(monkeypatch):
    """onnxruntime before 1.23."""
    from whisper_lab.speakers import voice

    options = SimpleNamespace(intra_op_num_threads=4)
    monkeypatch.setattr("whisper_lab.sessions.session_options", lambda *others, **named: options)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *others, **named: SimpleNamespace())
    voice.SpeechDetector(Path("silero.onnx"))
    assert options.intra_op_num_threads == 1


def test_it_really_is_the_oldest(oldest):
    code = "import onnxruntime, numpy; print(onnxruntime.__version__, numpy.__file__)"
    done = subprocess.run([sys.executable, "-c", code],
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(oldest)})
    assert done.stdout.split() == [re.search("onnxruntime==(.*?) ", OLDEST.read_text())[1],
                                   str(oldest / "numpy" / "__init__.py")]
    version = sessions.version_of(done.stdout)
    assert version == min(sessions.OLDEST.values())


@pytest.mark.parametrize("suffix, arguments, wanted, instead", [
    ("_int4", ["--precision", "int4"], "1.22", "take --precision int8"),
    ("_int8_optimized", ["--precision", "int8", "--optimized"], "1.22", "leave out --optimized")])
def test_graphs_that_are_too_new_for_it_say_what_they_need(oldest, nano_export, tmp_path, suffix, arguments, wanted,
                                                           instead):
    done = hear(oldest, take(nano_export, tmp_path, suffix), *arguments)
    assert done.returncode == 1 and not done.stdout
    assert re.search(rf"error: the .* graphs need onnxruntime {wanted} or newer, and this is 1\.17\.1\n"
                     rf"  try: pip install 'onnxruntime>={wanted}', or {instead}\n$", done.stderr)


@pytest.mark.parametrize("here, graphs, refused", [
    ("1.16.3", "fp32", "need onnxruntime 1.17"), ("1.17.0", "int8", None), ("1.21.1", "int4", "need onnxruntime 1.22"),
    ("1.22.0", "int4", None), ("1.21.1", "int8 optimized", "need onnxruntime 1.22"),
    ("1.100.0", "int8 optimized", None), ("2.0.0", "int4", None), ("unknown", "int4", None), ("1.17.1", "mixed", None)])
def test_what_each_version_is_refused(monkeypatch, here, graphs, refused):
    monkeypatch.setattr("onnxruntime.__version__", here)
    if refused is None:
        sessions.check_version(graphs)
        return
    with pytest.raises(LabError, match=refused) as raised:
        sessions.check_version(graphs)
    assert (", or " in raised.value.remedy) == (here != "1.16.3")


@pytest.mark.parametrize("installed, status, said", [
    ("1.31.1", "OK", "opens all of them (1.17 is the oldest that opens any)"),
    ("1.22.0", "OK", "opens all of them"), ("1.17.1", "WARN", "int4 needs 1.22, int8 optimized needs 1.22"),
    ("1.16.3", "FAIL", "fp32 needs 1.17")])
def test_the_doctor_says_what_the_installed_one_opens(installed, status, said):
    check = doctor.judge_runtime(installed)
    assert check.status == status and said in check.found
    assert (check.fix is None) == (status == "OK")


def test_without_the_pool_of_a_process_each_session_has_its_own(monkeypatch):
    """onnxruntime before 1.23 has no such function in Python."""
    monkeypatch.delattr("onnxruntime.set_global_thread_pool_sizes")
    monkeypatch.setattr(sessions, "_make_pool", lambda threads: pytest.fail("asked for a pool"))
    options = sessions.session_options("encoder", 1, shared_pool=True)
    assert options.intra_op_num_threads == 1 and options.use_per_session_threads


def test_the_table_has_been_written_for_this_lab():
    table = (ROOT / "benchmarks" / "OLD-RUNTIMES.md").read_text(encoding="utf-8")
    rows = {cells[0]: cells[1:] for line in table.splitlines() if re.match(r"\| \d", line)
            for cells in [[cell.strip() for cell in line.strip("|").split("|")]]}
    assert set(old_runtimes.VERSIONS) < set(rows)
    for column, graphs in enumerate(("fp32", "fp16", "int8", "int4", "int8 optimized")):
        for version in old_runtimes.VERSIONS:
            works = sessions.version_of(version) >= sessions.OLDEST[graphs]
            assert (rows[version][column] == "same text") == works, (version, graphs)
