"""Numbers for the workbook's texts, from the files that the evidence scripts wrote.

    {dynamic_axes.max_difference:.1e}     the value max_difference in workbook/results/dynamic_axes.json, formatted
    {equality.top1_int8:share}            a share with what it takes to judge it: 97.6 % (41 of 42; 95 % interval ...)

Dutch gets a decimal comma. A number that no one measured ends in an error, never in a gap.
"""

import hashlib
import json
import re
from pathlib import Path

from whisper_lab import machine
from whisper_lab.console import LabError
from workbook.questions import HERE

RESULTS = HERE / "results"
SCHEMA = "whisper-onnx-lab/evidence/1"
PLACEHOLDER = re.compile(r"\{(?P<name>[a-z][a-z0-9_]*)\.(?P<key>[a-z][a-z0-9_]*)(?::(?P<format>[^{}]*))?\}")
SHARE = "share"  # the format of what evidence/common.share wrote: the percentage is never shown without the rest
SHARE_PARTS = ("percent", "same", "of", "low", "high")
SHARE_TEXT = {"nl": "{percent} % ({same} van de {of}; 95 %-interval {low} tot {high} %)",
              "en": "{percent} % ({same} of {of}; 95 % interval {low} to {high} %)"}
FIGURE_KEY = "values"  # the text chunk in a figure that says which values it was drawn from


class Results:
    """The evidence in one folder, read when it is needed."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder or RESULTS
        self._documents: dict[str, dict] = {}

    def document(self, name: str, where: str = "the workbook") -> dict:
        """What the evidence script `name` wrote. Raises LabError where it is missing or not its schema."""
        if name not in self._documents:
            path = self.folder / f"{name}.json"
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
            except OSError as error:
                problem = f"{where} needs the evidence {name}, and there is no {path.name}"
                raise LabError(problem, remedy(name)) from error
            except ValueError as error:
                raise LabError(f"{path.name} is damaged: {error}", remedy(name)) from error
            if not isinstance(document, dict) or document.get("schema") != SCHEMA:
                raise LabError(f"{path.name} is not an evidence file ({SCHEMA})", remedy(name))
            self._documents[name] = document
        return self._documents[name]

    def value(self, name: str, key: str, where: str):
        """One value. Raises LabError where no one measured it."""
        value = self.document(name, where)["values"].get(key)
        if value is None:
            raise LabError(f"{where}: {name}.json holds no value '{key}'", remedy(name))
        return value

    def fill(self, text: str, language: str, where: str) -> str:
        """`text` with its placeholders replaced by measured values."""
        def one(match: re.Match) -> str:
            if match["format"] == SHARE:
                return self.share(match["name"], match["key"], language, where)
            value = self.value(match["name"], match["key"], where)
            try:
                return shown(value, match["format"], language)
            except ValueError as error:
                raise LabError(f"{where}: {match[0]} does not fit the value {value!r}: {error}",
                               "mend the placeholder in workbook/questions.yaml") from error
        return PLACEHOLDER.sub(one, text)

    def share(self, name: str, key: str, language: str, where: str) -> str:
        """How many of so many, as a percentage, with its interval."""
        parts = {part: self.value(name, f"{key}_{part}", where) for part in SHARE_PARTS}
        return SHARE_TEXT[language].format(**{part: shown(value, "g" if value in (0, 100) or isinstance(value, int)
                                                          else ".1f", language) for part, value in parts.items()})

    def figure(self, name: str) -> Path:
        """The evidence's figure. Raises LabError where it is missing or drawn from other values than the file's."""
        document = self.document(name)
        path = self.folder / document["figure"]
        if not path.is_file():
            raise LabError(f"there is no figure {path.name}", remedy(name))
        if figure_digest(path) != digest(document["values"]):
            raise LabError(f"{path.name} was drawn from other values than {name}.json holds", remedy(name))
        return path

    def machines(self, names: list[str], language: str) -> list[str]:
        """The machines on which these were measured, each once, as the line under a table."""
        return list(dict.fromkeys(machine.one_line(self.document(name)["machine"], language) for name in names))


def shown(value, form: str | None, language: str) -> str:
    """A value as a reader of `language` writes it; a float without a format gets three digits."""
    if isinstance(value, str):
        return format(value, form or "")
    text = format(value, form or (".3g" if isinstance(value, float) else ""))
    return text.translate(str.maketrans(".,", ",.")) if language == "nl" else text


def names_in(text: str) -> list[str]:
    """The evidence that a text takes values from."""
    return [match["name"] for match in PLACEHOLDER.finditer(text)]


def digest(values: dict) -> str:
    """What a figure is marked with, so that one that no longer matches its values is found."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def figure_digest(path: Path) -> str | None:
    """The mark in a PNG, or None."""
    from PIL import Image

    with Image.open(path) as image:
        return image.info.get(FIGURE_KEY)


def remedy(name: str) -> str:
    return f"run python -m workbook.evidence.{name}"
