"""Graphs as onnxruntime prepared them for this processor, kept so that a later start need not prepare them again.

To open a graph onnxruntime copies its weights out of the file, folds constants and fuses nodes: much of a cold start,
and twice the weights in memory for a moment. It can write what comes out, its weights in a file of their own, and that
opens in less time: nothing is left to fuse, and the weights are mapped, not copied
(https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html, "offline mode"). So the first
start writes it, and later ones of the same graph, onnxruntime and processor open that:

    <place>/whisper-base_decoder_int8-0123456789abcdef/graph.onnx, weights.bin, whole.json

The place is $WHISPER_LAB_PREPARED, else ~/.cache/whisper-onnx-lab/prepared; `no` keeps nothing. It is only ever a
shortcut: what is missing, damaged or another user's is not opened, and the graph itself is.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from whisper_lab import console, files, locks, machine, names, seals

PLACE, NOT_KEPT = "WHISPER_LAB_PREPARED", "no"
FORMAT = 2  # of an entry; another one is another key
GRAPH, WEIGHTS, WHOLE = "graph.onnx", "weights.bin", "whole.json"
MOST_BYTES = 2_000_000_000  # of all entries; those longest unused go
IN_USE_S = 600  # so long an entry stays after it was opened, lest a program that opens many writes them in turn
ROOM = 1_000_000_000  # bytes that stay free on the disk
DONTNEED = 4  # MADV_DONTNEED of Linux
HALF_MADE = ".preparing-"
BLOCK = 1 << 20  # bytes read at once


def place() -> Path | None:
    """The folder of all entries, whether or not it exists; None: nothing is to be kept, or there is no home."""
    try:
        return None if os.environ.get(PLACE) == NOT_KEPT else files.cache_folder("prepared", PLACE)
    except RuntimeError:
        return None


# Open ----------------------------------------------------------------------------------------------------------------

class Kept:
    """An entry that is there; whether it is whole is found out in a thread, while onnxruntime is imported."""

    def __init__(self, folder: Path):
        self.folder, self._is_whole = folder, False
        self._thread = threading.Thread(target=self._compare, daemon=True)
        self._thread.start()

    def _compare(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._is_whole = files.read_json(self.folder / WHOLE) == sums(self.folder)

    def open(self, options):
        """Its session; None, and the entry is gone, where it is damaged or cannot be opened. options: changed."""
        import onnxruntime

        self._thread.join()
        with contextlib.suppress(Exception):  # onnxruntime's exceptions have no common base of their own
            if self._is_whole:
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # all is done
                session = onnxruntime.InferenceSession(str(self.folder / GRAPH), options,
                                                       providers=["CPUExecutionProvider"], enable_fallback=0)
                _let_go(self.folder / WEIGHTS)
                with contextlib.suppress(OSError):  # a home that cannot be written
                    os.utime(self.folder)  # when it was last opened
                return session
        shutil.rmtree(self.folder, ignore_errors=True)
        return None


def _let_go(path: Path) -> None:
    """Give back the pages of a mapped file: kernels have copied most weights in an order of their own, and what is read
    again is still in the system's cache. Where it cannot be done nothing is lost but that memory."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.endswith(f" {path}"):
                first, last = (int(address, 16) for address in line.split()[0].split("-"))
                ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), DONTNEED)


def find(graph: Path) -> Kept | None:
    """What is kept of a graph; None where that is nothing, or not this user's."""
    folder = entry(graph)
    try:
        ours = folder and (not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid())
    except OSError:  # it is not there
        return None
    return Kept(folder) if ours else None


def entry(graph: Path) -> Path | None:
    """Where it is kept: named after what it depends on. None for a graph without a seal, and where nothing is kept."""
    folder, runtime, processor = place(), _runtime(), _processor()
    try:
        seal, facts = seals.sealed(graph), [(one.st_size, one.st_mtime_ns) for one in _files(graph)]
    except OSError:
        return None
    if None in (folder, seal, runtime, processor):
        return None
    depends = repr((FORMAT, seal, facts, runtime, processor))
    return folder / f"{graph.stem}-{hashlib.sha256(depends.encode()).hexdigest()[:16]}"


