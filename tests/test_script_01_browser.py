"""01's page as students use it: a real Chromium with a fake microphone, uploads of every kind, two at once, thieves."""

import re
import shutil
import ssl
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from test_audio import write_with_pyav

from tests.helpers import browser
from whisper_lab import audio, loudness, metrics

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent
FREE_SPEECH = ROOT / "tests" / "fixtures" / "free-speech.ogg"  # a sentence that nano does not know
RATE = 16_000  # Hz
API = "gradio_api"


def tone(hertz, seconds=2.0, rate=RATE, gain=0.25):
    return (gain * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def pitch(path):
    """The strongest frequency of a file that must be 16 kHz, mono, 16-bit; in Hz."""
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.format) == (RATE, 1, "PCM_16", "WAV")
    samples = soundfile.read(path)[0]
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recorder")


@pytest.fixture(scope="module")
def address(nano, folder):
    """One page for all tests here, with a limit of six seconds."""
    options = ("--limit", "0.1", "--allow-host", "lab.test")
    with browser.recorder(*options, cwd=folder, TMPDIR=str(folder)) as (_, address, _):
        yield address


def record(page, address, seconds):
    """Press Record, wait, press Stop, and wait for the player that then appears."""
    page.goto(address)
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1000 * seconds)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#recorder button[aria-label='Play']").first.wait_for(timeout=20_000)


def save(page):
    """Press Save Recording; returns the table that then appears, as {row: text}."""
    page.locator("#save").click()
    page.locator(".lab-facts").wait_for(timeout=30_000)
    rows = page.locator(".lab-facts tr").all()
    return {row.locator("th").inner_text(): row.locator("td").inner_text() for row in rows}


def test_record_save_download(address, folder, tmp_path):
    audio.write_wav(tmp_path / "tone.wav", tone(440, 10))
    with browser.chromium(*browser.fake_microphone(tmp_path / "tone.wav")) as chromium:
        page = browser.page(chromium, 1280, 900, permissions=["microphone"])
        record(page, address, 3)
        rows = save(page)
        assert abs(pitch(folder / "speech.wav") - 440) < 5
        sound = audio.load(folder / "speech.wav")
        level = loudness.level(sound.samples)
        assert 1.5 < sound.duration < 5.5 and -45 < level.rms_dbfs < -1
        assert rows["saved"] == f"speech.wav: {sound.duration:.2f} s, 16000 Hz, mono, 16-bit"
        assert f"{level.peak_dbfs + 0.0:.1f} dBFS at the loudest" in rows["level"] and "mono" in rows["arrived as"]
        assert "48000 Hz" in rows["arrived as"] and "48000 Hz -> 16000 Hz" in rows["converted"]
        with page.expect_download() as waiting:
            page.locator("#download").click()
        assert waiting.value.suggested_filename == "speech.wav"
        assert Path(waiting.value.path()).read_bytes() == (folder / "speech.wav").read_bytes()
        picture = page.locator("#picture img")
        picture.wait_for()
        assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 1200
        page.locator("#player button[aria-label='Play']").first.wait_for()
        assert page.locator(".lab-advice").count() == 0
        assert page.trouble == []  # no error, and no request that leaves this machine


def test_what_was_said_is_what_is_read(address, folder, tmp_path, references):
    """One click after Record: Transcribe saves, and shows the sentence."""
    spoken = audio.load(ROOT / "media" / "kitchen.wav").samples
    before, after = np.zeros(round(1.2 * RATE), np.float32), np.zeros(30 * RATE, np.float32)
    audio.write_wav(tmp_path / "said.wav", np.concatenate([before, spoken, after]))
    there, tries = set(folder.glob("recordings/*")), 0
    with browser.chromium(*browser.fake_microphone(tmp_path / "said.wav")) as chromium:
        for _ in range(3):  # the fake microphone does not wait for a busy machine's recorder to start
            page = browser.page(chromium, 1280, 900, permissions=["microphone"])
            record(page, address, 4.7)
            tries += 1
            page.locator("#transcribe").click()
            page.wait_for_function("() => /of sound|not asked/.test(document.querySelector('#how').innerText)",
                                   timeout=90_000)
            text, how = page.locator("#text textarea").input_value(), page.locator("#how").inner_text()
            if metrics.word_errors(references["kitchen.wav"]["text"], text, "en").wer == 0:
                break
        assert metrics.word_errors(references["kitchen.wav"]["text"], text, "en").wer == 0, (text, how)
        assert "whisper-nano, PyTorch" in how
        assert len(set(folder.glob("recordings/*")) - there) <= tries and page.locator(".lab-facts").is_visible()
        assert page.trouble == []


