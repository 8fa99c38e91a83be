"""Steps 4 and 6: Whisper's encoder and decoder as two ONNX graphs, in four precisions, each checked against PyTorch.

    python 03-export-encoder-decoder.py                          # float32 -> whisper_model_dir/; its table -> reports/
    python 03-export-encoder-decoder.py --precision int8         # a quarter of the size
    python 03-export-encoder-decoder.py --model nano --precision all

    1. trace      torch.export records what PyTorch computes: two float32 graphs, or those that an earlier run left
    2. prepare    the same functions made easier for 8 bits, where a few channels are far larger than the rest
    3. convert    float16, int8 and int4, each from the float32 graphs
    4. check      gates against PyTorch; a pair that passes is renamed into place

The encoder turns log-mel features into hidden states and the keys and values of every decoder layer's cross-attention.
The decoder turns tokens and those caches into logits and longer self caches; a cache may be empty, so the same graph
serves the prompt and every later step.
"""

import time
from pathlib import Path

from whisper_lab import console, flags, names

# 1. Trace ------------------------------------------------------------------------------------------------------------

def decoder_dims(layers: int) -> tuple:
    """Which axes may change from call to call: all others are fixed in the graph, and onnxruntime plans for them.

    As many positions as the encoder made: half as many as it heard frames, and that may be less than a whole window.
    """
    self_caches = ({0: "batch", 2: "past"},) * (2 * layers)  # key and value of each layer
    cross_caches = ({0: "audio", 2: "positions"},) * (2 * layers)  # batch = audio x beams: beams share these
    return {0: "batch", 1: "sequence"}, self_caches, cross_caches


def export_fp32(model, folder: Path, name: str, alignment_heads: list | None) -> dict[str, Path]:
    """PyTorch -> two float32 graphs: torch.export records what the wrappers compute, and each step becomes a node."""
    from whisper_lab.export import naming, torch_export
    from whisper_lab.export.wrappers import DecoderGraph, EncoderGraph

    layers, paths = model.config.decoder_layers, names.pair(folder, name)
    sound, text = torch_export.example_inputs(model.config)
    folder.mkdir()
    trace(EncoderGraph(model), sound, paths["encoder"], input_names=["input_features"],
          output_names=naming.encoder_outputs(layers), dynamic_shapes=({0: "batch", 2: "frames"},))
    trace(DecoderGraph(model, alignment_heads), text, paths["decoder"], input_names=naming.decoder_inputs(layers),
          output_names=naming.decoder_outputs(layers, bool(alignment_heads)), dynamic_shapes=decoder_dims(layers))
    return paths


def trace(module, examples: tuple, path: Path, **names) -> None:
    """Record one call of the module with example inputs, and write what was recorded as a graph."""
    import torch

    from whisper_lab.export import graphs, torch_export

    console.note(path.stem, "exporting", f"{torch_export.parameters(module) / 1e6:.1f} M weights")
    with torch_export.quiet(), torch.no_grad():
        program = torch_export.recorded_once(lambda: torch.onnx.export(
            module.eval(), examples, dynamo=True, opset_version=graphs.OPSET, verbose=False, **names))
    graphs.save(torch_export.tidy(program), path)
    torch_export.let_go(program)


# 2. Prepare ----------------------------------------------------------------------------------------------------------

def prepare(fp32: dict[str, Path], folder: Path, runtime, seed: int, threads: int | None) -> tuple[dict, dict]:
    """The float32 graphs once more, the same functions made easier for 8 bits; returns them, and what was done.

    Outliers, a few channels of a trained Whisper's activations, are a hundred times larger than the rest, to which 256
    steps over all then leave two or three. `smooth` divides them down before a layer and multiplies the weight up;
    `split` computes them in float beside the int8 product. Calibration finds them; random weights have none.
    """
    from whisper_lab.export import calibration, graphs, outliers

    windows = calibration.windows(runtime.spec, seed)
    feeds = {"encoder": lambda: [{"input_features": window} for window in windows],
             "decoder": lambda: calibration.decoder_inputs(fp32, windows[:2], runtime, threads)}  # noise has no words
    easier, smoothed, found = {part: folder / path.name for part, path in fp32.items()}, {}, []
    folder.mkdir()
    for part, path in fp32.items():
        seen, model = calibration.activations(path, feeds[part](), threads), graphs.load(path)
        smoothed |= outliers.smooth(model, seen) if part == "encoder" else {}
        found += outliers.split(model, seen, outliers.LOUD[part])
        graphs.save(model, easier[part])
        del seen, model  # before the next is opened
    outliers.tell(smoothed, found)
    return easier, {"smoothed": smoothed, "outliers": {each.layer: each.channels for each in found}}


