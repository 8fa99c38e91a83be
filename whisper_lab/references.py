"""What is said in sound files, as people write it down: one reader for every script.

Two forms of JSON. An object, as media/references.json has it, and a list, as corpora have it:

    {"clip.wav": "what is said", "other.wav": {"text": "what is said", "language": "en"}}
    [{"file": "folder/clip.wav", "text": "what is said", "language": "en"}]

Names are relative to the JSON's folder. Any encoding that Windows saves in is read: UTF-8 with and without a mark,
UTF-16, and the old code page 1252.
"""

import json
from pathlib import Path

from whisper_lab.console import LabError

FORM = 'write JSON: {"clip.wav": {"text": "what is said", "language": "en"}}'


def read_text(path: Path) -> str:
    """A text file in UTF-8, UTF-16 or Windows' code page 1252. Raises LabError where it cannot be read."""
    try:
        data = path.read_bytes()
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        if b"\0" in data[:2] and len(data) > 1:  # no mark, and the first character is ASCII
            return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("cp1252")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is in none of UTF-8, UTF-16 and code page 1252"
        raise LabError(f"cannot read references from {path}: {reason}", "save it as UTF-8") from error


def read(path: Path) -> dict[str, dict]:
    """{name as written: {"text", "language", ...}}, of either form; text and language are None where they are missing.

    Raises LabError for anything else.
    """
    try:
        found = json.loads(read_text(path))
        pairs = [(row["file"], row) for row in found] if isinstance(found, list) else list(found.items())
        made = {name: _entry(name, entry) for name, entry in pairs}
    except RecursionError as error:
        raise LabError(f"cannot read references from {path}: too many brackets within brackets", FORM) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise LabError(f"cannot read references from {path}: {error}", FORM) from error
    except KeyError as error:
        raise LabError(f"cannot read references from {path}: a row has no {error}", FORM) from error
    return made


def _entry(name: object, entry: object) -> dict:
    """Raises TypeError."""
    fields = {"text": entry} if isinstance(entry, str) else entry
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise TypeError(f"{str(name)[:100]!r} has neither a text nor an object with one")
    for key in ("text", "language"):
        if not isinstance(fields.get(key), str | None):
            raise TypeError(f"the {key} of {name!r} is no text")
    return {"text": None, "language": None, **fields}


def of_clip(known: dict[str, dict], folder: Path, clip: Path) -> dict | None:
    """The entry of a sound file: by its place, else by its name, where no two entries share that; None: there is none.

    folder: that of the JSON.
    """
    place = clip.resolve()
    for name, entry in known.items():
        if Path(name).name == clip.name and (folder / name).resolve() == place:
            return entry
    if clip.name in known:
        return known[clip.name]
    same = [entry for name, entry in known.items() if Path(name).name == clip.name]
    return same[0] if len(same) == 1 else None