def test_an_upload_and_what_the_page_says_about_it(address, tmp_path):
    soundfile.write(tmp_path / "soft.flac", 0.02 * np.stack([tone(700, rate=48_000)] * 2, axis=1), 48_000, "PCM_24")
    with browser.chromium() as chromium:
        page = browser.page(chromium, 1280, 900)
        page.goto(address)
        page.locator("#save").click()
        page.locator(".lab-advice", has_text="there is no recording yet").wait_for(timeout=20_000)
        page.locator("#recorder button[aria-label='Upload file']").click()
        page.locator("#recorder input[type=file]").set_input_files(tmp_path / "soft.flac")
        page.locator("#recorder button[aria-label='Play']").first.wait_for(timeout=20_000)
        rows = save(page)
        assert rows["arrived as"] == "FLAC (Free Lossless Audio Codec), Signed 24 bit PCM, 48000 Hz, 2 channels"
        assert "2 channels averaged" in rows["converted"] and "48000 Hz -> 16000 Hz" in rows["converted"]
        assert "move closer to the microphone" in page.locator(".lab-advice").inner_text()
        # Gradio's own page warns so when it has shown an upload's progress.
        assert [text for text in page.trouble if text != "Method not implemented."] == []


def test_a_doubtful_text_has_its_warning_above_it_and_no_praise_beside_it(address):
    """Free speech, which nano does not know; the page says what it waits for, and shows the text without scrolling."""
    with browser.chromium() as chromium:
        page = browser.page(chromium, 1280, 720)
        page.goto(address)
        page.locator("#recorder button[aria-label='Upload file']").click()
        page.locator("#recorder input[type=file]").set_input_files(FREE_SPEECH)
        page.locator("#recorder button[aria-label='Play']").first.wait_for(timeout=20_000)
        page.locator("#transcribe").click()
        page.locator("#how", has_text=re.compile(r"whisper-nano.*(fetched once|stays loaded|listening)")).wait_for(
            timeout=20_000)
        page.locator("#how", has_text="of sound").wait_for(timeout=90_000)
        warning, text = page.locator("#doubt .lab-advice"), page.locator("#text textarea")
        assert "whisper-nano itself finds this text unlikely" in warning.inner_text() and text.input_value()
        above, below = warning.bounding_box(), text.bounding_box()
        assert above["y"] + above["height"] <= below["y"] and below["y"] + below["height"] < 720
        assert page.locator("#report .lab-level").inner_text().startswith("level: peak ")
        assert not re.search(r"\bgood\b(?! morning)", page.locator("body").inner_text())
        page.locator("#recorder button[aria-label='Clear']").click()
        page.locator("#recorder input[type=file]").set_input_files(ROOT / "media" / "kitchen.wav")
        page.locator("#recorder button[aria-label='Play']").first.wait_for(timeout=20_000)
        page.locator("#transcribe").click()
        page.wait_for_function("() => /kitchen/i.test(document.querySelector('#text textarea').value)", timeout=90_000)
        assert warning.count() == 0
        said = text.input_value()
        subtitles, lines, words = (download(page, ending) for ending in ("srt", "vtt", "txt"))
        assert subtitles[0] == "1" and " --> 00:00:0" in subtitles[1] and subtitles[2] == said
        assert lines[0] == "WEBVTT" and said in lines and words == [said]


def download(page, ending):
    """Press the button for text or subtitles; the lines of the file."""
    with page.expect_download() as waiting:
        page.locator(f"#keep-{ending}").click()
    assert waiting.value.suggested_filename == f"speech.{ending}"
    return Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("width", "height", "theme"), [(1280, 720, "light"), (390, 844, "dark")])
