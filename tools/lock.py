"""The lock: every package that `make` installs, of one version, with the digest of every file offered for it.

    make lock                                 # versions that fit the pins are kept
    make lock UPGRADE=yes                     # what is behind the pins becomes as new as it can be
    python tools/lock.py --check              # do locks and pins agree? exit status 1 and two lines if not

The pins are in requirements*.txt, by hand and with their reasons. From them uv finds what else is needed, for every
system and every Python from 3.11 on, and asks the index for the digests. The result is cut into files that pip installs
with --require-hashes:

    locks/lab.txt         the lab, but for torch
    locks/torch-cpu.txt   torch as a CPU build (`+cpu`), where the index of this machine offers one
    locks/torch.txt       torch as everyone has it; on Linux it needs CUDA's libraries, which are here too
    locks/dev.txt         what the tests need on top
    locks/nodeps.txt      what is installed without what it needs itself
    locks/tools.txt       uv and pip-audit, for an environment of their own
    locks/oldest.txt      the oldest onnxruntime, for the test that runs it
    locks/openvino.txt    what --provider openvino needs, in an environment of its own
    locks/edge.txt        what the archive of `make edge-pack` needs on a small device

The usual package index does not have torch's CPU builds, so uv cannot ask for their digests: they are in
locks/torch-cpu.sha256, one line a file as `sha256sum` prints it, to be renewed by hand with the pin of torch.
Python's own library alone is used: this runs before anything is installed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console, files  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

OLDEST_PYTHON = "3.11"
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[\w,-]*\])?==([\w.+!-]+)")
DIGEST = re.compile(r"--hash=(sha256:[0-9a-f]{64})(?![0-9a-f])")
# What only a build for NVIDIA GPUs needs. nvidia-ml-py, the energy counters' reader, is one of the lab's own pins.
FOR_CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")
# Which files of locks/ have to contain the pins of which file.
SOURCES = {"requirements.txt": ("lab.txt", "torch.txt"), "requirements-dev.txt": ("dev.txt", "lab.txt"),
           "requirements-nodeps.txt": ("nodeps.txt",), "requirements-tools.txt": ("tools.txt",),
           "requirements-oldest.txt": ("oldest.txt",), "requirements-openvino.txt": ("openvino.txt",),
           "requirements-edge.txt": ("edge.txt",)}
INSTALLS = ("lab.txt", "torch-cpu.txt", "torch.txt", "dev.txt", "nodeps.txt", "tools.txt", "oldest.txt", "openvino.txt",
            "edge.txt")


def canonical(name: str) -> str:
    """One spelling of a package's name, the index's: `Jinja2` -> `jinja2`, `onnx_ir` -> `onnx-ir`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Name -> version of the lines `name==version` in a file of pins or in a lock."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {canonical(match[1]): match[2] for line in lines if (match := PIN.match(line))}


def entries(text: str) -> dict[str, str]:
    """Name -> its lines in a lock: the pin, then one --hash a line."""
    found = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {canonical(match[1]): entry for entry in found if (match := PIN.match(entry))}


def digests(entry: str) -> list[str]:
    """The digests of one entry, `sha256:...`."""
    return DIGEST.findall(entry)


# Making -------------------------------------------------------------------------------------------------------------

def resolve(uv: str, source: Path, preferred: str, *options: str) -> dict[str, str]:
    """The entries that uv finds for a file of pins; `preferred`: a lock whose versions are taken where they fit.

    Raises LabError, with uv's own words above it, where the pins contradict each other or the index does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "lock.txt"
        made.write_text(preferred, encoding="utf-8")
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON,
                   "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-progress",
                   *options, "--output-file", str(made), str(source)]
        try:
            done = subprocess.run(command, env=_with_certificates(), stdout=subprocess.DEVNULL)
        except OSError as error:
            raise LabError(f"{uv} cannot be run: {error.strerror}", "make lock   (which installs uv first)") from error
        if done.returncode:
            raise LabError(f"the pins of {source.name} could not be resolved: uv says why above",
                           "look at the pins it names, or at the network; then make lock again")
        return entries(made.read_text(encoding="utf-8"))


def _with_certificates() -> dict[str, str]:
    """The environment for uv: it takes the certificates that pip was told to take."""
    told = os.environ.get("PIP_CERT")
    return os.environ | ({"SSL_CERT_FILE": told} if told and "SSL_CERT_FILE" not in os.environ else {})


def cpu_torch(version: str, listing: Path) -> str:
    """torch's CPU builds as an entry of a lock. Raises LabError where the listing has none of this version."""
    lines = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    found = sorted(digest for digest, name in lines if name.startswith(f"torch-{version}+cpu-"))
    if not found:
        raise LabError(f"{listing.name} has no digest of torch {version}+cpu",
                       f"add a line `sha256sum` prints for each of its wheels to {listing.relative_to(ROOT)}")
    return " \\\n    ".join([f"torch=={version}+cpu", *(f"--hash=sha256:{digest}" for digest in found)]) + "\n"


