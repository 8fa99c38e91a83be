"""Foreign text in Markdown, pages and figures: names, transcripts and metadata show as they are, and do nothing."""

import base64
import hashlib
import html as escaping
import re
import urllib.parse

from whisper_lab.console import plain

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
