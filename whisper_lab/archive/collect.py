"""One table of an archive's transcripts, as Parquet and as CSV: a row a recording, those that failed too.

    python -m whisper_lab archive collect transcripts
    python -m whisper_lab archive collect transcripts --csv lectures.csv --parquet lectures.parquet

Without --csv and --parquet both are written into the folder, as archive.csv and archive.parquet. Segments, with their
times, are a list in Parquet and JSON text in CSV. Rows are in the order of the names.

A spreadsheet computes cells that begin with = + - or @, and a file's name or a transcript may be made to: in the CSV
such a text has an apostrophe before it, which spreadsheets show as text. The CSV begins with a byte order mark, without
which Excel takes it for another encoding than UTF-8.
"""

import contextlib
import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from whisper_lab import console, files, flags
from whisper_lab.archive import store
from whisper_lab.console import LabError

PROG = "python -m whisper_lab archive collect"
COMPUTED = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")  # with their full-width forms, which some spreadsheets take too
WARNING = "warning: "  # how such a note begins
ROWS = 500  # of the Parquet file written at once: memory is that of a group

# Column -> how Parquet calls its type; `segments` is a list of start_s, end_s and text.
COLUMNS = {
    "file": "string", "status": "string", "text": "string", "language": "string", "language_probability": "float64",
    "duration_s": "float64", "transcribe_s": "float64", "real_time_factor": "float64", "first_s": "float64",
    "last_s": "float64", "doubtful_segments": "int64", "noticed": "string", "model": "string", "precision": "string",
    "error": "string", "remedy": "string", "bytes": "int64", "sha256": "string", "document": "string",
    "segments": "segments"}
# What a column of each type contains in Python.
TYPES = {"string": str | None, "float64": int | float | None, "int64": int | None, "segments": list}


def main(argv: list[str]) -> int:
    """Write the table and print its summary; exit status 1 where a recording failed or a document is damaged."""
    args = arguments(argv)
    folder = Path(args.output)
    if not (folder / store.STATE).is_dir():
        raise LabError(f"{folder} has no transcripts of an archive" if folder.is_dir() else
                       f"{folder} is a file, not a folder" if folder.exists() else f"there is no folder {folder}",
                       "name what was --output-dir, or make one: python -m whisper_lab archive RECORDINGS --output-dir "
                       "transcripts")
    both = not args.csv and not args.parquet
    targets = {"csv": args.csv or both and folder / "archive.csv",
               "parquet": args.parquet or both and folder / "archive.parquet"}
    pyarrow = import_pyarrow() if targets["parquet"] else None
    totals = Totals()
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(csv_table(Path(targets["csv"])))] if targets["csv"] else []
        writers += [stack.enter_context(parquet_table(Path(targets["parquet"]), pyarrow))] if pyarrow else []
        for row in rows(folder):
            totals.add(row)
            for write in writers:
                write(row)
    totals.show()
    for target in filter(None, targets.values()):
        console.result(f"wrote {console.plain(target, one_line=True)}")
    return 1 if totals.status["failed"] + totals.status["damaged"] else 0


def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "quiet", "log_level", prog=PROG)
    parser.add_argument("output", metavar="OUT", help="the folder that was --output-dir")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV (default: OUT/archive.csv)")
    parser.add_argument("--parquet", metavar="FILE", help="write the table as Parquet (default: OUT/archive.parquet)")
    return flags.parse(parser, argv)


