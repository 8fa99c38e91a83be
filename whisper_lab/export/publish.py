"""Graphs appear whole or not at all: made and checked in a hidden folder beside their place, then renamed into it."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from whisper_lab import external_data, locks, names, seals
from whisper_lab.console import LabError
from whisper_lab.export.graphs import SINGLE_FILE_LIMIT, join, size, tensors

PREFIX = ".export-"
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EFBIG,
        errno.EIO, errno.ENAMETOOLONG}
FULL = 1 << 20  # bytes left below which a failure of a library that hides its errno is put down to the disk


@contextlib.contextmanager
def stage(output_dir: str | Path, flag: str = "--output-dir") -> Iterator[Path]:
    """Yield a hidden folder inside `output_dir`; it is gone afterwards, whatever happened; so are abandoned ones.

    flag: the option that names another folder.

    Raises LabError where the folder cannot be written or the disk is full.
    """
    output_dir = Path(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with locks.folder(output_dir, PREFIX) as folder:
            yield folder
    except LabError:
        raise
    except Exception as error:
        if not _is_disk_error(error, output_dir):
            raise
        reason = getattr(error, "strerror", None) or "the disk is full"
        raise LabError(f"cannot write graphs to {output_dir}: {reason}",
                       f"free some disk space, or choose a folder you may write to with {flag}") from error


def _is_disk_error(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in DISK:
        return True
    there = next(parent for parent in [folder, *folder.absolute().parents] if parent.is_dir())
    return shutil.disk_usage(there).free < FULL


def publish(graphs: Iterable[Path], output_dir: Path) -> list[Path]:
    """Seal checked graphs, rename them into place, sidecars before the graphs that name them; returns the new paths.

    A graph whose weights fit in one file gets them; it is then copied, and the working copy stays where it was.
    A sidecar of an older export that the new graph does not need is removed.
    """
    graphs = [_in_one_file(graph) for graph in graphs]
    for graph in graphs:
        seals.seal(graph)
    for graph in graphs:
        if names.sidecar(graph).exists():
            os.replace(names.sidecar(graph), output_dir / names.sidecar(graph).name)
    return [_into_place(graph, output_dir / graph.name) for graph in graphs]


def _into_place(graph: Path, target: Path) -> Path:
    needs_sidecar = _has_external_weights(graph)
    os.replace(graph, target)
    if not needs_sidecar:
        names.sidecar(target).unlink(missing_ok=True)
    for name in (names.rejected(target), names.sidecar(names.rejected(target))):
        name.unlink(missing_ok=True)  # an earlier failure of this graph is history
    return target


def _in_one_file(graph: Path) -> Path:
    if not names.sidecar(graph).exists() or size(graph) > SINGLE_FILE_LIMIT:
        return graph
    folder = graph.parent / "joined"
    folder.mkdir(exist_ok=True)
    join(graph, folder / graph.name)
    return folder / graph.name


def reject(graphs: Iterable[Path], output_dir: Path) -> list[Path]:
    """Leave graphs that failed a gate under `<name>.rejected.onnx`, marked so in their metadata; returns the paths."""
    rejected = []
    for graph in graphs:
        target = names.rejected(output_dir / graph.name)
        model = onnx.load(graph, load_external_data=False)
        for entry in model.metadata_props:
            if entry.key == "verification":
                entry.value = "rejected: a parity gate failed"
        for tensor in tensors(model.graph):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = names.sidecar(target).name
        if names.sidecar(graph).exists():
            os.replace(names.sidecar(graph), names.sidecar(target))
        graph.write_bytes(model.SerializeToString())
        os.replace(graph, target)
        seals.seal(target)
        rejected.append(target)
    return rejected


def _has_external_weights(graph: Path) -> bool:
    return next(external_data.pieces(graph), None) is not None
