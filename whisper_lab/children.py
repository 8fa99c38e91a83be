"""Programs of this lab that another one starts in a process of their own."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """The environment for `python -m whisper_lab...`, which then finds this package from any working directory."""
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), known]))}
