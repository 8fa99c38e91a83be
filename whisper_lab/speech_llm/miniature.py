"""The bundled miniature: find it, say what is wrong where something is, load it."""

import hashlib
import json
from pathlib import Path

from whisper_lab import checkpoints, console, metrics
from whisper_lab.console import LabError
from whisper_lab.speech_llm.configuration_asr import PARTS, ASRConfig
from whisper_lab.speech_llm.modeling_asr import ASRModel
from whisper_lab.speech_llm.processing_asr import ASRProcessor

TRAIN = "train it: python -m training.train_projector (training/README.md), or fetch the repository again"
REFERENCES = Path(__file__).resolve().parent.parent.parent / "media" / "references.json"


def configuration(folder: Path) -> ASRConfig:
    """The miniature's configuration. Raises LabError where the folder or one of its parts is missing."""
    if not (folder / "config.json").is_file():
        raise LabError(f"the miniature is not in {folder}", TRAIN)
    config = ASRConfig.from_pretrained(folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))  # `config` holds places on this machine
    for key in PARTS:
        part = getattr(config, key)
        if str(written.get(key)).startswith((".", "/")) and not Path(part).is_dir():
            raise LabError(f"the miniature's frozen part {part} is missing", TRAIN)
    return config


def load(folder: Path, untrained: bool = False, seed: int = 0) -> tuple[ASRModel, ASRProcessor]:
    """(model, processor); `untrained`: both frozen parts, and a projector that has learnt nothing."""
    config = configuration(folder)
    if untrained:
        import torch

        torch.manual_seed(seed)
        model = ASRModel(config)
        console.note("projector", "untrained", "the control: the same frozen parts, random numbers between them")
    else:
        model = ASRModel.from_pretrained(folder, config=config)
        _check_encoder(folder, config)
    return model, _processor(folder)


def _processor(folder: Path) -> ASRProcessor:
    """The saved processor; none of the folder's own code is run. Raises LabError where it would have to be."""
    try:
        return ASRProcessor.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise LabError(f"the miniature in {folder} needs code of its own, which is never run here", TRAIN) from error


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over the encoder's weights of a Whisper checkpoint, in the order of their names."""
    import torch
    from safetensors import safe_open

    seen = hashlib.sha256()
    with safe_open(Path(folder) / "model.safetensors", "pt") as file:
        for name in sorted(name for name in file.keys() if name.startswith("model.encoder.")):  # noqa: SIM118
            seen.update(file.get_tensor(name).contiguous().view(torch.uint8).numpy())
    return seen.hexdigest()


def _check_encoder(folder: Path, config: ASRConfig) -> None:
    """A projector translates from one encoder only: say so where the encoder has been trained further since."""
    notes = folder / "training.json"
    if notes.is_file() and Path(config.audio_model_id, "model.safetensors").is_file():
        then = json.loads(notes.read_text(encoding="utf-8")).get("encoder_sha256")
        if then and then != fingerprint(config.audio_model_id):
            console.warn(f"the projector was trained with another {checkpoints.BUNDLED.name} than the one here: "
                         "expect more errors")


def references() -> dict[str, str]:
    """What is said in the lab's sample clips: file name -> text."""
    if not REFERENCES.is_file():
        return {}
    return {name: clip["text"] for name, clip in json.loads(REFERENCES.read_text(encoding="utf-8")).items()}


def judged(clip: str, text: str) -> dict:
    """A clip's row in the document: name, text, reference (None where it is not known), and else its word errors."""
    row = {"clip": clip, "text": text, "reference": references().get(clip)}
    if row["reference"] is not None:
        row["wer"] = metrics.word_errors(row["reference"], text).wer
    return row
