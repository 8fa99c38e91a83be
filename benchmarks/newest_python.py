"""The newest Python that the archive for small devices is for, where this system has none: Debian testing's.

    python benchmarks/devices.py --only newest

Nothing is installed into the system, and its apt learns of nothing: 30 MB are fetched and unpacked into the user's
cache, with the C library that they need, whose loader starts them. Needs apt-get and dpkg on x86_64.
"""

import shutil
import subprocess
from pathlib import Path

from whisper_lab.console import LabError
from workbook.evidence import arm64

PYTHON, SUITE = "3.14", "forky"
FOLDER = arm64.FOLDER.with_name(f"python{PYTHON}")
PACKAGES = ["libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libssl3t64", "libffi8", "libbz2-1.0",
            "liblzma5", "libuuid1", "libzstd1", f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal",
            f"libpython{PYTHON}-stdlib"]
SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {} main\n"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")


def command() -> list[str]:
    """The fetched Python, to be started as any program. Raises LabError where it cannot be had."""
    root = FOLDER / "root"
    if not (root / "ready").is_file():
        fetch(root)
    return [str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(root / "usr/lib/x86_64-linux-gnu"),
            str(root / f"usr/bin/python{PYTHON}")]


def fetch(root: Path) -> None:
    """Download and unpack it. Raises LabError where a step fails."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise LabError(f"there is no {tool} here", "fetch it on Debian, or name a Python of your own: --python")
    shutil.rmtree(FOLDER, ignore_errors=True)
    lists, archives, debs, source = (FOLDER / name for name in ("lists", "archives", "debs", "sources.list"))
    for folder in (root, debs, lists / "partial", archives / "partial"):
        folder.mkdir(parents=True)
    source.write_text(SOURCE.format(SUITE), encoding="ascii")
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={archives}", "-o",
           f"Dir::Etc::sourcelist={source}", "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root"]
    _step("package lists", [*apt, "update"], debs)
    _step("packages", [*apt, "download", *PACKAGES], debs)
    for deb in sorted(debs.glob("*.deb")):
        _step(deb.name, ["dpkg-deb", "-x", str(deb), str(root)], debs)
    (root / "ready").touch()
    for folder in (lists, archives, debs):
        shutil.rmtree(folder)


def _step(what: str, program: list[str], folder: Path) -> None:
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise LabError(f"fetching {what} failed: {(done.stderr or done.stdout).strip()[-200:]}",
                       "look at the network, or name a Python of your own: --only pythons --python PATH")
