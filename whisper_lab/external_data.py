"""Where a graph may keep its weights: the one place that decides whether an external-data location is acceptable.

An ONNX graph can name files that hold its tensors. It is data from a stranger, so such a name may be `../private/key`,
an absolute path, a link, or a file of 30 GB that is one hole. `check` reads a graph file as bytes, finds every tensor
in it wherever it hides, and refuses what does not belong beside the graph. It runs before onnx, onnx_ir or onnxruntime
opens the file: their own rules differ from version to version, and some of theirs have none.

Neither onnx nor onnxruntime is imported: the runtime uses this too, where onnx is not installed. Weights inside the
graph are skipped, not read.
"""

import contextlib
import mmap
import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whisper_lab.console import LabError

# Where messages lie within messages, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto: field -> kind of message.
CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
METADATA = 14  # field of the model
DIMS, DATA_TYPE, NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14  # fields of a tensor
KEYS = {"location", "offset", "length", "checksum", "basepath"}  # all that the standard and its tools write
# Bits of one element, by TensorProto.DataType; strings (8) cannot be external.
BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
        17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6}
DEEPEST = 100  # graphs within graphs; protobuf itself stops there
LARGEST_GRAPH = 2**31  # bytes; protobuf reads no more
SMALL = 64 << 20  # bytes of holes that are not worth a word
LARGE = 512 << 20  # bytes of a whole checkpoint from which on a hole costs time to read
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\..*)?")  # devices on Windows, in any folder
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
NO_GRAPH = "export it again, or name another"
MOVE = "take the graph from a source that you trust, or export it again"


@dataclass(frozen=True)
class Piece:
    """One tensor's part of a file: its name, the location as written, and where its bytes are."""

    tensor: str
    location: str
    offset: int  # bytes
    length: int  # bytes, of the shape and type


def check(graph: str | Path) -> dict[Path, list[Piece]]:
    """The files beside a graph that hold its weights, and which parts of them; {} where it has all its own.

    Raises LabError for a file that is not a graph, for a location that is not acceptable, and for a file that is
    missing or does not hold what the graph says.
    """
    graph, files = Path(graph), {}
    for piece in pieces(graph):
        path = acceptable(graph, piece.location)
        files.setdefault(path, []).append(piece)
    _refuse_collisions(graph, files)
    for path, parts in files.items():
        _check_size(graph, path, parts)
    return files


def acceptable(graph: Path, location: str) -> Path:
    """The file that `location` means for a graph: a plain file inside the graph's folder, reached without any link.

    Raises LabError for everything else. This is the only place that decides it.
    """
    parts = location.split("/")
    if (not location or len(location.encode("utf-8", "replace")) > 1024 or FORBIDDEN.search(location)
            or any(_is_bad_part(part) for part in parts)):
        raise LabError(f"{graph.name} wants to keep weights in {location[:100]!r}: that is not a plain name inside the "
                       "graph's folder", MOVE)
    path, shown = graph.parent, location
    for part in parts:
        path = path / part
        try:
            found = path.lstat()
        except OSError as error:
            raise LabError(f"{graph.name} keeps its weights in {shown}, which is not beside it",
                           "copy both files together, or export again") from error
        if stat.S_ISLNK(found.st_mode):
            raise LabError(f"{graph.name} keeps its weights in {shown}, which is a link to another place",
                           "put the file itself there: cp -L LINK FILE")
        if path.name not in os.listdir(path.parent):  # a file system without case has it under another name
            raise LabError(f"{graph.name} keeps its weights in {shown}, which has another name on the disk", MOVE)
    return _plain_file(graph, path, shown, found)


def _is_bad_part(part: str) -> bool:
    return (part in ("", ".", "..") or part.endswith((".", " ")) or part.startswith("~")
            or bool(RESERVED.fullmatch(part)))


def _plain_file(graph: Path, path: Path, shown: str, found: os.stat_result) -> Path:
    if not stat.S_ISREG(found.st_mode):
        raise LabError(f"{graph.name} keeps its weights in {shown}, which is not a regular file", MOVE)
    if found.st_nlink > 1:  # an archive can hold a hard link to any file of the one who unpacks it
        raise LabError(f"{graph.name} keeps its weights in {shown}, which is also a file elsewhere (a hard link)",
                       f"make it a file of its own: {_copied(path)}")
    if not path.resolve().is_relative_to(graph.parent.resolve()):
        raise LabError(f"{graph.name} keeps its weights in {shown}, outside its folder", MOVE)
    return path


def _copied(path: Path) -> str:
    """The shell command that makes a file one of its own."""
    own, copy = shlex.quote(str(path)), shlex.quote(f"{path}.copy")
    return f"cp {own} {copy} && mv {copy} {own}"


def _refuse_collisions(graph: Path, files: dict[Path, list[Piece]]) -> None:
    """No two files of the same name, in whatever case: who copies them into one folder would lose one."""
    names = {graph.name.casefold(): graph.name}
    for path in files:
        if path.name.casefold() in names:
            raise LabError(f"{graph.name} keeps weights in two files of one name: {path.name}", MOVE)
        names[path.name.casefold()] = path.name


