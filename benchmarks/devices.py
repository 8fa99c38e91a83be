"""The archive of `make edge-pack` where nothing of the lab is: clean environments, other processors, old onnxruntimes.

    make edge-pack MODEL=base PRECISION=int8
    python benchmarks/devices.py --only pythons --python /usr/bin/python3.11 ~/.pyenv/versions/3.12.1/bin/python
    python benchmarks/devices.py --only newest                  # Python 3.14, which Debian testing has
    python benchmarks/devices.py --only runtimes                # 25 MB a version, in benchmarks/.envs
    python -m workbook.evidence.arm64                           # an arm64 Python; then, some minutes each:
    python benchmarks/devices.py --only aarch64
    python benchmarks/devices.py --only processors

Each part unpacks the archive, installs its requirements-edge.txt where it says so, with the digests, and lets it
transcribe clips of media/. The text is compared with that of the lab, and the mean log-probability of its tokens with
that. The result is benchmarks/devices.json, of which `python -m tools.documents` makes the table of docs/devices.md.

Emulation needs qemu-user-static. It proves which instructions suffice and what the numbers become; its times say
nothing about a processor.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from benchmarks import newest_python, old_runtimes  # noqa: E402
from whisper_lab import confidence, console, files  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402
from workbook.evidence import arm64  # noqa: E402

SCHEMA = "whisper-onnx-lab/devices/1"
KEPT = HERE / "devices.json"
CLIPS = ("kitchen.wav", "digits.wav", "hello.wav", "time.wav", "nederlands.wav")
SHORT = CLIPS[:1]  # under emulation
# qemu's names. It emulates AVX2 since 7.2, and no AVX-512.
PROCESSORS = {"Haswell": "AVX2 and FMA, no AVX-512, no VNNI",
              "IvyBridge": "AVX, no AVX2, no FMA; with OPENBLAS_CORETYPE=Nehalem",
              "Nehalem": "SSE4.2, no AVX; with OPENBLAS_CORETYPE=Nehalem"}
# Without AVX2 NumPy's OpenBLAS takes a kernel that these emulated processors do not have (illegal instruction).
NEEDS = dict.fromkeys(("IvyBridge", "Nehalem"), {"OPENBLAS_CORETYPE": "Nehalem"})
EMULATOR = "qemu-x86_64-static"
LIMIT_S = 1500
PARTS = ("pythons", "newest", "memory", "runtimes", "aarch64", "processors")
# Runs the archive's command line, then says the most memory that it has held.
WATCHED = """import runpy
try:
    runpy.run_module("whisper_lab", run_name="__main__", alter_sys=True)
finally:
    from whisper_lab import machine
    print(machine.peak_rss_bytes())"""


# One run -------------------------------------------------------------------------------------------------------------

def hear(command: list[str], pack: Path, clips: tuple[str, ...], paths: Path | None = None, **settings: str) -> dict:
    """What `command -m whisper_lab` makes of the clips: {"clips": {name: text, logprob}, "cpu_s": ...} or an error.

    paths: a folder of packages in front of the command's own; settings: of the environment.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "WHISPER"))}
    environment |= {"OPENBLAS_NUM_THREADS": "1"} | settings | ({"PYTHONPATH": str(paths)} if paths else {})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run([*command, "-m", "whisper_lab", *(str(ROOT / "media" / clip) for clip in clips),
                                   "--threads", "1", "--quiet", "--json", str(report)], cwd=pack, capture_output=True,
                                  text=True, timeout=LIMIT_S, env=environment)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {LIMIT_S} s"}
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            return {"error": old_runtimes.said(done)["error"][:200] or f"status {done.returncode}"}
        found = files.read_json(report)["clips"]
    return {"clips": {row["file"]: {"text": row["text"], "logprob": row["segments"][0]["text_logprob"]}
                      for row in found if row["segments"]},
            "cpu_s": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 1)}


def compared(found: dict, reference: dict) -> dict:
    """A run beside the lab's: same texts, how far the log-probabilities are apart, the texts that are others."""
    if "error" in found:
        return found
    texts = {name: clip["text"] for name, clip in found["clips"].items()}
    others = {name: text for name, text in texts.items() if text != reference[name]["text"]}
    apart = max(abs(clip["logprob"] - reference[name]["logprob"]) for name, clip in found["clips"].items())
    return {"clips": len(texts), "other_texts": others, "logprob_apart": round(apart, 4), "cpu_s": found["cpu_s"]}


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The archive's folder, for a while. Raises LabError where it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise LabError(f"{archive} cannot be unpacked: {error}", "write it: make edge-pack") from error
        yield next(Path(folder).iterdir())


