"""README and its like: generated tables match their sources, and the commands run as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import documents
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
# A fenced block, the mark that may stand before it, and the output that may stand behind it.
BLOCK = re.compile(
    r"(<!-- not run: (?P<reason>[^>]+) -->\n)?```bash\n(?P<commands>.*?)```\n(\n```text\n(?P<output>.*?)```)?",
    re.S,
)


# By test_architecture_lesson.py and test_workbook_commands.py.
RUN_ELSEWHERE = ("workbook/architecture/README.md", "workbook/instructors.md")


def blocks():
    """Each block once: where two documents have it, the one that also shows its output."""
    found: dict[str, str | None] = {}
    for name in [name for name in documents.DOCUMENTS if name not in RUN_ELSEWHERE]:
        for match in BLOCK.finditer((ROOT / name).read_text(encoding="utf-8")):
            if not match["reason"]:
                found[match["commands"]] = found.get(match["commands"]) or match["output"]
    for commands, output in found.items():
        yield pytest.param(commands, output, id=commands.split("\n")[0][:60])


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository's tracked files in a folder of their own, where the commands of all blocks run in turn."""
    folder = tmp_path_factory.mktemp("clone")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize("commands, output", blocks())
def test_commands_run_as_printed(commands, output, clone, request):
    """On whisper-nano, for time; where an output is shown that only whisper-base gives, on that."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"}
    if output and "02-whisper-huggingface.py media" in commands:
        environment["WHISPER_LAB_WEIGHTS"] = str(request.getfixturevalue("published")("base").parent)
    else:
        environment["WHISPER_LAB_MODEL"] = "nano"
    if "10-who-spoke.py" in commands or "--task diarize" in commands:
        request.getfixturevalue("published")("silero-vad")
        environment["WHISPER_LAB_WEIGHTS"] = str(request.getfixturevalue("published")("campplus").parent)
    done = subprocess.run(["bash", "-e", "-c", commands], cwd=clone, env=environment, capture_output=True, text=True,
                          timeout=240)  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    if output:
        spell = str if "WHISPER_LAB_MODEL" not in environment else lambda line: line.lower().rstrip(".")
        assert _plain(output, spell) in _plain(done.stdout, spell)


def _plain(text: str, spell) -> str:
    """Lines that say something; spell: whisper-nano writes what whisper-base does, without capitals and full stops."""
    return "\n".join(spell(line.rstrip()) for line in text.strip().splitlines() if line.strip())


def test_generated_blocks_match_their_sources():
    for name in documents.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert documents.refreshed(text) == text, f"{name} has drifted: python -m tools.documents"


@pytest.mark.parametrize("start", [["-m", "tools.documents"], ["tools/documents.py"]])
def test_the_check_is_a_command(start):
    done = subprocess.run([sys.executable, *start, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_document_with_a_generated_block_is_looked_after():
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    generated = {name for name in tracked.splitlines() if "<!-- begin " in (ROOT / name).read_text(encoding="utf-8")}
    assert "docs/benchmarks.md" in generated and generated <= set(documents.DOCUMENTS)


def test_drift_is_seen(monkeypatch):
    monkeypatch.setitem(documents.SOURCES, "toy", lambda: "1 %")
    stale = "<!-- begin toy -->\n2 %\n<!-- end toy -->"
    assert documents.refreshed(stale) == stale.replace("2 %", "1 %")
    with pytest.raises(LabError, match="nothing fills"):
        documents.refreshed("<!-- begin other -->\n<!-- end other -->")


@pytest.mark.parametrize("name", [*documents.DOCUMENTS, "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / name).read_text(encoding="utf-8")):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), f"{name} points to {target}"
        if anchor:
            text = path.read_text(encoding="utf-8")
            known = {*map(_anchor, re.findall(r"^#+ (.*)$", text, flags=re.M)), *re.findall(r'<a id="([^"]+)">', text)}
            assert anchor in known, f"{name} points to {target}#{anchor}"


def _anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_steps_have_the_same_numbers_in_the_lab_the_readme_and_the_scripts():
    lab = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    ran: dict[str, set[str]] = {}
    for section in lab.split("\n## Step ")[1:]:
        for script in re.findall(r"^python (0\d-[\w-]+\.py)", section, flags=re.M):
            ran.setdefault(script, set()).add(section.split(":")[0])
    assert sorted(ran) == sorted(path.name for path in ROOT.glob("0[1-5]-*.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for script, steps in ran.items():
        line = (ROOT / script).read_text(encoding="utf-8").splitlines()[0]
        said = re.match(r'"""Steps? (\d(?:(?:, | and )\d)*): ', line)
        assert said and set(re.findall(r"\d", said[1])) == steps, f"{script} is run in {steps}, and says {line}"
        assert set(re.findall(rf"^\| \[(\d)\].*`{script}", readme, flags=re.M)) == steps


def test_the_readme_is_short_and_begins_with_a_transcript():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 10_000
    assert "Turn on the lights in the kitchen." in "\n".join(text.splitlines()[:40])
