"""What a runtime without transformers needs beside the graphs, once per checkpoint: `<name>_runtime/`.

config.json (sizes), preprocessor_config.json (features), generation_config.json (token rules), tokenizer.json (text).
"""

import json
import shutil
from pathlib import Path

from whisper_lab import content, files
from whisper_lab.console import LabError
from whisper_lab.export import naming
from whisper_lab.token_files import tokenizer_document

COPIED = ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json")


def write(checkpoint, model, output_dir: Path) -> list[Path]:
    """Write the four files and a list of their digests; what the checkpoint lacks is made from what it has.

    Raises LabError where that fails.
    """
    folder, made = naming.runtime_folder(output_dir, checkpoint.name), []
    for name in COPIED:
        source, target = checkpoint.folder / name, folder / name
        if source.is_file():
            with files.atomic(target) as temporary:
                shutil.copyfile(source, temporary)
        else:
            files.write_text(target, _make(name, checkpoint, model))
        made.append(target)
    content.write_manifest(folder, list(COPIED))
    return made


def _make(name: str, checkpoint, model) -> str:
    if name == "generation_config.json":
        return model.generation_config.to_json_string()
    if name == "preprocessor_config.json":  # transformers 5 may keep it inside processor_config.json
        processor = json.loads((checkpoint.folder / "processor_config.json").read_text(encoding="utf-8"))
        return json.dumps(processor["feature_extractor"], indent=2) + "\n"
    if name == "tokenizer.json":  # old checkpoints have vocab.json and merges.txt alone
        return json.dumps(tokenizer_document(checkpoint.folder), ensure_ascii=False)
    raise LabError(f"{checkpoint.folder} has no {name}", "fetch the checkpoint again")
