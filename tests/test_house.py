"""One house: the library imports nothing that uses it, its modules import each other in no circle, one English."""

import ast
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import house
from tools.house import LIBRARY, circles, graph, modules, upwards
from whisper_lab import console
from whisper_lab.compare.texts import few_words

ROOT = Path(__file__).resolve().parent.parent


def test_the_library_imports_nothing_that_uses_it():
    assert len(modules(ROOT)) > 100 and upwards(ROOT) == []


def test_the_librarys_modules_import_each_other_in_no_circle():
    assert circles(graph(ROOT)) == set()


@pytest.fixture
def planted(tmp_path):
    """A function that writes a library with the given modules and returns its root."""
    def write(**sources: str) -> Path:
        (tmp_path / LIBRARY).mkdir()
        for name, source in {"__init__": "", **sources}.items():
            (tmp_path / LIBRARY / f"{name}.py").write_text(source, encoding="utf-8")
        return tmp_path
    return write


@pytest.mark.parametrize("source, target", [
    ("import training.loop", "training.loop"), ("def f():\n    from benchmarks import run", "benchmarks.run"),
    ("class A:\n    def f(self):\n        import workbook", "workbook"),
    ("from tools.lock import pins", "tools.lock.pins"),
    ("import importlib\nimportlib.import_module('02-whisper-huggingface')", "02-whisper-huggingface"),
])
def test_an_import_upwards_is_seen(planted, source, target):
    (found,) = upwards(planted(a=source))
    assert found.startswith("whisper_lab/a.py:") and found.endswith(f"imports {target}")


def test_a_circle_is_seen_and_an_import_in_a_function_or_for_a_type_is_none(planted):
    root = planted(a="from whisper_lab import b", b="try:\n    from .c import x\nexcept ImportError:\n    x = 1",
                   c="import whisper_lab.a", d="from whisper_lab import e", e="def f():\n    from whisper_lab import d",
                   f="from whisper_lab import g", g="if TYPE_CHECKING:\n    from whisper_lab.f import F")
    assert circles(graph(root)) == {frozenset(f"{LIBRARY}.{name}" for name in "abc")}


