"""The archive of `make edge-pack`: complete, the same each time, and it runs where nothing of the lab is installed."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.helpers.nano_pair import NAME, take
from tools import edge_pack, lock
from whisper_lab import console, machine
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
SAID = "turn on the lights in the kitchen\n"
CLIP = ROOT / "media" / "kitchen.wav"
LARGEST = 80e6  # bytes of the archive of base int8


@pytest.fixture(scope="module")
def archive(nano_export, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    return edge_pack.pack("nano", "int8", False, take(nano_export, folder / "graphs", "_int8"), folder)


@pytest.fixture(scope="module")
def unpacked(archive, tmp_path_factory) -> Path:
    """The archive's folder, elsewhere; nobody writes into it."""
    folder = tmp_path_factory.mktemp("device")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with what requirements-edge.txt installs, out of this environment, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    installed = {lock.canonical(each.name): each for each in importlib.metadata.distributions()}
    for name in lock.pins(ROOT / "locks" / "edge.txt"):
        for file in (installed[name].files or ()) if name in installed else ():
            if (top := file.parts[0]) not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(installed[name].locate_file(top))
    return folder


@pytest.fixture
def device(unpacked, packages, tmp_path):
    """A function: Python on the device, with these arguments, in the archive's folder."""
    def run(*arguments: object, folder: Path = unpacked, **options) -> subprocess.CompletedProcess:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WHISPER", "PYTHON"))}
        environment = kept | {"PYTHONPATH": os.pathsep.join([str(folder), str(packages)]), "HOME": str(tmp_path)}
        return subprocess.run([sys.executable, "-S", *map(str, arguments)], cwd=tmp_path, env=environment, timeout=120,
                              capture_output=True, **({"text": True} | options))
    return run


def errors(done: subprocess.CompletedProcess) -> tuple[str, str]:
    """The two lines of an error."""
    assert done.returncode == 1, done.stderr
    problem, remedy = done.stderr.splitlines()[-2:]
    return problem.removeprefix("error: "), remedy.removeprefix("  try: ")


# The archive ---------------------------------------------------------------------------------------------------------

def test_the_same_graphs_make_the_same_bytes(archive, nano_export, tmp_path):
    graphs = take(nano_export, tmp_path / "elsewhere", "_int8")
    for path in graphs.rglob("*"):
        os.utime(path, (1e9, 1e9))
    again = edge_pack.pack("nano", "int8", False, graphs, tmp_path)
    assert again.read_bytes() == archive.read_bytes()
    with tarfile.open(again) as packed:
        assert {(entry.mtime, entry.uid, entry.uname) for entry in packed} == {(0, 0, "")}


def test_the_list_of_digests_is_complete(unpacked):
    listed = dict(reversed(line.split("  ")) for line in (unpacked / "SHA256SUMS").read_text().splitlines())
    present = {str(path.relative_to(unpacked)): hashlib.sha256(path.read_bytes()).hexdigest()
               for path in unpacked.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert present.pop("SHA256SUMS") and listed == present


def test_it_has_what_it_promises(unpacked):
    assert (unpacked / "requirements-edge.txt").read_bytes() == (ROOT / "locks" / "edge.txt").read_bytes()
    assert "CC BY-SA 4.0" in (unpacked / "LICENCES.md").read_text()
    assert "{" not in (unpacked / "README.md").read_text()
    assert json.loads((unpacked / "whisper_lab" / "pack.json").read_text())["model"] == NAME


def test_what_is_beside_the_graphs_is_small(unpacked):
    """So that base int8, whose graphs and tokenizer have 79 MB, is below 80 MB as an archive: see the next two."""
    beside = sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file()
                 and "__pycache__" not in path.parts and path.relative_to(unpacked).parts[0] != "graphs")
    assert beside < 2e6


def test_base_int8_was_below_80_mb():
    found = json.loads((ROOT / "benchmarks" / "devices.json").read_text())["packs"]["whisper-base-int8"]
    assert 0 < found["archive_bytes"] < LARGEST < found["unpacked_bytes"] < 1.05 * LARGEST


@pytest.mark.skipif(not (graphs := Path(os.environ.get("BASE_GRAPHS", ROOT / "whisper_model_dir")) /
                         "whisper-base_encoder_int8.onnx").is_file(), reason="no graphs of base: 03 --precision int8")
def test_base_int8_is_below_80_mb(tmp_path):
    assert 50e6 < edge_pack.pack("base", "int8", False, graphs.parent, tmp_path).stat().st_size < LARGEST


