"""Steps 5 and 8: walk through the graphs in Netron, two of them side by side, with a guided tour.

    python 05-explore-in-netron.py --model nano                        # the encoder: fp32 beside int8
    python 05-explore-in-netron.py --model base --parts --slim         # encoder beside decoder, over a slow link
    python 05-explore-in-netron.py --graphs a.onnx b.onnx              # any two ONNX files

    1. what to look for   the stops of a tour: operators that every Whisper has, and those that quantization adds
    2. which graphs       a part in two precisions, encoder beside decoder, or two files
    3. show them          a Netron for each on one page, or with --picture their blocks for a slide

Everything is served to this machine only. Ctrl-C ends it.
"""

import argparse
import signal
import threading
import webbrowser
from pathlib import Path

from whisper_lab import console, flags
from whisper_lab.netron.tour import Landmark

# 1. What to look for -------------------------------------------------------------------------------------------------

# A stop is shown where at least one of the two graphs has the node.
ENCODER = [
    Landmark("Sound comes in", "Two convolutions over the log-mel spectrogram; the second halves the number of frames. "
             "In int8 their weights are stored small (Cast, Mul) and computed in float.", node=r"encoder\.conv1/Conv"),
    Landmark("Positions are added", "A table with a row for each position of the window: why Whisper never hears more "
             "than its 30 s at once (nano: 10 s). A shorter sound takes the first rows.", node=r"encoder/Add"),
    Landmark("The first DynamicQuantizeLinear", "It finds smallest and largest activation while the graph runs, and "
             "gives numbers of 8 bits, a scale and a zero point. fp32 has none: there the LayerNormalization before it "
             "feeds the MatMul directly.", operator="DynamicQuantizeLinear"),
    Landmark("One linear layer", "In fp32 a MatMul and an Add. In int8 MatMulInteger multiplies 8-bit numbers into "
             "32-bit sums, Cast and Mul bring them back to scale, then the same Add. (int4: one MatMulNBits.)",
             node=r"encoder\.layers\.0\.self_attn\.q_proj/MatMul(_quant|_Q4)?"),
    Landmark("Attention scores", "Query times key: both sides are activations, so no weight can be quantized "
             "beforehand, and the MatMul stays as it was.", node=r"encoder\.layers\.0\.self_attn/MatMul"),
    Landmark("The encoder's end", "The final LayerNormalization; from here the parallel branches begin: a key and a "
             "value for every layer of the decoder.", node=r"encoder\.layer_norm/LayerNormalization"),
    Landmark("A key branch", "The cross-attention's keys of decoder layer 0, computed once for every window instead of "
             "once for every token.", node=r"decoder\.layers\.0\.encoder_attn\.k_proj/MatMul(_quant|_Q4)?"),
    Landmark("A value branch", "And its values, beside it.",
             node=r"decoder\.layers\.0\.encoder_attn\.v_proj/MatMul(_quant|_Q4)?"),
]
DECODER = [
    Landmark("The embedding", "A token id picks a row of the table. In int8 the table is 8-bit and lies on its side, "
             "as the last layer reads it: the id picks a column, and a second Gather its scale.",
             node=r"decoder\.embed_tokens/Gather(_quantized)?"),
    Landmark("The causal mask", "No token sees a later one; made from the lengths of input and cache.",
             node=r"decoder/Where"),
    Landmark("The first DynamicQuantizeLinear", "Activations become 8-bit numbers while the graph runs; fp32 has none.",
             operator="DynamicQuantizeLinear"),
    Landmark("One linear layer", "In fp32 a MatMul; in int8 MatMulInteger with Cast and Mul, in int4 MatMulNBits.",
             node=r"decoder\.layers\.0\.self_attn\.q_proj/MatMul(_quant|_Q4)?"),
    Landmark("The cache grows", "New keys are appended to those of earlier tokens; the result leaves as "
             "present_key_self_0. In the optimized pair the fused attention does it.", reads=r"past_key_self_0(/\w+)?"),
    Landmark("Cross-attention", "The query asks the encoder's keys: past_key_cross_0 comes in from outside. In the "
             "optimized pair keys are 8-bit, and so is the query, with a scale for each head.",
             node=r"decoder\.layers\.0\.encoder_attn/(MatMul|scores_products)"),
    Landmark("The logits", "A score for every token of the vocabulary, with the embedding's own table, transposed: it "
             "is stored once for both.", node=r"proj_out/MatMul(_quant)?"),
]
# Only where 03 found such channels: in int8 of whisper-base, and not in that of whisper-nano.
ANY = [Landmark("Outlier channels", "A few channels of what goes into this layer are loud, the loudest at least twice "
                "as loud as any that stays: one 8-bit scale for all would leave few steps for the quiet ones. So Split "
                "hands the loud ones, which 03 put last, to a small MatMul in float beside the 8-bit product, and Add "
                "joins the two. (The optimized encoder makes the loud ones in a product of their own, without Split.)",
                node=r"(encoder|decoder)\.layers\.\d+\.\w+/outliers/(Split|MatMul)"),
       Landmark("Fused attention", "Scores, Softmax and mixing in one operator that only onnxruntime has.",
                operator="MultiHeadAttention"),
       Landmark("The first Cast", "Between half and single precision, or from integers back to float.",
                operator="Cast"),
       Landmark("The first MatMulNBits", "4-bit weights in blocks, each with a scale.", operator="MatMulNBits")]


