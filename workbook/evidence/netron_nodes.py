"""Which nodes does Netron show in nano's graphs, and what does int8 change about them?

Counted: operators of both graphs in float32, int8 and int4; frames in, positions out; the cross-attention's branches;
in int8 the float products that are neither attention nor outlier channels, which nano has none of. Where whisper-base
would differ, the number follows from its six decoder layers.
"""

import numpy as np

from workbook.evidence import common

SHOWN = ("MatMul", "MatMulInteger", "DynamicQuantizeLinear", "LayerNormalization", "Softmax", "Gelu", "Conv", "Cast",
         "Mul", "Add")


def measure(evidence, args) -> None:
    from whisper_lab.compare import graph_facts
    from whisper_lab.export import graphs

    pairs = common.graphs()
    models = {(precision, part): graph_facts.read(path) for precision, pair in pairs.items()
              for part, path in pair.items()}
    counts = {key: graph_facts.operators(model) for key, model in models.items()}

    def both(precision: str, operator: str) -> int:
        return sum(counts[precision, part][operator] for part in ("encoder", "decoder"))

    for precision in ("fp32", "int8"):
        for part in ("encoder", "decoder"):
            evidence.value(f"nodes_{precision}_{part}", counts[precision, part].total(), stable=True)
        evidence.value(f"matmul_{precision}", both(precision, "MatMul"), stable=True)
        evidence.value(f"matmul_{precision}_encoder", counts[precision, "encoder"]["MatMul"], stable=True)
    evidence.value("matmulinteger_int8", both("int8", "MatMulInteger"), stable=True)
    evidence.value("dynamicquantizelinear_int8", both("int8", "DynamicQuantizeLinear"), stable=True)
    others = [name for part in ("encoder", "decoder") for name in other_products(models["int8", part])]
    evidence.value("matmul_int8_other", len(others), stable=True)
    evidence.value("conv", counts["fp32", "encoder"]["Conv"], stable=True)
    evidence.value("matmulnbits_int4", both("int4", "com.microsoft.MatMulNBits"), stable=True)
    evidence.value("gelu", both("fp32", "Gelu"), stable=True)
    evidence.value("layernorm_encoder", counts["fp32", "encoder"]["LayerNormalization"], stable=True)
    evidence.value("layernorm_decoder", counts["fp32", "decoder"]["LayerNormalization"], stable=True)
    encoder = graphs.load(pairs["fp32"]["encoder"]).graph
    spec = common.torch_runtime().spec
    window = np.zeros((1, spec.n_mels, spec.n_frames), np.float32)  # the graph takes shorter ones too
    evidence.value("frames_in", spec.n_frames, stable=True)
    evidence.value("positions_out", common.onnx_runtime().hidden_states(window).shape[1], stable=True)
    branches = [value.name for value in encoder.outputs if "_cross_" in value.name]
    evidence.value("cross_branches", len(branches), stable=True)
    evidence.value("cross_branches_base", 2 * 6, stable=True)
    evidence.value("embedding_copies", _embedding_copies(models["fp32", "decoder"]), stable=True)
    evidence.series = {"counts": {precision: {name: both(precision, name) for name in SHOWN}
                                  for precision in ("fp32", "int8")}}
    _claims(evidence, encoder)


def _embedding_copies(decoder) -> int:
    """Tensors as large as the token embedding, either way round."""
    rows = [sorted(tensor.dims) for tensor in decoder.graph.initializer]
    embedding = next(sorted(tensor.dims) for tensor in decoder.graph.initializer if "embed_tokens" in tensor.name)
    return rows.count(embedding)


def other_products(model) -> list[str]:
    """Names of an int8 graph's float MatMul nodes that are neither attention, between two activations, nor the outlier
    channels of a layer (export/outliers.py)."""
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # in order: what is made of stored numbers alone is a weight too
        if node.input and stored.issuperset(node.input):
            stored.update(node.output)
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and stored & {*node.input}
            and not node.name.endswith("/outliers/MatMul")]


def _claims(evidence, encoder) -> None:
    values = evidence.values
    config = common.torch_runtime().model.config
    linear = 6 * config.encoder_layers + 2 * config.decoder_layers + 8 * config.decoder_layers + 1
    evidence.claim("linear", "In int8 every linear layer is a MatMulInteger; float MatMul is left in attention and, "
                   "where a layer has outlier channels, for those.",
                   "In int8 is elke lineaire laag een MatMulInteger; gewone MatMul blijft over in de attention en, "
                   "waar een laag outliers heeft, voor die kanalen.",
                   values["matmulinteger_int8"] == linear and values["matmul_int8_other"] == 0,
                   values["matmulinteger_int8"])
    evidence.claim("halved", "The second convolution halves the frames: half as many positions come out.",
                   "De tweede convolutie halveert de frames: er komen half zoveel posities uit.",
                   2 * values["positions_out"] == values["frames_in"], values["positions_out"])
    evidence.claim("branches", "The encoder ends in a key and a value for each decoder layer.",
                   "De encoder eindigt in een key en een value per decoderlaag.",
                   values["cross_branches"] == 2 * config.decoder_layers, values["cross_branches"])
    evidence.claim("embedding", "The token embedding is stored in the decoder once, although it is used twice.",
                   "De token-embedding staat één keer in de decoder, al wordt ze tweemaal gebruikt.",
                   values["embedding_copies"] == 1, values["embedding_copies"])
    evidence.claim("last_norm", "The encoder's first output comes straight from its last LayerNormalization.",
                   "De eerste uitvoer van de encoder komt recht uit zijn laatste LayerNormalization.",
                   encoder.outputs[0].producer().op_type == "LayerNormalization",
                   encoder.outputs[0].producer().op_type)


def draw(evidence, figure) -> None:
    panel, counts = figure.subplots(), evidence.series["counts"]
    for offset, (precision, colour) in zip((-0.2, 0.2), (("fp32", common.GREY), ("int8", common.BLUE)), strict=True):
        bars = panel.barh([row + offset for row in range(len(SHOWN))], list(counts[precision].values()), 0.38,
                          color=colour, label=precision)
        panel.bar_label(bars, padding=3, fontsize=12)
    panel.set_yticks(range(len(SHOWN)), SHOWN)
    panel.invert_yaxis()
    panel.set(xlabel="nodes in encoder and decoder together", title="whisper-nano: what int8 adds and replaces")
    panel.legend(loc="center right")


def main(argv: list[str] | None = None) -> int:
    return common.run("netron_nodes", "3.09", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
