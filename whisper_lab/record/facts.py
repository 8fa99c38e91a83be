"""What was saved, in words: the same rows on the terminal and on the page."""

import html
import shlex

from whisper_lab import console
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.loudness import CLIPPED_TOO_MUCH, NEAR_SILENT_DBFS, Level
from whisper_lab.record.save import KEPT, Saved

EDGE_DBFS = -1.0  # peak; above it there is no room left for a louder word


def rows(saved: Saved) -> list[tuple[str, str]]:
    """(what, value) pairs."""
    level = saved.level
    made = [
        ("saved", f"{saved.path.name}: {saved.duration:.2f} s, {SAMPLE_RATE} Hz, mono, 16-bit"),
        ("level", f"{_decibels(level.rms_dbfs)} on average, {_decibels(level.peak_dbfs)} at the loudest point"),
        ("clipping", _clipping(level.clipped_fraction)),
        ("silence", f"nothing above {NEAR_SILENT_DBFS:g} dBFS" if level.silent else "no"),
        ("arrived as", f"{saved.source_format}, {saved.source_rate} Hz, "
                       f"{'mono' if saved.source_channels == 1 else f'{saved.source_channels} channels'}"),
        ("converted", "; ".join(saved.notes) or "nothing"),
    ]
    if saved.dropouts is not None:
        made.append(("dropouts", str(saved.dropouts)))
    if saved.previous:
        made.append(("previous", f"kept as {KEPT}/{saved.previous.name}"))
    return made


def show(saved: Saved) -> None:
    """The rows as a table on stdout; the advice as a warning."""
    for what, value in rows(saved):
        console.result(f"{what:<12}{console.plain(value, one_line=True)}")
    if saved.level.advice:
        console.warn(saved.level.advice)


def as_html(saved: Saved) -> str:
    """The level or the advice on it, and the rows, for the page; everything is escaped."""
    advice = saved.level.advice
    head = f'<p class="{"lab-advice" if advice else "lab-level"}">{html.escape(advice or level_line(saved.level))}</p>'
    cells = "".join(f"<tr><th>{html.escape(what)}</th><td>{html.escape(value)}</td></tr>"
                    for what, value in rows(saved))
    return f'{head}<table class="lab-facts">{cells}</table>'


def level_line(level: Level) -> str:
    """`level: peak -6.0 dBFS, not clipped`: of the level only. No praise: the text beside it may be invented."""
    at_the_edge = level.peak_dbfs is not None and level.peak_dbfs > EDGE_DBFS
    edge = ", but a louder word would be" if at_the_edge else ""
    clipped = _clipping(level.clipped_fraction) if level.clipped_fraction else f"not clipped{edge}"
    return f"level: peak {_decibels(level.peak_dbfs)}, {clipped}"


def warning(text: str) -> str:
    """A warning about the transcript for the page; everything is escaped."""
    return f'<p class="lab-advice"><b>Warning:</b> {html.escape(text)}</p>'


def trouble(error: LabError, arrived: str | None = None) -> str:
    """An error for the page, without the name that the upload has on this machine."""
    problem, remedy = error.problem, error.remedy
    if arrived:
        problem, remedy = problem.replace(arrived, "this recording"), remedy.replace(shlex.quote(arrived), "FILE")
    return (f'<p class="lab-advice"><b>{html.escape(problem)}</b><br>'
            f"{html.escape(remedy)}</p>")


def _decibels(dbfs: float | None) -> str:
    return "digital silence" if dbfs is None else f"{round(dbfs, 1) + 0.0:.1f} dBFS"  # never -0.0


def _clipping(fraction: float) -> str:
    if not fraction:
        return "no"
    heard = "" if fraction > CLIPPED_TOO_MUCH else ", too few to be heard"
    return f"{100 * fraction:.2g} % of the samples at full scale{heard}"
