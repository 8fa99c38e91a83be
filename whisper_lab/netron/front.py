"""One page before the panes: a small server on this machine that shows both graphs, the counts and the tour.

The panes are at /left/ and /right/, so that one port is all that has to be forwarded, and so that page and panes have
the same origin: the tour can then open a node in both. Netron's page has lost what would reach out or get in the way:
its usage statistics, the question for consent (which asks ipinfo.io for the country), and the demand to update. A
Content-Security-Policy keeps whatever is left from leaving this machine. Who may ask is decided in web.py.
"""

import errno
import html
import json
import os
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from whisper_lab import console, web
from whisper_lab.console import LabError
from whisper_lab.netron.pane import length

HOST = "127.0.0.1"
PORTS = range(8090, 8110)
HERE = Path(__file__).resolve().parent
POLICY = ("default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; "
          "frame-ancestors 'self'; form-action 'none'; base-uri 'none'")
FILES = {"/page.js": "text/javascript", "/page.css": "text/css"}  # beside this file
BLOCK = 1 << 20


class Front:
    """The server; a context manager. panes: {"left": Pane, "right": Pane}; tour and counts as 05 makes them."""

    def __init__(self, panes: dict, title: str, tour: list[dict], counts: list[dict], port: int | None,
                 names: tuple[str, str] = ("left", "right"), compared: bool = True):
        """port: 0 takes any free one, None the first of PORTS that is free. Raises LabError where it is in use.

        names: what the page calls the two graphs; compared: they are two of the same, and how they differ is shown.
        """
        self.panes, self.requests = panes, 0
        page, called = (HERE / "page.html").read_text(encoding="utf-8"), dict(zip(panes, names, strict=True))
        parts = {"title": title, **{side: _caption(pane) for side, pane in panes.items()},
                 **{f"{side}-name": name for side, name in called.items()}}
        for key, value in parts.items():
            page = page.replace(f"@{key}@", html.escape(value))
        self.page = page.encode()
        self.data = json.dumps({"tour": tour, "counts": counts, "names": called, "compared": compared},
                               ensure_ascii=False).encode()
        self.server = _server(port)
        self.server.front = self
        self.port = self.server.server_address[1]

    def __enter__(self) -> "Front":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a port just left may be taken again; one in use may not


def _server(port: int | None) -> _Server:
    """A server on `port`; None: on the first of PORTS that is free. Raises LabError where it cannot be had."""
    for tried in PORTS if port is None else (port,):
        try:
            server = _Server((HOST, tried), Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise LabError(f"cannot listen on port {tried}: {error.strerror}",
                           "take a port above 1023 with --port") from error
        if port is None and tried != PORTS[0]:
            console.note("port", tried, f"{PORTS[0]} is in use, perhaps by another student on this machine")
        return server
    if port is None:
        raise LabError(f"all ports from {PORTS[0]} to {PORTS[-1]} are in use", "take any free one: --port 0")
    raise LabError(f"port {port} is in use", "end what uses it, or leave out --port to get another")


def _caption(pane) -> str:
    slim = ", without weights" if pane.slim else ""
    return f"{pane.path.name} ({len(pane.model.graph.node)} nodes, {pane.size_bytes / 1e6:.2f} MB{slim})"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the page, its data and its script, and of the panes; `server.front` is whose they are."""

    def do_GET(self) -> None:
        if problem := web.refusal(self.headers.items(), self.command, web.LOCAL):
            return self._send(403, "text/plain", problem.encode())
        path, panes = self.path.split("?")[0], self.server.front.panes
        side, _, rest = path.removeprefix("/").partition("/")
        if own := self._own(path):
            self._send(200, *own)
        elif side in panes and path.startswith(f"/{side}/"):
            self._show(side, panes[side], urllib.parse.unquote(rest))
        else:
            self._send(404, "text/plain", b"no such page")

    do_HEAD = do_GET

    def _own(self, path: str) -> tuple[str, bytes] | None:
        """Type and content of what this server has itself."""
        if path in FILES:
            return FILES[path], (HERE / path.removeprefix("/")).read_bytes()
        front = self.server.front
        return {"/": ("text/html; charset=utf-8", front.page), "/tour.json": ("application/json", front.data),
                "/favicon.ico": ("image/x-icon", b"")}.get(path)

    def _show(self, side: str, pane, path: str) -> None:
        """Netron's page, one of its files, or one of the graph's."""
        if path in ("", "index.html"):
            cookie = f"consent={int(time.time() * 1000)}; Path=/{side}/; SameSite=Strict"
            self._send(200, "text/html; charset=utf-8", pane.page(), cookie)
        elif path.startswith("data/") and path.removeprefix("data/") in pane.files:
            self._send(200, "application/octet-stream", pane.files[path.removeprefix("data/")])
        elif own := pane.own(path):
            self._send(200, *own)
        else:
            self._send(404, "text/plain", b"no such file")

    def _send(self, status: int, kind: str, content: bytes | int, cookie: str | None = None) -> None:
        """content: the bytes, or the descriptor of an open file, which is sent block by block."""
        size = length(content)
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(size)), ("Content-Security-Policy", POLICY),
                            *web.HEADERS, ("Cache-Control", "no-store")):
            self.send_header(name, value)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, size, BLOCK):
            block = os.pread(content, BLOCK, start) if isinstance(content, int) else content[start:start + BLOCK]
            self.wfile.write(block)
            if len(block) < min(BLOCK, size - start):  # the file has become shorter: the browser sees a broken answer
                self.close_connection = True
                return

    def log_message(self, *_) -> None:  # a line per request helps nobody
        self.server.front.requests += 1
