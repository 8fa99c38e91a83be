"""ASGI middleware before a Gradio page: who may ask (web.py), for what, how much may be sent, how often one may guess.

Gradio's own rules are for pages that anyone may embed. These are for a page on a machine that a class shares: it is
outside Gradio's application, so that nothing is answered, not even the preflight of a foreign site, before it agrees.
"""

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from whisper_lab import console, web
from whisper_lab.console import LabError

# Gradio's page needs scripts and styles within the page, and makes functions of texts; nothing of it may leave here.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
          "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
          "frame-ancestors 'self'; form-action 'self'; base-uri 'self'")
# Routes of Gradio that these pages do not use: proxies, streams, histories, editors, and files named by an address.
UNUSED = re.compile(r"(/gradio_api)?/(proxy=|process_recording|stream/|deep_link|vibe-|undo-vibe|runs|run-history|"
                    r"monitoring|dev/|component_server|custom_component|profiling|file[=/]\s*(//|[a-z][a-z0-9+.-]*:))",
                    re.IGNORECASE)
UPLOAD = re.compile(r"/gradio_api/upload/?")
LARGEST_FILE = 100_000_000  # bytes; five minutes of 16-bit stereo at 48 kHz are 58 MB
LARGEST_BODY = 1_000_000  # bytes of any other request
MOST_BYTES, MOST_FILES = 2_000_000_000, 1000  # of uploads and downloads together, before the oldest have to go
QUIET_S, LONGEST_BODY_S = 30, 600  # s without a byte, and in all, before a body that is being sent is given up
YOUNG_S = 600  # what somebody may still be working with is not removed
FREE_GUESSES = 5  # wrong passwords from one address before it has to wait
LONGEST_WAIT_S = 60
FORGET_S = 3600
MOST_ADDRESSES = 10_000


@dataclass
class Rules:
    """What one page allows."""

    hosts: frozenset[str] = web.LOCAL  # names under which it is known
    any_address: bool = False  # also every numeric address: it serves the network
    uploads: Path | None = None  # where they go; None: the page takes none
    tunnelled: bool = False  # by --share: the visitor's address is in X-Forwarded-For
    outside: frozenset[str] = field(default_factory=frozenset)  # origins of the tunnel

    def add_public(self, address: str) -> None:
        """The page is now also known under an address such as https://abc.gradio.live."""
        address = address.rstrip("/").lower()
        self.outside |= {address}
        self.hosts |= {address.partition("://")[2]}