def _check_size(graph: Path, path: Path, parts: list[Piece]) -> None:
    size = path.stat().st_size
    for piece in parts:
        if piece.offset + piece.length > size:
            raise LabError(f"{path.name} holds {size} bytes; {graph.name} wants {piece.length} from byte "
                           f"{piece.offset} on for {piece.tensor[:100]!r}",
                           "copy both files together again, or export again")
    wanted = sum(end - start for start, end in ranges(parts))
    empty = _holes(path, ranges(parts)) if wanted > SMALL else 0
    if empty > SMALL and empty > wanted // 2:
        raise LabError(f"{path.name} claims {wanted} bytes of weights, and {empty} of them were never written "
                       "(a sparse file)", MOVE)


def ranges(parts: list[Piece]) -> list[tuple[int, int]]:
    """The bytes of a file that its tensors need, as (start, end) in order, without overlap."""
    found: list[tuple[int, int]] = []
    for start, end in sorted((piece.offset, piece.offset + piece.length) for piece in parts):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def open_file(path: Path) -> int:
    """A descriptor of a file that `check` found: of that very file, not of a link that took its place since.

    Raises LabError where it is not a regular file any more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise LabError(f"cannot open {path}: {error.strerror}", "look whether it is still there, and yours to read") \
            from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LabError(f"{path} is not a regular file", MOVE)
    return descriptor


def mostly_empty(path: Path) -> str | None:
    """What is wrong with a file of weights that claims far more than was ever written; None: nothing is."""
    size = path.stat().st_size
    empty = _holes(path, [(0, size)]) if size > LARGE else 0
    return f"{path} claims {size} bytes, and {empty} of them were never written (a sparse file)" \
        if empty > size // 2 else None


def _holes(path: Path, ranges: list[tuple[int, int]]) -> int:
    """Bytes within the ranges that the file system has no data for; 0 where it cannot tell."""
    if not hasattr(os, "SEEK_DATA"):
        return 0
    empty = 0
    with path.open("rb") as file:
        for start, end in ranges:
            at = start
            while at < end:
                try:
                    data = min(os.lseek(file.fileno(), at, os.SEEK_DATA), end)
                except OSError:  # ENXIO: nothing but a hole from here to the end
                    data = end
                empty += data - at
                at = data if data == end else min(os.lseek(file.fileno(), data, os.SEEK_HOLE), end)
    return empty


# The graph as bytes --------------------------------------------------------------------------------------------------

def cannot_open(graph: Path, error: LabError, command: str) -> LabError:
    """What to say where a graph of 03's cannot be opened because of `error`; `command` writes it again."""
    again = f"write it again: {command}"
    return LabError(f"{graph} cannot be opened as a graph: {error.problem.replace(f'{graph} ', 'it ', 1)}",
                    again if error.remedy == NO_GRAPH else f"{error.remedy}; or {again}")


@contextlib.contextmanager
def mapped(graph: Path) -> Iterator[mmap.mmap]:
    """The bytes of a graph file. Raises OSError where it cannot be read, ValueError where it is empty."""
    with graph.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def metadata(graph: Path) -> dict[str, str]:
    """A graph's metadata_props, read from the file alone: its nodes and weights are skipped.

    Raises LabError where the file cannot be read or is not a protobuf message.
    """
    try:
        with mapped(graph) as data:
            return dict(_entry(data, start, stop) for field, wire, start, stop in fields(data, 0, len(data))
                        if field == METADATA and wire == 2)
    except OSError as error:
        raise LabError(f"cannot read {graph}: {error.strerror or error}", "name an .onnx file that you may read") \
            from error
    except (ValueError, IndexError) as error:
        raise LabError(f"{graph} is not an ONNX file: {error}", NO_GRAPH) from error


def pieces(graph: Path) -> Iterator[Piece]:
    """Every tensor with external data in a graph file, wherever it is: loops, functions, attributes, sparse tensors.

    Raises LabError where the file cannot be read or is not a protobuf message.
    """
    try:
        size = graph.stat().st_size
        if size > LARGEST_GRAPH:
            raise LabError(f"{graph} has {size} bytes, more than a graph can have", "name the .onnx file itself")
        if not size:
            return
        with mapped(graph) as data:
            yield from _walk(data, 0, size, "model", 0)
    except OSError as error:
        raise LabError(f"cannot read {graph}: {error.strerror or error}", "name an .onnx file that you may read") \
            from error
    except (ValueError, IndexError) as error:
        raise LabError(f"{graph} is not an ONNX file: {error}", NO_GRAPH) from error


