"""What an archive's output folder has: a JSON document for each recording that is finished, and `.archive/`.

    OUT/lectures/week 1/monday.wav.json        as `--json` writes it, with one clip: see `document`
    OUT/.archive/settings.json                 model and settings, the same for every document in OUT
    OUT/.archive/failed/3fa91c07....json       a recording that could not be transcribed, and why
    OUT/.archive/claims/                       see claims.py

A document is done when it is of the same sound, model and settings. The sound is the same where size and time of change
are, and else where its bytes are; times are compared for equality only, never with a clock.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from whisper_lab import console, files, names, transcripts
from whisper_lab.archive.claims import NO_LINKS, Worker, look_again
from whisper_lab.archive.find import Recording, key_of
from whisper_lab.audio import SUFFIXES
from whisper_lab.console import LabError

STATE, SETTINGS, FAILED, CLAIMS = ".archive", "settings.json", "failed", "claims"
SETTINGS_SCHEMA, FAILURE_SCHEMA = "whisper-onnx-lab/archive/1", "whisper-onnx-lab/archive-failure/1"
LONGEST_NAME = 255  # bytes, of a file on every common system
BLOCK = 1 << 20  # bytes
NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


class Store:
    """The output folder of one archive."""

    def __init__(self, folder: Path, recipe: dict):
        """recipe: model and settings, which every document of this folder has in common."""
        self.folder, self.recipe = folder, json.loads(json.dumps(recipe))  # as JSON gives it back
        self.state = folder / STATE
        self.claims, self.failures = self.state / CLAIMS, self.state / FAILED

    def prepare(self) -> None:
        """Make the folders. Raises LabError where nothing can be written."""
        try:
            for folder in (self.claims, self.failures):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error

    def note(self, worker: Worker, replace: bool, again: str) -> None:
        """Note the recipe. replace: another one than was noted is accepted from now on.

        Raises LabError for another one otherwise, with ways to go on from `again`, the command of this run.
        """
        place, made = self.state / SETTINGS, {"schema": SETTINGS_SCHEMA, **self.recipe}
        if self._noted() is None:  # of several that begin at once, with different recipes, one is the first
            self._write(worker, place, made, first=True)
        noted = self._noted()
        if noted == self.recipe:
            return
        if noted is not None and not replace:
            raise LabError(f"{self.folder} has transcripts made with {difference(noted, self.recipe)}",
                           f"{go_on(noted, self.recipe, again)}choose another --output-dir, or make them all again: "
                           f"{again} --replace")
        self._write(worker, place, made)

    def _noted(self) -> dict | None:
        found = read(self.state / SETTINGS)
        if found is None or found.get("schema") != SETTINGS_SCHEMA:
            return None
        return {key: found.get(key) for key in self.recipe}

    # Documents --------------------------------------------------------------------------------------------------------

    def places(self, name: str) -> tuple[Path, Path]:
        """Where a recording's document is: beside those of its folder, under its own name and .json; and where it is
        instead, if that is too long or taken, by a name that differs in capitals alone, on a disk that does not tell
        them apart. A folder named *.json, which may be what a document beside it is called, is called *.json.d here."""
        *above, last = name.split("/")
        folder = self.folder.joinpath(*(f"{one}.d" if one.lower().endswith(".json") else one for one in above))
        mark = f"-{key_of(name)[:12]}.json"
        short = os.fsdecode(os.fsencode(last)[:LONGEST_NAME - len(mark)])
        return folder / f"{last}.json", folder / f"{short}{mark}"

    def documents(self, name: str) -> Iterator[tuple[Path, dict]]:
        """The documents of this recording that can be read, with their places: one, or none."""
        for place in self.places(name):
            found = read(place)
            if found is not None and clip_of(found).get("file") == name:
                yield place, found

    def look_again(self, recording: Recording) -> None:
        """What another machine has written by now is to be seen here."""
        look_again(self.places(recording.name)[0].parent)

    def is_done(self, recording: Recording, now: os.stat_result, check_content: bool) -> bool:
        """Whether there is a document of this very sound, made with the same model and settings.

        check_content: size and time of change are not enough. Raises OSError where the recording has to be read and
        cannot be.
        """
        for _, found in self.documents(recording.name):
            if {key: found.get(key) for key in self.recipe} == self.recipe:
                return is_of(clip_of(found).get("source"), now, lambda: digest(recording.path), check_content)
        return False

    def publish(self, worker: Worker, name: str, made: dict) -> Path:
        """Write a recording's document, whole or not at all. Raises LabError where it cannot be written."""
        return self._write(worker, self._place(name), made)

    def _place(self, name: str) -> Path:
        """Where its document is, or may be without harm to another's."""
        for place, _ in self.documents(name):
            return place
        usual, instead = self.places(name)
        too_long = len(os.fsencode(usual.name)) > LONGEST_NAME
        taken = not too_long and clip_of(read(usual) or {}).get("file", name) != name
        return instead if too_long or taken else usual

    def _write(self, worker: Worker, place: Path, made: dict, first: bool = False) -> Path:
        """Write JSON, whole or not at all. first: only where there is no such file.

        Not files.atomic: that looks through the folder for what died, each time, and asks the clock how old it is.
        Here each process has one name to write under, and whoever finds it dead removes that.
        """
        text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            # First where there is a folder already: where a disk was, and is no more, none is made.
            worker.part.write_text(text, encoding="utf-8", errors="backslashreplace")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not (first and has_renamed(worker.part, place)):
                os.replace(worker.part, place)
        except OSError as error:
            raise _cannot_write(place, error) from error
        return place

    # Failures ---------------------------------------------------------------------------------------------------------

    def failure(self, recording: Recording) -> dict | None:
        """What is noted of a recording that could not be transcribed."""
        found = read(self.failures / f"{recording.key}.json")
        return found if found is not None and found.get("file") == recording.name else None

    def fail(self, worker: Worker, recording: Recording, error: LabError, source: dict, passing: bool) -> None:
        """Note a failure. passing: the next run tries again by itself, as it does when the recording has changed."""
        reason = plain_reason(error.problem, recording.path)
        self._write(worker, self.failures / f"{recording.key}.json", {
            "schema": FAILURE_SCHEMA, "file": recording.name, "error": reason, "remedy": error.remedy,
            "passing": passing, "source": source, **self.recipe})

    def has_failed(self, found: dict, now: os.stat_result | None) -> bool:
        """Whether a noted failure still holds: of the same file, with the same model and settings."""
        same = {key: found.get(key) for key in self.recipe} == self.recipe
        before = found.get("source") or {}
        there = facts(now) if now else {}
        return same and not found.get("passing") and all(before.get(key) == there.get(key) for key in FACTS)

    def forget(self, recording: Recording) -> None:
        """It has been transcribed, or is to be tried again."""
        (self.failures / f"{recording.key}.json").unlink(missing_ok=True)