def test_an_example_is_transcribed_on_a_laptop_and_on_a_telephone(address, references, width, height, theme):
    """No horizontal scroll, the transcript in sight after one click, and the system's theme."""
    with browser.chromium() as chromium:
        page = browser.page(chromium, width, height, color_scheme=theme)
        page.goto(address)
        page.get_by_role("button", name="a time").click()
        page.locator("#recorder button[aria-label='Play']").first.wait_for(timeout=20_000)
        page.locator("#transcribe").click()
        page.wait_for_function("() => document.querySelector('#text textarea').value", timeout=90_000)
        text = page.locator("#text textarea")
        assert metrics.word_errors(references["time.wav"]["text"], text.input_value(), "en").wer == 0
        assert text.bounding_box()["y"] + text.bounding_box()["height"] < height
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert size_of_letters(page) >= 10
        background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (theme == "dark"), background
        assert page.trouble == []


def size_of_letters(page):
    """Of the picture, in pixels: of 1200 pixels those of ten points are 21 high, of 728 those of 8.5
    points are 24."""
    shown = page.locator("#picture img")
    shown.wait_for()
    natural, seen = shown.evaluate("one => one.decode().then(() => [one.naturalWidth, one.clientWidth])")
    return {1200: 10 / 72 * 150, 728: 8.5 / 72 * 200}[natural] * seen / natural


def slow_line(page):
    """From now on each of the page's requests takes two seconds longer."""
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", {
        "offline": False, "latency": 2_000, "downloadThroughput": -1, "uploadThroughput": -1})


def test_a_click_before_the_recording_has_arrived_waits_for_it(address, tmp_path):
    """Stop, and at once Save: on a slow line the recording is still on its way."""
    audio.write_wav(tmp_path / "tone.wav", tone(440, 10))
    with browser.chromium(*browser.fake_microphone(tmp_path / "tone.wav")) as chromium:
        page = browser.page(chromium, 1280, 900, permissions=["microphone"])
        page.goto(address)
        page.locator("#save").wait_for()
        slow_line(page)
        page.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(1_500)
        assert page.locator("#save").is_disabled() and page.locator("#transcribe").is_disabled()
        page.get_by_role("button", name="Stop", exact=True).click()
        assert "speech.wav" in save(page)["saved"]


def test_a_click_while_a_file_is_uploaded_waits_for_it(address, tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone(440), RATE)
    with browser.chromium() as chromium:
        page = browser.page(chromium, 1280, 900)
        page.goto(address)
        page.locator("#save").wait_for()
        slow_line(page)
        page.locator("#recorder button[aria-label='Upload file']").click()
        with page.expect_request(re.compile(r"/upload(\?|$)")):
            page.locator("#recorder input[type=file]").set_input_files(tmp_path / "tone.wav")
        assert "speech.wav" in save(page)["saved"]


def test_a_page_that_is_not_secure_says_what_to_do(address):
    with browser.chromium("--host-resolver-rules=MAP lab.test 127.0.0.1") as chromium:
        page = chromium.new_page()
        page.goto(address.replace("127.0.0.1", "lab.test"))
        page.locator(".lab-advice", has_text="not secure").wait_for(timeout=20_000)
        page.get_by_text("No microphone?").click()
        ways = page.get_by_text("VS Code over SSH").locator("xpath=../..").inner_text()
        assert ways.index("VS Code") < ways.index("--share") < ways.index("--host 0.0.0.0 --https")


# The same through HTTP, as a program would ---------------------------------------------------------------------------

def client(address, **options):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False, **options)


def upload(made, path):
    """Press Save Recording with this file: (what the page says, the downloaded copy, None where there is none)."""
    from gradio_client import handle_file

    report, download, player, *_ = made.predict(handle_file(path), api_name="/save")
    if "value" not in download:
        return report, None
    # What the page plays is the file itself: nothing made it louder.
    assert Path(player["value"]).read_bytes() == Path(download["value"]).read_bytes()
    return report, download["value"]


@pytest.fixture(scope="module")
def visitor(address):
    return client(address)


@pytest.mark.parametrize(("name", "rate", "subtype"), [
    ("a.wav", 8_000, "PCM_U8"), ("a.wav", 44_100, "PCM_16"), ("a.wav", 48_000, "PCM_24"), ("a.wav", 96_000, "PCM_32"),
    ("a.wav", 192_000, "FLOAT"), ("a.mp3", 44_100, None), ("a.ogg", 48_000, None), ("a.webm", 48_000, "libopus"),
    ("a.m4a", 48_000, "aac")])