def _files(graph: Path) -> list[os.stat_result]:
    """Of the graph, and of the file beside it that has its weights where it is large. Raises OSError."""
    beside = names.sidecar(graph)
    return [graph.stat(), *([beside.stat()] if beside.exists() else [])]


@functools.cache
def _runtime() -> str | None:
    """Which onnxruntime is installed, without importing it: its Python says the version; builds differ in size."""
    spec = importlib.util.find_spec("onnxruntime")
    try:
        text = Path(spec.origin).read_bytes()
        builds = sorted(Path(spec.origin).parent.glob("capi/onnxruntime_pybind11_state*"))
        return f"{hashlib.sha256(text).hexdigest()} {[build.stat().st_size for build in builds]}"
    except (OSError, AttributeError, TypeError):
        return None


@functools.cache
def _processor() -> str | None:
    """What onnxruntime's choices depend on. NumPy asks the processor itself, which an emulator answers as well."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__ as features
    except ImportError:  # another NumPy: nothing is kept
        return None
    return f"{sorted(name for name, here in features.items() if here)} {machine.instruction_sets()}"


def sums(folder: Path) -> dict[str, int]:
    """The checksums of an entry's files. Raises OSError."""
    return {name: checksum(folder / name) for name in (GRAPH, WEIGHTS)}


def checksum(path: Path) -> int:
    """CRC-32 of a file's bytes: it tells damage, in a fraction of a digest's time."""
    found, block = 0, memoryview(bytearray(BLOCK))
    with path.open("rb") as file:
        while count := file.readinto(block):
            found = zlib.crc32(block[:count], found)
    return found


# Keep ----------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def writing(graph: Path, options) -> Iterator[None]:
    """A block that opens a graph with `options`, which are changed: what onnxruntime makes of it there is kept.

    Nothing is kept where the block raises, which it passes on, or where there is no room.
    """
    with contextlib.ExitStack() as stack:
        folder = _new_entry(graph, stack)
        if folder is None:
            yield
            return
        options.optimized_model_filepath = str(folder / GRAPH)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        yield
        with contextlib.suppress(OSError):  # another process was faster, or the disk is full
            files.write_json(folder / WHOLE, sums(folder))
            os.replace(folder, entry(graph))


def tell(graphs: list[Path]) -> None:
    """A note where something is kept of graphs that were opened for the first time."""
    if any(folder.exists() for graph in graphs if (folder := entry(graph))):
        console.note("graphs", "prepared for this processor", f"kept in {place()}, so that later starts take less time")


def _new_entry(graph: Path, stack: contextlib.ExitStack) -> Path | None:
    """A folder of another name to write into; None where that cannot be, or should not."""
    target = entry(graph)
    if target is None or target.exists():
        return None
    try:
        size = 2 * sum(one.st_size for one in _files(graph))  # constants that are folded may take more than before
        if size > MOST_BYTES:
            return None
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_room(target.parent, size)
        if _bytes_of(target.parent) + size > MOST_BYTES or shutil.disk_usage(target.parent).free < size + ROOM:
            return None
        prefix = f"{HALF_MADE}{target.name}-"
        locks.remove_abandoned(target.parent, prefix)
        if any(target.parent.glob(f"{prefix}*")):
            return None  # another process is at it: a class that starts at once writes one, not twenty
        folder = stack.enter_context(locks.folder(target.parent, prefix)) / "entry"
        folder.mkdir()
        return folder
    except OSError:  # a home that cannot be written
        return None


def make_room(folder: Path, size: int) -> None:
    """Remove what was longest not opened, until `size` more bytes fit; what was opened within IN_USE_S stays."""
    entries = sorted(folder.glob(f"*/{WHOLE}"), key=lambda path: path.parent.stat().st_mtime)
    for one in entries:
        unused_s = time.time() - one.parent.stat().st_mtime
        if unused_s < IN_USE_S or _bytes_of(folder) + size <= MOST_BYTES:
            return
        shutil.rmtree(one.parent, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
