"""What do dynamic axes do in an ONNX export, and for which axes of Whisper do they matter?

Measured: nano's decoder exported with every axis fixed, and the one of script 03 with dynamic ones, given prompts of
several lengths; which batch sizes run; and which numbers of frames the encoder takes, in transformers and as a graph.
"""

import tempfile
from pathlib import Path

import numpy as np

from workbook.evidence import common

FIXED = 4  # tokens in the example that the fixed decoder is exported with
LENGTHS = (1, 2, 3, 4, 7, 16)
BATCHES = (1, 2, 3)


def measure(evidence, args) -> None:
    runtime = common.onnx_runtime()
    frames = runtime.spec.n_frames
    features = np.zeros((1, runtime.spec.n_mels, frames), np.float32)
    cross = runtime.encode(features)
    ids = np.random.default_rng(args.seed).integers(0, 500, (max(BATCHES), max(LENGTHS)))
    with tempfile.TemporaryDirectory() as folder:
        fixed = export_fixed(Path(folder) / "fixed.onnx", runtime, ids, cross)
        works = {n: tries(lambda n=n: fixed.run(["logits"], _fixed_feeds(runtime, ids[:1, :n], cross)))
                 for n in LENGTHS}
    refused = next((error for error in works.values() if error), "none")
    evidence.value("fixed_sequence", FIXED, stable=True)
    evidence.value("fixed_lengths", sum(not error for error in works.values()), stable=True)
    evidence.value("fixed_error", refused.split(":")[0].strip(), stable=True)
    evidence.value("fixed_message", refused[:160])

    errors = {n: _difference(runtime, ids[:1, :n], features) for n in LENGTHS}
    evidence.value("dynamic_lengths", sum(error < 1e-2 for error in errors.values()), stable=True)
    evidence.value("lengths_tried", len(LENGTHS), stable=True)
    batches = [tries(lambda n=n: runtime.step(ids[:n, :3], runtime.encode(np.repeat(features, n, 0)), None))
               for n in BATCHES]
    evidence.value("dynamic_batches", sum(not error for error in batches), stable=True)
    evidence.value("batches_tried", len(BATCHES), stable=True)
    evidence.value("max_difference", max(errors.values()))
    evidence.value("encoder_frames", frames, stable=True)
    evidence.value("base_frames", 3000, stable=True)
    refused = tries(lambda: _transformers(features[:, :, :frames // 2]))
    evidence.value("transformers_error", (refused or "none").split(":")[0].strip(), stable=True)
    lengths = [frames // 4, frames // 2 + 2, frames]
    noise = np.random.default_rng(args.seed).standard_normal((1, runtime.spec.n_mels, 2 * frames)).astype(np.float32)
    apart = {n: _hidden_difference(runtime, noise[:, :, :n]) for n in lengths}
    evidence.value("encoder_lengths", sum(error < 1e-3 for error in apart.values()), stable=True)
    evidence.value("encoder_difference", max(apart.values()))
    longer = tries(lambda: runtime.encode(noise))
    evidence.value("encoder_error", (longer or "none").split(":")[0].strip(), stable=True)
    evidence.series = {"fixed": works, "dynamic": errors,
                       "encoder": {n: error < 1e-3 for n, error in apart.items()} | {2 * frames: not longer}}
    _claims(evidence)


def export_fixed(path: Path, runtime, ids: np.ndarray, cross: list[np.ndarray]):
    """nano's decoder with every axis as in the example; dynamic_shapes (before: dynamic_axes) left out."""
    import onnxruntime
    import torch

    from whisper_lab.export import naming, torch_export
    from whisper_lab.export.wrappers import DecoderGraph

    model = common.torch_runtime().model
    layers = model.config.decoder_layers
    empty = tuple(torch.zeros(1, *shape) for shape, _ in runtime._empty)
    example = (torch.from_numpy(ids[:1, :FIXED]), empty, tuple(torch.from_numpy(array) for array in cross))
    with torch_export.quiet(), torch.no_grad():
        torch.onnx.export(DecoderGraph(model, None).eval(), example, str(path), dynamo=True, verbose=False,
                          opset_version=20, external_data=False, input_names=naming.decoder_inputs(layers),
                          output_names=naming.decoder_outputs(layers))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = common.THREADS
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _fixed_feeds(runtime, ids: np.ndarray, cross: list[np.ndarray]) -> dict:
    return runtime.feeds(ids, cross, None)


def tries(work) -> str | None:
    """None where it runs, else what onnxruntime says."""
    try:
        work()
    except Exception as error:  # onnxruntime's exceptions have no common base
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def _difference(runtime, ids: np.ndarray, features: np.ndarray) -> float:
    """Largest difference of the logits from PyTorch's."""
    torch_runtime = common.torch_runtime()
    right = torch_runtime.step(ids, torch_runtime.encode(features), None)[0]
    return float(np.abs(runtime.step(ids, runtime.encode(features), None)[0] - right).max())


def _transformers(features: np.ndarray):
    """transformers' own encoder."""
    import torch

    with torch.inference_mode():
        return common.torch_runtime().model.model.encoder(torch.from_numpy(features))


def _hidden_difference(runtime, features: np.ndarray) -> float:
    """Largest difference of the encoder's states from PyTorch's over the beginning of the table of positions."""
    return float(np.abs(runtime.hidden_states(features) - common.torch_runtime().encode(features).numpy()).max())


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("fixed_refuses", "A graph with fixed axes runs for the length of its example and no other.",
                   "Een graaf met vaste assen werkt alleen voor de lengte van het voorbeeld.",
                   values["fixed_lengths"] == 1 and values["fixed_error"] != "none", values["fixed_error"])
    evidence.claim("dynamic_runs", "With dynamic axes every length and batch tried runs, and equals PyTorch.",
                   "Met dynamische assen werkt elke geprobeerde lengte en batch, en is het resultaat dat van PyTorch.",
                   (values["dynamic_lengths"], values["dynamic_batches"]) == (len(LENGTHS), len(BATCHES)),
                   values["max_difference"])
    evidence.claim("encoder_shorter", "The encoder's graph takes any shorter window, which transformers refuses; no "
                   "graph takes a longer one.",
                   "De graaf van de encoder aanvaardt elk korter venster, wat transformers weigert; een langer venster "
                   "aanvaardt geen graaf.",
                   values["encoder_lengths"] == 3 and "none" not in (values["transformers_error"],
                                                                     values["encoder_error"]),
                   values["encoder_difference"])


def draw(evidence, figure) -> None:
    panel, series, values = figure.subplots(), evidence.series, evidence.values
    rows = [("decoder, fixed axes\n(tokens)", {n: not error for n, error in series["fixed"].items()}),
            ("decoder, dynamic axes\n(tokens)", {n: error < 1e-2 for n, error in series["dynamic"].items()}),
            ("encoder\n(mel frames)", series["encoder"])]
    for row, (_, found) in enumerate(rows):
        for column, (size, runs) in enumerate(found.items()):
            panel.barh(row, 0.94, left=column, height=0.7, color=common.GREEN if runs else common.RED)
            panel.text(column + 0.47, row, f"{size}\n{'runs' if runs else 'refused'}", ha="center", va="center",
                       color="white", fontsize=14)
    panel.set_yticks(range(len(rows)), [name for name, _ in rows])
    panel.invert_yaxis()
    panel.set_xticks([])
    panel.spines[:].set_visible(False)
    panel.set_title(f"Decoder exported with {values['fixed_sequence']} tokens; onnxruntime: {values['fixed_error']}")


def main(argv: list[str] | None = None) -> int:
    return common.run("dynamic_axes", "2.04", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