def names(graph: Path) -> tuple[list[str], list[str]]:
    """What the nodes of a graph make, in the order of computation, and its outputs: its weights are passed over.

    ModelProto.graph is field 7, GraphProto.node 1 and output 12, NodeProto.output 2, ValueInfoProto.name 1. Raises
    LabError where the file cannot be read or is not a protobuf message.
    """
    made, outputs = [], []
    try:
        with mapped(graph) as data:
            for start, end in _inside(data, 0, len(data), 7):
                for node in _inside(data, start, end, 1):
                    made += [str(data[slice(*name)], "utf-8") for name in _inside(data, *node, 2)]
                for output in _inside(data, start, end, 12):
                    outputs += [str(data[slice(*name)], "utf-8") for name in _inside(data, *output, 1)]
    except OSError as error:
        raise LabError(f"cannot read {graph}: {error.strerror or error}", "name an .onnx file that you may read") \
            from error
    except (ValueError, IndexError) as error:
        raise LabError(f"{graph} is not an ONNX file: {error}", NO_GRAPH) from error
    return made, outputs


def _inside(data, at: int, end: int, wanted: int) -> list[tuple[int, int]]:
    """Where the texts and messages of one field are in a message."""
    return [(start, stop) for field, wire, start, stop in fields(data, at, end) if field == wanted and wire == 2]


def _walk(data, at: int, end: int, kind: str, depth: int) -> Iterator[Piece]:
    """The pieces within one message, data[at:end]. Raises ValueError or IndexError where it is not such a message."""
    if depth > 4 * DEEPEST:
        raise ValueError("it is nested too deeply")
    if kind == "tensor":
        if piece := _piece(data, at, end):
            yield piece
        return
    children = CHILDREN[kind]
    for field, wire, start, stop in fields(data, at, end):
        inner = children.get(field)
        # The key `location` is written out before each: a node without the word needs no look inside.
        if inner and wire == 2 and (inner != "node" or data.find(b"location", start, stop) >= 0):
            yield from _walk(data, start, stop, inner, depth + 1)


def fields(data, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field, wire type, start, stop) of a message; of a number, start is its value.

    Source: https://protobuf.dev/programming-guides/encoding
    """
    while at < end:
        tag, at = _number(data, at, end)
        field, wire = tag >> 3, tag & 7
        if not field:
            raise ValueError("it holds a field without a number")
        if wire == 0:
            value, at = _number(data, at, end)
            yield field, wire, value, at
            continue
        if wire == 2:
            length, at = _number(data, at, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"it holds a field of kind {wire}")
        if at + length > end:
            raise ValueError("it ends in the middle of a field")
        yield field, wire, at, at + length
        at += length


def _number(data, at: int, end: int) -> tuple[int, int]:
    """A variable-length number and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("it holds a number without an end")


def _piece(data, at: int, end: int) -> Piece | None:
    """A tensor's external data, None where it has its own. Raises ValueError for what is not well formed."""
    dims, kind, name, entries, outside = [], 0, "", {}, False
    for field, wire, start, stop in fields(data, at, end):
        if field == DIMS:
            dims += [start] if wire == 0 else _packed(data, start, stop)
        elif field == DATA_TYPE and wire == 0:
            kind = start
        elif field == DATA_LOCATION and wire == 0:
            outside = start == 1
        elif field == NAME and wire == 2:
            name = data[start:stop].decode("utf-8", "replace")
        elif field == EXTERNAL_DATA and wire == 2:
            key, value = _entry(data, start, stop)
            if key in entries:
                raise ValueError(f"its tensor {name[:100]!r} has two {key[:20]!r}")
            entries[key] = value
    if not outside and not entries:
        return None
    return _checked(name, dims, kind, entries)


def _packed(data, at: int, end: int) -> list[int]:
    found = []
    while at < end:
        value, at = _number(data, at, end)
        found.append(value)
    return found


def _entry(data, at: int, end: int) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for field, wire, start, stop in fields(data, at, end):
        if field in texts and wire == 2:
            texts[field] = data[start:stop].decode("utf-8", "surrogateescape")
    return texts[1], texts[2]


def _checked(name: str, dims: list[int], kind: int, entries: dict[str, str]) -> Piece:
    """Raises ValueError where offset and length are not those of a tensor of this shape and type."""
    if unknown := set(entries) - KEYS:
        raise ValueError(f"external data with {sorted(unknown)[0][:40]!r}")
    if entries.get("basepath"):
        raise ValueError(f"its tensor {name[:100]!r} names a base folder")
    numbers = {key: _whole(entries.get(key, "")) for key in ("offset", "length")}
    if None in numbers.values():
        raise ValueError(f"its tensor {name[:100]!r} has an offset or a length that is not a number")
    if kind not in BITS or any(size >= 2**63 for size in dims):
        raise ValueError(f"its tensor {name[:100]!r} has external data of an unknown type or shape")
    needed = BITS[kind]
    for size in dims:
        needed *= size
    needed = (needed + 7) // 8
    if entries.get("length") and numbers["length"] != needed:
        raise ValueError(f"its tensor {name[:100]!r} takes {needed} bytes and claims {entries['length'][:30]}")
    return Piece(name, entries.get("location", ""), numbers["offset"], needed)


def _whole(text: str) -> int | None:
    """A number as the tools write it; an absent one is 0, anything else None."""
    if not text:
        return 0
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