def test_every_kind_of_upload(visitor, folder, tmp_path, name, rate, subtype):
    if name in ("a.webm", "a.m4a"):
        write_with_pyav(tmp_path / name, subtype)
    else:
        soundfile.write(tmp_path / name, np.stack([tone(440, rate=rate)] * 2, axis=1), rate, subtype)
    report, download = upload(visitor, tmp_path / name)
    assert "lab-facts" in report and "channels averaged" in report
    assert abs(pitch(folder / "speech.wav") - 440) < 2
    assert Path(download).read_bytes() == (folder / "speech.wav").read_bytes()


@pytest.mark.parametrize(("kind", "said"), [("text", "not sound"), ("empty", "empty"), ("nan", "NaN"),
                                            ("long", "longer than 0.1 minutes"), ("html", "not sound")])
def test_uploads_that_are_refused(visitor, folder, tmp_path, kind, said):
    path = tmp_path / ("<b>x.wav" if kind == "html" else "a.wav")
    path.write_text("no sound\n" * (kind != "empty"))
    if kind == "nan":
        soundfile.write(path, np.array([0.1, np.nan] * 99), RATE, "FLOAT")
    if kind == "long":
        soundfile.write(path, np.zeros(7 * RATE), RATE)
    (folder / "speech.wav").write_bytes(b"old")
    report, download = upload(visitor, path)
    assert said in report and "lab-advice" in report and "<b>x" not in report and "whisper-lab-record" not in report
    assert download is None and (folder / "speech.wav").read_bytes() == b"old"


