"""The house in figures: files and lines, functions, flags, imports, what one transcript opens, how long the README is.

    python -m tools.house                       # this copy
    python -m tools.house --root ../before      # another one, to compare with

What a transcript opens is counted by making one with the ONNX runtime, on the graphs of whisper-nano in int8 (of
another folder with --model-dir). Where they are not there, it says which command writes them.
"""

import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console, flags  # noqa: E402

LIBRARY = "whisper_lab"
USERS = {"training", "benchmarks", "workbook", "tools", "tests", "src"}  # of the library; and the scripts: `upwards`
LONG = 20  # lines; a function that is longer should have a reason
GRAPHS = ("whisper-nano_encoder_int8.onnx", "whisper-nano_decoder_int8.onnx")
WRITES_THEM = "python 03-export-encoder-decoder.py --model nano --precision int8"
CLIP = "media/kitchen.wav"
NAMED = re.compile(rf"from (?P<package>{LIBRARY}[\w.]*) import (?P<imported>\w+[\w, ]*)|"
                   rf"(?P<path>{LIBRARY}/[\w/]+\.(?:py|json|html|css|js)\b)|(?<![\w/])(?P<dotted>{LIBRARY}(?:\.\w+)+)")

# Runs the runtime's command line and prints, as the last line, which of our modules were loaded by then.
OPENED = """
import json, runpy, sys
name, *arguments = sys.argv[1:]
sys.argv[1:] = arguments
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    status = 0
except SystemExit as end:
    status = end.code or 0
ours = {"__main__"} | {name for name in sys.modules if name.split(".")[0] == "whisper_lab"}
print(json.dumps(sorted(ours)), flush=True)
sys.exit(status)
"""


# Imports --------------------------------------------------------------------------------------------------------------

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
        for node in ast.walk(parsed(path)):
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
        targets = {target for node in at_module_level(parsed(path)) for target in imported(node, name, path)}
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


def lost(root: Path, names: list[str]) -> list[str]:
    """`file:line NAME` for each module or file of the library that one of the files `names` speaks of and is not there.

    In strings, comments and documents too, where no interpreter looks until it is too late.
    """
    known, found = modules(root), []
    for name in names:
        text = (root / name).read_text(encoding="utf-8")
        for match in NAMED.finditer(text):
            dotted = [f"{match['package']}.{one.split()[0]}" for one in match["imported"].split(",") if one.strip()] \
                if match["package"] else [match["dotted"]] if match["dotted"] else []
            missing = [one for one in dotted if not stands_for_something(root, known, one.rstrip("."))]
            missing += [path for path in [match["path"]] if path and not (root / path).exists()]
            found += [f"{name}:{text[:match.start()].count(chr(10)) + 1} {one}" for one in missing]
    return found


def stands_for_something(root: Path, known: dict[str, Path], dotted: str) -> bool:
    """Whether a dotted name is a module, or what a package defines; what is in a module is left to the interpreter."""
    name, rest = LIBRARY, dotted.split(".")[1:]
    while rest and f"{name}.{rest[0]}" in known:
        name = f"{name}.{rest.pop(0)}"
    return not rest or known[name].name != "__init__.py" or rest[0].startswith("__") or \
        rest[0] in _defined(known[name].read_text(encoding="utf-8"))


def _defined(source: str) -> set[str]:
    """The names that a module's code makes or imports, in whatever block; not the words of its docstring."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(one.asname or one.name).partition(".")[0] for one in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def longest_chain(edges: dict[str, set[str]]) -> list[str]:
    """The modules of the longest way down through the imports; a circle is gone through once at most."""
    found: dict[str, list[str]] = {}

    def below(name: str, above: frozenset[str]) -> list[str]:
        if name not in found:
            ways = [below(target, above | {name}) for target in sorted(edges[name] - above)]
            found[name] = [name, *max(ways, key=len, default=[])]
        return found[name]

    return max((below(name, frozenset()) for name in sorted(edges)), key=len, default=[])


# Files and functions --------------------------------------------------------------------------------------------------

def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def part(path: str) -> str:
    """The part of the house that a Python file is in: a folder, or a package of the library."""
    folders = Path(path).parts[:-1]
    if not folders:
        return "scripts"
    return "/".join(folders[:2]) if folders[0] == LIBRARY else folders[0]


def tracked(root: Path) -> list[str]:
    """Python files that git knows, relative to `root`."""
    done = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (root / name).is_file()]


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Part -> (files, lines)."""
    found: dict[str, tuple[int, int]] = {}
    for name in tracked(root):
        files, lines = found.get(part(name), (0, 0))
        found[part(name)] = (files + 1, lines + len((root / name).read_text(encoding="utf-8").splitlines()))
    return dict(sorted(found.items()))


