"""whisper-nano's single graph in int8, written once for all tests that use it: by 03 and 08, gates included."""

import contextlib
import functools
import importlib
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

NAME = "whisper-nano"


def script():
    """08 as a module."""
    return importlib.import_module("08-single-onnx-model")


@functools.cache
def written() -> SimpleNamespace:
    """folder (of the graphs), path (of the single graph), reports (where the JSON lies), whisper (the pair)."""
    from whisper_lab.export import single_graph
    from whisper_lab.onnx_whisper import OnnxWhisper

    place = Path(tempfile.mkdtemp(prefix="single-nano-"))
    folder = place / "graphs"
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.chdir(place):
        export = importlib.import_module("03-export-encoder-decoder")
        common = ["--model", "nano", "--precision", "int8", "--quiet"]
        assert export.main([*common, "--no-verify", "--output-dir", str(folder)]) == 0
        assert script().main([*common, "--model-dir", str(folder), "--output-json", "single.json"]) == 0
    return SimpleNamespace(folder=folder, place=place, path=single_graph.file_of(folder, NAME, "int8"),
                           whisper=OnnxWhisper(folder, NAME, "int8", threads=1))
