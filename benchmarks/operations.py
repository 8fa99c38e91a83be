"""What a pair of graphs computes and reads: multiply-adds and bytes of the encoder's window and of one token.

    python benchmarks/operations.py --model base --precision int8     # -> benchmarks/operations.json

Nothing is estimated from a formula. Each graph is run once as it is written, without fusions, and onnxruntime's own
profile says the shape of what went into each node: a product of [m, k] by [k, n] takes m*k*n multiply-adds and reads
k*n numbers, whatever is left in a cache; a convolution is counted as the product that it is. Both are counts, the same
on every processor.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console, files, names  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/operations/1"
PRODUCTS = ("MatMul", "MatMulInteger")
# Cores, GHz and memory as their makers publish them; multiply-adds a core and cycle as the instructions have them: a
# vector of 128 bits holds 4 floats, an 8-bit product without the dot-product instructions widens 8 numbers, with them
# sums 16. Cortex-A72: one such instruction a cycle, Cortex-A76 and Gracemont: two. GB/s: transfers by bytes a transfer.
DEVICES = {
    "Raspberry Pi 4 (4 x Cortex-A72, LPDDR4-3200)": {"cores": 4, "ghz": 1.8, "int8": 8, "float": 4, "gb_s": 12.8},
    "Raspberry Pi 5 (4 x Cortex-A76, LPDDR4X-4267)": {"cores": 4, "ghz": 2.4, "int8": 32, "float": 8, "gb_s": 17.1},
    "small x86 box (Intel N100, 4 cores, DDR5-4800)": {"cores": 4, "ghz": 3.4, "int8": 32, "float": 8, "gb_s": 38.4},
}
TOKENS_S = 4  # a second of fluent English or Dutch speech; three words
BYTES = {"float": 4, "float16": 2, "int8": 1, "uint8": 1}
POSITION = 20  # tokens before the one that is counted: the middle of a sentence
Value = tuple[str, list[int]]  # type and shape of one input


def count(op: str, inputs: list[Value]) -> tuple[int, int]:
    """Multiply-adds of one node, and bytes of the weights or the cache that it reads; (0, 0) for what is neither."""
    if op in PRODUCTS:
        (_, left), (kind, right) = inputs[:2]
        batch = max(math.prod(left[:-2]), math.prod(right[:-2]))
        return batch * left[-2] * left[-1] * right[-1], BYTES[kind] * math.prod(right)
    if op == "Conv":
        (_, sound), (kind, kernel) = inputs[:2]  # [batch, in, frames], [out, in, width]
        return math.prod(kernel) * sound[0] * sound[2], BYTES[kind] * math.prod(kernel)
    return 0, 0


def run(graph: Path, feeds: dict[str, np.ndarray]) -> list[tuple[str, list[Value], list[Value]]]:
    """Op, inputs and outputs of each node that one run executed."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "run")
        options.add_session_config_entry("session.disable_prepacking", "1")  # a packed weight is not in the profile
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))

    def values(found: list[dict]) -> list[Value]:
        return [next(iter(value.items())) for value in found]

    nodes = [event["args"] for event in events if event.get("cat") == "Node" and "input_type_shape" in event["args"]]
    return [(node["op_name"], values(node["input_type_shape"]), values(node["output_type_shape"])) for node in nodes]


def total(nodes: list[tuple[str, list[Value], list[Value]]]) -> dict[str, int]:
    """The sums over a run: multiply-adds with 8-bit and with float operands, bytes read.

    Raises LabError where there is no product at all: then the graph was not written by 03.
    """
    found = {"int8_multiply_adds": 0, "float_multiply_adds": 0, "bytes": 0}
    for op, inputs, outputs in nodes:
        macs, read = count(op, inputs)
        if op == "Conv":  # its stride is in the outputs alone
            macs = macs * outputs[0][1][2] // inputs[0][1][2]
        found["int8_multiply_adds" if op == "MatMulInteger" else "float_multiply_adds"] += macs
        found["bytes"] += read
    if not found["int8_multiply_adds"] + found["float_multiply_adds"]:
        raise LabError("no product was counted in the graph", "take the pair that 03 wrote, without --optimized")
    return found


def measure(folder: Path, name: str, precision: str) -> dict:
    """The counts of one pair. Raises LabError where it is not there."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    runtime = OnnxWhisper(folder, name, precision, 1)
    paths, spec = names.pair(folder, name, precision), runtime.spec
    features = np.zeros((1, spec.n_mels, spec.n_frames), np.float32)
    encoder = total(run(paths["encoder"], {"input_features": features}))
    cross = runtime.encode(features)
    _, cache = runtime.step(np.zeros((1, POSITION), np.int64), cross, None)
    token = total(run(paths["decoder"], runtime.feeds(np.zeros((1, 1), np.int64), cross, cache)))
    return {"model": name, "precision": precision, "window_s": spec.n_samples / spec.sampling_rate,
            "encoder": encoder, "token": token}


# Tables --------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Multiply-adds and bytes of each pair."""
    lines = ["| graphs | | 8-bit multiply-adds, millions | float multiply-adds, millions | read, MB |",
             "|---|---|---|---|---|"]
    for pair in document["pairs"]:
        name = f"{pair['model']} {pair['precision']}"
        for part, what in (("encoder", f"a window of {pair['window_s']:.0f} s"), ("token", "a token")):
            found = pair[part]
            lines.append(f"| {name} | {what} | {found['int8_multiply_adds'] / 1e6:,.0f} | "
                         f"{found['float_multiply_adds'] / 1e6:,.0f} | {found['bytes'] / 1e6:.0f} |")
    return "\n".join(lines)


def least(pair: dict, part: str, device: dict) -> float:
    """The least s that a device can take: all cores at their peak, or the memory at its own, whichever is slower."""
    peak = device["cores"] * device["ghz"] * 1e9
    found = pair[part]
    computing = sum(found[f"{kind}_multiply_adds"] / (peak * device[kind]) for kind in ("int8", "float"))
    return max(computing, found["bytes"] / (device["gb_s"] * 1e9))


def bounds_table(document: dict) -> str:
    """What no program can do better with these graphs on these devices: calculated, not measured."""
    lines = ["| device | graphs | encoder, s a window | ms a token | real-time factor, at least |",
             "|---|---|---|---|---|"]
    for name, device in DEVICES.items():
        for pair in document["pairs"]:
            window, token = least(pair, "encoder", device), least(pair, "token", device)
            factor = window / pair["window_s"] + TOKENS_S * token
            lines.append(f"| {name} | {pair['model']} {pair['precision']} | {window:.2f} | {1e3 * token:.1f} | "
                         f"{factor:.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=names.DEFAULT, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="int8", help="(default: %(default)s)")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR", help="(default: %(default)s)")
    args = parser.parse_args(argv)
    found = measure(Path(args.model_dir), names.name_for(args.model), args.precision)
    kept = HERE / "operations.json"
    before = files.read_json(kept)["pairs"] if kept.exists() else []
    pairs = [pair for pair in before if (pair["model"], pair["precision"]) != (found["model"], found["precision"])]
    files.write_json(kept, {"schema": SCHEMA, "pairs": sorted([*pairs, found], key=lambda pair: (
        pair["model"], pair["precision"]))})
    console.result(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    console.run(main)