def functions(root: Path) -> list[tuple[int, str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(lines with docstring, `file:line name`, node) of each function of scripts and library, the longest first."""
    found = []
    for name in tracked(root):
        if part(name) == "scripts" or name.startswith(f"{LIBRARY}/"):
            found += [(node.end_lineno - node.lineno + 1, f"{name}:{node.lineno} {node.name}", node)
                      for node in ast.walk(parsed(root / name))
                      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted(found, key=lambda row: (-row[0], row[1]))


def take_args(root: Path) -> list[str]:
    """`file:line name` of the library's functions with a parameter `args`, which only a command line should have."""
    return [place for _, place, node in functions(root) if place.startswith(f"{LIBRARY}/")
            and "args" in [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]]


# Programs -------------------------------------------------------------------------------------------------------------

def help_of(root: Path, script: str) -> tuple[int, int]:
    """(flags, lines of --help at 80 columns); flags without help and version, of --help-all where there is one."""
    def said(flag: str) -> list[str]:
        done = subprocess.run([sys.executable, script, flag], cwd=root, capture_output=True, text=True,
                              env={**os.environ, "COLUMNS": "80"})
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise console.LabError(f"{script} {flag} failed: {reason}", f"look at it: python {script} {flag}")
        return done.stdout.splitlines()

    short = said("--help")
    every = said("--help-all") if any("--help-all" in line for line in short) else short
    return sum(bool(re.match(r"  (-\w, )?--(?!help|version)\w", line)) for line in every), len(short)


def opened(root: Path, graphs: Path) -> list[str] | None:
    """The library's modules that one transcript loads, or None where its graphs are not in the folder `graphs`."""
    if not all((graphs / name).is_file() for name in GRAPHS):
        return None
    name = LIBRARY if (root / LIBRARY / "__main__.py").is_file() else f"{LIBRARY}.onnx_whisper"
    done = subprocess.run([sys.executable, "-c", OPENED, name, CLIP, "--model", "nano", "--precision", "int8",
                           "--model-dir", str(graphs)], cwd=root, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise console.LabError(f"the transcript of {CLIP} failed: {reason}", WRITES_THEM)
    return [name for name in json.loads(done.stdout.splitlines()[-1]) if name != LIBRARY]


def show_files(root: Path) -> None:
    """Files and lines of each part; the longest functions."""
    rows = sizes(root)
    console.result("part                        files   lines")
    for name, (files, lines) in rows.items():
        console.result(f"{name:<26}{files:>7}{lines:>8}")
    files, lines = (sum(row[i] for name, row in rows.items() if name.startswith(LIBRARY)) for i in (0, 1))
    console.result(f"{'the library in all':<26}{files:>7}{lines:>8}\n")
    lengths = functions(root)
    console.result(f"{len(lengths)} functions in scripts and library: median "
                   f"{statistics.median(row[0] for row in lengths):g} lines, "
                   f"{sum(row[0] > LONG for row in lengths)} longer than {LONG}, the longest:")
    for length, place, _ in lengths[:10]:
        console.result(f"{length:>5}  {place}")
    console.result(f"{console.count(len(take_args(root)), 'function')} of the library with a parameter `args`\n")


def show_programs(root: Path) -> None:
    """Lines and flags of each script."""
    console.result("script                         lines   flags   lines of --help")
    for name in [name for name in tracked(root) if part(name) == "scripts"]:
        flags, height = help_of(root, name)
        lines = len((root / name).read_text(encoding="utf-8").splitlines())
        console.result(f"{name:<30}{lines:>6}{flags:>8}{height:>18}")
    console.result()


def show_imports(root: Path, graphs: Path) -> None:
    """Circles, imports of what uses the library, the longest chain, and the modules of one transcript."""
    edges = graph(root)
    rings, chain = circles(edges), longest_chain(edges)
    console.result(f"{console.count(len(rings), 'circle')} of imports")
    for ring in sorted(map(sorted, rings)):
        console.result(f"       {', '.join(ring)}")
    console.result(f"{console.count(len(upwards(root)), 'import')} of what uses the library")
    console.result(f"the longest chain of imports has {len(chain)} modules: {' - '.join(map(short, chain))}")
    names = opened(root, graphs)
    if names is None:
        console.result(f"modules opened by one transcript: not counted, its graphs are not here ({WRITES_THEM})")
    else:
        console.result(f"modules opened by one transcript: {len(names)}: {', '.join(map(short, names))}")


def short(name: str) -> str:
    """A module's name within the library."""
    return name.removeprefix(f"{LIBRARY}.")


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="a checkout (default: this one)")
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="where 03 wrote the graphs of nano in int8 "
                        "(default: whisper_model_dir of the checkout)")
    args = flags.parse(parser, argv)
    if not (args.root / LIBRARY).is_dir():
        raise console.LabError(f"{args.root} is not a checkout of this lab", "name a folder that contains whisper_lab/")
    show_files(args.root)
    show_programs(args.root)
    show_imports(args.root, (args.model_dir or args.root / "whisper_model_dir").resolve())
    console.result(f"README.md has {(args.root / 'README.md').stat().st_size / 1000:.1f} kB")
    return 0


if __name__ == "__main__":
    console.run(main)
