"""A certificate for this machine, signed by itself, made on the spot: enough for a browser to open the microphone.

A browser warns, because no one else vouches for it; its fingerprint is printed so that the two can be compared.

The openssl command makes it, not the package cryptography (or trustme, which is built on that): every system that the
lab runs on has the command, and one flag of one script is no reason for another compiled package in the lock.
"""

import hashlib
import ipaddress
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

from whisper_lab.console import LabError

DAYS = 7
OTHER_WAYS = "use VS Code's port forwarding, or --share"


def make(folder: Path, host: str) -> tuple[Path, Path, str]:
    """Key, certificate and its SHA-256 fingerprint (AA:BB:...) for the names under which `host` can be reached.

    Raises LabError where the openssl command is not there or fails.
    """
    if not (openssl := shutil.which("openssl")):
        raise LabError("--https makes its certificate with the openssl command, which is not here",
                       f"apt-get install openssl; or {OTHER_WAYS}")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    key.touch(mode=0o600)  # before openssl writes it: no one else may read it, not even for a moment
    names = ",".join(_kind(name) for name in addresses(host))
    done = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256",
         "-days", str(DAYS), "-subj", "/CN=Whisper ONNX Lab recorder", "-addext", f"subjectAltName={names}",
         "-addext", "extendedKeyUsage=serverAuth", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(f"openssl cannot make a certificate: {reason}", OTHER_WAYS)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest().upper()
    return key, certificate, ":".join(digest[i:i + 2] for i in range(0, len(digest), 2))


def addresses(host: str) -> list[str]:
    """Names and addresses under which a server that listens on `host` is reached; 0.0.0.0 is all of this machine's."""
    found = ["localhost", "127.0.0.1"]
    if host in ("0.0.0.0", "::", ""):
        found += [socket.gethostname(), *outward()]
    else:
        found.append(host)
    return list(dict.fromkeys(name for name in found if name))


def outward() -> list[str]:
    """The address that this machine has towards others; empty where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address (RFC 5737): only the route is looked up
            return [probe.getsockname()[0]]
        except OSError:
            return []


def _kind(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"
