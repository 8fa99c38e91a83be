"""The lock agrees with the pins and with what is installed; `make` installs no file whose digest is not in it."""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# made by a test\n"


def load_lock():
    """tools/lock.py as a module."""
    spec = importlib.util.spec_from_file_location("lock_tool", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock = load_lock()


# The lock itself ------------------------------------------------------------------------------------------------------

def test_the_lock_is_complete_and_current():
    assert lock.disagreements() == []


@pytest.fixture
def copied(tmp_path) -> Path:
    """Pins and locks, to be spoiled."""
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    for name in lock.SOURCES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text, re.MULTILINE)
    path.write_text(re.sub(old, new, text, count=1, flags=re.MULTILINE))


@pytest.mark.parametrize("file, old, new, said", [
    ("requirements.txt", "^onnx==.*$", "onnx==9.9", "requirements.txt pins onnx 9.9, the lock has 1."),
    ("requirements-dev.txt", "^pytest==", "no-such-tool==1.0\npytest==", "the lock has no such package"),
    ("requirements-nodeps.txt", "==.*$", "==1", "requirements-nodeps.txt pins openai-whisper 1, the lock has 2"),
    ("locks/lab.txt", r"^jiwer==(.*) \\\n(    --hash.*\n)+", r"jiwer==\1\n", "locks/lab.txt: jiwer has no digest"),
    ("locks/lab.txt", r"^jiwer==(.*) \\\n(    --hash.*\n)+", "", "pins jiwer 4.0.0, the lock has no such package"),
    ("locks/lab.txt", r"\A", "--index-url https://index.example/simple\n", "locks/lab.txt names an index"),
    ("locks/torch-cpu.txt", r"^torch==\S+", "torch==1.0+cpu", "locks/torch-cpu.txt has 1.0+cpu"),
])
def test_each_disagreement_is_found(copied, file, old, new, said):
    change(copied / file, old, new)
    found = lock.disagreements(copied)
    assert len(found) == 1 and said in found[0]


def locked() -> dict[str, str]:
    """Name -> version over all locks but the tools'."""
    found = {}
    for name in ("torch.txt", "lab.txt", "dev.txt", "nodeps.txt"):
        found |= lock.pins(ROOT / "locks" / name)
    return found


def test_what_is_installed_here_is_what_the_lock_says():
    installed = {lock.canonical(each.name): each.version.partition("+")[0]
                 for each in importlib.metadata.distributions()}
    expected = locked()
    wrong = {name: (version, expected[name]) for name, version in installed.items()
             if name in expected and version != expected[name]}
    assert wrong == {}
    if os.environ.get("CI"):  # elsewhere people may have added packages of their own
        assert set(installed) - set(expected) - {"pip"} == set()


def test_everything_that_the_pins_need_here_is_in_the_lock():
    from packaging.requirements import Requirement

    alone, seen = set(lock.pins(ROOT / "requirements-nodeps.txt")), set()
    waiting = set(lock.pins(ROOT / "requirements.txt")) | set(lock.pins(ROOT / "requirements-dev.txt"))
    while waiting:
        seen.add(name := waiting.pop())
        for line in importlib.metadata.requires(name) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting |= {lock.canonical(need.name)} - seen
    assert len(seen) > 80 and seen | alone <= set(locked())


def test_a_small_device_gets_the_labs_own_versions_and_nothing_heavy():
    pinned, edge = lock.pins(ROOT / "requirements.txt"), lock.pins(ROOT / "requirements-edge.txt")
    assert set(edge) == {"numpy", "onnxruntime", "tokenizers", "soundfile", "soxr"}
    assert all(pinned[name] == version for name, version in edge.items())
    files = lock.entries((ROOT / "locks" / "edge.txt").read_text())
    lab = lock.entries((ROOT / "locks" / "lab.txt").read_text())
    assert all(lock.digests(files[name]) == lock.digests(lab[name]) for name in files)
    assert not set(files) & {"torch", "transformers", "onnx", "scipy", "rich", "gradio", "sounddevice"}


