"""Checks a task of workbook/tasks: a file with a gap in it that you fill with 3 to 15 lines of your own.

    python -m workbook.check word_error_rate
    python -m workbook.check joules
    python -m workbook.check quantize
    python -m workbook.check project
    python -m workbook.check load
    python -m workbook.check mel
    python -m workbook.check agree
    python -m workbook.check greedy

A wrong answer ends in one line that says what your function gives and what it should, and one that says why. Exit
status 0 where everything is right.
"""

import importlib.util
import traceback
from pathlib import Path
from types import ModuleType

from whisper_lab import console, flags
from whisper_lab.console import LabError
from workbook import task_checks
from workbook.questions import HERE

TASKS = HERE / "tasks"


def load(path: Path) -> ModuleType:
    """The student's file as a module. Raises LabError where it is not there or does not run."""
    if not path.is_file():
        raise LabError(f"there is no file {path}", "check it out again, or name yours with --file")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"workbook_task_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a student's file may do
        raise stopped(path.name, path, error) from error
    return module


def check(task: str, path: Path) -> int:
    """How many checks the file passed. Raises LabError at the first that it does not pass."""
    function = getattr(load(path), task, None)
    if function is None:
        raise LabError(f"{path.name} has no function {task}", "keep the name that the task gave it")
    passed = 0
    for one in task_checks.CHECKS[task]:
        try:
            one(function)
        except NotImplementedError as error:
            remedy = f"fill it in {_near(path)}, then run this again"
            raise LabError(f"{task}: the gap is still there", remedy) from error
        except LabError:
            raise
        except Exception as error:
            raise stopped(task, path.resolve(), error) from error
        passed += 1
    return passed


def stopped(what: str, path: Path, error: Exception) -> LabError:
    """What a student's exception amounts to, with the last line of `path` that it went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = lines[-1] if lines else getattr(error, "lineno", "?")
    said = (str(error).splitlines() or ["no message"])[0]
    return LabError(f"{what} stopped with {type(error).__name__}: {said}",
                    f"look at line {line} of {path.name}: print what goes in")


def _near(path: Path) -> Path:
    """As one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("task", choices=sorted(task_checks.CHECKS), metavar="TASK",
                        help=", ".join(sorted(task_checks.CHECKS)))
    parser.add_argument("--file", type=Path, metavar="FILE", help="your file (default: workbook/tasks/TASK.py)")
    args = flags.parse(parser, argv)
    passed = check(args.task, args.file or TASKS / f"{args.task}.py")
    console.result(f"right: {args.task} passes all {passed} checks. {task_checks.LEARNT[args.task]}")
    return 0


if __name__ == "__main__":
    console.run(main)
