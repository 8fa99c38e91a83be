"""Evidence as small as it can be: a value for every placeholder of the workbook, and a figure, for tests of what is
made from them. The real evidence is measured by workbook/evidence, and tested there.
"""

import json
from pathlib import Path

from whisper_lab import machine
from workbook import markdown, questions, values
from workbook.view import evidence

NUMBER = 1234.5


def write(folder: Path, book: questions.Book) -> Path:
    """NAME.json and NAME.png in `folder` for every evidence that the book names."""
    found: dict[str, dict] = {}
    for question in book.questions.values():
        for name in evidence(question):
            found.setdefault(name, {})
        for both in question.texts.values():
            for match in values.PLACEHOLDER.finditer(both.nl + both.en):
                if match["format"] == values.SHARE:
                    found[match["name"]] |= {f"{match['key']}_{part}": 7 for part in values.SHARE_PARTS}
                else:
                    found[match["name"]][match["key"]] = NUMBER if match["format"] and "f" in match["format"] else 7
    for name, key in markdown.MEMORY.values():
        found[name][key] = NUMBER
    for name, entries in found.items():
        write_one(folder, name, entries)
    return folder


def write_one(folder: Path, name: str, entries: dict, **changes) -> None:
    """One evidence file and its figure."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    document = {"schema": values.SCHEMA, "name": name, "machine": machine.card(), "seed": 0, "values": entries,
                "units": {}, "stable": list(entries)[:1], "figure": f"{name}.png", "duration_s": 0.1,
                "claims": [{"id": "a", "text_nl": "het klopt", "text_en": "it holds", "holds": True, "measured": 1}]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document | changes), encoding="utf-8")
    mark = PngInfo()
    mark.add_text(values.FIGURE_KEY, values.digest(entries))
    Image.new("RGB", (8, 8)).save(folder / f"{name}.png", pnginfo=mark)
