"""Is a graph, bit for bit, what this lab wrote? A SHA-256 over its nodes, metadata and weights is sealed into its end.

A graph whose bits have changed still opens, and writes nonsense or, worse, nearly the right words. So 03 and 08 append
one more metadata entry to the finished file: the digest of all that is before it, and of its weights in other files.
Protobuf allows that: entries of a list may lie anywhere in a message
(https://protobuf.dev/programming-guides/encoding/#order). Any change after that, also one by a tool, breaks the seal.

Neither onnx nor onnxruntime is imported: the runtime checks before it opens. `Check` hashes in a thread, while the
runtime imports onnxruntime and reads the tokenizer.
"""

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from whisper_lab import console, external_data, files
from whisper_lab.console import LabError

KEY = "content_sha256"  # of the metadata entry
PRODUCER = "whisper-onnx-lab"  # what 03 and 08 write into every graph they make
SEALED_SINCE = 2  # metadata.FORMAT from which on every graph has a seal
MANIFEST = "sha256.json"  # in the folder of runtime files: the digest of each
BLOCK = 1 << 20  # bytes read at once
# Field 14 with its length; in it field 1, the key, and field 2, the value, each with its length.
_START = bytes([external_data.METADATA << 3 | 2, len(KEY) + 68, 1 << 3 | 2, len(KEY), *KEY.encode(), 2 << 3 | 2, 64])
SEAL_BYTES = len(_START) + 64


# Graphs --------------------------------------------------------------------------------------------------------------

def seal(graph: Path) -> None:
    """Append the seal to a finished graph, in place of one it has. Raises LabError as external_data.check."""
    size = graph.stat().st_size - (SEAL_BYTES if sealed(graph) else 0)
    value = digest(graph, size)
    with graph.open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(_START + value.encode())


def sealed(graph: Path) -> str | None:
    """The digest in a graph's seal; None where it has no seal."""
    with graph.open("rb") as file:
        file.seek(max(0, graph.stat().st_size - SEAL_BYTES))
        end = file.read(SEAL_BYTES)
    return end[len(_START):].decode("ascii", "replace") if end.startswith(_START) and len(end) == SEAL_BYTES else None


def digest(graph: Path, size: int) -> str:
    """SHA-256 over a graph's first `size` bytes, and over those parts of its sidecars that hold its weights, in order.

    Raises LabError as external_data.check.
    """
    outside, found = external_data.check(graph), hashlib.sha256()
    block = memoryview(bytearray(BLOCK))  # one for all: a mapped file would count as memory of this process
    with graph.open("rb") as file:
        _add(found, file, 0, size, block)
    for sidecar in sorted(outside):
        with os.fdopen(external_data.open_file(sidecar), "rb") as file:
            for start, end in external_data.ranges(outside[sidecar]):
                _add(found, file, start, end, block)
    return found.hexdigest()


def _add(found, file, start: int, end: int, block: memoryview) -> None:
    file.seek(start)
    while start < end and (count := file.readinto(block[:min(BLOCK, end - start)])):
        found.update(block[:count])
        start += count


def fault(graph: Path) -> str | None:
    """What is wrong with a graph's content, as the end of a sentence that begins with its name; None: nothing.

    A graph of another producer, and one that this lab wrote before it sealed graphs, has no seal and no fault. Raises
    LabError as external_data.check.
    """
    written = sealed(graph)
    if written is None:
        return "was changed after this lab wrote it: its seal is gone" if _needs_seal(graph) else None
    if digest(graph, graph.stat().st_size - SEAL_BYTES) != written:
        beside = "".join(f", its weights in {path.name} included," for path in sorted(external_data.check(graph)))
        return f"is damaged, or was changed after this lab wrote it: its content{beside} has another digest than its " \
               "seal says"
    return None


def warn(graph: Path) -> None:
    """For programs that only show graphs: a warning where the content has changed; nothing for what is not a graph."""
    with contextlib.suppress(OSError, LabError):
        if graph.is_file() and (problem := fault(graph)):  # opening a pipe would wait for somebody who writes
            console.warn(f"{graph} {problem}")


def _needs_seal(graph: Path) -> bool:
    """Whether the lab wrote it, since it seals graphs. The fields of the first level say so; weights are not read."""
    notes = external_data.metadata(graph)
    number = notes.get("format", "")
    return notes.get("producer") == PRODUCER and not (number.isdecimal() and int(number) < SEALED_SINCE)


class Check:
    """The check of one graph, running in a thread of its own; hashing releases Python's lock."""

    def __init__(self, graph: Path, at_once: bool = True):
        """at_once: begin now; else where someone waits for it."""
        self.graph = graph
        self._problem: str | Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        if at_once:
            self._thread.start()

    def _run(self) -> None:
        try:
            self._problem = fault(self.graph)
        except Exception as error:  # raised again where someone waits for it
            self._problem = error

    def require(self, command: str) -> None:
        """Wait for the result. Raises LabError where the content has changed; `command` writes the graph again."""
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join()
        if isinstance(self._problem, LabError):
            raise external_data.cannot_open(self.graph, self._problem, command) from self._problem
        if isinstance(self._problem, OSError):
            raise LabError(f"{self.graph} cannot be read: {self._problem.strerror or self._problem}",
                           f"write it again: {command}") from self._problem
        if isinstance(self._problem, Exception):
            raise self._problem
        if self._problem:
            raise LabError(f"{self.graph} {self._problem}", f"write it again: {command}")


# Runtime files -------------------------------------------------------------------------------------------------------

def write_manifest(folder: Path, names: list[str]) -> None:
    """The digests of these files in `folder`, as MANIFEST beside them."""
    files.write_json(folder / MANIFEST, {name: _of_file(folder / name) for name in sorted(names)})


def check_files(folder: Path, names: tuple[str, ...], required: bool, command: str) -> None:
    """These files are there, and as they were written. required: the manifest must be there too.

    Raises LabError where not; `command` writes them again.
    """
    for name in names:
        if not (folder / name).is_file():
            raise LabError(f"there is no {folder / name}, which the graphs need", f"write it again: {command}")
    if not required and not (folder / MANIFEST).is_file():
        return
    try:
        listed = files.read_json(folder / MANIFEST)
        changed = [name for name in names if listed[name] != _of_file(folder / name)]
    except FileNotFoundError as error:
        raise LabError(f"there is no {folder / MANIFEST}, which tells whether the graphs' runtime files are whole",
                       f"write it again: {command}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabError(f"{folder / MANIFEST} is damaged: it is not a list of digests", f"write it again: {command}") \
            from error
    if changed:
        raise LabError(f"{folder / changed[0]} is damaged, or was changed after this lab wrote it: it has another "
                       f"digest than {MANIFEST} says",
                       f"write it again: {command}")


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
