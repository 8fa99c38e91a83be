"""Committed text as it stands, tentative text in grey behind it; into a pipe only lines that are final."""

import os
import shutil
import sys

from whisper_lab import confidence, console
from whisper_lab.stream.report import joined

GREY, PLAIN = "\x1b[90m", "\x1b[0m"
CLEAR_BELOW = "\x1b[J"


class Screen:
    """One utterance at a time is written, and written over until it is final."""

    def __init__(self, out=None, colours: bool | None = None, model: str = "",
                 language: str | None = None):
        """out: default stdout; colours: default yes, unless the environment has NO_COLOR: then [brackets]; model: the
        checkpoint's name, whose limit decides which text is doubtful; language: --language."""
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.colours = not os.environ.get("NO_COLOR") if colours is None else colours
        self.model, self.language, self._warned = model, language, False
        self._rows = 0  # that the cursor stands below the first one of this utterance
        self._begun = False  # there is text on its line

    def show(self, committed: list, tentative: list) -> None:
        """The utterance so far."""
        if not self.live:
            return
        fixed, maybe = (console.plain(joined(part), one_line=True) for part in (committed, tentative))
        space = " " if fixed and maybe and tentative[0].text[:1].isspace() else ""
        shown = (f"{GREY}{maybe}{PLAIN}" if self.colours else f"[{maybe}]") if maybe else ""
        self._write(fixed + space + shown, fixed + space + maybe + ("" if self.colours or not maybe else "[]"))

    def close(self, committed: list, likely: float | None = None) -> None:
        """The utterance is final; likely: mean log-probability of its tokens. The first doubtful one is explained."""
        text = console.plain(joined(committed), one_line=True)
        if self.live:
            self._write(text, text)
            self.end()  # the next utterance begins on a line of its own
        elif text:
            print(text, file=self.out, flush=True)
        if text and confidence.is_doubtful(likely, self.model):
            # On stderr, so that a pipe gets nothing but text.
            console.warn(f'"{_short(text)}": ' + ("unlikely as well" if self._warned else
                         f"{confidence.of_text(likely, self.model)}; {confidence.remedy(self.model, self.language)}"))
            self._warned = True

    def end(self) -> None:
        """Nothing more comes: leave the line."""
        if self._begun:
            print(file=self.out, flush=True)
        self._rows, self._begun = 0, False

    def _write(self, text: str, bare: str) -> None:
        """Write over what stands there. bare: the text as it takes room."""
        up = f"\x1b[{self._rows}A" if self._rows else ""
        self.out.write(f"\r{up}{CLEAR_BELOW}{text}")
        self.out.flush()
        columns = shutil.get_terminal_size().columns
        self._rows, self._begun = max(0, console.cell_len(bare) - 1) // columns, bool(bare)


def _short(text: str, most: int = 40) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else text[:most - 3].rstrip() + "..."