def test_the_longest_chain_is_found_also_around_a_circle():
    assert house.longest_chain({"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]
    assert house.longest_chain({"a": {"d"}, "b": {"a"}, "d": set()}) == ["b", "a", "d"]


# The numbered scripts -------------------------------------------------------------------------------------------------

LESSONS = sorted(ROOT.glob("[01][0-9]-*.py"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name[:2])
def test_a_lesson_has_three_commands_numbered_steps_and_their_headings_in_order(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    said = ast.get_docstring(tree, clean=False)
    assert len(re.findall(rf"^    (?:ffmpeg .* )?python {re.escape(path.name)}", said, re.M)) == 3
    steps = [int(number) for number in re.findall(r"^ +(\d)\. ", said, re.M)]
    headings = re.findall(r"^ *# (\d)(?: to (\d)|, (\d) and (\d))?\. .*-{10,}$", source, re.M)
    covered = [number for first, last, *listed in headings for number in
               (range(int(first), int(last) + 1) if last else map(int, filter(None, (first, *listed))))]
    assert covered == steps == list(range(1, len(steps) + 1)) and len(steps) >= 3
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions[-1] == "main" and "arguments" in functions


# Names --------------------------------------------------------------------------------------------------------------

def test_no_text_speaks_of_a_module_that_has_moved():
    """Code in strings, comments, documents; the changelog's table of moves alone may, and this file's examples."""
    kinds = ("*.py", "*.md", "*.yaml", "*.sh", "*.mjs", "*.js", "*.txt", "Makefile")
    tracked = subprocess.run(["git", "ls-files", *kinds], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in tracked.splitlines()
             if name not in ("CHANGELOG.md", "tests/test_house.py") and (ROOT / name).is_file()]
    assert len(names) > 300 and house.lost(ROOT, names) == []


@pytest.mark.parametrize("text, named", [
    ("code = 'from whisper_lab import a, gone'", "whisper_lab.gone"), ("`whisper_lab/gone.py`", "whisper_lab/gone.py"),
    ("setattr('whisper_lab.gone.value', 1)", "whisper_lab.gone.value"), ("from whisper_lab.gone import f",
                                                                         "whisper_lab.gone.f"),
])
def test_a_module_that_is_not_there_is_seen(planted, text, named):
    root = planted(a="f = 1")
    (root / "text.md").write_text(f"first\n{text} and whisper_lab.a.f, whisper_lab/a.py", encoding="utf-8")
    assert house.lost(root, ["text.md"]) == [f"text.md:2 {named}"]


def test_a_word_in_a_packages_docstring_is_no_module(planted):
    root = planted(__init__='"""Has gone, and here."""\nhere = 1\n')
    (root / "text.md").write_text("from whisper_lab import here, gone", encoding="utf-8")
    assert house.lost(root, ["text.md"]) == ["text.md:1 whisper_lab.gone"]


# Figures ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def checkout(planted):
    """A small copy of this lab as git knows it: one script, one module, a README."""
    root = planted(__main__="print('heard')", a="def f(args):\n    return args\n\n\ndef g():\n    return 1\n")
    (root / "01-one.py").write_text("import argparse\nparser = argparse.ArgumentParser()\n"
                                    "parser.add_argument('--loud')\nparser.parse_args()\n", encoding="utf-8")
    (root / "README.md").write_text("x" * 1500, encoding="utf-8")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_the_figures_are_those_of_the_checkout(checkout):
    done = subprocess.run([sys.executable, "-m", "tools.house", "--root", checkout], cwd=ROOT, capture_output=True,
                          text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert ["scripts", "1", "4"] in lines and ["whisper_lab", "3", "7"] in lines
    assert ["01-one.py", "4", "1", str(help_height())] in lines
    assert "2 functions in scripts and library" in done.stdout and "1 functions" not in done.stdout
    assert "README.md has 1.5 kB" in done.stdout and "not counted, its graphs are not here" in done.stdout


def test_a_script_whose_help_fails_is_named(checkout):
    (checkout / "01-one.py").write_text("raise SystemExit('no such option')", encoding="utf-8")
    with pytest.raises(console.LabError, match="01-one.py --help failed: no such option"):
        house.help_of(checkout, "01-one.py")


def help_height() -> int:
    """Lines of the help of a parser with one option, in this Python."""
    return len(ArgumentParser().format_help().splitlines()) + 1


def test_what_a_transcript_opens_is_counted(checkout):
    for name in house.GRAPHS:
        shutil.copy(checkout / "README.md", checkout / name)
    (checkout / LIBRARY / "__main__.py").write_text("from whisper_lab import a", encoding="utf-8")
    assert house.opened(checkout, checkout) == ["__main__", "whisper_lab.a"]
    (checkout / LIBRARY / "__main__.py").write_text("raise SystemExit('no such graph')", encoding="utf-8")
    with pytest.raises(console.LabError, match="no such graph"):
        house.opened(checkout, checkout)


# English --------------------------------------------------------------------------------------------------------------

# No one, someone, again. What the profiler's clips say is spoken by people who may talk as they like.
FOREIGN = re.compile(r"\b(nobody|somebody|anew)\b|\b1 (threads|words|rounds|runs)\b", re.I)
SPOKEN = "whisper_lab/energy/sentences.py"


def texts(source: str) -> Iterator[str]:
    """The strings of a program that a user may see: not the docstrings of its classes and functions."""
    tree = ast.parse(source)
    hidden = {id(node.body[0].value) for node in ast.walk(tree)
              if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
              and isinstance(node.body[0], ast.Expr)}
    if "parser(__doc__" not in source and tree.body and isinstance(tree.body[0], ast.Expr):
        hidden.add(id(tree.body[0].value))  # --help does not print it
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.value


def test_messages_and_documents_are_in_todays_english():
    programs = [path for path in (*ROOT.glob("[01]*.py"), *modules(ROOT).values())
                if path.relative_to(ROOT).as_posix() != SPOKEN]
    said = [(path, text) for path in programs for text in texts(path.read_text(encoding="utf-8"))]
    # What is in a generated block is its script's affair.
    said += [(path, re.sub(r"<!-- begin .*?<!-- end ", "", path.read_text(encoding="utf-8"), flags=re.S))
             for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "training" / "README.md")]
    assert len(said) > 1000
    assert [f"{path.name}: {found[0]}" for path, text in said for found in FOREIGN.finditer(text)] == []


def test_one_of_a_thing_has_no_s():
    assert [console.count(number, "thread") for number in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
    assert "only 1 word:" in few_words(1) and "only 2 words:" in few_words(2)
