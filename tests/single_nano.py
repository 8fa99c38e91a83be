"""whisper-nano's single graph in int8, written once for all tests that use it: by 08, gates included."""

import contextlib
import functools
import importlib
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import nano_pair

NAME = nano_pair.NAME


def script():
    """08 as a module."""
    return importlib.import_module("08-single-onnx-model")


@functools.cache
def written(nano_export: Path) -> SimpleNamespace:
    """folder (of the int8 graphs), path (of the single graph), place (where the JSON lies), whisper (the pair)."""
    from whisper_lab.export import single_graph
    from whisper_lab.onnx_whisper import OnnxWhisper

    place = Path(tempfile.mkdtemp(prefix="single-nano-"))
    folder = nano_pair.take(nano_export, place / "graphs", "_int8")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.chdir(place):
        assert script().main(["--model", "nano", "--precision", "int8", "--quiet", "--model-dir", str(folder),
                              "--output-json", "single.json"]) == 0
    return SimpleNamespace(folder=folder, place=place, path=single_graph.file_of(folder, NAME, "int8"),
                           whisper=OnnxWhisper(folder, NAME, "int8", threads=1))
