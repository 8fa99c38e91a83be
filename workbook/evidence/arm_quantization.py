"""How is Whisper quantized for an ARM processor, and what has to be checked afterwards?

Measured: which operators int8 adds, the error that each layer has built up, the share of tokens that stay the same,
word errors before and after, what it costs to keep sums in 16 bits, as 03 does and with 7-bit weights, and,
where an emulated arm64 Python is at hand (python -m workbook.evidence.arm64), that the int8 graphs choose the same
tokens there.
"""

import importlib
import json
import tempfile
from pathlib import Path

import numpy as np

from workbook.evidence import common

CLIP = "kitchen.wav"
# On the emulated processor: the encoder's states and the decoder's logits for the features and tokens in a file.
ON_ARM = """
import json, platform, sys, numpy, onnxruntime
given = numpy.load(sys.argv[1])
session = lambda path: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
encoder, decoder = session(sys.argv[2]), session(sys.argv[3])
hidden, *cross = encoder.run(None, {"input_features": given["features"]})
names = [value.name for value in decoder.get_inputs()]
feeds = {name: given["empty"] for name in names if "_self_" in name} | {"input_ids": given["ids"]}
feeds |= dict(zip([name for name in names if "_cross_" in name], cross))
logits = decoder.run(["logits"], feeds)[0]
numpy.savez(sys.argv[4], hidden=hidden, logits=logits)
print(json.dumps({"machine": platform.machine(), "onnxruntime": onnxruntime.__version__}))
"""


def measure(evidence, args) -> None:
    from whisper_lab.compare import graph_facts
    from whisper_lab.compare.heard import hear
    from whisper_lab.export import int8 as quantizer

    pairs, fp32, int8 = common.graphs(), common.onnx_runtime("fp32"), common.onnx_runtime("int8")
    heard = hear(common.torch_runtime(), CLIP, common.samples(CLIP), "en")
    before, after = (sum((graph_facts.operators(graph_facts.read(path)) for path in pairs[precision].values()),
                         start=graph_facts.Counter()) for precision in ("fp32", "int8"))
    evidence.value("operators_added", ", ".join(sorted(set(after) - set(before))))
    evidence.value("linear_layers", after["MatMulInteger"], stable=True)
    sizes = {name: sum(path.stat().st_size for path in pairs[name].values()) for name in ("fp32", "int8")}
    evidence.value("size_ratio", sizes["int8"] / sizes["fp32"])

    rows = layer_errors(pairs, fp32, int8, heard)
    worst = rows[int(np.argmin([row["sqnr_db"] for row in rows]))]
    evidence.value("worst_layer", worst["layer"])
    evidence.value("worst_layer_db", worst["sqnr_db"], "dB")
    evidence.value("median_layer_db", float(np.median([row["sqnr_db"] for row in rows])), "dB")
    common.share(evidence, "top1", *agreement(int8, heard))
    clips = common.spoken(args.quick)
    for name, runtime in (("fp32", fp32), ("int8", int8)):
        rate, words, _ = common.word_error_rate(runtime, clips)
        evidence.value(f"wer_{name}_percent", rate, "%")
        evidence.value("words", words, stable=not args.quick)
    evidence.value("u8s8_max", 2 * 255 * 127, stable=True)
    evidence.value("pair_max", 255 * quantizer.PAIR, stable=True)
    evidence.value("int16_max", 2**15 - 1, stable=True)
    _in_16_bits(evidence, pairs["fp32"]["encoder"], heard)
    _claims(evidence)
    _on_arm(evidence, pairs["int8"], int8, heard)
    evidence.series = {"rows": rows}


def layer_errors(pairs, fp32, int8, heard) -> list[dict]:
    """Signal to noise at the end of each module, int8 against fp32, each fed by its own encoder."""
    from whisper_lab.compare import layers

    feeds, base_feeds = ({"encoder": {"input_features": heard.features},
                          "decoder": runtime.feeds(heard.forced, runtime.hidden_and_cross(heard.features)[1],
                                                   None)} for runtime in (int8, fp32))
    rows = layers.layer_errors({"int8": pairs["int8"]}, pairs["fp32"], {"int8": feeds}, base_feeds,
                               common.THREADS)["int8"]
    return [row for row in rows if row["sqnr_db"] is not None]


def agreement(runtime, heard) -> tuple[int, int]:
    """How many of PyTorch's own tokens the graphs choose too, given PyTorch's history; and how many there are."""
    from whisper_lab.compare.heard import choices

    logits = runtime.step(heard.forced, runtime.encode(heard.features), None)[0]
    right, test = (choices(runtime.rules, heard, one).argmax(-1) for one in (heard.logits, logits))
    return int((right == test).sum()), len(right)


