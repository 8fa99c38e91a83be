"""One graph as Netron's page shows it: which files of Netron and of the graph a browser may have.

Netron's own server is not used. It answers any Host, serves whatever lies in the graph's folder, and reads files whole;
here the page before the panes (front.py) hands out Netron's page, its scripts, and these very files of the graph.
"""

import html
import importlib.util
import os
import re
import urllib.parse
from pathlib import Path

from whisper_lab import external_data
from whisper_lab.compare.graph_facts import read
from whisper_lab.console import LabError

KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".png": "image/png",
         ".ico": "image/x-icon", ".json": "application/json", ".svg": "image/svg+xml"}
VERSION = re.compile(r'<meta name="version" content="[^"]*">')


class Pane:
    """One graph, open; a context manager that closes it. `files`: name -> descriptor, or bytes of a slim copy."""

    def __init__(self, path: Path, slim: bool = False):
        """path: the graph; slim: show a copy without weight data.

        Raises LabError for no file, no ONNX, and weights in a place that is not acceptable.
        """
        self.path, self.slim, self.model = Path(path), slim, read(path)
        self.netron, self.files = netron_folder(), {}
        outside = {} if slim else external_data.check(self.path)
        if slim:
            from whisper_lab.netron.slim import without_weights

            self.files[self.path.name] = without_weights(self.model).SerializeToString()
        else:
            self.files[self.path.name] = os.open(self.path, os.O_RDONLY)
        try:
            for file in outside:
                self.files[file.relative_to(self.path.parent).as_posix()] = external_data.open_file(file)
        except LabError:
            self.close()
            raise
        self.size_bytes = sum(map(length, self.files.values()))

    def __enter__(self) -> "Pane":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the graph's files."""
        for file in self.files.values():
            if isinstance(file, int):
                os.close(file)
        self.files = {}

    def page(self) -> bytes:
        """Netron's page for this graph, without what would reach out or get in the way.

        No date: no demand to update once it is half a year old. A development version: no statistics.
        """
        page = (self.netron / "index.html").read_text(encoding="utf-8")
        name, address = html.escape(self.path.name), urllib.parse.quote(self.path.name)
        facts = ('<meta name="type" content="Python">\n<meta name="version" content="0.0.0">\n'
                 f'<meta name="file" content="/data/{address}">\n<meta name="name" content="{name}">\n'
                 f'<meta name="identifier" content="{name}">')
        return VERSION.sub(lambda _: facts, quiet(page)).encode()

    def own(self, path: str) -> tuple[str, bytes] | None:
        """Type and content of one of Netron's files, None where there is none of that name."""
        kind = KINDS.get(Path(path).suffix)
        if not kind or not re.fullmatch(r"[\w.-]+", path) or not (self.netron / path).is_file():
            return None
        return kind, (self.netron / path).read_bytes()


def length(file: int | bytes) -> int:
    """Bytes of an open file, or of what is in memory."""
    return os.fstat(file).st_size if isinstance(file, int) else len(file)


def netron_folder() -> Path:
    """Where Netron's page and scripts are. Raises LabError where it is not installed."""
    found = importlib.util.find_spec("netron")
    folder = found and found.origin and Path(found.origin).parent
    if not folder or not (folder / "index.html").is_file():
        raise LabError("Netron is not installed", "look what else is missing: python -m whisper_lab.doctor")
    return folder


def quiet(page: str) -> str:
    """Netron's index page without a date."""
    return re.sub(r'<meta name="date" content="[^"]*">\n?', "", page)
