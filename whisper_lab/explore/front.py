"""One page before the panes: a small server on this machine that shows both graphs, the counts and the tour.

The panes are passed through it (/left/, /right/), so that one port is all that has to be forwarded, and so that page
and panes have the same origin: the tour can then open a node in both. On the way Netron's page loses what would reach
out or get in the way: its usage statistics, the question for consent (which asks ipinfo.io for the country), and the
demand to update once it is half a year old. A Content-Security-Policy keeps whatever is left from leaving this machine.
"""

import errno
import html
import http.client
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from whisper_lab.console import LabError
from whisper_lab.explore.pane import HOST

HERE = Path(__file__).resolve().parent
POLICY = ("default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; "
          "frame-ancestors 'self'; form-action 'none'; base-uri 'none'")
ALLOWED_HOSTS = {"localhost", "127.0.0.1", "[::1]"}  # other names would be another site's trick (DNS rebinding)
FILES = {"/page.js": "text/javascript", "/page.css": "text/css"}  # beside this file
BLOCK = 1 << 20


class Front:
    """The server; a context manager. panes: {"left": Pane, "right": Pane}; tour and counts as 05 makes them."""

    def __init__(self, panes: dict, title: str, tour: list[dict], counts: list[dict], port: int):
        """port: 0 takes any free one. Raises LabError where the port is in use."""
        self.panes, self.requests = panes, 0
        page = (HERE / "page.html").read_text(encoding="utf-8")
        parts = {"title": title, **{side: _caption(pane) for side, pane in panes.items()}}
        for key, value in parts.items():
            page = page.replace(f"@{key}@", html.escape(value))
        self.page = page.encode()
        self.data = json.dumps({"tour": tour, "counts": counts}, ensure_ascii=False).encode()
        try:
            self.server = _Server((HOST, port), Handler)
            self.server.front = self
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LabError(f"port {port} is in use", f"end what uses it, or take another: --port {port + 10}") \
                    from error
            raise LabError(f"cannot listen on port {port}: {error.strerror}", "take a port above 1023 with --port") \
                from error
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


def _caption(pane) -> str:
    slim = ", without weights" if pane.slim else ""
    return f"{pane.path.name} ({len(pane.model.graph.node)} nodes, {pane.size_bytes / 1e6:.2f} MB{slim})"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the page, its data and its script, and of the panes; `server.front` is whose they are."""

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in ALLOWED_HOSTS:
            return self._send(403, "text/plain", b"open this page as http://localhost:PORT or http://127.0.0.1:PORT")
        path, panes = self.path.split("?")[0], self.server.front.panes
        side, _, rest = path.removeprefix("/").partition("/")
        if own := self._own(path):
            self._send(200, *own)
        elif side in panes and path.startswith(f"/{side}/"):
            self._pass_on(side, panes[side].port, f"/{rest}")
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

    def _pass_on(self, side: str, port: int, path: str) -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            kind, content = answer.getheader("Content-Type", "text/plain"), answer.read()
        except OSError:
            return self._send(502, "text/plain", b"this pane's Netron has ended")
        finally:
            connection.close()
        cookie = None
        if path in ("/", "/index.html") and answer.status == 200:
            content = quiet(content.decode("utf-8")).encode("utf-8")
            cookie = f"consent={int(time.time() * 1000)}; Path=/{side}/; SameSite=Strict"
        self._send(answer.status, kind, content, cookie)

    def _send(self, status: int, kind: str, content: bytes, cookie: str | None = None) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))),
                            ("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"),
                            ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        if self.command != "HEAD":
            for start in range(0, len(content), BLOCK):
                self.wfile.write(content[start:start + BLOCK])

    def log_message(self, *_) -> None:  # a line per request helps nobody
        self.server.front.requests += 1


def quiet(page: str) -> str:
    """Netron's index page without a date (no demand to update) and as a development version (no statistics)."""
    page = re.sub(r'<meta name="date" content="[^"]*">\n?', "", page)
    return re.sub(r'(<meta name="version" content=")[^"]*(">)', r"\g<1>0.0.0\2", page)
