"""A copy of torchaudio as pip leaves it beside a CPU-only torch: `import torchaudio` fails in its native part.

The installed one may have been mended by `doctor --fix` (`make` does that), and must not be touched by a test. The
copy gets its native files back; where they do load (a CUDA build of torch), one is damaged so that they do not.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from whisper_lab import torchaudio_repair


def environment(folder: Path) -> dict[str, str]:
    """Put the broken copy into `folder`; returns the environment in which a child process imports that one."""
    package = folder / "torchaudio"
    shutil.copytree(torchaudio_repair.folder(), package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in torchaudio_repair.aside_files(package):
        path.rename(path.with_name(path.name.removesuffix(torchaudio_repair.ASIDE)))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    if loads(made):
        next(path for path in torchaudio_repair.native_files(package) if path.stem.startswith("_")).write_bytes(b"\0")
        assert not loads(made), "the copy of torchaudio should be broken, and is not"
    return made


def loads(made: dict[str, str]) -> bool:
    """Whether `import torchaudio` works in that environment."""

    return subprocess.run([sys.executable, "-c", "import torchaudio"], env=made, capture_output=True).returncode == 0
