"""Steps 4 and 6: Whisper's encoder and decoder as two ONNX graphs, in four precisions, each proven against PyTorch.

    python 03-export-encoder-decoder.py                          # float32 -> whisper_model_dir/
    python 03-export-encoder-decoder.py --precision int8         # a quarter of the size
    python 03-export-encoder-decoder.py --model nano --precision all

The encoder turns log-mel features into hidden states and, once per recording, into the keys and values of every
decoder layer's cross-attention. The decoder turns tokens and those caches into logits and longer self caches; a cache
of length 0 is allowed, so the same graph serves the prompt and every later step.
"""

import re
import time
from pathlib import Path

from whisper_lab import console

ENCODER_DIMS = ({0: "batch"},)
EIGHT_BITS = r"(v_proj|out_proj)/|^encoder\..*fc2/"  # layers that int4 gives 8 bits


def decoder_dims(layers: int) -> tuple:
    """Which axes may change from call to call: all others are fixed in the graph, and onnxruntime plans for them."""
    self_caches = ({0: "batch", 2: "past"},) * (2 * layers)  # key and value of each layer
    cross_caches = ({0: "audio"},) * (2 * layers)  # batch = audio x beams: beams share the cross caches
    return {0: "batch", 1: "sequence"}, self_caches, cross_caches


# 1. Wrap and export --------------------------------------------------------------------------------------------------

def export_fp32(model, folder: Path, name: str, alignment_heads: list | None) -> dict[str, Path]:
    """PyTorch -> two float32 graphs: torch.export records what the wrappers compute, and each step becomes a node."""
    import torch

    from whisper_lab.export import graphs, naming, torch_export
    from whisper_lab.export.wrappers import DecoderGraph, EncoderGraph

    layers = model.config.decoder_layers
    sound, text = torch_export.example_inputs(model.config)
    work = {"encoder": (EncoderGraph(model), sound, ["input_features"], naming.encoder_outputs(layers), ENCODER_DIMS),
            "decoder": (DecoderGraph(model, alignment_heads), text, naming.decoder_inputs(layers),
                        naming.decoder_outputs(layers, bool(alignment_heads)), decoder_dims(layers))}
    paths = naming.pair(folder, name)
    folder.mkdir()
    for part, (module, examples, inputs, outputs, dims) in work.items():
        console.note(part, "exporting", f"{torch_export.parameters(module) / 1e6:.1f} M weights")
        with torch_export.quiet(), torch.no_grad():
            program = torch.onnx.export(module.eval(), examples, dynamo=True, opset_version=graphs.OPSET,
                                        input_names=inputs, output_names=outputs, dynamic_shapes=dims,
                                        external_data=False, verbose=False)
        graphs.save(torch_export.tidy(program), paths[part])
        torch_export.let_go(program)
    return paths


# 2. Convert ----------------------------------------------------------------------------------------------------------

def to_fp16(source: Path, target: Path, mode: str) -> str:
    """Half the bytes per weight; where half precision lacks room (LayerNorm, Softmax, residual sums) float32 stays."""
    from whisper_lab.export import fp16, graphs

    model = graphs.load(source)
    count = fp16.convert(model) if mode == "full" else fp16.store(model)
    graphs.save(model, target)
    return f"{count} nodes compute in float16" if mode == "full" else f"{count} weights stored in float16"


def prepare(fp32: dict[str, Path], folder: Path, runtime, args) -> tuple[dict[str, Path], dict]:
    """The float32 graphs once more, the same functions made easier for 8 bits; returns them, and what was done.

    A few channels of a trained Whisper's activations are a hundred times louder than the rest: outliers. 256 steps laid
    over all of them leave two or three for the rest. So (1) behind a LayerNorm of the encoder the loud channels are
    divided down and the next weight's rows multiplied up, and (2) elsewhere they are computed in float beside the int8
    product. Which channels is found by listening, here, to clips and noise; a model of random weights has none.
    """
    from whisper_lab.export import calibration, graphs, outliers, smooth

    sounds, easier, smoothed, found = calibration.sounds(runtime.spec, args.seed), {}, {}, []
    feeds = {"encoder": [{"input_features": sound} for sound in sounds],
             "decoder": calibration.spoken(fp32, sounds[:2], runtime, args.threads)}  # noise says nothing
    folder.mkdir()
    for part, path in fp32.items():
        heard, model = calibration.listen(path, feeds[part], args.threads), graphs.load(path)
        if part == "encoder":
            smoothed = smooth.encoder(model, heard)
        found += outliers.split(model, heard, outliers.LOUD[part])
        easier[part] = folder / path.name
        graphs.save(model, easier[part])
    console.note("activations", f"{len(smoothed)} smoothed", "loud channels divided down, their weights multiplied up")
    for each in found:
        console.note(f"outliers in {each.layer}", f"{len(each.channels)} channels stay in float", each.reason)
    return easier, {"smoothed": smoothed, "outliers": {each.layer: each.channels for each in found}}


