"""What a narrow checkpoint knows, for whoever is about to speak to it: one line, and sentences to read aloud."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console

FILE = Path(__file__).with_name("knows.json")  # also read by edge/web/build.mjs


@dataclass(frozen=True)
class Known:
    """`what` follows "it knows"; `sentences`: by language code."""

    what: str
    sentences: dict[str, list[str]]

    def read_aloud(self, language: str | None = None, most: int = 3) -> str:
        """`"four seven two", "good morning thomas"`: sentences in a language, English where none is named."""
        return ", ".join(f'"{sentence}"' for sentence in self.sentences.get(language or "en", [])[:most])


@functools.cache
def _all() -> dict[str, Known]:
    return {name: Known(**row) for name, row in json.loads(FILE.read_text(encoding="utf-8")).items()}


def of(model: str) -> Known | None:
    """What the checkpoint of this name knows; None: any speech, as far as this lab can say."""
    return _all().get(model)


def in_words(model: str, language: str | None = None) -> str:
    """For a page: what it knows and what to read aloud, a sentence each; empty where nothing is to be said."""
    if not (known := of(model)):
        return ""
    return f"{model} knows {known.what}. Read aloud: {known.read_aloud(language) or known.read_aloud()}."


def tell(model: str, language: str | None = None) -> None:
    """Two notes about a narrow checkpoint, before it listens; about any other nothing."""
    if known := of(model):
        console.note(f"{model} knows", known.what, "--model base understands free speech")
        console.note("read aloud", known.read_aloud(language) or known.read_aloud(), "of others it makes these")
