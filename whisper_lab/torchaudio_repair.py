"""Move torchaudio's native files aside where they cannot load, and put them back.

torchaudio's wheel is linked against CUDA. Beside a CPU-only torch its native part cannot load, and `import torchaudio`
ends in OSError. Its pure-Python part (resampling, mel filters) needs no native file, and torchaudio itself takes a
missing native file as "not built": so with those files under another name it works. Nothing is deleted.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from whisper_lab.console import LabError

ASIDE = ".aside"  # _torchaudio.abi3.so -> _torchaudio.abi3.so.aside, which torchaudio's loader does not look for
NATIVE = (".so", ".pyd", ".dylib")
IMPORT_TIMEOUT = 120  # seconds
# The innermost error is the one that names the missing library; its last line is what a user can read.
TRY = """
try:
    {code}
except BaseException as error:
    while error.__cause__ is not None: error = error.__cause__
    raise SystemExit("@" + (type(error).__name__ + ": " + str(error).strip()).splitlines()[0])
"""


def failure_of(code: str, *arguments: str, timeout: float = IMPORT_TIMEOUT) -> str | None:
    """Run one line of Python in a fresh process; None if it succeeds, else what went wrong in one line.

    A fresh process, because a native library that fails may take the whole process with it.
    """
    command = [sys.executable, "-W", "ignore", "-c", TRY.format(code=code), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"not done after {timeout:g} s"
    if done.returncode == 0:
        return None
    reasons = [line[1:] for line in done.stderr.splitlines() if line.startswith("@")]
    if reasons:
        return reasons[-1]
    return f"the process died with status {done.returncode}"  # negative: killed by that signal


def folder() -> Path:
    """The folder of the torchaudio that `import torchaudio` would take. Raises LabError where there is none."""
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or not spec.submodule_search_locations:
        raise LabError("torchaudio is not installed", "pip install -r requirements.txt")
    return Path(list(spec.submodule_search_locations)[0])


def native_files(package: Path) -> list[Path]:
    """The native files in place, those moved aside not among them."""
    return sorted(path for path in (package / "lib").glob("*") if path.suffix in NATIVE)


def aside_files(package: Path) -> list[Path]:
    """The native files that were moved aside."""
    return sorted((package / "lib").glob(f"*{ASIDE}"))


def fix() -> str:
    """Move the native files that do not load aside, if `import torchaudio` fails; says what it did.

    Raises LabError, with everything put back, where that does not make torchaudio importable.
    """
    package = folder()
    failure = failure_of("import torchaudio")
    if failure is None:
        return "nothing to do: torchaudio imports"
    code = "import sys, torch; torch.ops.load_library(sys.argv[1])"
    broken = [path for path in native_files(package) if failure_of(code, str(path))]
    if not broken:
        raise LabError(f"torchaudio does not import, and its native files are not to blame: {failure}",
                       "pip install --force-reinstall -r requirements.txt")
    _move([(path, path.with_name(path.name + ASIDE)) for path in broken])
    if still := failure_of("import torchaudio"):
        _move([(path.with_name(path.name + ASIDE), path) for path in broken])
        raise LabError(f"torchaudio does not import without its native files either: {still}",
                       "pip install --force-reinstall -r requirements.txt")
    return f"moved {len(broken)} native files of torchaudio aside, which cannot load here ({failure}); it imports now"


def unfix() -> str:
    """Put the native files back as pip installed them; says what it did."""
    moves = [(path, path.with_name(path.name.removesuffix(ASIDE))) for path in aside_files(folder())]
    moves = [(source, target) for source, target in moves if not target.exists()]  # a reinstalled file stays
    _move(moves)
    return f"put {len(moves)} native files of torchaudio back" if moves else "nothing to do: no file was moved aside"


def _move(moves: list[tuple[Path, Path]]) -> None:
    """Rename all or none: each rename is atomic, and an error undoes those before it."""
    done = []
    try:
        for source, target in moves:
            os.replace(source, target)
            done.append((source, target))
    except OSError as error:
        for source, target in reversed(done):
            os.replace(target, source)
        raise LabError(f"cannot rename {moves[len(done)][0]}: {error.strerror}",
                       "run this as the user who installed the packages") from error