def make(uv: str, upgrade: bool) -> dict[str, str]:
    """The text of each lock file, by name."""
    def kept(*names: str) -> str:
        paths = () if upgrade else [ROOT / "locks" / name for name in names]
        return "".join(path.read_text(encoding="utf-8") for path in paths if path.exists())

    before = kept("lab.txt", "torch.txt", "dev.txt")
    everything = resolve(uv, ROOT / "requirements-dev.txt", before)
    lab = resolve(uv, ROOT / "requirements.txt", "".join(everything.values()))
    lab = {name: everything[name] for name in lab}
    own = pins(ROOT / "requirements-dev.txt") | pins(ROOT / "requirements.txt")
    torch = {name for name in lab if name == "torch" or (FOR_CUDA.fullmatch(name) and name not in own)}
    parts = {
        "lab.txt": [entry for name, entry in lab.items() if name not in torch],
        "torch-cpu.txt": [cpu_torch(own["torch"], ROOT / "locks" / "torch-cpu.sha256")],
        "torch.txt": [lab[name] for name in sorted(torch)],
        "dev.txt": [entry for name, entry in everything.items() if name not in lab],
        "nodeps.txt": list(resolve(uv, ROOT / "requirements-nodeps.txt", "", "--no-deps").values()),
        "tools.txt": list(resolve(uv, ROOT / "requirements-tools.txt", kept("tools.txt")).values()),
        "oldest.txt": list(resolve(uv, ROOT / "requirements-oldest.txt", "", "--no-deps").values()),
        "openvino.txt": list(resolve(uv, ROOT / "requirements-openvino.txt", "".join(everything.values())).values()),
        "edge.txt": list(resolve(uv, ROOT / "requirements-edge.txt", "".join(lab.values())).values()),
    }
    header = "# Made by `make lock` from requirements*.txt. Not to be edited: tools/lock.py says what is what.\n"
    return {name: header + "".join(parts[name]) for name in INSTALLS}


# Checking -----------------------------------------------------------------------------------------------------------

def disagreements(root: Path = ROOT) -> list[str]:
    """What keeps the locks from being complete and current, one line each: pins against locks, digests, hosts."""
    texts = {name: (root / "locks" / name).read_text(encoding="utf-8") for name in INSTALLS}
    found = []
    for source, names in SOURCES.items():
        locked = {}
        for name in names:
            locked |= pins(root / "locks" / name)
        found += [f"{source} pins {name} {version}, the lock has {locked.get(name, 'no such package')}"
                  for name, version in pins(root / source).items() if locked.get(name) != version]
    torch, cpu = pins(root / "requirements.txt").get("torch"), pins(root / "locks" / "torch-cpu.txt").get("torch")
    if torch and cpu != f"{torch}+cpu":
        found.append(f"requirements.txt pins torch {torch}, locks/torch-cpu.txt has {cpu}")
    for name, text in texts.items():
        found += [f"locks/{name}: {package} has no digest" for package, entry in entries(text).items()
                  if not digests(entry)]
        if re.search(r"://|--(extra-)?index-url|--find-links", text):
            found.append(f"locks/{name} names an index")
    return found


def check() -> None:
    """Raises LabError where a lock is missing or does not agree with the pins."""
    try:
        found = disagreements()
    except OSError as error:
        raise LabError(f"{error.filename} cannot be read: {error.strerror}", "git checkout -- locks, or make lock")\
            from error
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise LabError(f"{found[0]}{more}", "make lock")


def main(argv: list[str] | None = None) -> int:
    """Make the locks, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where they disagree")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions behind the pins")
    parser.add_argument("--uv", default="uv", metavar="PATH", help="the uv to use (default: %(default)s)")
    args = parser.parse_args(argv)
    if not args.check:
        for name, text in make(args.uv, args.upgrade).items():
            files.write_text(ROOT / "locks" / name, text)
            kept = entries(text)
            print(f"locks/{name:<14} {len(kept):>3} packages, {sum(len(digests(e)) for e in kept.values()):>4} digests")
    check()
    return 0


if __name__ == "__main__":
    console.run(main)