def landmarks(args, left, right) -> list[Landmark]:
    """Those of encoder and decoder where the graphs are a Whisper's, and of whatever quantization adds."""
    names = {node.name for model in (left, right) for node in model.graph.node}
    known = [ENCODER if "encoder.conv1/Conv" in names else [], DECODER if "decoder/Where" in names else []]
    return [*known[0], *known[1], *ANY]


# 2. Which graphs -----------------------------------------------------------------------------------------------------

def choose(args) -> tuple[Path, Path, str]:
    """The two files to show, and what to call the page."""
    from whisper_lab.names import chosen_name
    from whisper_lab.sessions import find_pair

    if args.graphs:
        left, right = map(Path, args.graphs)
        return left, right, f"{left.name} beside {right.name}"
    name = chosen_name(args.model, args.model_dir)
    if args.show == "parts":
        test = find_pair(args.model_dir, name, args.precision)
        return test["encoder"], test["decoder"], f"{name}, {args.precision}: encoder and decoder"
    base, test = (find_pair(args.model_dir, name, precision) for precision in ("fp32", args.precision))
    return base[args.part], test[args.part], f"{name}, {args.part}: fp32 and {args.precision}"


def shows_parts(args) -> bool:
    """Two different graphs, or one in two precisions?"""
    return args.show == "parts" and not args.graphs


def names(args) -> tuple[str, str]:
    """What the page calls the two graphs."""
    if shows_parts(args):
        return "encoder", "decoder"
    return ("left", "right") if args.graphs or args.precision == "fp32" else ("fp32", args.precision)


# 3. Show them --------------------------------------------------------------------------------------------------------

def pictures(paths: list[Path], output_dir: str) -> None:
    """--picture: each graph as blocks, for slides."""
    from whisper_lab.compare.graph_facts import read
    from whisper_lab.netron import blocks

    for path in dict.fromkeys(paths):
        for made in blocks.draw(read(path), path.stem, Path(output_dir) / f"graph-{path.stem}"):
            console.result(console.plain(made, one_line=True))


def serve(left: Path, right: Path, title: str, args) -> None:
    """A Netron for each graph in a process of its own, one page before them, until Ctrl-C."""
    from whisper_lab.netron import tour
    from whisper_lab.netron.front import Front
    from whisper_lab.netron.pane import Pane

    first, second = Pane(left, args.slim), Pane(right, args.slim)  # both are read before anything is started
    stops = tour.stops(landmarks(args, first.model, second.model), first.model, second.model)
    counts = tour.counts(first.model, second.model)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # both end the panes and remove their folders
        signal.signal(number, lambda *_: stop.set())
    panes = {"left": first, "right": second}
    with first, second, \
            Front(panes, title, stops, counts, args.port, names(args), not shows_parts(args)) as front:
        address = f"http://127.0.0.1:{front.port}/"
        console.result(f"{console.plain(title, one_line=True)}\n  page   {address}")
        for side, pane in panes.items():
            name = console.plain(pane.path.name, one_line=True)
            console.result(f"  {side:<6} {address}{side}/   {name}, {pane.size_bytes / 1e6:.2f} MB")
        console.note("from your own computer", "one port is enough", "VS Code: Ports panel, Forward a Port, "
                     f"{front.port}; or: ssh -L {front.port}:127.0.0.1:{front.port} user@this-machine")
        if args.browse:
            webbrowser.open(address)
        console.note("running", "Ctrl-C ends it", "served to this machine only")
        stop.wait()
    console.note("ended", "both graphs", "asked to stop")


# All together --------------------------------------------------------------------------------------------------------

def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__, "output_dir", "quiet", "log_level")
    flags.add_flags(parser, "model")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR",
                        help="where 03 wrote the graphs (default: %(default)s)")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8", "int4"],
                        help="what to show beside fp32 (default: int8); with --parts, of both (default: fp32)")
    parser.add_argument("--part", choices=["encoder", "decoder"], help="(default: encoder)")
    parser.add_argument("--parts", dest="show", action="store_const", const="parts", default="precisions",
                        help="show encoder beside decoder instead of one part in two precisions")
    parser.add_argument("--show", choices=["precisions", "parts"], default="precisions",
                        help=argparse.SUPPRESS)  # --parts by its first name
    parser.add_argument("--graphs", nargs=2, metavar=("A", "B"), help="show two ONNX files instead")
    parser.add_argument("--port", type=flags.between(0, 65535, int), metavar="N",
                        help="of the page; 0 takes any free one (default: 8090, or the next free one)")
    parser.add_argument("--slim", action="store_true", help="leave the weights' numbers out: opens at once everywhere")
    parser.add_argument("--picture", action="store_true", help="write SVG and PNG of the blocks, and end")
    parser.add_argument("--browse", action="store_true", help="open the page in a browser")
    args = flags.parse(parser, argv)
    if args.picture and (args.port is not None or args.browse):
        parser.error("--picture writes files and serves no page: leave out --port and --browse")
    if args.part and (args.show == "parts" or args.graphs):
        parser.error("--part chooses between encoder and decoder, and here both graphs are chosen: leave it out")
    args.part = args.part or "encoder"
    args.precision = args.precision or ("fp32" if args.show == "parts" else "int8")  # 03 alone writes fp32
    return args


def main(argv: list[str] | None = None) -> int:
    """Choose, then draw or serve."""
    args = arguments(argv)
    from whisper_lab import seals

    left, right, title = choose(args)
    for path in dict.fromkeys((left, right)):
        seals.warn(path)
    if args.picture:
        pictures([left, right], args.output_dir)
    else:
        serve(left, right, title, args)
    return 0


if __name__ == "__main__":
    console.run(main)