def import_pyarrow():
    """pyarrow, which is installed with the package datasets. Raises LabError where it is not."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise LabError("Parquet needs pyarrow, which cannot be imported",
                       "python -m pip install -r requirements.txt; or write CSV alone: --csv archive.csv") from error
    return pyarrow


# Rows -----------------------------------------------------------------------------------------------------------------

def rows(folder: Path) -> Iterator[dict]:
    """A row for each recording, by name; keys as in COLUMNS, unknown is None."""
    failed = dict(failures(folder))
    places = sorted(documents(folder), key=lambda place: os.fsencode(place.relative_to(folder)))
    seen: set[str] = set()
    for place in console.progress(places, description="collecting", unit="file"):
        row = row_of(place, folder)
        if row["file"] in seen:
            continue
        seen.add(row["file"])
        yield row | failed.pop(row["file"], {})
    for name in sorted(failed, key=os.fsencode):
        yield dict.fromkeys(COLUMNS) | {"file": name} | failed[name]


def documents(folder: Path) -> Iterator[Path]:
    """All JSON files below the folder that are called as the archive calls them."""
    for parent, names, found in os.walk(folder):
        names[:] = [name for name in names if name != store.STATE]
        yield from (Path(parent, name) for name in found if store.is_named(name))


def failures(folder: Path) -> Iterator[tuple[str, dict]]:
    """(recording, what its row says) of each that failed in the last run that tried it."""
    for place in (folder / store.STATE / store.FAILED).glob("*.json"):
        found = store.read(place) or {}
        if isinstance(name := found.get("file"), str):
            source = found.get("source") if isinstance(found.get("source"), dict) else {}
            yield name, {"status": "failed", "error": found.get("error"), "remedy": found.get("remedy"),
                         "bytes": source.get("bytes")}


def row_of(place: Path, folder: Path) -> dict:
    """The row of one document; a damaged one says so, with the name that its recording must have."""
    relative = place.relative_to(folder).as_posix()
    try:
        made = _row(store.read(place) or {}) | {"document": relative}
        if all(isinstance(made[name], TYPES[kind]) for name, kind in COLUMNS.items()):
            return made
    except (KeyError, TypeError, AttributeError):  # other JSON than the archive writes
        pass
    return dict.fromkeys(COLUMNS) | {
        "file": relative.removesuffix(".json"), "status": "damaged", "document": relative,
        "error": "this document is not whole", "remedy": "run the archive again, which makes a whole one"}


def _row(found: dict) -> dict:
    """Raises KeyError, TypeError or AttributeError for what is no document of an archive."""
    clip = store.clip_of(found)
    model, source = found["model"], clip["source"]
    segments = [{key: segment[key] for key in ("start_s", "end_s", "text")} for segment in clip["segments"]]
    return dict.fromkeys(COLUMNS) | {
        **{key: clip[key] for key in ("file", "text", "language", "language_probability", "duration_s",
                                      "transcribe_s", "real_time_factor")},
        "status": "done", "first_s": segments[0]["start_s"] if segments else None,
        "last_s": segments[-1]["end_s"] if segments else None,
        "doubtful_segments": sum(bool(segment["doubtful"]) for segment in clip["segments"]),
        "noticed": noticed(clip.get("sound")),
        "model": model["name"], "precision": model["precision"], "bytes": source["bytes"], "sha256": source["sha256"],
        "segments": segments}


def noticed(sound: object) -> str | None:
    """What was said about a recording's sound that may cost words, such as that it is cut short; None: nothing.

    sound: of a document; not every version of this lab wrote it.
    """
    notes = sound.get("notes") if isinstance(sound, dict) else None
    found = [note.removeprefix(WARNING) for note in notes or [] if isinstance(note, str) and note.startswith(WARNING)]
    return "; ".join(found) or None


class Totals:
    """What the table comes to."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.sound_s = self.seconds = 0.0
        self.doubtful = self.noticed = 0
        self.failed: list[tuple[str, str]] = []

    def add(self, row: dict) -> None:
        self.status[row["status"]] += 1
        if row["status"] != "done":
            more = f"; {row['remedy']}" if row["status"] == "damaged" else ""
            self.failed.append((row["file"], row["error"] + more))
            return
        self.languages[row["language"] or "no speech"] += 1
        self.sound_s += row["duration_s"] or 0.0
        self.seconds += row["transcribe_s"] or 0.0
        self.doubtful += bool(row["doubtful_segments"])
        self.noticed += bool(row["noticed"])

    def show(self) -> None:
        """A table on stdout, and a line for each recording without a transcript."""
        for name, error in self.failed:
            console.result(f"failed: {console.plain(name, one_line=True)}: {console.plain(error, one_line=True)}")
        factor = f"{self.seconds / self.sound_s:.4f}" if self.sound_s else "unknown"
        console.table("archive", ["what", "value"], [
            ["recordings", sum(self.status.values())], ["transcribed", self.status["done"]],
            ["failed", self.status["failed"] + self.status["damaged"]],
            ["with segments that are doubtful", self.doubtful],
            ["whose sound is damaged or unusual (noticed)", self.noticed],
            ["hours of sound", f"{self.sound_s / 3600:.2f}"], ["real-time factor", factor],
            ["languages", ", ".join(f"{code} {number}" for code, number in self.languages.most_common())]])


# Files ----------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def csv_table(path: Path):
    """Yields what writes a row; the file is there when all rows are."""
    with files.atomic(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as out:
        table = csv.writer(out)
        table.writerow(COLUMNS)
        yield lambda row: table.writerow([cell(row[name]) for name in COLUMNS])


def cell(value: object) -> object:
    """As it is safe in a spreadsheet: no text that is computed, no control character, nothing that is no UTF-8."""
    if isinstance(value, list):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    shown = console.plain(value)
    return f"'{shown}" if shown.lstrip(" \n").startswith(COMPUTED) else shown


@contextlib.contextmanager
def parquet_table(path: Path, pyarrow):
    """Yields what takes a row; written ROWS at a time; the file is there when all rows are."""
    segment = pyarrow.struct([("start_s", pyarrow.float64()), ("end_s", pyarrow.float64()), ("text", pyarrow.string())])
    types = {"segments": pyarrow.list_(segment)}
    schema = pyarrow.schema([(name, types.get(kind) or getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    waiting: list[dict] = []

    def flush() -> None:
        out.write_table(pyarrow.Table.from_pylist(waiting, schema))
        waiting.clear()

    def take(row: dict) -> None:
        waiting.append(_encodable(row))
        if len(waiting) == ROWS:
            flush()

    with files.atomic(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as out:
        yield take
        flush()


def _encodable(value):
    """The same with half characters, of names that are no UTF-8, written out as JSON does; arrow takes no others."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(one) for one in value]
    return {key: _encodable(one) for key, one in value.items()} if isinstance(value, dict) else value