def reference_of(pack: Path) -> dict:
    """What the lab itself makes of the clips with the same graphs, in its own environment. Raises LabError."""
    noted = files.read_json(pack / "whisper_lab" / "pack.json")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([sys.executable, "-m", "whisper_lab", *(str(ROOT / "media" / clip) for clip in CLIPS),
                        "--model", noted["model"], "--precision", noted["precision"], "--model-dir",
                        str(pack / "graphs"), "--threads", "1", "--quiet", "--json", str(report)],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return {row["file"]: {"text": row["text"], "logprob": row["segments"][0]["text_logprob"]}
                for row in files.read_json(report)["clips"]}


# The parts -----------------------------------------------------------------------------------------------------------

def pip_install(command: list[str], pack: Path, *options: str) -> str | None:
    """`pip install -r requirements-edge.txt` as the archive's README has it; the reason where it fails."""
    done = subprocess.run([*command, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
                           "--only-binary", ":all:", *options, "-r", "requirements-edge.txt"], cwd=pack,
                          capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or [f"pip ended with {done.returncode}"])[0][:200] if done.returncode else None


def size_of(folder: Path) -> int:
    """bytes"""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def in_pythons(pack: Path, reference: dict, pythons: list[str]) -> list[dict]:
    """A clean environment of each Python: install, transcribe."""
    rows = []
    for python in pythons:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, "-m", "venv", folder], check=True)
            inside = [str(Path(folder) / "bin" / "python")]
            version = subprocess.check_output([*inside, "--version"], text=True).split()[1]
            bare = size_of(Path(folder))
            if reason := pip_install(inside, pack):
                rows.append({"python": version, "error": reason})
                continue
            rows.append({"python": version, "packages_bytes": size_of(Path(folder)) - bare,
                         **compared(hear(inside, pack, CLIPS), reference)})
    return rows


def in_newest(pack: Path, reference: dict) -> dict:
    """The newest Python there are wheels for, which needs no emulation; its wheels, installed by their digests."""
    python = newest_python.command()
    version = subprocess.check_output([*python, "--version"], text=True).split()[1]
    with tempfile.TemporaryDirectory() as folder:
        if reason := pip_install([sys.executable], pack, *target(Path(folder), newest_python)):
            return {"python": version, "error": reason}
        return {"python": version, "packages_bytes": size_of(Path(folder)),
                **compared(hear(python, pack, CLIPS, Path(folder)), reference)}


def target(folder: Path, system) -> list[str]:
    """pip's options to install into a folder for another Python or processor. system: has PYTHON and PLATFORMS."""
    platforms = [word for platform in system.PLATFORMS for word in ("--platform", platform)]
    return ["--target", str(folder), "--python-version", system.PYTHON, "--implementation", "cp", *platforms]


def in_memory(pack: Path) -> dict[str, int]:
    """Peak memory in bytes of one short clip and of a recording of several windows, by clip, with four threads."""
    found = {}
    for clip in (CLIPS[0], "long.flac"):
        said = subprocess.check_output([sys.executable, "-c", WATCHED, str(ROOT / "media" / clip), "--threads", "4",
                                        "--quiet"], cwd=pack, text=True)
        found[clip] = int(said.split()[-1])
    return found


def over_runtimes(pack: Path, reference: dict, versions: list[str]) -> list[dict]:
    """Each onnxruntime in front of the lab's packages, as benchmarks/old_runtimes.py installs them."""
    rows = []
    for version in versions:
        folder = HERE / ".envs" / f"onnxruntime-{version}"
        reason = old_runtimes.install([f"onnxruntime=={version}", old_runtimes.numpy_for(version)], folder)
        rows.append({"onnxruntime": version, **({"error": reason[:200]} if reason else compared(
            hear([sys.executable], pack, CLIPS, folder), reference))})
    return rows


def merged(before: list[dict], rows: list[dict]) -> list[dict]:
    """Rows of onnxruntimes with new ones in place of those of the same version, in order."""
    found = {row["onnxruntime"]: row for row in (*before, *rows)}
    return [found[version] for version in sorted(found, key=lambda text: tuple(map(int, text.split("."))))]


def on_arm(pack: Path, reference: dict) -> list[dict]:
    """The aarch64 wheels, installed by their digests; with them the archive transcribes on emulated processors.

    Raises LabError where nothing can be emulated.
    """
    if reason := arm64.missing():
        raise LabError(f"arm64 cannot be emulated: {reason}", "do what it says in brackets, then run this again")
    with tempfile.TemporaryDirectory() as folder:
        if reason := pip_install([sys.executable], pack, *target(Path(folder), arm64)):
            return [{"processor": arm64.CPU, "error": reason}]
        return [{"processor": cpu, "python": arm64.PYTHON, "packages_bytes": size_of(Path(folder)),
                 **compared(hear(arm64.command(cpu=cpu), pack, SHORT, Path(folder)), reference)} for cpu in arm64.CPUS]


