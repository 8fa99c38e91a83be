"""Who may ask a page of this lab for something: the rules on Host and Origin that every page shares.

A page on 127.0.0.1 is reachable by every other page that the same browser shows. Two tricks: a request across sites
(the browser then names the page it comes from in Origin, or says `cross-site`), and DNS rebinding, a name of the
attacker's that suddenly means 127.0.0.1 (the browser then sends that name as Host, and believes that page and attacker
are one site). So a request has to name a Host that is known, and must not come from another site.
"""

import base64
import hashlib
import html as escaping
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable

from whisper_lab.console import plain

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAFE = ("GET", "HEAD")
HEADERS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
           ("Cross-Origin-Resource-Policy", "same-origin"), ("Cross-Origin-Opener-Policy", "same-origin"))


def refusal(headers: Iterable[tuple[str, str]], method: str, hosts: frozenset[str], any_address: bool = False,
            outside: frozenset[str] = frozenset()) -> str | None:
    """Why a request is refused, or None where it may pass.

    headers: names (in any case) and values; hosts: the names and addresses, in lower case, under which the page is
    known; any_address: also every numeric address, which no one can rebind; outside: origins of a tunnel that may
    rewrite Host, as `https://abc.gradio.live`.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        several = value.split(",") if name.lower() == "x-forwarded-host" else [value]  # each proxy on the way adds one
        found.setdefault(name.lower(), []).extend(one.strip() for one in several)
    for name in ("host", "x-forwarded-host"):
        values = found.get(name, [])
        if (name == "host" and len(values) != 1) or any(not is_known(value, hosts, any_address) for value in values):
            return "this page is not known under that name: open it as http://localhost:PORT or http://127.0.0.1:PORT"
    hosts_here = {value.lower() for name in ("host", "x-forwarded-host") for value in found.get(name, [])}
    for origin in found.get("origin", []):
        if not is_own(origin, hosts_here, outside):
            return "that request comes from another site"
    site, mode = (found.get(f"sec-fetch-{what}", [""])[0] for what in ("site", "mode"))
    if site in ("cross-site", "same-site") and not (mode == "navigate" and method in SAFE):  # a link may lead here
        return "that request comes from another site"
    return None


def is_known(host: str, hosts: frozenset[str], any_address: bool = False) -> bool:
    """Is a Host header, with or without its port, one of `hosts` (or any numeric address)?"""
    name, colon, port = host.lower().rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host.lower(), "0"
    if not port.isascii() or not port.isdigit():
        return False
    return name in hosts or (any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def is_own(origin: str, hosts_here: set[str], outside: frozenset[str]) -> bool:
    """Is an Origin header this very page: the same host and port that the request itself names, or a tunnel's?"""
    scheme, separator, place = origin.lower().partition("://")
    return origin.lower() in outside or (bool(separator) and scheme in ("http", "https") and place in hosts_here)


# Foreign text ---------------------------------------------------------------------------------------------------------

# Foreign text in Markdown, pages and figures: names, transcripts and metadata show as they are, and do nothing.

ALWAYS = re.compile(r"[\\`*\[\]<|$&]|~~|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is only itself
AT_START = re.compile(r"^(\s*)([#>+=-]|\d+[.)])")


def markdown(text: object) -> str:
    """One line of Markdown that shows this text: no emphasis, no link, no HTML, no new cell, row, heading or list."""
    shown = ALWAYS.sub(lambda found: "".join(f"\\{one}" for one in found[0]), plain(text, one_line=True).strip())
    return AT_START.sub(lambda found: found[1] + found[2][:-1] + "\\" + found[2][-1], shown)


def html(text: object) -> str:
    """Text of a page or of an attribute in double quotes."""
    return escaping.escape(plain(text))


def drawn(text: object) -> str:
    """Text in a matplotlib figure, which takes what is between two dollar signs for a formula."""
    return plain(text, one_line=True).replace("$", "\\$")


def address(name: str) -> str:
    """A file's name as a relative link."""
    return urllib.parse.quote(name)


def script(document: str) -> str:
    """JSON inside a script element: nothing in it ends the script, or begins another."""
    return document.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028") \
                   .replace("\u2029", "\\u2029")


def policy(page: str) -> str:
    """The page's own script may run, and nothing may be fetched: a Content-Security-Policy, by the script's digest."""
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
            "media-src data:; base-uri 'none'; form-action 'none'")
