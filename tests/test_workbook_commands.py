"""Every command that the workbook prints is executed: here, with the documents', or by the evidence's own tests."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from test_documents import BLOCK, blocks
from test_documents import clone as clone  # the tracked files in a folder of their own

from tests.helpers import workbook_tiny
from workbook import generate, questions
from workbook.questions import HERE
from workbook.values import Results

ROOT = HERE.parent
EVIDENCE = re.compile(r"python -m workbook\.evidence\.(\w+)")


def run_elsewhere() -> set[str]:
    """Command lines that tests/test_documents.py runs."""
    return {line for block in blocks() for line in block.values[0].splitlines()}


def commands() -> list[str]:
    """Each command of a question once, but for those that a document has word for word."""
    asked = [one.command for one in questions.load().questions.values() if one.command]
    return [command for command in dict.fromkeys(asked) if command not in run_elsewhere()]


def instructions() -> list[str]:
    """The blocks of instructors.md that are not exempt."""
    text = (HERE / "instructors.md").read_text(encoding="utf-8")
    text = re.sub(r"^   ", "", text, flags=re.M)  # blocks within a list are indented
    found = [match["commands"].strip() for match in BLOCK.finditer(text) if not match["reason"]]
    return [commands for commands in found if commands not in run_elsewhere()]


@pytest.fixture(scope="module")
def prepared(clone, nano_export):
    """The clone with nano's graphs in every precision, which several commands read."""
    shutil.copytree(nano_export / "graphs", clone / "whisper_model_dir", dirs_exist_ok=True)
    return clone


def run(command: str, folder) -> subprocess.CompletedProcess:
    """As a student would type it: in bash, with this Python in front, offline, nothing to read from."""
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(["bash", "-e", "-c", command], cwd=folder, capture_output=True, text=True, timeout=240,
                          stdin=subprocess.DEVNULL, env=os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"})


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:70])
def test_commands_of_questions_run_as_printed(command, prepared):
    done = run(command, prepared)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), f"{command} shows nothing"


@pytest.mark.parametrize("command", instructions(), ids=lambda command: command[:70])
def test_commands_for_instructors_run_as_printed(command, prepared):
    done = run(command, prepared)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_arithmetic_in_the_texts_is_what_its_command_prints(clone):
    """Answers that follow from arithmetic quote its result; here it is done again."""
    expected = {"1.06": ["3000", "1500"], "1.07": ["4.0", "3.0"], "3.06": ["36.864", "184.32"],
                "3.13": ["64770", "32640", "32767"], "3.14": ["0.125", "0.0625", "0.03125"], "3.16": ["12.0"],
                "3.26": ["1.6", "36.0"], "4.03": ["0.741", "0.9899", "0.0481"], "4.05": ["0.2"]}
    book = questions.load()
    for number, results in expected.items():
        printed = run(book.questions[number].command, clone).stdout
        assert all(result in printed for result in results), (number, printed)


def test_a_shorter_window_shows_what_question_4_07_says(prepared):
    """The same text three times and nothing heard again; the loop is in the printed command, which names the text."""
    question = questions.load().questions["4.07"]
    command = re.search("`(python -m whisper_lab [^`]+) --audio-context 0`", question.vary.en)
    done = [run(command[1] + more, prepared) for more in (" --audio-context 0", "", " --audio-context full")]
    assert len({one.stdout for one in done}) == 1 and "kitchen" in done[0].stdout
    assert all("shorter windows: 1 of 1, 0 heard again" in one.stderr for one in done[:2])
    assert "shorter windows" not in done[2].stderr
    assert "without silence: " in run(question.command, prepared).stderr


def test_the_lesson_plan_takes_as_long_as_the_lab_says():
    """Minutes of each step in instructors.md, where a line may hold several, and in the headings of lab.md."""
    lab = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    steps = {int(number): int(minutes) for number, minutes in re.findall(r"^## Step (\d): .*\((\d+) min", lab, re.M)}
    plan = (HERE / "instructors.md").read_text(encoding="utf-8").split("### The lab")[1].split("###")[0]
    lines = re.findall(r"^\| (\d+)-(\d+) \|[^|]*\| Steps? (\d)(?: and (\d))?: ", plan, re.M)
    assert {number for line in lines for number in map(int, filter(None, line[2:]))} == set(steps)
    for start, end, *numbers in lines:
        assert int(end) - int(start) == sum(steps[int(number)] for number in numbers if number), numbers


def test_every_printed_command_is_known_to_a_test(tmp_path):
    """nl.md and en.md print nothing but commands of questions, and of evidence scripts that exist."""
    book = questions.load()
    made = generate.generate(book, Results(workbook_tiny.write(tmp_path, book)))
    asked = {one.command for one in book.questions.values()}
    for name in ("nl.md", "en.md"):
        for match in BLOCK.finditer(made[name].decode()):
            for line in match["commands"].strip().splitlines():
                evidence = EVIDENCE.fullmatch(line)
                assert line in asked or evidence, line
                assert not evidence or (HERE / "evidence" / f"{evidence[1]}.py").is_file(), line


def test_instructors_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (HERE / "instructors.md").read_text(encoding="utf-8")):
        assert (HERE / target).exists(), f"instructors.md points to {target}"
