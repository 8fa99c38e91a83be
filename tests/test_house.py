"""One house: the library imports nothing that uses it, its modules import each other in no circle, one English."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from whisper_lab import console
from whisper_lab.compare.texts import few_words

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "whisper_lab"
USERS = {"training", "benchmarks", "workbook", "tools", "tests"}  # and the numbered scripts, see `upwards`


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of the library below `root`."""
    found = {}
    for path in sorted((root / LIBRARY).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(node: ast.AST, name: str, path: Path) -> list[str]:
    """The dotted names that one node of module `name` imports; `from a import b` gives a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        above = package[:len(package) - node.level + 1] if node.level else []
        return [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        return [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
    return []


def upwards(root: Path) -> list[str]:
    """`file:line imports NAME` for each import of what uses the library, in functions too; a script is `05-...`."""
    found = []
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found += [f"{path.relative_to(root)}:{node.lineno} imports {target}"
                      for target in imported(node, name, path)
                      if target.split(".")[0] in USERS or target[:1].isdigit()]
    return found


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module does: also under `try` and `class`, not in functions or for types alone."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_module_level(child)


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> the library's modules that it imports at module level."""
    known, edges = modules(root), {}
    for name, path in known.items():
        nodes = at_module_level(ast.parse(path.read_text(encoding="utf-8")))
        targets = {target for node in nodes for target in imported(node, name, path)}
        targets = {target if target in known else target.rpartition(".")[0] for target in targets}
        edges[name] = {target for target in targets if target in known and target != name}
    return edges


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """The strongly connected components of more than one module."""
    reached = {}
    for start in edges:
        seen, ahead = set(), [start]
        while ahead:
            new = edges[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[start] = seen
    return {frozenset(other for other in reached[name] if name in reached[other])
            for name in edges if name in reached[name]}


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
             for path in ROOT.glob("docs/*.md")]
    assert len(said) > 1000
    assert [f"{path.name}: {found[0]}" for path, text in said for found in FOREIGN.finditer(text)] == []


def test_one_of_a_thing_has_no_s():
    assert [console.count(number, "thread") for number in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
    assert "only 1 word:" in few_words(1) and "only 2 words:" in few_words(2)
