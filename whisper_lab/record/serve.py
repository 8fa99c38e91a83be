"""The page on a port: who may open it, what is printed, what is cleaned up."""

import contextlib
import errno
import getpass
import hmac
import io
import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import checkpoints, console, hub, locks, names, web
from whisper_lab.console import LabError
from whisper_lab.record import certificate, middleware

LOCAL = ("127.0.0.1", "localhost")
PORTS = range(7860, 7880)
SHORTEST_PASSWORD = 8
FOLDER = "whisper-lab-record-"
KEEP_S = 3600  # uploads and downloads, and what a killed page left behind
WAKE_S = 1.0  # how often the main thread looks up
CHECK_S = 60  # how often what is older is looked for
SHARE_SERVER = ("api.gradio.app", 443)
SHARE_TIMEOUT = 5.0  # s
WAYS = """The microphone needs a secure page: localhost, or https. From another computer, in this order:
  1. VS Code over SSH: panel Ports, Forward a Port, {port}; then open http://localhost:{port} on that computer
     (without VS Code: ssh -L {port}:127.0.0.1:{port} user@this-machine)
  2. --share: a public https address, with a password
  3. --host 0.0.0.0 --https: for this network, with a certificate made on the spot
Ctrl-C ends it."""


@dataclass(frozen=True)
class Settings:
    """What the page is to be; the names are those of 01's flags, which say more."""

    output: Path = Path("speech.wav")
    limit: float = 5.0  # min of sound; longer recordings are refused
    model: str | None = None  # None: the usual one
    model_dir: str | Path = names.MODEL_DIR
    language: str | None = None  # None: detect
    threads: int | None = None  # None: all cores
    host: str = "127.0.0.1"
    port: int | None = None  # None: 7860 or the next free one
    https: bool = False
    share: bool = False
    browse: bool = False
    auth: str | None = None  # a user
    auth_file: Path | None = None
    allow_host: Sequence[str] | None = None


def serve(wanted: Settings, convert: Callable) -> None:
    """Serve the page until Ctrl-C. convert: 01's lesson, from an upload to (Saved, samples)."""
    auth, port, share = credentials(wanted), choose_port(wanted.host, wanted.port), wanted.share and reachable()
    stop = threading.Event()
    on_signals(console.stop)
    with own_folder() as folder:
        page, options = prepare(wanted, convert, folder)
        options |= {"server_port": port, "share": share, "auth": auth and checker(*auth)}
        console.stop_if_asked()
        public = launch(page, options, rules(wanted, folder / "sounds"))
        on_signals(lambda *_: stop.set())
        threading.Thread(target=keep_clean, args=(folder / "sounds", stop), daemon=True).start()
        try:
            if not stop.is_set():
                announce(wanted, port, public, auth)
                if wanted.browse:
                    webbrowser.open(page.local_url)
            while not stop.wait(WAKE_S):  # a signal between two instructions of an endless wait would not be seen
                pass
        finally:
            with contextlib.redirect_stdout(io.StringIO()):
                page.close()
    stays = f"{wanted.output} stays, " if wanted.output.exists() else ""
    console.note("ended", "asked to stop", f"{stays}uploads are deleted")


