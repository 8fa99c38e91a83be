"""Which precisions of a checkpoint are in the model folder, and what would make the missing ones."""

from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console, names
from whisper_lab.console import LabError
from whisper_lab.sessions import export_command

BASELINE = "fp32"  # what every other precision is compared with
PYTORCH = "pytorch"
SPEED = f"speed, {BASELINE} = 1"  # what tables and pictures call timing.against's `speedup`


@dataclass(frozen=True)
class Variant:
    """One pair of graphs; `name` is its precision, with `_optimized` for the fused pair."""

    name: str
    precision: str
    optimized: bool
    folder: Path
    model: str

    @property
    def paths(self) -> dict[str, Path]:
        """{"encoder": path, "decoder": path}"""
        return names.pair(self.folder, self.model, self.precision, self.optimized)

    @property
    def command(self) -> str:
        """What writes this pair."""
        return export_command(self.folder, self.model, self.precision, self.optimized)

    def open(self, threads: int | None = None):
        """An OnnxWhisper over the pair. Raises LabError where it cannot be opened or the two do not fit."""
        from whisper_lab.onnx_whisper import OnnxWhisper

        return OnnxWhisper(self.folder, self.model, self.precision, threads, self.optimized)


def known(folder: str | Path, model: str) -> list[Variant]:
    """Every pair that 03 can write for this checkpoint, fp32 first, whether it is there or not."""
    pairs = [*((precision, False) for precision in names.PRECISIONS), ("int8", True)]
    return [Variant(f"{precision}_optimized" if optimized else precision, precision, optimized, Path(folder), model)
            for precision, optimized in pairs]


def present_and_missing(folder: str | Path, model: str, wanted: list[str] | None = None
                        ) -> tuple[list[Variant], list[Variant]]:
    """(present, missing) among those `wanted` by name (None: all). Notes what is missing, and how to make it.

    Raises LabError where fp32, the baseline, is missing or there is nothing else.
    """
    pairs = [variant for variant in known(folder, model) if wanted is None or variant.name in {BASELINE, *wanted}]
    present = [variant for variant in pairs if all(path.is_file() for path in variant.paths.values())]
    missing = [variant for variant in pairs if variant not in present]
    if not present or present[0].name != BASELINE:
        raise LabError(f"there is no {BASELINE} pair of {model} in {folder}, with which the others are compared",
                       f"write it: {pairs[0].command}")
    if len(present) == 1:
        sought = " or ".join(variant.name for variant in missing)
        raise LabError(f"there is no {sought} pair of {model} in {folder} to compare with {BASELINE}",
                       f"write one: {missing[0].command}")
    for variant in missing:
        console.note(f"no {variant.name}", "left out", "it was not written", f"to write it: {variant.command}")
    return present, missing