# The sound that a document is of --------------------------------------------------------------------------------------

FACTS = ("bytes", "changed_ns")


def facts(found: os.stat_result) -> dict:
    """What tells without reading it that a file is as it was."""
    return {"bytes": found.st_size, "changed_ns": found.st_mtime_ns}


def is_of(source: object, now: os.stat_result, content: Callable[[], str], check_content: bool) -> bool:
    """Whether a document's `source` is a file that is now so. content: gives the digest of its bytes, if needed."""
    if not isinstance(source, dict) or source.get("bytes") != now.st_size:
        return False
    if source.get("changed_ns") == now.st_mtime_ns and not check_content:
        return True
    return source.get("sha256") is not None and source["sha256"] == content()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError."""
    made = hashlib.sha256()
    with open(path, "rb") as opened:
        while block := opened.read(BLOCK):
            made.update(block)
    return made.hexdigest()


# Reading and writing --------------------------------------------------------------------------------------------------

def is_named(name: str) -> bool:
    """Whether a file may be a document, by its name: `monday.wav.json`, or the longer one of `Store.places`."""
    recording, end = os.path.splitext(name)
    suffix = os.path.splitext(recording)[1].lower()
    return end == ".json" and (suffix in SUFFIXES or re.search(r"-[0-9a-f]{12}$", recording) is not None)


def read(path: Path) -> dict | None:
    """A JSON object; None where there is none that is whole. Raises OSError where that cannot be said now."""
    try:
        found = files.read_json(path)
    except ValueError:
        return None
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return None
    return found if isinstance(found, dict) else None


def clip_of(document: dict) -> dict:
    """The one clip of a document; {} where there is none."""
    clips = document.get("clips")
    one = clips[0] if isinstance(clips, list) and len(clips) == 1 else {}
    return one if isinstance(one, dict) and document.get("schema") == transcripts.SCHEMA else {}


def plain_reason(problem: str, path: Path) -> str:
    """One line, in which the file is called by its name alone."""
    return console.plain(problem.replace(str(path), path.name), one_line=True)


def difference(noted: dict, recipe: dict) -> str:
    """`precision int8, not fp32`: the first thing in which two recipes differ."""
    for part, values in recipe.items():
        before = noted.get(part)
        for key, value in values.items():
            old = before.get(key) if isinstance(before, dict) else None
            if old != value:
                return f"{key} {_short(old)}, not {_short(value)}"
    return "other settings"


def go_on(noted: dict, recipe: dict, again: str) -> str:
    """How to add to what was made in another precision, where nothing else differs: no one may have asked for this."""
    before, now = noted.get("model"), recipe["model"]
    precision = before.get("precision") if isinstance(before, dict) else None
    same = precision in names.PRECISIONS and {**noted, "model": {**before, "precision": now["precision"]}} == recipe
    if not same:
        return ""
    plain = re.sub(r" --precision[ =]\S+", "", again)
    return f"to add to those: {plain} --precision {precision}; else "


def _short(value: object) -> str:
    return "not given" if value is None else str(value)[:40]


def has_renamed(made: Path, place: Path) -> bool:
    """Rename a file unless there is one of the new name already; False where the disk has no hard links for that."""
    try:
        with contextlib.suppress(FileExistsError):
            os.link(made, place)
        made.unlink()  # or what is written next under this name would go into the other
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True


def _cannot_write(place: Path, error: OSError) -> LabError:
    return LabError(f"cannot write {place}: {error.strerror or error}",
                    "free some disk space or choose another folder that you may write to, and run it again")
