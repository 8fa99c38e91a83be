"""The identity card of the machine: what a reader must know before believing a time or a size measured on it.

Nothing that names a person or a place: no host name, no user, no path. Unknown is None, with its reason beside it.
"""

import ctypes
import functools
import math
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

# What Linux calls a feature -> what its maker calls it. Only those that decide the speed of matrix products.
X86_FLAGS = {
    "avx2": "AVX2", "fma": "FMA", "avx_vnni": "AVX-VNNI", "avx512f": "AVX512F", "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16", "amx_int8": "AMX-INT8", "amx_bf16": "AMX-BF16",
}
ARM_FLAGS = {"asimd": "NEON/ASIMD", "asimddp": "DOTPROD", "i8mm": "I8MM", "bf16": "BF16", "sve": "SVE"}
MACOS_FLAGS = {"AdvSIMD": "NEON/ASIMD", "FEAT_DotProd": "DOTPROD", "FEAT_I8MM": "I8MM", "FEAT_BF16": "BF16"}
PACKAGES = ["torch", "torchaudio", "transformers", "onnx", "onnxruntime", "onnxscript", "optimum", "tokenizers",
            "numpy", "soxr", "soundfile", "av", "jiwer"]
INSTEAD = ["onnxruntime-openvino"]  # named where it is installed: in place of onnxruntime


def card(threads: int | None = None) -> dict:
    """The identity card, ready for JSON. `threads` is what the run was told to use, if anything."""
    cores, quota = usable_cores(), cpu_quota()
    return {
        **_cpu(),
        "instruction_sets": (found := instruction_sets()),
        **({} if found is not None else {"instruction_sets_reason": "this system lists no processor features"}),
        "cores": cores, "cores_logical": os.cpu_count(), "cpu_quota": quota,
        "threads": threads or _omp_threads() or cores,
        "memory_bytes": memory_bytes(),
        **gpu_card(),
        "os": operating_system(), "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES}
        | {name: found for name in INSTEAD if (found := version(name))},
    }


# The words of the line below, in English and Dutch.
WORDS = {"en": {"cpu": "unknown processor", "sets": "instruction sets unknown", "core": ("core", "cores"),
                "thread": ("thread", "threads"), "gpu": "no GPU"},
         "nl": {"cpu": "onbekende processor", "sets": "instructiesets onbekend", "core": ("kern", "kernen"),
                "thread": ("thread", "threads"), "gpu": "geen GPU"}}


def one_line(card: dict, language: str = "en") -> str:
    """The card as the line that stands under every table."""
    words = WORDS[language]
    sets = ", ".join(card["instruction_sets"] or []) or words["sets"]
    named = ("torch", "transformers", "onnxruntime", *INSTEAD)
    versions = ", ".join(f"{name} {card['versions'][name]}" for name in named
                         if card["versions"].get(name))
    counted = [f"{card[key]} {words[one][card[key] != 1]}" for key, one in (("cores", "core"), ("threads", "thread"))]
    parts = [f"{card['cpu'] or words['cpu']} ({sets})", ", ".join(counted),
             f"{card['memory_bytes'] / 2**30:.0f} GiB", card["gpu"] or words["gpu"], card["os"],
             f"Python {card['python']}", versions]
    return "; ".join(part for part in parts if part)


def version(package: str) -> str | None:
    """The installed version of a package, read from its metadata (the package is not imported), or None."""
    from importlib import metadata  # it loads much that a transcript does not need

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Logical cores this process may use: its affinity mask (taskset, SLURM), capped by the cgroup (containers)."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return min(mask, max(1, math.ceil(quota))) if quota else mask