def on_processors(pack: Path, reference: dict) -> list[dict]:
    """The clean environment on x86 processors with fewer instructions; and without emulation, for the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        inside = str(Path(folder) / "bin" / "python")
        if reason := pip_install([inside], pack):
            raise LabError(f"the packages cannot be installed: {reason}", "look at the network")
        rows = [{"processor": "this machine's", "has": "", **compared(hear([inside], pack, SHORT), reference)}]
        for name, has in PROCESSORS.items():
            command = [EMULATOR, "-cpu", name, str(Path(inside).resolve())]
            site = next(Path(folder).glob("lib/python*/site-packages"))
            rows.append({"processor": name, "has": has, **compared(
                hear(command, pack, SHORT, site, **NEEDS.get(name, {})), reference)})
    return rows


# Tables --------------------------------------------------------------------------------------------------------------

def doubted(found: dict) -> set[str]:
    """The clips of whose text the model is not sure even in the lab's own environment: the next best is as good."""
    return {clip for clip, said in found["reference"].items()
            if confidence.is_doubtful(said["logprob"], found["model"])}


def verdict(row: dict, unsure: set[str]) -> str:
    """One cell: the texts, or the error."""
    if "error" in row:
        return f"error: {row['error'].replace('|', '/')}"
    same, clips = row["clips"] - len(row["other_texts"]), console.count(row["clips"], "text")
    others = "".join(f"; of {name}, {'which the model doubts itself' if name in unsure else 'another text'}: {text}"
                     for name, text in row["other_texts"].items())
    return f"{same} of {clips} equal, log-probability at most {row['logprob_apart']:.4f} apart{others}"


def proofs_table(document: dict) -> str:
    """Where the archives were run, and what came out."""
    lines = ["| archive | where | packages, MB | result | processor seconds |", "|---|---|---|---|---|"]
    for name, found in sorted(document["packs"].items()):
        for where, row in rows_of(found):
            packages = f"{row['packages_bytes'] / 1e6:.0f}" if "packages_bytes" in row else ""
            lines.append(f"| {name} | {where} | {packages} | {verdict(row, doubted(found))} | {row.get('cpu_s', '')} |")
    return "\n".join(lines)


def rows_of(found: dict) -> list[tuple[str, dict]]:
    """(where, what came out) of all parts of one archive."""
    rows = [(f"x86_64, clean environment, Python {row['python']}", row) for row in found.get("pythons", [])]
    if row := found.get("newest"):
        rows.append((f"x86_64, Python {row['python']} of Debian testing, with its own wheels", row))
    for row in found.get("aarch64", []):
        rows.append((f"aarch64 (emulated {row['processor']}), Python {row.get('python', '')}, with its "
                     "own wheels", row))
    for row in found.get("processors", []):
        where = f"{row['processor']} (emulated): {row['has']}" if row["has"] else "not emulated, the same clip"
        rows.append((f"x86_64, {where}", row))
    return rows + [(f"onnxruntime {row['onnxruntime']}", row) for row in found.get("runtimes", [])]


def sizes_table(document: dict) -> str:
    """Size of each archive that was run, packed and unpacked, without the packages; and the memory it takes."""
    lines = ["| archive | MB | unpacked, MB | memory for 3 s of sound, MB | for a minute or more, MB |",
             "|---|---|---|---|---|"]
    for name, found in sorted(document["packs"].items()):
        memory = [f"{peak / 1e6:.0f}" for peak in found.get("memory", {}).values()] or ["", ""]
        lines.append(f"| {name}.tar.gz | {found['archive_bytes'] / 1e6:.1f} | {found['unpacked_bytes'] / 1e6:.1f} | "
                     f"{' | '.join(memory)} |")
    return "\n".join(lines)


# All together --------------------------------------------------------------------------------------------------------

def main(argv: list[str] | None = None) -> int:
    """Unpack, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", default="edge/packs/whisper-base-int8.tar.gz", metavar="FILE",
                        help="the archive (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")
    parser.add_argument("--python", nargs="+", default=[sys.executable], metavar="PATH", help="(default: this one)")
    parser.add_argument("--versions", nargs="+", default=old_runtimes.VERSIONS, metavar="X.Y.Z",
                        help="of onnxruntime (default: those of benchmarks/OLD-RUNTIMES.md)")
    args = parser.parse_args(argv)
    work = {"pythons": lambda *given: in_pythons(*given, args.python), "newest": in_newest,
            "aarch64": on_arm, "processors": on_processors,
            "memory": lambda pack, reference: in_memory(pack),
            "runtimes": lambda *given: over_runtimes(*given, args.versions)}
    with unpacked(Path(args.pack)) as pack:
        reference, name = reference_of(pack), Path(args.pack).name.removesuffix(".tar.gz")
        facts = {"model": files.read_json(pack / "whisper_lab" / "pack.json")["model"], "reference": reference,
                 "unpacked_bytes": size_of(pack), "archive_bytes": Path(args.pack).stat().st_size}
        for part in args.only:
            found = work[part](pack, reference)
            # Read here: another part may have ended meanwhile.
            packs = files.read_json(KEPT)["packs"] if KEPT.exists() else {}
            if part == "runtimes":  # the versions that were not asked for stay as they were measured
                found = merged(packs.get(name, {}).get(part, []), found)
            packs[name] = packs.get(name, {}) | facts | {part: found}
            files.write_json(KEPT, {"schema": SCHEMA, "packs": packs})
            console.result(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    console.run(main)
