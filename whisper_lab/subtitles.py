"""A transcript as SubRip (.srt) or WebVTT (.vtt) subtitles.

WebVTT: W3C "WebVTT: The Web Video Text Tracks Format", sections 4.2 (cue timings) and 4.2.2 (cue text: & < >
escaped). SubRip has no standard; its text has no escapes, so only what would break the structure is taken out.
Not pysubs2: it would write the two forms of a time stamp, ten lines of these; the work is in choosing the cues.
"""

import re
from dataclasses import replace

from whisper_lab.transcribe import Segment

SHORTEST = 1.0  # s; a shorter cue is seen, and not read (the BBC's guidelines ask for 0.3 s a word)
PACE = 21.0  # characters a second that a viewer reads; adults' subtitles have 17 to 21
LONGEST = 84  # characters, two lines of 42: what was long enough to be seen is not made longer than that
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
JOIN = 0.5  # s; cues that are nearer to each other may become one


def clock(seconds: float, decimal: str = ".") -> str:
    """Seconds as HH:MM:SS.mmm, rounded to the nearest ms before it is split: 59.9996 is 00:01:00.000."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{decimal}{milliseconds % 1000:03}"


def cues(segments: list[Segment]) -> list[Segment]:
    """The segments as cues that can be read: each stays for SHORTEST s and at PACE characters a second, or longer.

    A cue that is too short may stay on into the silence after it, then begin in the silence before it; where there is
    none, it is joined with the neighbour that is nearer, of the same speaker. Text and order stay, and no two cues
    overlap.
    """
    made = [replace(segment, end=max(segment.end, segment.start)) for segment in segments]
    i = 0
    while i < len(made):
        _stretch(made, i)
        if len(made) == 1 or not _is_short(made[i]):
            i += 1
            continue
        gaps = {j: made[j + 1].start - made[j].end for j in (i - 1, i)
                if 0 <= j and j + 1 < len(made) and made[j].speaker == made[j + 1].speaker}
        if not gaps:  # others speak before and after it
            i += 1
            continue
        first = min(gaps, key=gaps.get)
        joined = _joined(*made[first:first + 2])
        too_long = made[i].end - made[i].start >= SHORTEST and len(joined.text) > LONGEST
        if gaps[first] > JOIN or too_long:  # no one speaks near it, or someone who speaks fast: it has all there is
            i += 1
            continue
        made[first:first + 2] = [joined]
        i = max(0, first)
    return made


def _needed(cue: Segment) -> float:
    """s that it takes to read a cue."""
    return max(SHORTEST, len(_one_line(cue.text)) / PACE)


def _is_short(cue: Segment) -> bool:
    return cue.end - cue.start < _needed(cue) - 0.001


def _stretch(made: list[Segment], i: int) -> None:
    """Give cue i the silence after it, then the silence before it, as far as it needs it."""
    after = made[i + 1].start if i + 1 < len(made) else float("inf")
    before = made[i - 1].end if i else 0.0
    end = max(made[i].end, min(made[i].start + _needed(made[i]), after))
    start = min(made[i].start, max(end - _needed(made[i]), before))
    made[i] = replace(made[i], start=start, end=end)


def _joined(first: Segment, second: Segment) -> Segment:
    words = [*first.words, *second.words] if first.words and second.words else None
    return replace(first, end=max(first.end, second.end), text=f"{first.text} {second.text}", words=words,
                   tokens=[*first.tokens, *second.tokens])


def srt(segments: list[Segment]) -> str:
    """SubRip text of segments, made readable by `cues`."""
    return "\n".join(f"{i}\n{_span(cue, ',')}\n{_one_line(_spoken(cue))}\n" for i, cue in enumerate(cues(segments), 1))


def vtt(segments: list[Segment]) -> str:
    """WebVTT text of segments, made readable by `cues`; where words are known each is preceded by its start, so that
    players can follow."""
    return "\n".join(["WEBVTT\n", *(f"{_span(cue, '.')}\n{_voice(cue)}{_vtt_text(cue)}\n" for cue in cues(segments))])


SUBTITLES = {"srt": srt, "vtt": vtt}


def _spoken(cue: Segment) -> str:
    """The text, after the name of its speaker where that is known."""
    return f"{cue.speaker}: {cue.text}" if cue.speaker else cue.text


def _voice(cue: Segment) -> str:
    """The voice span of WebVTT (section 4.2.2), which players may show as a name or a colour."""
    return f"<v {_escape(cue.speaker)}>" if cue.speaker else ""


def _span(segment: Segment, decimal: str) -> str:
    # A cue that ends when it begins is an error in WebVTT and never shown in SubRip.
    end = max(segment.end, segment.start + 0.001)
    return f"{clock(segment.start, decimal)} --> {clock(end, decimal)}"


def _one_line(text: str) -> str:
    """An empty line would end the cue, an arrow would look like its times, and a terminal obeys control characters."""
    return CONTROL.sub("", " ".join(text.split())).replace("-->", "->")


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
    return CONTROL.sub("", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