def cpu_quota() -> float | None:
    """Processor time a container may use, in cores, or None where there is no limit (cgroup v2, then v1)."""
    limits = []
    for text in _cgroup_values("cpu.max"):
        limit, _, period = text.partition(" ")
        if limit != "max":
            limits.append(int(limit) / int(period))
    quota, period = _first("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _first("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_bytes() -> int:
    """Memory this process may use: physical, or less where the cgroup says so."""
    limits = [_physical_memory()]
    limits += [int(text) for text in _cgroup_values("memory.max") if text.isdigit()]
    if (text := _first("/sys/fs/cgroup/memory/memory.limit_in_bytes")) and text.isdigit():
        limits.append(int(text))
    return min(limits)


def _physical_memory() -> int:
    """bytes; small devices have no psutil, and need none: POSIX tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, and systems that do not count their pages
        import psutil

        return psutil.virtual_memory().total


def give_back_memory() -> None:
    """Hand freed memory back to the system: glibc keeps it unless asked, after reading an int8 graph a third of it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library: nothing is lost but that memory
        pass


def peak_rss_bytes() -> int:
    """The most memory this program has held: the kernel's high-water mark (VmHWM).

    ru_maxrss would not do where that is there: it keeps the mark of the process that started this one.
    """
    if match := re.search(r"VmHWM:\s+(\d+) kB", _first("/proc/self/status", whole=True) or ""):
        return 1024 * int(match[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak  # kilobytes elsewhere


def _cgroup_values(name: str, root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> list[str]:
    """The contents of a cgroup v2 file in this process's own group and in every group above it: each can limit."""
    listed = own if own is not None else _first("/proc/self/cgroup", whole=True)
    match = re.search(r"^0::/(.*)$", listed or "", re.MULTILINE)
    group = root / match[1] if match else root
    folders = [group, *(folder for folder in group.parents if folder.is_relative_to(root))]
    return [text for folder in folders if (text := _first(folder / name))]


def _first(path: str | Path, whole: bool = False) -> str | None:
    """A small system file's first line (or all of it), or None where it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return text if whole else text.partition("\n")[0]


def instruction_sets() -> list[str] | None:
    """The vector and matrix extensions of this processor that matter here, or None where they cannot be read."""
    if platform.system() == "Darwin":
        return [name for flag, name in MACOS_FLAGS.items() if _sysctl(f"hw.optional.arm.{flag}") == "1"] or None
    text = _first("/proc/cpuinfo", whole=True) or ""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    if not match:
        return None
    flags = set(match[1].split())
    known = ARM_FLAGS if platform.machine().lower() in {"aarch64", "arm64"} else X86_FLAGS
    return [name for flag, name in known.items() if flag in flags]


def adds_in_16_bits() -> bool:
    """Whether two products of 8 bits are added in 16 here, and saturate: on x86 without VNNI, nor AMX."""
    wide = {"AVX-VNNI", "AVX512-VNNI", "AMX-INT8"}
    return "AVX2" in (found := instruction_sets() or []) and not wide & set(found)


@functools.cache
def _cpu() -> dict:
    """`cpu`: the model name; lscpu knows the names of ARM cores that /proc/cpuinfo only numbers."""
    match = re.search(r"^model name\s*:\s*(.+)$", _first("/proc/cpuinfo", whole=True) or "", re.MULTILINE)
    name = match[1] if match else _sysctl("machdep.cpu.brand_string")
    if not name and shutil.which("lscpu"):
        match = re.search(r"^Model name:\s*(.+)$", _output(["lscpu"]) or "", re.MULTILINE)
        name = match[1] if match else None
    name = (name or platform.processor() or "").strip()
    return {"cpu": name} if name else {"cpu": None, "cpu_reason": "this system does not tell its processor's name"}


def _sysctl(key: str) -> str | None:
    return _output(["sysctl", "-n", key]) if platform.system() == "Darwin" else None


def _output(command: list[str]) -> str | None:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def gpu_card() -> dict:
    """`gpu`: the name of the first NVIDIA GPU and its memory; without one None and the reason NVML gives."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            name, memory = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetMemoryInfo(handle).total
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # no package, no driver, no device: all mean that there is no GPU to speak of
        return {"gpu": None, "gpu_reason": f"NVML: {error}"}
    return {"gpu": name, "gpu_memory_bytes": memory}


def operating_system() -> str:
    """Name and version, with the kernel's number but without its build name (which can name a cloud or a site)."""
    release = re.match(r"[\d.]*\d|", platform.release())[0]
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return f"{platform.system()} {release} {platform.machine()}".strip()
    return f"{name}, {platform.system()} {release}, {platform.machine()}"


def _omp_threads() -> int | None:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(first) if first.isdigit() and int(first) > 0 else None


# Programs started by another one --------------------------------------------------------------------------------------

# Programs of this lab that another one starts in a process of their own.

ROOT = Path(__file__).resolve().parent.parent


def child_environment() -> dict[str, str]:
    """The environment for `python -m whisper_lab...`, which then finds this package from any working directory."""
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), known]))}
