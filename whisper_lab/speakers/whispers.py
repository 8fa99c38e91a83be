"""Which Whisper hears the words of step 4: graphs that know when a word was said, else the checkpoint in PyTorch."""

import os

from whisper_lab import checkpoints, console
from whisper_lab.console import LabError
from whisper_lab.export import naming
from whisper_lab.onnx_whisper import OnnxWhisper, graph_name

FASTEST_FIRST = ("int8", "fp32", "fp16", "int4")


def open_runtime(args):
    """(runtime, {name, precision, random_weights}) for the script's model, model_dir, precision and threads.

    Raises LabError where --precision asks for graphs that are not there or know no word times, and where there is no
    checkpoint either.
    """
    name = graph_name(args.model or os.environ.get("WHISPER_LAB_MODEL") or checkpoints.DEFAULT)
    reason = f"no graphs of {name} in {args.model_dir}"
    for precision in [args.precision] if args.precision else _present(args.model_dir, name):
        runtime = OnnxWhisper(args.model_dir, name, precision, args.threads)
        if runtime.has_attention:
            console.note("graphs", f"{name} {precision}", "--precision asks for it" if args.precision else
                         "the fastest here that can tell when a word was said")
            return runtime, _facts(name, precision, runtime.facts["random_weights"])
        command = f"{runtime.command} --alignment-heads"
        if args.precision:
            raise LabError(f"the {precision} graphs of {name} cannot tell when a word was said",
                           f"write graphs that can: {command}")
        reason = f"the graphs of {name} cannot tell when a word was said; {command} writes graphs that can"
    return _pytorch(args, reason)


def _present(folder: str, name: str) -> list[str]:
    return [precision for precision in FASTEST_FIRST
            if all(path.is_file() for path in naming.pair(folder, name, precision).values())]


def _pytorch(args, reason: str):
    from whisper_lab.torch_whisper import TorchWhisper

    checkpoint = checkpoints.resolve(args.model)
    console.note("runtime", "PyTorch", reason)
    runtime = TorchWhisper.load(checkpoint)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    return runtime, _facts(checkpoint.name, "PyTorch, float32", checkpoint.random_weights)


def _facts(name: str, precision: str, random_weights: bool) -> dict:
    if random_weights:
        console.warn(f"{name} has random weights: its words mean nothing")
    return {"name": name, "precision": precision, "random_weights": random_weights}
