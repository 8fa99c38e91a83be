"""One precision of what conftest's nano_export wrote, in a folder of its own: as if 03 had made nothing else."""

import shutil
from pathlib import Path

NAME = "whisper-nano"


def take(nano_export: Path, folder: Path, suffix: str = "") -> Path:
    """The pair whose names end in `suffix` ("", "_int8", ...) and the runtime files, copied; returns `folder`."""
    made = nano_export / "graphs"
    shutil.copytree(made / f"{NAME}_runtime", folder / f"{NAME}_runtime")
    for part in ("encoder", "decoder"):
        shutil.copy(made / f"{NAME}_{part}{suffix}.onnx", folder)
    return folder
