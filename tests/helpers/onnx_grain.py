"""A Whisper as small as a grain, and its graphs in every precision, made once for all tests that run them."""

import contextlib
import functools
import importlib
import json
import shutil
import tempfile
from pathlib import Path

NAME = "whisper-grain"


@functools.cache
def exported(random_model, nano: Path) -> Path:
    """A folder with the checkpoint `whisper-grain` and `graphs`; random_model and nano are conftest's fixtures."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-grain-"))
    checkpoint = write_checkpoint(folder / NAME, random_model(0), nano)
    with contextlib.chdir(folder):  # the export's report goes to ./reports
        importlib.import_module("03-export-encoder-decoder").main(
            ["--model", str(checkpoint), "--precision", "all", "--no-verify", "--alignment-heads", "--optimize",
             "--output-dir", "graphs", "--quiet"])
    return folder


def write_checkpoint(folder: Path, model, nano: Path) -> Path:
    """The model, float32, on disk with nano's tokenizer and a window of one second."""
    model.float().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(nano / name, folder)
    sound = json.loads((nano / "preprocessor_config.json").read_text(encoding="utf-8"))
    sound |= {"chunk_length": 1, "n_samples": sound["sampling_rate"], "nb_max_frames": 100}
    (folder / "preprocessor_config.json").write_text(json.dumps(sound), encoding="utf-8")
    return folder