def to_int8(source: Path, target: Path, excluded: list[str], reduce_range: bool) -> str:
    """A quarter of the bytes: each activation is quantized while it runs, each weight once and for all, here.

    DynamicQuantizeLinear finds the range of the activation, MatMulInteger multiplies 8-bit numbers into 32-bit sums,
    Cast and Mul bring them back to scale. `quantize_dynamic` does this to every MatMul on a constant.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from whisper_lab.export import graphs, torch_export

    with torch_export.quiet(), torch_export.one_copy():
        quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=reduce_range,
                         weight_type=QuantType.QInt8, nodes_to_exclude=["proj_out/MatMul", *excluded],
                         extra_options={"MatMulConstBOnly": True},  # attention between activations stays float32
                         use_external_data_format=graphs.is_large(source))
    return finish_small(target, reduce_range)


def to_int4(source: Path, target: Path, reduce_range: bool) -> str:
    """Weights of 4 bits in blocks of 32 with a scale each; activations become 8 bits inside the MatMulNBits kernel.

    The values of attention, and the layers that add to what all later layers read, get 8 bits: an error there stays,
    where one in a query or key only shifts an average. The decoder's fc2 does with 4: its every byte costs time.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    from whisper_lab.export import graphs, torch_export

    fine, model = excluded_layers(source, EIGHT_BITS), onnx.load(source)
    with torch_export.quiet():
        for bits, later in ((4, fine), (8, [])):  # what the first round leaves out, the second takes
            quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=32, is_symmetric=True, accuracy_level=4,
                                             nodes_to_exclude=["proj_out/MatMul", *later])
            quantizer.process()
            model = quantizer.model.model
        quantizer.model.save_model_to_file(str(target), graphs.is_large(source))
    return finish_small(target, reduce_range)


def to_optimized(source: Path, target: Path, config, excluded: list[str], reduce_range: bool) -> str:
    """int8 once more, with each attention one operator that only onnxruntime has, and the cross caches in int8 too."""
    from whisper_lab.export import graphs, optimize, torch_export

    model = graphs.load(source)
    with torch_export.quiet():
        count = optimize.fuse_attention(model, config, int8_cross=True)
    fused = target.with_name(f"fused_{target.name}")
    graphs.save(model, fused)
    return f"{count} attentions fused, {to_int8(fused, target, excluded, reduce_range)}"


def finish_small(path: Path, reduce_range: bool) -> str:
    """What the quantizers leave large: token embedding (one int8 copy for both uses), convolutions, positions."""
    from whisper_lab.export import graphs, int8

    model = graphs.load(path)
    embedding = int8.share_embedding(model, int8.REDUCED if reduce_range else int8.LEVELS)
    convolutions, positions = int8.shrink_convolutions(model), int8.shrink_positions(model)
    graphs.rewrite(model, path)
    types = graphs.node_types(model)
    layers = types["MatMulInteger"] + types["MatMulNBits"] - len(embedding)
    rest = (("the embedding (int8, shared)", embedding), (f"{len(convolutions)} convolutions (int8)", convolutions),
            ("positions (fp16)", positions))
    return ", ".join([f"{layers} linear layers", *(text for text, found in rest if found)])


# 3. Check, then publish ----------------------------------------------------------------------------------------------

def convert(precision: str, fp32: dict[str, Path], pair: dict[str, Path], args, config=None) -> tuple[dict, dict]:
    """Make one precision of both graphs; with `config`, the fused pair.

    Returns per part what was converted, and how many layers --int8-exclude kept.
    """
    from whisper_lab.export import graphs

    done, kept = {}, {}
    for part, source in fp32.items():
        excluded = excluded_layers(source, args.int8_exclude) if precision == "int8" else []
        if precision != "fp32":
            console.note(part, f"converting to {precision}", "from the float32 graph")
        if precision == "fp16":
            done[part] = to_fp16(source, pair[part], args.fp16_mode)
        elif config is not None:
            done[part] = to_optimized(source, pair[part], config, excluded, args.reduce_range)
        elif precision == "int8":
            done[part] = to_int8(source, pair[part], excluded, args.reduce_range)
        elif precision == "int4":
            done[part] = to_int4(source, pair[part], args.reduce_range)
        else:
            done[part] = "nothing"
        kept[part] = len(excluded)
        graphs.release_memory()
    return done, kept