def on_signals(handler: Callable) -> None:
    """What Ctrl-C and a polite kill do from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def prepare(wanted: Settings, convert: Callable, folder: Path):
    """The page, and the options of its launch."""
    sounds, keys = folder / "sounds", folder / "keys"  # Gradio serves everything in the first
    sounds.mkdir()
    keys.mkdir(mode=0o700)
    environment(sounds)
    from whisper_lab.record import app
    from whisper_lab.record.listener import Listener

    listener = Listener(wanted.model, wanted.model_dir, wanted.language, wanted.threads)
    if len(listener.choices()) == 1:  # no graphs: the checkpoint alone can transcribe
        checkpoints.require(wanted.model)
    console.note("transcription", listener.choices()[0], "the page also has: " + "; ".join(listener.choices()[1:])
                 if listener.choices()[1:] else "03 writes graphs, which are faster")
    options = {
        "server_name": wanted.host, "auth_message": "The terminal that runs this page shows user and password.",
        "max_file_size": middleware.LARGEST_FILE, "run_history": False, "enable_monitoring": False, "ssr_mode": False,
        "mcp_server": False, "pwa": False, "footer_links": [], "css_paths": app.HERE / "page.css",
        "prevent_thread_lock": True, "quiet": True, "show_error": True,
    }
    if wanted.https:
        key, made, fingerprint = certificate.make(keys, wanted.host)
        options |= {"ssl_keyfile": str(key), "ssl_certfile": str(made), "ssl_verify": False}
        console.note("certificate", f"SHA-256 {fingerprint}", f"made now, for {certificate.DAYS} days; the browser "
                     "warns because no one else vouches for it: compare the fingerprint there")
    return app.build(convert, listener, sounds, 60 * wanted.limit), options


def environment(folder: Path) -> None:
    """What Gradio reads from the environment, before it is imported."""
    hub.prepare_environment()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    for name in ("GRADIO_SHARE", "GRADIO_ROOT_PATH", "GRADIO_ALLOWED_PATHS", "GRADIO_NODE_PATH", "GRADIO_DEBUG"):
        os.environ.pop(name, None)  # only the arguments decide
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # a visitor's address is where the visitor is, not what the visitor says
    here = {"localhost", "127.0.0.1", "0.0.0.0"}  # a proxy for the web must not get what stays on this machine
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(sorted({*filter(None, os.environ.get(name, "").split(",")), *here}))


def rules(wanted: Settings, uploads: Path | None) -> middleware.Rules:
    """Under which names this page is known, and where uploads go; None: it takes none."""
    everywhere = wanted.host in ("0.0.0.0", "::", "")
    names = {name.lower() for name in certificate.addresses(wanted.host)} | web.LOCAL
    if everywhere:  # as others on this network may call this machine
        names |= {f"{socket.gethostname().lower()}.local"}
    return middleware.Rules(frozenset(names | {name.lower() for name in wanted.allow_host or ()}), everywhere, uploads,
                      wanted.share)


def launch(page, options: dict, allowed: middleware.Rules) -> str | None:
    """Start serving; returns the public address, None where there is none. Raises LabError where it cannot listen."""
    with contextlib.redirect_stdout(io.StringIO()):  # Gradio explains itself at length; `announce` says what matters
        try:
            public = page.launch(_app=middleware.application(allowed), **options)[2]
            if public:
                allowed.add_public(public)
            return public
        except (OSError, ValueError) as error:
            raise LabError(f"cannot serve on port {options['server_port']}: {str(error).splitlines()[0]}",
                           "name a free port with --port, and look at the proxy settings of this shell") from error


def announce(wanted: Settings, port: int, public: str | None, auth: tuple[str, str] | None) -> None:
    """Addresses and password on stdout; how a browser gets at the microphone on stderr."""
    scheme = "https" if wanted.https else "http"
    console.result(f"* Running on local URL:  {scheme}://{wanted.host}:{port}")
    if public:
        console.result(f"* Running on public URL: {public}")
        console.warn("whoever has this address and the password can use the page, and what they say passes through the "
                     "servers of gradio.live, which can read it")
    elif wanted.share:
        console.log.error("error: no public URL, gradio.live cannot be reached from here; the local URL keeps working")
    if auth:
        console.result(f"  user {auth[0]}, password {auth[1]}")
    if wanted.host not in LOCAL:
        for address in certificate.outward():
            console.result(f"  from this network: {scheme}://{address}:{port}")
        if not wanted.https:
            console.warn("over plain http the browsers of others keep their microphones shut, and the password can be "
                         "read on the way: add --https")
    for line in WAYS.format(port=port).splitlines():
        console.log.info(line)


def reachable() -> bool:
    """Whether the server that hands out public addresses answers."""
    try:
        with socket.create_connection(SHARE_SERVER, timeout=SHARE_TIMEOUT):
            return True
    except OSError:
        return False


def keep_clean(folder: Path, stop: threading.Event) -> None:
    """Delete uploads and downloads after an hour. Gradio's own delete_cache forgets some: those it did not make."""
    while not stop.wait(CHECK_S):
        remove_older(folder, time.time() - KEEP_S)


def remove_older(folder: Path, moment: float) -> None:
    """Remove the files in `folder` that were last written or moved before `moment`, in s since 1970."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone already, or being written
            if path.is_file() and path.stat().st_ctime < moment:
                path.unlink()


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A private folder for uploads that goes when the program does; also clears what a killed one left behind."""
    with locks.folder(Path(tempfile.gettempdir()), FOLDER) as folder:
        files = folder.resolve() / "files"  # beside the lock, which `remove_older` is not to find
        files.mkdir()
        yield files


