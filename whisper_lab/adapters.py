"""An adapter's folder (PEFT, LoRA) is not a model: its few weights change another's. Said wherever a model is named."""

import shlex
from pathlib import Path

from whisper_lab import files
from whisper_lab.console import LabError

FILE = "adapter_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
# Class of the base model and of what goes with it, by adapter_config.json's task_type; Whisper's has none that is kept.
CLASSES = {"CAUSAL_LM": ("AutoModelForCausalLM", "AutoTokenizer")}
WHISPER = ("WhisperForConditionalGeneration", "WhisperProcessor")


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter in it, and no whole model beside that."""
    whole = (folder / "config.json").is_file() and any((folder / name).is_file() for name in WEIGHTS)
    return (folder / FILE).is_file() and not whole


def refuse(folder: str | Path) -> None:
    """Raises LabError, with the command that merges it, where `folder` is an adapter's, or its file of weights."""
    folder = Path(folder).expanduser()
    folder = folder.parent if folder.name.startswith("adapter_") and folder.is_file() else folder
    if not is_adapter(folder):
        return
    base, task = _read(folder)
    of = "".join(c if c.isprintable() else "?" for c in base[:100]) if base else "a model that it does not name"
    problem = f"{folder} is an adapter (PEFT, LoRA) for {of}, not a whole model"
    if base is None:
        raise LabError(problem, "merge it into its base model with peft: merge_and_unload(), then save_pretrained()")
    model, words = CLASSES.get(task, WHISPER)
    merged = f"{folder.resolve()}-merged"
    program = (f"import peft, transformers as t; base = {base!r}; to = {merged!r}; "
               f"m = t.{model}.from_pretrained(base); "
               f"peft.PeftModel.from_pretrained(m, {str(folder)!r}).merge_and_unload().save_pretrained(to); "
               f"t.{words}.from_pretrained(base).save_pretrained(to)")
    raise LabError(problem, f"merge it first, then name {shlex.quote(merged)} instead: "
                            f"python -m pip install peft && python -c {shlex.quote(program)}")


def _read(folder: Path) -> tuple[str | None, str | None]:
    """The base model's name and the task, as the adapter says them."""
    try:
        notes = files.read_json(folder / FILE)
    except (OSError, ValueError):
        notes = {}
    notes = notes if isinstance(notes, dict) else {}
    base, task = (notes.get(key) for key in ("base_model_name_or_path", "task_type"))
    return (base if isinstance(base, str) and base else None), (task if isinstance(task, str) else None)
