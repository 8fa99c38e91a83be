"""What other runtimes want around or inside the two graphs: one file a layout, all from the pair that 03 has checked.

No layout traces or quantizes anything. `genai` takes the very files; `optimum` and `sherpa` give the same nodes the
inputs and outputs that their runtime feeds (surgery.py), and are then compared with the pair they come from (same.py).
"""

import importlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_lab import files, names, seals, tokenizer
from whisper_lab.console import LabError

LAYOUTS = {"genai": "onnxruntime-genai", "optimum": "optimum-onnx and transformers.js", "sherpa": "sherpa-onnx"}
COPIED = ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json")


@dataclass(frozen=True)
class Job:
    """A checked pair of graphs, and what a layout has to know about it."""

    checkpoint: Any
    config: Any  # the model's
    spec: Any  # FeatureSpec
    rules: Any  # TokenRules
    pair: dict[str, Path]  # encoder, decoder: in their place
    precision: str
    stage: Path  # a hidden folder, for what is not finished
    sounds: list | None = None  # of reference.make, to compare with the pair; None: nothing is compared
    threads: int | None = None  # None: all cores

    @property
    def runtime_folder(self) -> Path:
        """The files that the lab's own runtime reads, beside the graphs."""
        return names.runtime_folder(self.pair["encoder"].parent, self.checkpoint.name)

    def folder(self, layout: str) -> Path:
        """Where a layout goes: `whisper-base_int8_optimum` beside the pair."""
        return self.pair["encoder"].parent / f"{self.checkpoint.name}_{self.precision}_{layout}"


def check(layout: str, name: str, spec) -> None:
    """Raises LabError for a checkpoint that a layout's runtime cannot run."""
    _module(layout).check(name, spec)


def write(layout: str, job: Job) -> dict:
    """Make the layout's folder; returns its row of the report. Raises LabError where it cannot be written, or differs.
    """
    folder, gate = _module(layout).write(job)
    size = sum(path.stat().st_size for path in folder.rglob("*") if ".onnx" in path.name)
    return {"layout": layout, "precision": job.precision, "folder": folder.name, "size_bytes": size,
            "gate": None if gate is None else gate.as_json()}


def _module(layout: str):
    return importlib.import_module(f"{__name__}.{layout}")


def place(source: Path, folder: Path, link: bool = False) -> None:
    """The file under the same name in the folder, whole or not at all."""
    with files.atomic(folder / source.name) as temporary:
        if link:
            temporary.unlink()
            try:
                os.link(source, temporary)
                return
            except OSError:  # this file system, or this pair of folders, has no links
                pass
        shutil.copyfile(source, temporary)


def place_tokenizer(job: Job, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json."""
    place(job.runtime_folder / "tokenizer.json", folder)
    if (job.checkpoint.folder / "tokenizer_config.json").is_file():
        place(job.checkpoint.folder / "tokenizer_config.json", folder)
    else:
        files.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer"})


# The lab's own runtime ------------------------------------------------------------------------------------------------

def write_runtime_files(checkpoint, model, output_dir: Path) -> list[Path]:
    """Write these files, the table of tokens and a list of digests; what the checkpoint lacks is made from the rest.

    Raises LabError where that fails.
    """
    folder, made = names.runtime_folder(output_dir, checkpoint.name), []
    for name in COPIED:
        source, target = checkpoint.folder / name, folder / name
        if source.is_file():
            with files.atomic(target) as temporary:
                shutil.copyfile(source, temporary)
        else:
            files.write_text(target, _make(name, checkpoint, model))
        made.append(target)
    made.append(tokenizer.write_table(folder, model.config.vocab_size))
    seals.write_manifest(folder, [path.name for path in made])
    return made


def _make(name: str, checkpoint, model) -> str:
    if name == "generation_config.json":
        return model.generation_config.to_json_string()
    if name == "preprocessor_config.json":  # transformers 5 may keep it inside processor_config.json
        processor = json.loads((checkpoint.folder / "processor_config.json").read_text(encoding="utf-8"))
        return json.dumps(processor["feature_extractor"], indent=2) + "\n"
    if name == "tokenizer.json":  # old checkpoints have vocab.json and merges.txt alone
        return json.dumps(tokenizer.tokenizer_document(checkpoint.folder), ensure_ascii=False)
    raise LabError(f"{checkpoint.folder} has no {name}", "fetch the checkpoint again")