def test_the_cpu_listing_has_the_pinned_torch_for_each_system_and_python():
    lines = (ROOT / "locks" / "torch-cpu.sha256").read_text().splitlines()
    version = lock.pins(ROOT / "requirements.txt")["torch"]
    names = [line.split()[1] for line in lines]
    for python in ("cp311", "cp312", "cp313"):
        for system in ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "win_amd64"):
            assert f"torch-{version}+cpu-{python}-{python}-{system}.whl" in names
    assert len(lock.digests((ROOT / "locks" / "torch-cpu.txt").read_text())) == len(lines)


# Installing from it ---------------------------------------------------------------------------------------------------

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make_wheel(folder: Path, name: str, version: str) -> str:
    """An empty wheel; returns its digest."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("empty") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    return folder


@pytest.fixture
def project(tmp_path, empty_venv) -> Path:
    """A lab of two packages, `tiny` and `torch`; the index is a folder that has torch as a CPU build as well."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "lock.py", tmp_path / "tools")
    (tmp_path / "whisper_lab").symlink_to(ROOT / "whisper_lab")
    shutil.copytree(empty_venv, tmp_path / ".venv", symlinks=True)
    (tmp_path / ".venv" / ".python").touch()
    for folder in ("wheels", "locks"):
        (tmp_path / folder).mkdir()
    for name in lock.INSTALLS:
        (tmp_path / "locks" / name).write_text(HEADER)
    for name in lock.SOURCES:
        (tmp_path / name).write_text(HEADER)
    (tmp_path / "requirements.txt").write_text("tiny==1.0\ntorch==2.0\n")
    for name, version, file in (("tiny", "1.0", "lab"), ("torch", "2.0", "torch"), ("torch", "2.0+cpu", "torch-cpu")):
        digest = make_wheel(tmp_path / "wheels", name, version)
        (tmp_path / "locks" / f"{file}.txt").write_text(f"{name}=={version} --hash=sha256:{digest}\n")
    os.utime(tmp_path / "requirements.txt")
    return tmp_path


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`make` up to the lab's packages, with the folder of wheels as the only index."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PIP_"))}
    return subprocess.run(["make", ".venv/.lab", *arguments], cwd=project, capture_output=True, text=True, timeout=120,
                          env=kept | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels"),
                                      "PIP_CONFIG_FILE": os.devnull})


def installed(project: Path) -> set[str]:
    found = (project / ".venv").glob("lib/*/site-packages/t*.dist-info")
    return {path.name.removesuffix(".dist-info") for path in found}


@needs_make
def test_the_cpu_build_of_torch_is_taken_where_it_is_on_offer(project):
    done = make(project)
    assert done.returncode == 0, done.stderr
    assert installed(project) == {"tiny-1.0", "torch-2.0+cpu"} and (project / ".venv" / ".lab").exists()


@needs_make
def test_elsewhere_torch_is_the_one_that_everyone_has(project):
    next((project / "wheels").glob("*cpu*")).unlink()
    assert make(project).returncode == 0 and installed(project) == {"tiny-1.0", "torch-2.0"}


@needs_make
@pytest.mark.parametrize("file", ["lab.txt", "torch-cpu.txt"])
def test_a_file_that_is_not_the_locked_one_is_not_installed(project, file):
    path = project / "locks" / file
    path.write_text(re.sub("sha256:.", lambda found: found[0][:-1] + ("0" if found[0][-1] != "0" else "1"),
                           path.read_text()))
    done = make(project)
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr
    error, remedy = done.stdout.splitlines()[-2:]
    assert error.startswith("error: the packages were not installed") and remedy.startswith("  try: ")
    assert installed(project) == set() and not (project / ".venv" / ".lab").exists()
    unchecked = make(project, "LOCK=no")
    assert unchecked.returncode == 0 and "the digests of the packages are not checked" in unchecked.stdout
    assert installed(project) == {"tiny-1.0", "torch-2.0+cpu"}


@needs_make
def test_a_lock_that_lacks_a_package_installs_nothing(project):
    (project / "locks" / "lab.txt").write_text(HEADER)
    done = make(project)
    assert done.returncode != 0 and installed(project) == set()
    assert "error: requirements.txt pins tiny 1.0, the lock has no such package\n  try: make lock\n" in done.stderr