def test_nothing_is_left_of_an_archive_without_graphs(tmp_path):
    with pytest.raises(LabError, match="there is no encoder") as raised:
        edge_pack.pack("nano", "int8", False, tmp_path, tmp_path / "packs")
    assert "03-export-encoder-decoder.py --model nano --precision int8" in raised.value.remedy
    assert not (tmp_path / "packs").exists()


def test_a_damaged_graph_is_not_packed(nano_export, tmp_path):
    graphs = take(nano_export, tmp_path, "_int8")
    damage(graphs / f"{NAME}_decoder_int8.onnx")
    with pytest.raises(LabError, match="damaged"):
        edge_pack.pack("nano", "int8", False, graphs, tmp_path / "packs")


def damage(graph: Path) -> None:
    """One bit in the middle."""
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)


# Its modules ---------------------------------------------------------------------------------------------------------

def test_what_is_left_out_exists_and_would_otherwise_come_along():
    reached = set().union(*(edge_pack.imports(path) for path in edge_pack.modules().values()))
    assert set(edge_pack.LEFT_OUT) <= reached


def test_the_archive_has_no_module_for_exporting_and_none_of_the_heavy_packages(unpacked):
    names = {name.partition(".")[0] for name in edge_pack.modules()}
    assert "sessions" in names and not names & {"checkpoints", "compare", "export", "record", "single", "sweeps"}
    for path in (unpacked / "whisper_lab").rglob("*.py"):
        at_the_top = re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"torch", "transformers", "onnx", "rich", "tqdm", "psutil", "av", "jiwer"} & set(at_the_top), path


# Running it ----------------------------------------------------------------------------------------------------------

def test_the_device_has_no_other_packages(device):
    names = ["onnxruntime", "torch", "transformers", "rich", "psutil", "av", "jiwer", "sounddevice", "pytest"]
    done = device("-c", f"import importlib.util as u; print([name for name in {names} if u.find_spec(name)])")
    assert done.stdout == "['onnxruntime']\n", done.stderr


def test_a_clip_needs_no_flag(device):
    done = device("-m", "whisper_lab", CLIP, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, SAID, "")


def test_words_subtitles_and_the_json_document(device, tmp_path):
    done = device("-m", "whisper_lab", CLIP, "--timestamps", "word", "--format", "srt", "--json", "found.json",
                  "--quiet")
    assert done.returncode == 0 and "-->" in done.stdout, done.stderr
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["machine"]["memory_bytes"] > 1e8 and document["clips"][0]["segments"][0]["words"]


def test_live_text_from_samples_on_standard_input(device, tmp_path):
    samples = CLIP.read_bytes()[44:]
    done = device("-m", "whisper_lab", "--listen", "--stdin", "--output-dir", tmp_path, input=samples, text=False)
    assert done.returncode == 0 and done.stdout.decode() == SAID, done.stderr.decode()
    assert b"by level" not in done.stderr or b"silero-vad is not in" in done.stderr
    assert (tmp_path / f"stream-{NAME}.txt").read_text() == SAID


def test_help_shows_the_devices_own_commands(device):
    done, listening = device("-m", "whisper_lab", "--help"), device("-m", "whisper_lab", "--listen", "--help")
    for shown in (done.stdout, listening.stdout):
        assert "it takes the graphs that came with it" in " ".join(shown.split())  # whatever the defaults below say
        assert "python -m whisper_lab --listen" in shown and "03" not in shown.partition("options:")[0]
    assert listening.stdout.startswith("usage: python -m whisper_lab --listen [options]")


@pytest.mark.parametrize("arguments, problem, remedy", [
    (["--listen"], "sounddevice is not installed", r"-m pip install sounddevice==[\d.]+; or without it: arecord"),
    ([CLIP, "--precision", "fp32"], "there is no encoder", "leave out --model, --precision, --optimized"),
    (["nowhere.wav"], "no such file", "record one with arecord .* speech.wav, or name a sound file"),
    ([CLIP, "--model=tiny"], "there is no encoder", "this archive has whisper-nano int8"),
])
def test_advice_is_for_the_device(device, arguments, problem, remedy):
    told, advice = errors(device("-m", "whisper_lab", *arguments))
    assert problem in told and re.search(remedy, advice) and "03-" not in advice and "01-" not in advice


