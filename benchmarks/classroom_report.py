"""Table and advice from benchmarks/classroom.py: what a class waits for, and which server it needs.

Every number of the advice is calculated from the measurements by a formula that is written beside it.
"""

import math
import sys
from pathlib import Path

sys.path[:0] = [str(HERE := Path(__file__).resolve().parent), str(HERE.parent)]

import idle  # noqa: E402

from whisper_lab import console, machine  # noqa: E402

WAYS = {"02": "a process of 02 each, PyTorch", "runtime": "a process of the runtime each",
        "page": "one page of 01 for all"}
CLASS = 20  # students
RESERVE = 1_500_000_000  # bytes that a class has to leave to the rest of the system
WAIT_S = 30  # how long a class may wait for its last text
SOLD = (2, 4, 8, 16, 32, 64, 128, 256, 512)  # GiB of memory that servers come with


def document(measured: dict) -> str:
    """Markdown: the table, what was measured, and the advice."""
    return "\n\n".join([table(measured), described(measured), advice(measured)])


def table(document: dict) -> str:
    """Markdown: a line for each way and class."""
    lines = ["| way | students at once | half of them have a text after, s | all, s | memory of all (PSS), MB | "
             "sum of RSS, MB | available memory fell by, MB | processor s a student | failed |",
             f"|---|{'---|' * 8}"]
    for way in WAYS:
        for row in rows_of(document, way):
            lines.append(f"| {WAYS[way]} | {started(row)} | {seconds(row['half_s'])} | {seconds(row['all_s'])} | "
                         f"{megabytes(row['pss_bytes'])} | {megabytes(row['rss_bytes'])} | "
                         f"{megabytes(row['available_drop_bytes'])} | {row['processor_s']:.1f} | {failed(row)} |")
    return "\n".join(lines)


def rows_of(document: dict, way: str) -> list[dict]:
    """The rows of one way, the smallest class first."""
    return sorted((row for row in document["rows"] if row["way"] == way), key=lambda row: row["students"])


def started(row: dict) -> str:
    """`20`, or `12 of 20` where memory was too little."""
    return str(row["students"]) if row["started"] == row["students"] else f"{row['started']} of {row['students']}"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:.0f}"


def failed(row: dict) -> str:
    """How many, and why; and how many got another text than a student alone."""
    said = [f"{count}: {reason.replace('|', '/')}" for reason, count in row["failed"].items()]
    if row["other_texts"]:
        said.append(f"{console.count(row['other_texts'], 'other text')}")
    return "; ".join(said) or "0"


def described(document: dict) -> str:
    """What was done, on which machine, and whether its times can be believed."""
    clip, threads = document["clip"], console.count(document["page_threads"], "thread")
    text = (f"{document['model']}, {clip['file']} ({clip['seconds']:.1f} s of sound), {document['precision']} graphs "
            f"for the runtime and the page, which has {threads}; all begin at the same moment, with files that the "
            f"system has in its cache. Measured on {machine.one_line(document['machine'])}"
            f"{idle.in_words(document)}.")
    if document["others_cores"] > idle.BUSY_CORES or document["load_before"] > idle.BUSY_LOAD:
        text += (f" **The machine was busy** (load {document['load_before']:.1f}, other processes took "
                 f"{document['others_cores']:.1f} cores): times are too long, and what was available moved by itself. "
                 "PSS, RSS and processor seconds are the processes' own.")
    return text


# Advice --------------------------------------------------------------------------------------------------------------

def line(rows: list[dict], key: str) -> tuple[float, float]:
    """(what no student takes, what each student adds) of `key`, through the smallest and the largest class."""
    low, high = rows[0], rows[-1]
    if low["started"] == high["started"]:
        return 0.0, high[key] / high["started"]
    each = (high[key] - low[key]) / (high["started"] - low["started"])
    return low[key] - each * low["started"], each


def at(rows: list[dict], key: str, students: int) -> float:
    """`key` of a class of this size: as measured, or on the line through the classes that were."""
    for row in rows:
        if row["started"] == students:
            return row[key]
    base, each = line(rows, key)
    return base + each * students


def measured_at(rows: list[dict], students: int) -> bool:
    return any(row["started"] == students for row in rows)


def server(needed: float) -> int | None:
    """GiB of the smallest server that holds so many bytes beside RESERVE; None: none that is sold."""
    return next((size for size in SOLD if size * 2**30 >= needed + RESERVE), None)


def cores(rows: list[dict], students: int, here: int) -> str:
    """Cores that compute all texts of a class within WAIT_S; `more than N` where the N of this machine took longer."""
    needed = math.ceil(students * rows[-1]["processor_s"] / WAIT_S)
    late = needed <= here and at(rows, "all_s", students) > WAIT_S
    return f"more than {here}" if late else str(needed)


def holds(rows: list[dict], memory: int) -> int:
    """How many students a machine of this memory holds."""
    base, each = line(rows, "pss_bytes")
    return max(0, int((memory - RESERVE - base) // max(each, 1)))


def advice(document: dict, students: int = CLASS) -> str:
    """Markdown: what a class of this size needs, and what this machine holds."""
    found = {way: rows for way in WAYS if (rows := [row for row in rows_of(document, way) if row["all_s"] is not None])}
    lines = [f"| {students} students | memory, GB | a server with at least | cores for all texts within {WAIT_S} s |",
             "|---|---|---|---|"]
    for way, rows in found.items():
        needed = at(rows, "pss_bytes", students)
        size = server(needed)
        lines.append(f"| {WAYS[way]} | {needed / 1e9:.1f}{'' if measured_at(rows, students) else ' (calculated)'} | "
                     f"{f'{size} GiB' if size else 'more than is sold'} | "
                     f"{cores(rows, students, document['machine']['cores'])} |")
    return "\n".join([*lines, "", formulas(students), "", *sentences(document, found, students)])


def formulas(students: int) -> str:
    """How the table of the advice is calculated."""
    return (f"Memory: as measured with {students} students, or where that is marked as calculated, on a straight line "
            f"through the smallest and the largest class. The server: the next size that is sold which leaves "
            f"{RESERVE / 1e9:g} GB to the system. Cores: {students} × processor seconds a student ÷ {WAIT_S} s; "
            "more than this machine has, where so few would do by that formula and the last text still came later.")


def sentences(document: dict, found: dict[str, list[dict]], students: int) -> list[str]:
    """What follows for this machine, a list item for each way."""
    memory, said = document["machine"]["memory_bytes"], []
    for way in ("02", "runtime"):
        if rows := found.get(way):
            each, most = line(rows, "pss_bytes")[1], holds(rows, memory)
            enough = f"enough for {students}" if most >= students else \
                f"too few for {students}: let them run in {math.ceil(students / max(most, 1))} groups"
            said.append(f"- {WAYS[way]}: every student adds {each / 1e6:.0f} MB, so this machine, with "
                        f"{memory / 2**30:.0f} GiB, holds {most}, {enough}.")
    if rows := found.get("page"):
        last, each = at(rows, "all_s", students), line(rows, "all_s")[1]
        how = "as measured" if measured_at(rows, students) else "calculated"
        said.append(f"- {WAYS['page']}: visitors wait in a row, {each:.1f} s for each one before them; the last of "
                    f"{students} has a text after {last:.0f} s, {how}."
                    + (" For a whole class that presses at once give each a process." if last > WAIT_S else ""))
    return said
