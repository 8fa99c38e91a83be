"""The sound files of an archive: in every folder below it, each under one name, each in one shard.

Names are what the system gives: one may contain line ends, and bytes that are no UTF-8 (Python keeps those as half
characters). A link to a folder outside is followed; a folder is entered once, whatever leads to it, so that links in a
circle end. Hidden files and folders (.Trash, .snapshot) are left out, as everywhere in the lab.
"""

import errno
import hashlib
import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whisper_lab.archive.share import Share
from whisper_lab.audio import SUFFIXES


@dataclass(frozen=True)
class Recording:
    """A sound file of the archive."""

    name: str  # from the archive's folder on, with / between folders on every system
    path: Path

    @property
    def key(self) -> str:
        """32 hexadecimal digits: the name where any name must do as a file's, and what decides the shard."""
        return key_of(self.name)

    def is_in(self, shard: int, shards: int) -> bool:
        """Whether it is in this shard, 1 to shards: by its name alone, whatever else is in the archive."""
        return int(self.key[:16], 16) % shards == shard - 1


def key_of(name: str) -> str:
    """32 hexadecimal digits of SHA-256 of the name's bytes."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


@dataclass
class Found:
    """What a walk through the archive came across."""

    recordings: list[Recording]
    unreadable: dict[str, str]  # folder name -> why it could not be read
    others: int = 0  # visible files that are no sound by their names


def walk(share: Share, output: Path) -> Found:
    """All sound files below the share's folder, sorted by name; a folder of transcripts in it is left out.

    Raises LabError where the share has gone and does not come back.
    """
    found = Found([], {})
    seen = set(_identity(output)) - set(_identity(share.root))
    for name, entries in _folders(share, seen, found.unreadable):
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found.recordings.append(Recording(f"{name}{entry.name}", Path(entry.path)))
            else:
                found.others += 1
    found.recordings.sort(key=lambda recording: os.fsencode(recording.name))
    return found


def _folders(share: Share, seen: set, unreadable: dict[str, str]) -> Iterator[tuple[str, list[os.DirEntry]]]:
    """(name ending in /, its visible files) of each folder. Links wait until no real folder is left: a folder that is
    in the archive itself has its own name, not that of a link to it."""
    real, links = [""], []
    while real or links:
        name = real.pop() if real else heapq.heappop(links)
        path = share.root / name
        try:
            identity, entries = share.patiently(lambda path=path: (os.stat(path), _listed(path)), path)
        except FileNotFoundError:  # removed since its own folder was listed
            continue
        except OSError as error:
            unreadable[name] = f"cannot read this folder: {error.strerror or error}"
            continue
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        files = []
        for entry, is_folder in entries:
            if not is_folder:
                files.append(entry)
            elif entry.is_symlink():
                heapq.heappush(links, f"{name}{entry.name}/")
            else:
                real.append(f"{name}{entry.name}/")
        yield name, files


def _listed(path: Path) -> list[tuple[os.DirEntry, bool]]:
    """The visible entries of a folder, and whether each is a folder or a link to one. Raises OSError."""
    with os.scandir(path) as entries:
        return [(entry, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself: whoever loads it says so
            raise
        return False


def _identity(path: Path) -> list[tuple[int, int]]:
    """What a folder is, by whatever name; nothing where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [(found.st_dev, found.st_ino)]
