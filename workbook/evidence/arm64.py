"""An arm64 Python with onnxruntime under emulation, to run exported graphs as an ARM board would.

    python -m workbook.evidence.arm64            # fetch it: Debian's arm64 Python, onnxruntime's aarch64 wheel

Nothing is installed into the system: 45 MB are fetched and unpacked into the user's cache (170 MB). Fetching needs
Debian or Ubuntu with apt-get and dpkg, and pip; running needs qemu-aarch64-static (apt-get install qemu-user-static).
Emulated times say nothing about a board; the numbers that come out of the graphs do.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from whisper_lab import console, files, flags
from whisper_lab.console import LabError

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper-onnx-lab" / "arm64"
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
# Name of the processor -> its number and features, as /proc/cpuinfo of a Raspberry Pi 5 and 4 has them.
CPUS = {"cortex-a76": ("0xd0b", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
                                "dcpop asimddp"),  # Armv8.2 with dot product
        "cortex-a72": ("0xd08", "fp asimd evtstrm crc32 cpuid")}  # Armv8.0
CPU = "cortex-a76"
PYTHON = "3.11"  # of Debian 12
PACKAGES = ["libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5",
            "libuuid1", f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"]
WHEELS = ("onnxruntime", "numpy")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def emulator() -> str | None:
    """The path of qemu's user-mode emulator, or None."""
    return next(filter(None, map(shutil.which, EMULATORS)), None)


def missing() -> str | None:
    """Why arm64 code cannot be run here, in one line; None where it can."""
    if not emulator():
        return "no qemu-aarch64-static (apt-get install qemu-user-static)"
    if not (FOLDER / "root" / "ready").is_file():
        return "no arm64 Python (python -m workbook.evidence.arm64)"
    return None


def command(*arguments: object, cpu: str = CPU) -> list[str]:
    """The emulated Python with these arguments, to be started as any program. cpu: of CPUS, one at a time."""
    root = FOLDER / "root"
    # onnxruntime reads this file to learn what the processor can do; the emulator would show it the host's own.
    files.write_text(root / "proc" / "cpuinfo", cpuinfo(cpu))
    return [emulator(), "-cpu", cpu, "-L", str(root), str(root / f"usr/bin/python{PYTHON}"), *map(str, arguments)]


def cpuinfo(cpu: str) -> str:
    """/proc/cpuinfo of a board with two cores of this kind."""
    part, features = CPUS[cpu]
    return "".join(f"processor\t: {i}\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
                   f"CPU variant\t: 0x4\nCPU part\t: {part}\nCPU revision\t: 1\n\n" for i in range(2))


def run(code: str, *arguments: object, timeout: float = 300) -> str:
    """stdout of Python code on the emulated processor. Raises LabError where it fails."""
    root = FOLDER / "root"
    try:
        done = subprocess.run(command("-c", code, *arguments), capture_output=True, text=True, timeout=timeout,
                              env={"PYTHONPATH": str(root / "site"), "OPENBLAS_NUM_THREADS": "1", "HOME": str(root)})
    except subprocess.TimeoutExpired as error:
        raise LabError(f"the emulated Python was not done after {timeout:g} s", "try again on a quiet machine") \
            from error
    if done.returncode:
        raise LabError(f"the emulated Python ended with {done.returncode}: {done.stderr.strip()[-200:]}",
                       "fetch it again: python -m workbook.evidence.arm64")
    return done.stdout


def fetch() -> Path:
    """Download and unpack everything; returns the folder. Raises LabError where a step fails."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise LabError(f"there is no {tool} here", "fetch the arm64 Python on Debian or Ubuntu")
    shutil.rmtree(FOLDER, ignore_errors=True)
    root, debs, wheels = FOLDER / "root", FOLDER / "debs", FOLDER / "wheels"
    for folder in (root / "proc", debs, wheels, FOLDER / "lists" / "partial", FOLDER / "archives" / "partial"):
        folder.mkdir(parents=True)
    # Lists and architecture of its own: the system's apt does not learn of arm64.
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={FOLDER / 'lists'}", "-o", f"Dir::Cache={FOLDER / 'archives'}",
           "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64", "-o", "APT::Sandbox::User=root"]
    _step("package lists", [*apt, "update"], debs)
    _step("packages", [*apt, "download", *PACKAGES], debs)
    for deb in sorted(debs.glob("*.deb")):
        _step(deb.name, ["dpkg-deb", "-x", str(deb), str(root)], debs)
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    _step("wheels", [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *platforms,
                     "--python-version", PYTHON, "-d", str(wheels), *wanted, "flatbuffers", "packaging"], debs)
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(root / "site")
    (root / "ready").touch()
    for folder in ("debs", "wheels", "lists", "archives"):
        shutil.rmtree(FOLDER / folder)
    return FOLDER


def _step(what: str, program: list[str], folder: Path) -> None:
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise LabError(f"fetching {what} failed: {(done.stderr or done.stdout).strip()[-200:]}",
                       "look at the network, or leave arm64 out: arm_quantization says so in arm64_reason")


def main(argv: list[str] | None = None) -> int:
    """Fetch, then ask the emulated Python what it is."""
    flags.parse(flags.parser(__doc__, "quiet", "log_level"), argv)
    fetch()
    if problem := missing():
        raise LabError(f"fetched into {FOLDER}, but: {problem}", "install it, then try again")
    console.result(run("import onnxruntime, platform; print(platform.machine(), 'onnxruntime', "
                       "onnxruntime.__version__)").strip())
    return 0


if __name__ == "__main__":
    console.run(main)
