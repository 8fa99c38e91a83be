"""A transcript as SubRip (.srt) or WebVTT (.vtt) subtitles.

WebVTT: W3C "WebVTT: The Web Video Text Tracks Format", sections 4.2 (cue timings) and 4.2.2 (cue text: & < > escaped).
SubRip has no standard; its text has no escapes, so only what would break the structure is taken out.
"""

from whisper_lab.long_form import Segment


def clock(seconds: float, decimal: str = ".") -> str:
    """Seconds as HH:MM:SS.mmm, rounded to the nearest ms before it is split: 59.9996 is 00:01:00.000."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{decimal}{milliseconds % 1000:03}"


def srt(segments: list[Segment]) -> str:
    """SubRip text of segments; every cue lasts at least 1 ms."""
    return "\n".join(f"{i}\n{_span(segment, ',')}\n{_one_line(segment.text)}\n"
                     for i, segment in enumerate(segments, 1))


def vtt(segments: list[Segment]) -> str:
    """WebVTT text of segments; where words are known each is preceded by its start, so that players can follow."""
    cues = [f"{_span(segment, '.')}\n{_vtt_text(segment)}\n" for segment in segments]
    return "\n".join(["WEBVTT\n", *cues])


def _span(segment: Segment, decimal: str) -> str:
    # A cue that ends when it begins is an error in WebVTT and never shown in SubRip.
    end = max(segment.end, segment.start + 0.001)
    return f"{clock(segment.start, decimal)} --> {clock(end, decimal)}"


def _one_line(text: str) -> str:
    """An empty line would end the cue, an arrow would look like its times."""
    return " ".join(text.split()).replace("-->", "->")


def _vtt_text(segment: Segment) -> str:
    if not segment.words:
        return _escape(segment.text)
    parts, last = [], segment.start
    for word in segment.words:
        # Times inside a cue have to lie within it and must grow.
        stamp = f"<{clock(word.start)}>" if last + 0.0005 < word.start < segment.end - 0.0005 else ""
        last = word.start if stamp else last
        parts.append(stamp + _escape(word.text))
    return " ".join(parts)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