def test_advice_about_word_times_is_not_to_unpack_again():
    place = importlib.util.spec_from_file_location("launch", edge_pack.DEVICE / "launch.py")
    place.loader.exec_module(launch := importlib.util.module_from_spec(place))
    error = LabError("no word times", "write one: python 03-export-encoder-decoder.py --alignment-heads")
    advice = launch.advice(error, {"model": NAME, "precision": "int8"}, ["--timestamps", "word"])
    assert advice.startswith("take --timestamps segment; or, where the lab is") and "03-" not in advice


def test_archive_is_not_part_of_the_pack_and_the_remedy_works(device, tmp_path):
    problem, remedy = errors(done := device("-m", "whisper_lab", "archive", "recordings", "--output-dir", "out"))
    assert "archive" in problem and "not part of this pack" in problem and done.stderr.count("\n") == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "recordings").mkdir()
    shutil.copy(CLIP, tmp_path / "recordings")
    typed = re.search(r"python (-m whisper_lab) FOLDER", remedy)[1].split()
    assert SAID in device(*typed, "recordings", "--quiet").stdout


def test_damage_on_the_device_is_noticed_and_the_remedy_finds_it(device, unpacked, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(unpacked, copy)
    damage(copy / "graphs" / f"{NAME}_encoder_int8.onnx")
    problem, remedy = errors(device("-m", "whisper_lab", CLIP, folder=copy))
    command = re.search(r"sha256sum -c --quiet SHA256SUMS", remedy)[0]
    done = subprocess.run(command.split(), cwd=copy, capture_output=True, text=True)
    assert "damaged" in problem and done.returncode and f"{NAME}_encoder_int8.onnx: FAILED" in done.stdout


def test_the_optimized_pair_hears_clips_and_listens(nano_export, device, tmp_path):
    made = edge_pack.pack("nano", "int8", True, take(nano_export, tmp_path / "graphs", "_int8_optimized"), tmp_path)
    with tarfile.open(made) as packed:
        packed.extractall(tmp_path, filter="data")
    folder = tmp_path / f"{NAME}-int8-optimized"
    assert device("-m", "whisper_lab", CLIP, "--quiet", folder=folder).stdout == SAID
    samples = Path(CLIP).read_bytes()[44:]
    done = device("-m", "whisper_lab", "--listen", "--stdin", "--output-dir", tmp_path, input=samples, text=False,
                  folder=folder)
    assert done.stdout.decode() == SAID


# The service ---------------------------------------------------------------------------------------------------------

SERVICE = ROOT / "edge" / "device" / "whisper-listen.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path):
    done = subprocess.run(["systemd-analyze", "verify", SERVICE], capture_output=True, text=True)
    assert done.returncode == 0 and SERVICE.name not in done.stderr, done.stderr
    spoiled = tmp_path / SERVICE.name
    spoiled.write_text(SERVICE.read_text().replace("Restart=always", "Restart=perhaps"))
    assert "perhaps" in subprocess.run(["systemd-analyze", "verify", spoiled], capture_output=True, text=True).stderr


def test_the_units_command_writes_what_arecord_hears(unpacked, packages, tmp_path):
    command = re.search(r"^ExecStart=/bin/bash -o pipefail -c '(.*?)'$", SERVICE.read_text(), re.M | re.S)[1]
    command = command.replace("\\\n", " ").replace("/var/lib/whisper", str(tmp_path)).replace("v/bin/python", "python")
    for name, text in {"arecord": f'echo "$@" > {tmp_path}/asked; tail -c +45 {CLIP}',
                       "python": f'exec {sys.executable} -S "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": f"{unpacked}:{packages}", "ALSA_DEVICE": "hw:1"}
    done = subprocess.run(["/bin/bash", "-o", "pipefail", "-c", command], cwd=unpacked, capture_output=True, text=True,
                          timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (0, SAID), done.stderr
    assert (tmp_path / "asked").read_text() == "-q -D hw:1 -f S16_LE -r 16000 -c 1 -t raw\n"


# What the runtime can do without -------------------------------------------------------------------------------------

def test_memory_is_read_without_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert 1e8 < machine.memory_bytes() < 1e14


@pytest.mark.parametrize("text, columns", [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0)])
def test_columns_are_counted_without_rich(monkeypatch, text, columns):
    with_rich = console.cell_len(text)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert console.cell_len(text) == with_rich == columns


def test_a_table_without_rich_is_blocks_of_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.box", None)
    console.table("Microphones", ["number", "name"], [[1, "USB"]])
    assert capsys.readouterr().out == "Microphones\n  1\n    name: USB\n"
