"""Which runtime for which device: PyTorch, TorchScript, ONNX Runtime, and what of TFLite?

Measured on one clip with the same tokens given to all: PyTorch, the same two modules traced to TorchScript, onnxruntime
in float32 and int8; the time to load, and the memory of a fresh process. TFLite is not run here: see its documentation.
"""

import importlib.metadata
import warnings
from unittest import mock

import numpy as np

from workbook.evidence import common
from workbook.evidence.latency_cuts import CLIP, given_tokens, window


class TracedWhisper:
    """nano's encoder and decoder as TorchScript: the modules that 03 exports, recorded by torch.jit.trace."""

    def __init__(self, runtime):
        import torch

        from whisper_lab import thinning
        from whisper_lab.export import torch_export
        from whisper_lab.export.wrappers import DecoderGraph, EncoderGraph

        self.torch, self.shapes = torch, (runtime.model.config.decoder_layers,
                                          runtime.model.config.decoder_attention_heads)
        self.width = runtime.model.config.d_model // self.shapes[1]
        sound, text = torch_export.example_inputs(runtime.model.config)
        # TorchScript knows no symbolic sizes; here it hears whole windows, which are not thinned.
        whole = mock.patch.object(thinning, "thin", lambda states, table: (states, table, states.new_zeros(len(table))))
        with warnings.catch_warnings(), torch.no_grad(), torch_export.quiet(), whole:
            warnings.simplefilter("ignore")  # TracerWarning, and that TorchScript is deprecated
            self.encoder = torch.jit.trace(EncoderGraph(runtime.model).eval(), sound, check_trace=False)
            self.decoder = torch.jit.trace(DecoderGraph(runtime.model, None).eval(), text, check_trace=False)

    def encode(self, features: np.ndarray):
        with self.torch.inference_mode():
            return tuple(self.encoder(self.torch.from_numpy(features))[1:])

    def step(self, ids: np.ndarray, cross, cache):
        layers, heads = self.shapes
        cache = cache or (self.torch.zeros(len(ids), heads, 0, self.width),) * (2 * layers)
        with self.torch.inference_mode():
            logits, *kept = self.decoder(self.torch.from_numpy(ids), cache, cross)
        return logits.numpy(), tuple(kept)


def measure(evidence, args) -> None:
    from whisper_lab.features import log_mel

    reference = common.torch_runtime()
    features = log_mel(common.samples(CLIP), reference.spec)[None]
    ids = given_tokens(reference, features)
    runtimes = {"torch": reference, "torchscript": TracedWhisper(reference), "onnx": common.onnx_runtime("fp32"),
                "onnx_int8": common.onnx_runtime("int8")}
    right = logits(reference, features, ids)
    for name, runtime in runtimes.items():
        evidence.value(f"difference_{name}", float(np.abs(logits(runtime, features, ids) - right).max()))
    seconds = common.undisturbed_s([lambda one=one: window(one, features, ids) for one in runtimes.values()], 11)
    for name, value in zip(runtimes, seconds, strict=True):
        evidence.value(f"{name}_s", value, "s")
    evidence.value("torchscript_what", "encoder and decoder step, traced", stable=True)
    evidence.value("tokens", ids.shape[1], stable=True)
    for name, variant in (("torch", "pytorch"), ("onnx", "fp32")):
        load_s, memory_mb = fresh_process(variant)
        evidence.value(f"{name}_load_s", load_s, "s")
        evidence.value(f"{name}_rss_mb", memory_mb, "MB")
    evidence.value("tflite", _tflite())
    _claims(evidence)


def logits(runtime, features: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float32 [1, tokens, vocabulary] of the whole text at once."""
    return runtime.step(ids, runtime.encode(features), None)[0]


def fresh_process(variant: str) -> tuple[float, float]:
    """Seconds until it can work, and peak memory in MB, of a process of its own."""
    from whisper_lab.compare import memory

    setup = memory.Setup("nano", common.GRAPHS, common.THREADS, "en")
    found = memory.measure(variant, setup, common.MEDIA / CLIP)
    return found["load_s"], found["peak_rss_bytes"] / 1e6


def _tflite() -> str:
    for package in ("ai-edge-litert", "tflite-runtime", "tensorflow"):
        try:
            return f"{package} {importlib.metadata.version(package)} is installed, and not measured"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed here"


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("same", "TorchScript and onnxruntime in float32 give PyTorch's logits to a thousandth.",
                   "TorchScript en onnxruntime geven in float32 de logits van PyTorch tot op een duizendste.",
                   max(values["difference_torchscript"], values["difference_onnx"]) < 1e-3,
                   values["difference_onnx"])
    evidence.claim("int8_differs", "int8 does not give the same logits: it is another precision, not another runtime.",
                   "int8 geeft niet dezelfde logits: het is een andere precisie, geen andere runtime.",
                   values["difference_onnx_int8"] > 10 * values["difference_onnx"], values["difference_onnx_int8"])
    evidence.claim("memory", "A process with onnxruntime alone takes less than half the memory of one with PyTorch.",
                   "Een proces met alleen onnxruntime heeft minder dan half zoveel geheugen nodig als een met PyTorch.",
                   values["onnx_rss_mb"] < values["torch_rss_mb"] / 2, values["onnx_rss_mb"])
    evidence.claim("load", "onnxruntime is ready sooner than PyTorch with transformers.",
                   "onnxruntime is eerder klaar om te werken dan PyTorch met transformers.",
                   values["onnx_load_s"] < values["torch_load_s"], values["onnx_load_s"])


def draw(evidence, figure) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    values = evidence.values
    names = {"PyTorch": "torch", "Torch-\nScript": "torchscript", "ONNX R.\nfp32": "onnx", "ONNX R.\nint8": "onnx_int8"}
    colours = [common.GREY, common.ORANGE, common.BLUE, common.GREEN]
    bars = left.bar(list(names), [1000 * values[f"{key}_s"] for key in names.values()], color=colours)
    left.bar_label(bars, fmt="%.0f")
    left.set(ylabel="ms", title=f"One window, {values['tokens']} tokens")
    for panel, key, unit, form in ((middle, "load_s", "s", "%.2f"), (right, "rss_mb", "MB", "%.0f")):
        bars = panel.bar(["PyTorch", "ONNX R."], [values[f"torch_{key}"], values[f"onnx_{key}"]],
                         color=[common.GREY, common.BLUE])
        panel.bar_label(bars, fmt=form)
        panel.set(ylabel=unit, title="Until ready" if unit == "s" else "Peak memory")


def main(argv: list[str] | None = None) -> int:
    return common.run("runtimes", "2.08", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