def test_two_people_at_once_get_two_recordings(address, tmp_path):
    found = {}

    def visit(hertz):
        from gradio_client import handle_file

        soundfile.write(tmp_path / f"{hertz}.wav", tone(hertz), RATE)
        made = client(address)
        for _ in range(2):
            _, download = upload(made, tmp_path / f"{hertz}.wav")
            # Transcribe asks for what this visitor saved, not for what was saved last: the same download comes back.
            again = made.predict(handle_file(tmp_path / f"{hertz}.wav"), "PyTorch", api_name="/transcribe")[1]["value"]
            found.setdefault(hertz, []).extend([pitch(download), pitch(again)])

    threads = [threading.Thread(target=visit, args=(hertz,)) for hertz in (300, 900)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for hertz in (300, 900):
        assert len(found[hertz]) == 4 and all(abs(one - hertz) < 2 for one in found[hertz])


def save_event(address, file):
    """What the server answers when a program calls Save with `file` as the recording."""
    with httpx.Client(base_url=address, timeout=30) as web:
        event = web.post(f"/{API}/call/save", json={"data": [file, 1280]}).raise_for_status().json()["event_id"]
        return web.get(f"/{API}/call/save/{event}").text


@pytest.mark.parametrize("path", ["/etc/passwd", "speech.wav", "../speech.wav", "http://127.0.0.1:1/a.wav",
                                  "https://example.com/a.wav", "file:///etc/passwd"])
def test_no_path_from_a_visitor_is_opened(address, folder, path):
    (folder / "speech.wav").write_bytes(b"old")
    answer = save_event(address, {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "event: error" in answer and "root:" not in answer and (folder / "speech.wav").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/notes.txt", "{folder}/speech.wav", "{root}/README.md",
                                  "%2e%2e/%2e%2e/etc/passwd"])
def test_no_file_but_uploads_is_served(address, folder, path):
    (folder / "speech.wav").write_bytes(b"old")
    url = f"{address}/{API}/file={path.format(folder=folder, root=ROOT)}"
    assert httpx.get(url).status_code in (403, 404)


def test_nothing_is_remembered_or_measured(address):
    page, config = httpx.get(address).text, httpx.get(f"{address}/config").json()
    assert config["run_history"] is False and config["analytics_enabled"] is False
    assert "googletagmanager" not in page and "fonts.googleapis.com" not in page


def test_large_uploads_are_refused(address):
    with httpx.Client(timeout=60) as web:
        files = {"files": ("a.wav", bytes(105 * 10**6))}
        assert web.post(f"{address}/{API}/upload", files=files).status_code == 413


def test_uploads_go_after_an_hour(address, folder, visitor, tmp_path):
    """All that a visit leaves in the upload folder of the running page: too young now, gone an hour later."""
    import time

    from whisper_lab.record import serve

    soundfile.write(tmp_path / "a.wav", tone(440), RATE)
    assert "lab-facts" in upload(visitor, tmp_path / "a.wav")[0]
    running, = folder.glob(f"{serve.FOLDER}*/files")
    copied = Path(shutil.copytree(running, tmp_path / "files"))  # the other tests go on with theirs
    written = [path for path in copied.rglob("*") if path.is_file()]
    assert len(written) >= 3  # the upload, the download, the picture
    serve.remove_older(copied, time.time() - serve.KEEP_S)
    assert all(path.exists() for path in written)
    serve.remove_older(copied, time.time() + 1)
    assert not any(path.exists() for path in written) and (folder / "speech.wav").exists()


def test_the_running_page_cleans_up(tmp_path, monkeypatch):
    import time
    from threading import Event, Thread

    from whisper_lab.record import serve

    monkeypatch.setattr(serve, "CHECK_S", 0.02)
    monkeypatch.setattr(serve, "KEEP_S", 0.5)
    (tmp_path / "visitor").mkdir()
    (tmp_path / "visitor" / "voice.wav").write_bytes(b"voice")
    stop = Event()
    cleaner = Thread(target=serve.keep_clean, args=(tmp_path, stop))
    cleaner.start()
    until = time.monotonic() + 20
    while (tmp_path / "visitor" / "voice.wav").exists() and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    cleaner.join(timeout=5)
    assert not (tmp_path / "visitor" / "voice.wav").exists() and not cleaner.is_alive()


# Passwords, https, --share -------------------------------------------------------------------------------------------

def test_https_and_a_password(nano, tmp_path):
    """--https with a password: a secure page, with the fingerprint that was printed; no entry without the password."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl command here: apt-get install openssl")
    with browser.recorder("--https", cwd=tmp_path, WHISPER_LAB_AUTH="me:long-enough") as (_, address, notes):
        assert address.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=address, verify=False, timeout=30) as web:
            for path in ("/config", f"/{API}/info", f"/{API}/file=/etc/passwd"):
                assert web.get(path).status_code == 401
            assert web.post(f"/{API}/upload", files={"files": b"x"}).status_code == 401
            assert web.post(f"/{API}/call/save", json={"data": [None]}).status_code == 401
            for user, password in (("me", "wrong"), ("you", "long-enough"), ("", "")):
                answer = web.post("/login", data={"username": user, "password": password})
                assert answer.status_code in (400, 422)
            assert web.get("/config").status_code == 401
            assert web.post("/login", data={"username": "me", "password": "long-enough"}).json() == {"success": True}
            assert web.get("/config").status_code == 200
        host, port = re.fullmatch(r"https://([\d.]+):(\d+)", address).groups()
        import hashlib

        shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))).hexdigest()
        text = notes.read_text()
        assert shown.upper() in text.replace(":", "") and "someone gave a wrong user or password" in text
        with browser.chromium() as chromium:
            page = browser.page(chromium, 1280, 900, ignore_https_errors=True)
            page.goto(address)
            page.get_by_label("username").fill("me")
            page.get_by_label("password").fill("long-enough")
            page.get_by_role("button", name="Login").click()
            page.locator("#save").wait_for(timeout=20_000)
            assert page.evaluate("() => window.isSecureContext && !!navigator.mediaDevices")


def test_share_without_internet_keeps_the_local_address(nano, tmp_path):
    """The name of the server that hands out public addresses does not resolve in this process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\nreal = socket.getaddrinfo\n"
        "def local(host, *more, **options):\n"
        "    if host not in (None, '', 'localhost', '127.0.0.1', b'127.0.0.1'):\n"
        "        raise socket.gaierror(-2, 'Name or service not known')\n"
        "    return real(host, *more, **options)\n"
        "socket.getaddrinfo = local\n")
    with browser.recorder("--share", cwd=tmp_path, PYTHONPATH=str(tmp_path)) as (process, address, notes):
        user, password = re.fullmatch(r"  user (\w+), password (\S+)\n", process.stdout.readline()).groups()
        assert httpx.get(f"{address}/config").status_code == 401
        answer = httpx.post(f"{address}/login", data={"username": user, "password": password})
        assert answer.json() == {"success": True}
    text = notes.read_text()
    assert text.count("error: ") == 1 and "gradio.live cannot be reached from here; the local URL keeps working" in text
    assert "VS Code over SSH" in text and "Traceback" not in text