def excluded_layers(source: Path, pattern: str | None) -> list[str]:
    """Names of the linear layers that match, such as those that --int8-exclude keeps in float32."""
    from whisper_lab.export import graphs

    names = [node.name for node in graphs.weight_matmuls(graphs.load(source))] if pattern else []
    return [name for name in names if name != "proj_out/MatMul" and re.search(pattern, name)]


def recipe(precision: str, args) -> dict:
    """How a precision was made, for the metadata: what someone needs to make the same bytes again."""
    return {"fp32": {}, "fp16": {"mode": args.fp16_mode},
            "int8": {"exclude": args.int8_exclude, "reduce_range": args.reduce_range, "weights": "int8 per channel"},
            "int4": {"block_size": 32, "symmetric": True, "accuracy_level": 4, "reduce_range": args.reduce_range,
                     "eight_bits": EIGHT_BITS},
            }[precision]


def arguments(argv: list[str] | None):
    """The command line."""
    parser = console.parser(__doc__, "model", "output_dir", "threads", "seed", "output_json", "quiet", "log_level",
                            output_dir="whisper_model_dir")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8", "int4", "all"], default="fp32",
                        help="what to write (default: %(default)s)")
    parser.add_argument("--no-verify", action="store_true", help="skip the parity gates; the graphs' metadata says so")
    parser.add_argument("--fp16-mode", choices=["full", "weights"], default="full",
                        help="compute in half precision, or only store weights so (default: %(default)s)")
    parser.add_argument("--int8-exclude", metavar="REGEX", help="linear layers to keep in float32, such as 'fc2'")
    parser.add_argument("--reduce-range", action="store_true",
                        help="7-bit int8 weights, for processors with AVX2 or AVX-512 but no VNNI: their sums overflow")
    parser.add_argument("--alignment-heads", action="store_true",
                        help="add the decoder output cross_attention, which word timestamps are made of")
    parser.add_argument("--optimize", action="store_true",
                        help="also write an _optimized int8 pair with onnxruntime's fused operators")
    parser.add_argument("--layout", choices=["pair", "genai"], default="pair",
                        help="genai: also a folder <name>_<precision>_genai that onnxruntime-genai opens; the graphs "
                             "stay the same (default: %(default)s)")
    parser.add_argument("--sensitivity", action="store_true",
                        help="quantize one layer at a time and rank what it costs in reports/")
    args = console.parse(parser, argv)
    if args.int8_exclude is not None:
        try:
            re.compile(args.int8_exclude)
        except re.error as error:
            parser.error(f"--int8-exclude: {error}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Resolve, load, export, convert, check, publish, report."""
    args = arguments(argv)
    from whisper_lab import checkpoints
    from whisper_lab.export import layouts, naming, publish
    from whisper_lab.export.run import Export

    checkpoint = checkpoints.resolve(args.model)
    work = Export(checkpoint, args)  # loads the model, and PyTorch's answers for the gates
    if args.layout == "genai":  # said before the work, not after it
        layouts.check_genai(checkpoint.name, work.runtime.spec)
    with publish.stage(args.output_dir) as folder:
        start = time.perf_counter()
        fp32 = export_fp32(work.model, folder / "fp32", checkpoint.name, work.alignment_heads)
        work.fp32_done(fp32, time.perf_counter() - start)
        precisions = naming.PRECISIONS if args.precision == "all" else [args.precision]
        easier, facts = {}, {}
        if "int8" in precisions or args.optimize or args.sensitivity:
            easier, facts = prepare(fp32, folder / "prepared", work.runtime, args)
        for precision in precisions:
            start, pair = time.perf_counter(), naming.pair(folder / precision, checkpoint.name, precision)
            (folder / precision).mkdir(exist_ok=True)
            done, kept = convert(precision, fp32 | easier if precision == "int8" else fp32, pair, args)
            seconds = time.perf_counter() - start
            # Metadata, the gates, and if they pass: into place.
            made = recipe(precision, args) | (facts if precision == "int8" else {})
            placed = work.finish(precision, pair, made, done, kept, seconds)
            fp32 = {part: path if path.exists() else placed[part] for part, path in fp32.items()}
            if args.layout == "genai":
                layouts.write_genai(checkpoint, work.model.config, work.runtime.spec, placed, precision)
        if args.optimize:
            (folder / "optimized").mkdir()
            start = time.perf_counter()
            pair = naming.pair(folder / "optimized", checkpoint.name, "int8", optimized=True)
            done, kept = convert("int8", fp32 | easier, pair, args, work.model.config)
            made = recipe("int8", args) | facts | {"fused": "every attention"}
            work.finish("int8", pair, made, done, kept, time.perf_counter() - start, optimized=True)
        if args.sensitivity:
            work.sensitivity(fp32 | easier, folder / "sensitivity")
    work.report()
    return 0


if __name__ == "__main__":
    console.run(main)