# 3. Convert ----------------------------------------------------------------------------------------------------------

def to_fp16(source: Path, target: Path, mode: str) -> str:
    """Half the bytes per weight; where half precision lacks room (LayerNorm, Softmax, residual sums) float32 stays."""
    from whisper_lab.export import fp16, graphs

    model = graphs.load(source)
    count = fp16.convert(model) if mode == "full" else fp16.store(model)
    graphs.save(model, target)
    return f"{count} nodes compute in float16" if mode == "full" else f"{count} weights stored in float16"


def to_int8(source: Path, target: Path, excluded: list[str]) -> str:
    """A quarter of the bytes: each activation is quantized while it runs, each weight once and for all, here.

    DynamicQuantizeLinear finds the range of the activation, MatMulInteger multiplies 8-bit numbers into 32-bit sums,
    Cast and Mul bring them back to scale. `quantize_dynamic` does this to every MatMul on a constant. int8.fit
    then rounds the weights anew, lest two products overflow the 16 bits in which some processors add them.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from whisper_lab.export import graphs, int8, torch_export

    with torch_export.quiet(), torch_export.one_copy():
        quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
                         nodes_to_exclude=["proj_out/MatMul", *excluded],
                         extra_options={"MatMulConstBOnly": True},  # attention between activations stays float32
                         use_external_data_format=graphs.is_large(source))
    return int8.shrink_rest(target, source)


def to_int4(source: Path, target: Path, recipe: dict) -> str:
    """Weights of 4 bits in blocks with a scale each; activations become 8 bits inside the MatMulNBits kernel.

    The values of attention, and the layers that add to what all later layers read, get 8 bits: an error there stays,
    where one in a query or key only shifts an average. fc1 gets 8 bits too, except in the lower half of the decoder.
    """
    from whisper_lab.export import blocks, graphs, int8, torch_export

    fine, sizes = graphs.linear_layers(source, recipe["eight_bits"]), recipe["block_sizes"]
    with torch_export.quiet():  # what the first round leaves out, the second takes
        blocks.quantize(source, target, (4, sizes[4], fine), (8, sizes[8], []))
    return int8.shrink_rest(target, share=blocks.share_embedding)


def recipe(precision: str, config, fp16_mode: str = "full", exclude: str | None = None) -> dict:
    """How a precision is made: `convert` follows it, and the metadata has it, so that anyone can make the same bytes.

    config: the model's; exclude: a regular expression, the layers that int8 leaves in float32; None: none of them.
    """
    from whisper_lab.export import blocks, int8

    if precision == "int4":
        return {"block_sizes": {4: 32, 8: blocks.size(config.d_model)}, "symmetric": True,
                "accuracy_level": blocks.ACCURACY, "eight_bits": blocks.eight_bits(config.decoder_layers)}
    return {"fp32": {}, "fp16": {"mode": fp16_mode},
            "int8": {"exclude": exclude, "weights": "int8 per channel", "largest_pair": int8.PAIR}}[precision]


def convert(precision: str, fp32: dict[str, Path], pair: dict[str, Path], recipe: dict, config=None
            ) -> tuple[dict[str, str], dict[str, int]]:
    """Make one precision of both graphs; with the model's `config`, the optimized pair.

    Returns per part what was converted, in words, and how many layers the recipe's `exclude` kept in float32.
    """
    from whisper_lab.export import graphs, optimize

    done, kept = {}, {}
    for (part, source), target in zip(fp32.items(), pair.values(), strict=True):
        if precision != "fp32":
            console.note(part, f"converting to {precision}", "from the float32 graph")
        source, fused = (source, "") if config is None else optimize.write_fused(source, target, config)
        excluded = graphs.linear_layers(source, recipe.get("exclude"))
        done[part] = fused + ("nothing" if precision == "fp32"
                              else to_fp16(source, target, recipe["mode"]) if precision == "fp16"
                              else optimize.to_blocks(source, target, excluded, config) if fused and part == "decoder"
                              else to_int8(source, target, excluded) if precision == "int8"
                              else to_int4(source, target, recipe))
        kept[part] = len(excluded)
        graphs.release_memory()
    return done, kept


# 4. Check, then publish ----------------------------------------------------------------------------------------------

def export(work, args, folder: Path) -> None:
    """All that was asked for, made in `folder` first: float32, and from it the precisions one by one."""
    start = time.perf_counter()
    wanted = [(precision, False) for precision in work.settings.precisions] + [("int8", True)] * args.optimize
    work.plan(len(wanted))
    fp32 = work.traced_before(folder / "fp32") or \
        export_fp32(work.model, folder / "fp32", work.checkpoint.name, work.alignment_heads)
    work.fp32_done(fp32, time.perf_counter() - start, ask_pytorch=work.settings.verify or args.sensitivity)
    work.find_silence(fp32)  # that the encoder has to hear behind a sound: short ones need not fill the window
    for_8_bits = args.sensitivity or any(precision == "int8" for precision, _ in wanted)
    easier, outliers = (prepare(fp32, folder / "prepared", work.runtime, args.seed, args.threads) if for_8_bits
                        else ({}, {}))
    for precision, optimized in wanted:
        made = recipe(precision, work.model.config, args.fp16_mode, args.int8_exclude)
        sources, made = (fp32 | easier, made | outliers) if precision == "int8" else (fp32, made)
        made |= {"fused": "every attention", "decoder": "8 bits in blocks"} if optimized else {}
        pair = work.begin(precision, folder, optimized)
        done, kept = convert(precision, sources, pair, made, work.model.config if optimized else None)
        placed = work.finish(precision, pair, made, done, kept, optimized)  # metadata, gates, then into place
        fp32 = {part: path if path.exists() else placed[part] for part, path in fp32.items()}
        for layout in [] if optimized else args.layout:
            work.lay_out(layout, precision, placed, folder)
    if args.sensitivity:
        work.sensitivity(fp32 | easier, folder / "sensitivity")


def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__, "model", "output_dir", "threads", "seed", "output_json", "quiet", "log_level",
                          output_dir="whisper_model_dir")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8", "int4", "all"], default="fp32",
                        help="what to write (default: %(default)s)")
    parser.add_argument("--optimize", action="store_true", help="also an _optimized int8 pair: faster, fused nodes")
    parser.add_argument("--sensitivity", action="store_true", help="rank what int8 costs, one layer at a time")
    parser.add_argument("--no-verify", action="store_true", help="skip the gates; the graphs' metadata says so")
    parser.add_argument("--alignment-heads", action="store_true", help="add an output that word timestamps need")
    more = flags.rare(parser)
    more.add_argument("--fp16-mode", choices=["full", "weights"], default="full",
                      help="compute in float16, or only store it (default: %(default)s)")
    more.add_argument("--int8-exclude", type=flags.pattern, metavar="REGEX",
                      help="linear layers to keep in float32, such as 'fc2'")
    more.add_argument("--layout", nargs="+", choices=["genai", "optimum", "sherpa"], default=[],
                      help="also a folder for onnxruntime-genai, optimum-onnx and transformers.js, or sherpa-onnx")
    args = flags.parse(parser, argv)
    makes_int8 = args.precision in ("int8", "all") or args.optimize or args.sensitivity
    if args.int8_exclude and not makes_int8:
        parser.error(f"--int8-exclude is about int8, and {args.precision} is asked for")
    if args.fp16_mode != "full" and args.precision not in ("fp16", "all"):
        parser.error(f"--fp16-mode is about fp16, and {args.precision} is asked for")
    return args


def main(argv: list[str] | None = None) -> int:
    """Load the checkpoint, export it, report."""
    args = arguments(argv)
    from whisper_lab import checkpoints
    from whisper_lab.export import layouts, publish
    from whisper_lab.export.run import Export, Settings

    checkpoint = checkpoints.resolve(args.model)
    precisions = names.PRECISIONS if args.precision == "all" else (args.precision,)
    work = Export(checkpoint, Settings(Path(args.output_dir), precisions, args.threads, args.seed, args.fp16_mode,
                                       args.alignment_heads, verify=not args.no_verify))
    for layout in args.layout:  # refused before the work, not after it
        layouts.check(layout, checkpoint.name, work.runtime.spec)
    with publish.stage(args.output_dir) as folder:
        export(work, args, folder)
    work.report(vars(args), args.output_json)
    return 0


if __name__ == "__main__":
    console.run(main)