def _in_16_bits(evidence, source: Path, heard) -> None:
    """The encoder's error with 7 bits a weight and with the pairs of 03, and how much coarser these make columns."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from whisper_lab.export import graphs, int8
    from whisper_lab.export.gates import relative_error
    from whisper_lab.export.pair import session

    script = importlib.import_module("03-export-encoder-decoder")
    errors, feeds = [], {"input_features": heard.features}
    with tempfile.TemporaryDirectory() as folder:
        pairs, reduced = Path(folder) / "pairs.onnx", Path(folder) / "reduced.onnx"
        script.to_int8(source, pairs, [])
        quantize_dynamic(source, reduced, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True,
                         weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True})
        int8.shrink_rest(reduced)
        for target in (pairs, reduced):
            (hidden,) = session(target, common.THREADS).run(["encoder_hidden_states"], feeds)
            errors.append(relative_error(hidden, heard.hidden))
    weights = [node.inputs[1].const_value.numpy() for node in graphs.weight_matmuls(graphs.load(source))]
    by = np.concatenate([int8.fit(weight)[1] / int8.row_scales(weight.T) for weight in weights])
    evidence.value("coarser_by", float(by.mean()), stable=True)
    evidence.value("relative_pairs", errors[0])
    evidence.value("relative_7_bits", errors[1])
    evidence.value("reduce_range_ratio", errors[1] / errors[0])


def _on_arm(evidence, pair, int8, heard) -> None:
    """The int8 pair under emulation, against the same pair here; the reason where it cannot be had."""
    from whisper_lab.console import LabError
    from whisper_lab.export.gates import relative_error
    from workbook.evidence import arm64

    reason = arm64.missing()
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        shape, dtype = int8._empty[0]
        np.savez(given, features=heard.features, ids=heard.forced, empty=np.zeros((1, *shape), dtype))
        try:
            said = json.loads(arm64.run(ON_ARM, given, pair["encoder"], pair["decoder"], made)) if not reason else {}
        except LabError as error:
            reason = error.problem
        if reason:
            evidence.value("arm64_reason", reason)
            return
        there = dict(np.load(made))
    logits = int8.step(heard.forced, int8.encode(heard.features), None)[0]
    after = slice(heard.prompt_length - 1, None)  # the prompt is given, not chosen
    same = there["logits"][0, after].argmax(-1) == logits[0, after].argmax(-1)
    evidence.value("arm64_machine", f"{said['machine']} (emulated {arm64.CPU}), onnxruntime {said['onnxruntime']}")
    evidence.value("arm64_relative", relative_error(there["logits"], logits))
    common.share(evidence, "arm64_choice", same.sum(), same.size)
    evidence.value("arm64_error_to_fp32", relative_error(there["logits"], heard.logits))
    evidence.claim("arm64", "On an emulated arm64 processor the int8 graphs choose the same tokens as here.",
                   "Op een geëmuleerde arm64-processor kiezen de int8-grafen dezelfde tokens als hier.",
                   same.mean() > 0.9 and evidence.values["arm64_relative"] < 0.08, evidence.values["arm64_relative"])


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("operators", "int8 adds integer products and quantizes activations while it runs.",
                   "int8 voegt producten van gehele getallen toe en kwantiseert activaties tijdens het rekenen.",
                   {"MatMulInteger", "DynamicQuantizeLinear"} <= set(values["operators_added"].split(", ")),
                   values["operators_added"])
    evidence.claim("words_stay", "whisper-nano's int8 costs at most ten percentage points of WER on these clips.",
                   "int8 kost whisper-nano op deze clips hoogstens tien procentpunt WER.",
                   values["wer_int8_percent"] <= values["wer_fp32_percent"] + 10, values["wer_int8_percent"])
    evidence.claim("tokens_stay", "Given PyTorch's history, nano's int8 chooses at least nine in ten of its tokens on "
                   "this one clip.",
                   "Met dezelfde voorgeschiedenis kiest nano in int8 op deze ene clip minstens negen op de tien keer "
                   "het token van PyTorch.",
                   values["top1_percent"] >= 90, values["top1_percent"])
    evidence.claim("seven_bits", "Weights of 7 bits (reduce_range) make the encoder less exact than pairs that fit.",
                   "Gewichten van 7 bits (reduce_range) maken de encoder minder nauwkeurig dan paren die passen.",
                   values["reduce_range_ratio"] > 1, values["reduce_range_ratio"])
    evidence.claim("overflow", "Two products of 8 bits do not fit a signed 16-bit sum; where the weights come to 128 "
                   "at most, they do.",
                   "Twee producten van 8 bits passen samen niet in 16 bits met teken; waar de gewichten samen "
                   "hoogstens 128 zijn, wel.",
                   values["u8s8_max"] > values["int16_max"] > values["pair_max"], values["u8s8_max"])


def draw(evidence, figure) -> None:
    panel, rows = figure.subplots(), evidence.series["rows"]
    colours = [common.BLUE if row["part"] == "encoder" else common.ORANGE for row in rows]
    heights = [row["sqnr_db"] for row in rows]
    panel.bar(range(len(rows)), heights, color=colours)
    at = int(np.argmin(heights))
    panel.annotate(f"worst: {rows[at]['layer']}", (at, rows[at]["sqnr_db"]), (at, 1.12 * max(heights)), ha="center",
                   arrowprops={"arrowstyle": "->"})
    from matplotlib.patches import Patch

    panel.legend([Patch(color=common.BLUE), Patch(color=common.ORANGE)], ["encoder", "decoder"], loc="upper left",
                 ncols=2)
    panel.set(xlabel="module, in the order of computation", ylabel="signal to quantization noise (dB)",
              title="int8 against fp32, layer by layer: lower is worse")
    panel.set_ylim(0, 1.35 * max(heights))


def main(argv: list[str] | None = None) -> int:
    return common.run("arm_quantization", "2.05", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
