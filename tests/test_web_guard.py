"""The pages of Gradio as strangers meet them: Host, Origin, unused routes, quotas, policy, waits. No browser."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.helpers import browser, workbook_tiny
from whisper_lab import web
from whisper_lab.record import middleware, serve
from workbook import questions

ROOT = Path(__file__).resolve().parent.parent
API = "/gradio_api"
FOREIGN = [{"Host": "evil.example"}, {"Host": "localhost.evil.example"}, {"Host": "127.0.0.1.evil.example:80"},
           {"Host": "192.0.2.1"}, {"X-Forwarded-Host": "evil.example"}, {"Origin": "http://evil.example"},
           {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": "https://evil.gradio.live"},
           {"Host": "evil.example", "Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
           {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}]


@pytest.fixture(scope="module")
def recorder(nano, tmp_path_factory):
    """01 with a password: (address, the file of its notes)."""
    folder = tmp_path_factory.mktemp("page")
    with browser.recorder(cwd=folder, TMPDIR=str(folder), WHISPER_LAB_AUTH="me:long-enough") as (_, address, notes):
        yield address, notes


@pytest.fixture(scope="module")
def quiz(tmp_path_factory):
    """The quiz's page: its address."""
    results = workbook_tiny.write(tmp_path_factory.mktemp("results"), questions.load())
    process = subprocess.Popen([sys.executable, "-m", "workbook.quiz", "--page", "--port", "0", "--results", results],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def pages(recorder, quiz):
    return {"01": recorder[0], "quiz": quiz}


@pytest.mark.parametrize("which", ["01", "quiz"])
@pytest.mark.parametrize("path", ["/", "/config", f"{API}/info", f"{API}/upload", f"{API}/queue/join", "/login"])
def test_other_hosts_and_origins_are_refused(pages, which, path):
    with httpx.Client(base_url=pages[which], timeout=30) as web:
        for headers in FOREIGN:
            for method in ("GET", "POST", "OPTIONS"):
                preflight = {"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
                answer = web.request(method, path, headers=headers | preflight)
                assert answer.status_code == 403, (headers, method)
                assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("which", ["01", "quiz"])
def test_its_own_names_are_welcome_and_carry_the_policy(pages, which):
    address = pages[which]
    port = address.rpartition(":")[2]
    with httpx.Client(base_url=address, timeout=30) as web:
        for headers in ({}, {"Host": f"localhost:{port}"}, {"Host": "localhost:1234"}, {"Host": f"[::1]:{port}"},
                        {"Origin": address}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
                        {"Host": "localhost:9", "Origin": "http://localhost:9"}):
            answer = web.get("/", headers=headers)
            assert answer.status_code == 200, headers
            assert answer.headers.get_list("content-security-policy") == [middleware.POLICY]
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("which", ["01", "quiz"])
@pytest.mark.parametrize("path", [
    "/proxy=http://127.0.0.1:1/", "/file=http://127.0.0.1:1/x.wav", "/file=https://example.com/x.wav",
    "/file=file:///etc/passwd", "/file=//example.com/x", "/file/http://127.0.0.1:1/x", "/process_recording",
    "/stream/x/close", "/runs", "/monitoring", "/vibe-code", "/FILE=http://127.0.0.1:1/x"])
def test_routes_that_the_page_does_not_need(pages, which, path):
    with httpx.Client(base_url=pages[which], timeout=30) as web:
        assert web.get(f"{API}{path}").status_code == 403
        assert web.post(f"{API}{path}").status_code == 403


def test_a_web_socket_of_another_site_is_closed(recorder):
    host, port = recorder[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /gradio_api/x HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: "
                           b"Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                           b"Sec-WebSocket-Version: 13\r\n\r\n")
        assert connection.recv(100).split()[1] == b"403"


def test_the_quiz_takes_no_files_and_01_no_large_ones(pages):
    assert httpx.post(f"{pages['quiz']}{API}/upload", files={"files": b"x"}).status_code == 403
    for path in (f"{API}/queue/join", f"{API}/call/save", "/login"):
        assert httpx.post(f"{pages['01']}{path}", content=b"x" * (middleware.LARGEST_BODY + 1)).status_code == 413
    with httpx.Client(base_url=pages["01"], timeout=30) as web:
        assert web.post(f"{API}/reset", content=(b"x" * 100_000 for _ in range(11))).status_code == 413


def test_wrong_passwords_make_their_own_address_wait(recorder):
    address, notes = recorder
    other = httpx.HTTPTransport(local_address="127.0.0.2")  # on Linux all of 127/8 is this machine
    with httpx.Client(base_url=address, timeout=30) as web:
        statuses = [web.post("/login", data={"username": "me", "password": f"guess-{i}"}).status_code
                    for i in range(30)]
        assert statuses[:middleware.FREE_GUESSES] == [400] * middleware.FREE_GUESSES and set(statuses[8:]) == {429}
        right = {"username": "me", "password": "long-enough"}
        forged = {"X-Forwarded-For": "192.0.2.7"}
        refused = web.post("/login", data=right, headers=forged)  # who says to be elsewhere is where he is
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 61
    with httpx.Client(base_url=address, timeout=30, transport=other) as web:
        assert web.post("/login", data=right).json() == {"success": True}
    assert "long-enough" not in notes.read_text()


# Rules ---------------------------------------------------------------------------------------------------------------

def test_waits_double_and_end(monkeypatch):
    guesses, now = middleware.Guesses(), [1000.0]
    monkeypatch.setattr(middleware.time, "monotonic", lambda: now[0])
    waits = []
    for _ in range(15):
        guesses.add("a")
        waits.append(guesses.wait("a"))
        now[0] += waits[-1]
        assert guesses.wait("a") == 0 == guesses.wait("b")
    assert waits[:8] == [0, 0, 0, 0, 1, 2, 4, 8] and max(waits) == middleware.LONGEST_WAIT_S
    guesses.forget("a")
    guesses.add("a")
    assert guesses.wait("a") == 0
    for i in range(middleware.MOST_ADDRESSES + 10):
        guesses.add(str(i))
    assert len(guesses.wrong) == middleware.MOST_ADDRESSES


def test_room_is_made_of_old_files_only(tmp_path, monkeypatch):
    monkeypatch.setattr(middleware, "MOST_BYTES", 1000)
    monkeypatch.setattr(middleware, "MOST_FILES", 5)
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").write_bytes(bytes(300))
        time.sleep(0.02)
    assert middleware.has_room(tmp_path, 100) and not middleware.has_room(tmp_path, 101)
    assert len(list(tmp_path.rglob("*.wav"))) == 3  # all are young
    monkeypatch.setattr(middleware, "YOUNG_S", 0.0)
    assert middleware.has_room(tmp_path, 101)
    assert not (tmp_path / "a" / "x.wav").exists() and (tmp_path / "b" / "x.wav").exists()
    assert not middleware.has_room(tmp_path, 1001)
    for i in range(9):
        (tmp_path / f"{i}.wav").write_bytes(b"")
    assert middleware.has_room(tmp_path) and len(list(tmp_path.rglob("*.wav"))) < 5
    with pytest.raises(middleware.LabError, match="as many recordings as it may"):
        middleware.check_room(tmp_path, 1001)


@pytest.mark.parametrize(("body", "length"), [(b"x" * 60, None), (b"x" * 40, b"60")])
def test_an_upload_beyond_the_quota_is_refused(tmp_path, monkeypatch, body, length):
    monkeypatch.setattr(middleware, "MOST_BYTES", 50)
    monkeypatch.setattr(middleware, "LARGEST_FILE", 45)
    monkeypatch.setattr(middleware, "LARGEST_BODY", 0)
    assert post(tmp_path, body, length) in (413, 507)
    assert post(tmp_path, b"x" * 40, b"40") == 200
    (tmp_path / "a").write_bytes(bytes(20))
    assert post(tmp_path, b"x" * 40, b"40") == 507


@pytest.mark.parametrize(("quiet_s", "longest_s"), [(0.05, 600), (30, 0.05)])
def test_an_upload_that_does_not_go_on_is_given_up(tmp_path, monkeypatch, quiet_s, longest_s):
    """Each holds a hundred MB of the quota: twenty such would keep everyone else out."""
    monkeypatch.setattr(middleware, "QUIET_S", quiet_s)
    monkeypatch.setattr(middleware, "LONGEST_BODY_S", longest_s)
    sent, first = [], [{"type": "http.request", "body": b"x", "more_body": True}]

    async def reads(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ConnectionError

    async def receive():
        if first:
            return first.pop()
        return await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    page = middleware.Guard(reads, middleware.Rules(uploads=tmp_path))
    scope = {"type": "http", "method": "POST", "path": f"{API}/upload", "headers": [(b"host", b"localhost")],
             "client": ("127.0.0.1", 1)}
    asyncio.run(asyncio.wait_for(page(scope, receive, send), 20))
    assert sent[0]["status"] == 408 and page.coming == 0


def test_an_answer_may_take_its_time_once_all_was_sent(tmp_path, monkeypatch):
    """A transcription's events come through an answer that stays open; only the request's body is timed."""
    monkeypatch.setattr(middleware, "QUIET_S", 0.02)
    monkeypatch.setattr(middleware, "LONGEST_BODY_S", 0.02)
    sent, said = [], [{"type": "http.request", "body": b"", "more_body": False}]

    async def waits(scope, receive, send):
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return said.pop() if said else await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")], "client": ("a", 1)}
    asyncio.run(middleware.Guard(waits, middleware.Rules(uploads=tmp_path))(scope, receive, send))
    assert sent[0]["status"] == 200


def post(folder, body, length):
    """The status of an upload through a Door before an application that reads all of it."""
    sent = []

    async def reads(scope, receive, send):
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            raise ConnectionError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    messages = [{"type": "http.request", "body": body[i:i + 7], "more_body": i + 7 < len(body)}
                for i in range(0, len(body), 7)]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost")] + ([(b"content-length", length)] if length else [])
    scope = {"type": "http", "method": "POST", "path": f"{API}/upload", "headers": headers, "client": ("127.0.0.1", 1)}
    asyncio.run(middleware.Guard(reads, middleware.Rules(uploads=folder))(scope, receive, send))
    return sent[0]["status"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The local address of a page behind a tunnel that is only said to be there; its password is `long-enough`."""
    gradio = pytest.importorskip("gradio")
    folder, patch = tmp_path_factory.mktemp("shared"), pytest.MonkeyPatch()
    patch.setattr(gradio.networking, "setup_tunnel", lambda **_: "https://abc.gradio.live")
    patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    rules = serve.rules(serve.Settings(share=True), folder)
    before = web.refusal([("host", "abc.gradio.live")], "GET", rules.hosts, outside=rules.outside)
    with gradio.Blocks() as page:
        text = gradio.Textbox()
        text.change(lambda text: text, text, text, api_name="say")
    options = {"server_name": "127.0.0.1", "server_port": serve.choose_port("127.0.0.1", 0), "share": True,
               "auth": serve.checker("me", "long-enough"), "prevent_thread_lock": True, "quiet": True,
               "ssr_mode": False}
    try:
        assert before and serve.launch(page, options, rules) == "https://abc.gradio.live"
        yield f"http://127.0.0.1:{options['server_port']}"
    finally:
        page.close()
        patch.undo()


def through(address, **more):
    """A browser at the public address: what the tunnel's server passes on."""
    headers = {"Host": "abc.gradio.live", "X-Forwarded-Host": "abc.gradio.live", "X-Forwarded-Proto": "https",
               "X-Forwarded-For": "203.0.113.9", "Origin": "https://abc.gradio.live", "Sec-Fetch-Site": "same-origin"}
    return httpx.Client(base_url=address, headers=headers | more, timeout=30)


def test_a_shared_page_can_be_used_by_whoever_has_the_password(shared):
    right = {"username": "me", "password": "long-enough"}
    for more in ({}, {"Host": "127.0.0.1:7860"}, {"X-Forwarded-Host": "abc.gradio.live, abc.gradio.live:443"}):
        with through(shared, **more) as client:
            assert client.get("/").status_code == 200 and client.get("/config").status_code == 401, more
            assert client.post(f"{API}/upload", files={"files": b"x"}).status_code == 401
            assert client.post("/login", data=right).json() == {"success": True}
            # Its cookie is for https, which httpx does not speak here: hand it on by hand, as the browser would.
            cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)
            config = client.get("/config", headers={"Cookie": cookie})
            assert config.status_code == 200 and config.json()["root"] == "https://abc.gradio.live"
            joined = client.post(f"{API}/call/say", json={"data": ["hello"]}, headers={"Cookie": cookie})
            assert joined.status_code == 200 and joined.json()["event_id"]
            assert client.post(f"{API}/upload", files={"files": b"x"}, headers={"Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("more", [
    {"Host": "evil.gradio.live"}, {"X-Forwarded-Host": "evil.gradio.live"}, {"Origin": "https://evil.gradio.live"},
    {"X-Forwarded-Host": "abc.gradio.live, evil.example"}, {"Host": "abc.gradio.live.evil.example"},
    {"Host": "abc.gradio.live."}, {"Origin": "http://abc.gradio.live.evil"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Host": "gradio.live"}, {"Origin": "null"}])
def test_a_shared_page_is_known_by_its_own_address_only(shared, more):
    with through(shared, **more) as client:
        for method, path in (("GET", "/config"), ("POST", "/login"), ("POST", f"{API}/upload"), ("OPTIONS", "/")):
            assert client.request(method, path).status_code == 403


def test_who_guesses_through_the_tunnel_keeps_no_other_visitor_out(shared):
    with through(shared, **{"X-Forwarded-For": "203.0.113.66"}) as client:
        wrong = [client.post("/login", data={"username": "me", "password": f"guess-{i}"}).status_code
                 for i in range(12)]
        assert wrong[0] == 400 and wrong[-1] == 429
        forged = client.post("/login", data={"username": "me", "password": "x"},
                          headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.66"})  # the tunnel adds the true one
        assert forged.status_code == 429
    with through(shared) as client:
        assert client.post("/login", data={"username": "me", "password": "long-enough"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:7860", "[::1]", "[::1]:80"])
def test_hosts_that_are_known(host):
    assert web.is_known(host, web.LOCAL)


@pytest.mark.parametrize("host", ["", ":", "localhost.", "localhost:", "localhost:x", "localhost:80:80", "evil",
                                  "127.0.0.1@evil", "evil#127.0.0.1", "127.1", "0x7f000001", "0.0.0.0",
                                  "localhost:\u0661", "[::1]evil", "::1", "localhost, evil", "localhost evil"])
def test_hosts_that_are_not(host):
    assert not web.is_known(host, web.LOCAL)


def test_a_page_for_the_network_is_known_by_address_and_a_shared_one_by_its_public_name():
    assert web.is_known("10.1.2.3:7860", web.LOCAL, any_address=True)
    assert not web.is_known("evil.example:7860", web.LOCAL, any_address=True)
    rules = middleware.Rules()
    rules.add_public("https://abc.gradio.live/")

    def refused(*headers):
        return web.refusal(headers, "POST", rules.hosts, outside=rules.outside)

    assert refused(("host", "abc.gradio.live"), ("origin", "https://abc.gradio.live")) is None
    assert refused(("host", "localhost:7860"), ("origin", "https://abc.gradio.live")) is None  # a tunnel's own Host
    assert refused(("host", "abc.gradio.live"), ("origin", "https://evil.gradio.live"))
    assert refused(("host", "evil.gradio.live")) and refused(("host", "localhost"), ("host", "localhost")) and refused()