def add_flags(group) -> None:
    """The flags on who may come in, for a parser or an argument group."""
    group.add_argument("--auth", metavar="USER", help="ask visitors for this user and a password, which is asked for "
                       "now (default: $WHISPER_LAB_AUTH, USER:PASSWORD; else made up where others can come)")
    group.add_argument("--auth-file", type=Path, metavar="FILE",
                       help="user and password from a file that only you can read: one line, USER:PASSWORD")
    group.add_argument("--allow-host", nargs="+", metavar="NAME",
                       help="other names under which this page may be opened, such as that of a proxy")


def credentials(wanted: Settings) -> tuple[str, str] | None:
    """User and password: given, or made up where others can reach the page. Raises LabError for weak ones."""
    if wanted.auth and wanted.auth_file:
        raise LabError("--auth and --auth-file both give a password", "leave out one of them")
    if given := _from_file(wanted.auth_file) if wanted.auth_file else wanted.auth and _asked(wanted.auth):
        return _strong(given)
    if given := os.environ.get("WHISPER_LAB_AUTH"):
        return _strong(given)
    if wanted.share or wanted.host not in LOCAL:
        return "lab", secrets.token_urlsafe(9)
    return None


def _strong(given: str) -> tuple[str, str]:
    user, _, password = given.partition(":")
    if not user.strip() or len(password) < SHORTEST_PASSWORD:
        raise LabError(f"a user, a colon and a password of at least {SHORTEST_PASSWORD} characters are needed",
                       "give them as USER:PASSWORD in $WHISPER_LAB_AUTH or a file (--auth-file), or leave them out to "
                       "have a password made up")
    return user.strip(), password


def _asked(user: str) -> str:
    """USER:PASSWORD, the password typed unseen. Raises LabError where it is on the command line, or no one can type."""
    if ":" in user:
        raise LabError("a password on the command line can be read by everyone on this machine",
                       "choose another one, and give it with --auth-file FILE, in $WHISPER_LAB_AUTH, or type it when "
                       f"--auth {user.partition(':')[0] or 'USER'} asks")
    if not sys.stdin.isatty():
        raise LabError("there is no terminal to type a password", "use --auth-file FILE or $WHISPER_LAB_AUTH")
    return f"{user}:{getpass.getpass(f'password for {user}, at least {SHORTEST_PASSWORD} characters: ')}"


def _from_file(path: Path) -> str:
    """The first line of a file of one's own. Raises LabError where others can read it, or it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise LabError(f"others can read {path}",
                               f"choose another password, and: chmod 600 {shlex.quote(str(path))}")
            return file.readline(1000).rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise LabError(f"cannot read {path}: {reason}", "put USER:PASSWORD on its first line; chmod 600") from error


def checker(user: str, password: str) -> Callable[[str, str], bool]:
    """Compares in constant time. How often one may try is the middleware's affair: it knows who asks."""
    def check(given_user: str, given_password: str) -> bool:
        right = hmac.compare_digest(f"{user}\n{password}".encode(), f"{given_user}\n{given_password}".encode())
        if not right:
            console.warn("someone gave a wrong user or password")
        return right

    return check


def choose_port(host: str, wanted: int | None) -> int:
    """--port, or the first free one from 7860 on. Raises LabError where it cannot be had."""
    if wanted is not None:
        if port := _bind(host, wanted):
            return port
        raise LabError(f"port {wanted} is in use", "end what uses it, or leave out --port to get another")
    for port in PORTS:
        if _bind(host, port):
            if port != PORTS[0]:
                console.note("port", port, f"{PORTS[0]} is in use, perhaps by another student on this machine")
            return port
    raise LabError(f"all ports from {PORTS[0]} to {PORTS[-1]} are in use", "name another: --port N")


def _bind(host: str, port: int) -> int | None:
    """The port if it is free (0: any that is), None where it is in use. Raises LabError where it is not ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just left is free; one in use is not
        try:
            probe.bind((host, port))
            return probe.getsockname()[1]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return None
            raise LabError(f"cannot listen on {host}, port {port}: {error.strerror}",
                           "--host takes an IPv4 address of this machine, --port one above 1023") from error