class Guard:
    """An ASGI application around another: it passes on what the rules allow."""

    def __init__(self, app, rules: Rules):
        self.app, self.rules, self.guesses, self.coming = app, rules, Guesses(), 0

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        method = scope.get("method", "GET")
        if problem := web.refusal(headers, method, self.rules.hosts, self.rules.any_address, self.rules.outside):
            return await _refuse(scope, receive, send, 403, f"{problem} (--allow-host adds a name)")
        if UNUSED.match(scope["path"]):
            return await _refuse(scope, receive, send, 403, "this page does not offer that")
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        send = _with_headers(send)
        await self._take(scope, receive, send, dict(headers))

    async def _take(self, scope, receive, send, headers: dict[str, str]) -> None:
        """Pass a request on, unless what it sends is too much."""
        upload, claimed = bool(UPLOAD.fullmatch(scope["path"])), headers.get("content-length", "")
        if upload and self.rules.uploads is None:
            return await _refuse(scope, receive, send, 403, "this page takes no files")
        limit = LARGEST_FILE + LARGEST_BODY if upload else LARGEST_BODY
        expected = int(claimed) if claimed.isascii() and claimed.isdigit() else limit
        if expected > limit:
            return await _refuse(scope, receive, send, 413, f"more than {limit // 1_000_000} MB are not taken")
        if scope["method"] == "POST" and scope["path"].rstrip("/") == "/login":
            return await self._log_in(scope, receive, send, headers)
        if not upload:
            return await _limited(self.app, scope, receive, send, limit)
        if not has_room(self.rules.uploads, self.coming + expected):
            return await _refuse(scope, receive, send, 507, "this page keeps as many recordings as it may: try again "
                                                            f"in {YOUNG_S // 60} minutes")
        self.coming += expected
        try:
            await _limited(self.app, scope, receive, send, limit)
        finally:
            self.coming -= expected

    async def _log_in(self, scope, receive, send, headers: dict[str, str]) -> None:
        """Count wrong passwords by address; who gave many has to wait, and nobody else."""
        address = self._address(scope, headers)
        if wait := self.guesses.wait(address):
            return await _refuse(scope, receive, send, 429, f"too many wrong passwords: wait {wait:.0f} s",
                                 [(b"retry-after", b"%d" % (wait + 1))])
        self.guesses.add(address)  # before the answer is known: a thousand at once would all be let in

        async def watched(message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.guesses.forget(address)
            await send(message)

        await _limited(self.app, scope, receive, watched, LARGEST_BODY)

    def _address(self, scope, headers: dict[str, str]) -> str:
        """The visitor's address. A tunnel ends on this machine and adds it to what the visitor sent: the last one."""
        address = (scope.get("client") or ("unknown",))[0]
        if self.rules.tunnelled and address in ("127.0.0.1", "::1") and "x-forwarded-for" in headers:
            return headers["x-forwarded-for"].rpartition(",")[2].strip()[:64]
        return address


class Guesses:
    """Wrong passwords by address: how many, and when the last one was."""

    def __init__(self):
        self.wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0: now. 1, 2, 4, ... after each wrong one beyond the free ones."""
        count, last = self.wrong.get(address, (0, 0.0))
        if count < FREE_GUESSES or time.monotonic() - last > FORGET_S:
            return 0.0
        return max(last + min(2.0 ** (count - FREE_GUESSES), LONGEST_WAIT_S) - time.monotonic(), 0.0)

    def add(self, address: str) -> None:
        """One more wrong password."""
        count, last = self.wrong.pop(address, (0, 0.0))
        now = time.monotonic()
        self.wrong[address] = (1 if now - last > FORGET_S else count + 1, now)
        if len(self.wrong) > MOST_ADDRESSES:
            self.wrong.popitem(last=False)

    def forget(self, address: str) -> None:
        """The right password came from there."""
        self.wrong.pop(address, None)


def has_room(folder: Path, expected: int = 0) -> bool:
    """May so many more bytes, in one more file, be kept in `folder`? Removes old files for it, but no young ones."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if path.is_file():
                state = path.lstat()
                found.append((state.st_ctime, state.st_size, path))
    size, count = sum(one[1] for one in found), len(found)
    for moment, length, path in sorted(found, key=lambda one: one[0]):
        if size + expected <= MOST_BYTES and count < MOST_FILES:
            break
        if time.time() - moment < YOUNG_S:
            return False
        path.unlink(missing_ok=True)
        size, count = size - length, count - 1
    return size + expected <= MOST_BYTES and count < MOST_FILES


def check_room(folder: Path, expected: int) -> None:
    """Raises LabError where `folder` may not hold so many bytes more."""
    if not has_room(folder, expected):
        raise LabError("this page keeps as many recordings as it may", f"try again in {YOUNG_S // 60} minutes")


def application(rules: Rules):
    """Gradio's application with a Guard before everything else in it, for `launch(_app=...)`."""
    from gradio.routes import App, ORJSONResponse

    class Guarded(App):
        def build_middleware_stack(self):
            return Guard(super().build_middleware_stack(), rules)

    return Guarded(default_response_class=ORJSONResponse)


# Answers -------------------------------------------------------------------------------------------------------------

async def _limited(app, scope, receive, send, limit: int) -> None:
    """Run `app`; where more than `limit` bytes are sent, or nothing for long, it sees the visitor leave, and the
    visitor sees why."""
    taken, started, more, problem = 0, False, True, None
    end = time.monotonic() + LONGEST_BODY_S

    async def counted():
        nonlocal taken, more, problem
        try:  # a body that never ends would hold its share of the quota; behind it comes only the visitor's leaving
            message = await (asyncio.wait_for(receive(), min(QUIET_S, end - time.monotonic())) if more else receive())
        except TimeoutError:
            problem = 408, "the body of this request came too slowly"
            return {"type": "http.disconnect"}
        taken, more = taken + len(message.get("body", b"")), message.get("more_body", False)
        if taken > limit:
            problem = 413, f"more than {limit // 1_000_000} MB are not taken"
            return {"type": "http.disconnect"}
        return message

    async def watched(message) -> None:
        nonlocal started
        if not problem or started:
            started = True
            await send(message)

    try:
        await app(scope, counted, watched)
    except Exception:  # an application's own answer to a visitor who left halfway
        if not problem:
            raise
    if problem and not started:
        await _refuse(scope, receive, send, *problem)


def _with_headers(send):
    """`send` that adds the policy to every answer."""
    async def adding(message) -> None:
        if message["type"] == "http.response.start":
            more = [("Content-Security-Policy", POLICY), *web.HEADERS]
            names = {name.lower().encode() for name, _ in more}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in names]
            message = {**message, "headers": [*kept, *((name.lower().encode(), value.encode())
                                                       for name, value in more)]}
        await send(message)

    return adding


async def _refuse(scope, receive, send, status: int, text: str, more: list[tuple[bytes, bytes]] = ()) -> None:
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 1008})
    if status == 403:
        console.log.debug("refused: %s", text)
    body = text.encode()
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)),
                            (b"connection", b"close"), *more]})
    await send({"type": "http.response.body", "body": body})
