"""What do the gates of script 03 check, and what do they say about a graph that is broken?

Measured: the gates over nano's int8 pair with their limits, the error for speech, noise and random input, prompt at
once against token by token, the size of the cross caches, and the node at which a graph broken on purpose goes astray.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from workbook.evidence import common

FAULT = "decoder.layers.1.fc1"
BASE = {"layers": 6, "heads": 8, "positions": 1500, "head_dim": 64}  # whisper-base's decoder


def cache_mb(layers: int, heads: int, positions: int, head_dim: int, rows: int = 1) -> float:
    """Keys and values of every decoder layer's cross-attention, float32, in MB."""
    return rows * layers * 2 * heads * positions * head_dim * 4 / 1e6


def measure(evidence, args) -> None:
    from whisper_lab.export import graphs, parity, reference, structure, verify
    from whisper_lab.export.gates import relative_error
    from whisper_lab.export.pair import open_runtime

    runtime, pairs = common.torch_runtime(), common.graphs()
    config, sounds = runtime.model.config, reference.make(runtime, args.seed)
    long_run = parity.long_run(runtime, sounds, args.seed)
    sizes = {part: path.stat().st_size for part, path in pairs["fp32"].items()}
    vectors = {part: structure.vectors(graphs.load(path)) for part, path in pairs["fp32"].items()}

    def gates(pair, precision):
        return verify.run(pair, precision, runtime, sounds, long_run, fp32_bytes=sizes, threads=common.THREADS,
                          vectors=vectors, excluded={"encoder": 0, "decoder": 0}, seed=args.seed)

    passed = gates(pairs["int8"], "int8")
    evidence.value("gates", len(passed), stable=True)
    number = next(gate for gate in passed if gate.name == "numbers: encoder")
    evidence.value("limit_int8", number.limit, "dB", stable=True)
    evidence.value("value_int8", number.value, "dB")
    opened = {precision: open_runtime(*pairs[precision].values(), threads=common.THREADS, like=runtime)
              for precision in ("fp32", "int8")}
    for precision, pair in opened.items():
        evidence.value(f"steps_error_{precision}", max(parity.piece_errors(pair, sounds, args.seed).values()))
    for sound in sounds[:3]:  # speech, silence and noise
        evidence.value(f"{sound.name}_error_int8",
                       relative_error(opened["int8"].hidden_states(sound.features), sound.hidden))
    random = np.random.default_rng(args.seed).standard_normal(sounds[0].features.shape).astype(np.float32)
    evidence.value("random_error_int8", relative_error(opened["int8"].hidden_states(random),
                                                       runtime.encode(random).numpy()))
    nano = {"layers": config.decoder_layers, "heads": config.decoder_attention_heads,
            "positions": config.max_source_positions, "head_dim": config.d_model // config.decoder_attention_heads}
    evidence.value("cross_cache_mb", cache_mb(**nano), "MB", stable=True)
    evidence.value("cross_cache_measured_mb", sum(array.nbytes for array in sounds[0].cross) / 1e6, "MB", stable=True)
    evidence.value("cross_cache_base_mb", cache_mb(**BASE), "MB", stable=True)
    evidence.value("cross_cache_beam5_base_mb", cache_mb(**BASE, rows=5), "MB", stable=True)
    evidence.value("decoder_layers", config.decoder_layers, stable=True)
    rejected, node, failed = _broken(pairs["fp32"], gates, runtime, sounds)
    evidence.value("rejected", "yes" if rejected else "no")
    evidence.value("broken_node", node)
    evidence.value("failed_gate", failed)
    evidence.series = {"gates": [gate for gate in passed if gate.limit and gate.value is not None]}
    _claims(evidence, passed)


def _broken(pair, gates, runtime, sounds) -> tuple[bool, str, str]:
    """Flip the sign of one matrix in the float32 decoder: (rejected?, first diverging node, failed gate)."""
    from whisper_lab.export import graphs, verify
    from workbook.evidence.equality import break_sign

    with tempfile.TemporaryDirectory() as folder:
        broken = {part: Path(shutil.copy(path, folder)) for part, path in pair.items()}
        model = graphs.load(broken["decoder"])
        break_sign(model)
        graphs.rewrite(model, broken["decoder"])
        found = gates(broken, "fp32")
        failed = [gate.name for gate in found if not gate.passed]
        if not failed:
            return False, "none", "none"
        explanation = verify.explain(found, broken, "fp32", runtime, sounds)
    return True, explanation.rpartition("decoder: ")[2].split(" ")[0], failed[0]


def _claims(evidence, passed: list) -> None:
    values = evidence.values
    evidence.claim("int8_passes", "The int8 pair passes every gate.", "Het int8-paar doorstaat elke controle.",
                   all(gate.passed for gate in passed), values["gates"])
    evidence.claim("rejected", "A decoder with one matrix of the wrong sign is rejected.",
                   "Een decoder waarin één matrix het verkeerde teken heeft, wordt geweigerd.",
                   values["rejected"] == "yes", values["failed_gate"])
    evidence.claim("located", "The gate names the very node that was broken.",
                   "De controle wijst precies de knoop aan die kapot is.", values["broken_node"].startswith(FAULT),
                   values["broken_node"])
    evidence.claim("steps", "In float32, prompt at once and token by token agree to rounding; int8 does not.",
                   "In float32 geven de prompt in één keer en token per token op afronding na hetzelfde; in int8 niet.",
                   values["steps_error_fp32"] < 1e-5 < values["steps_error_int8"], values["steps_error_fp32"])
    evidence.claim("cache", "The cross caches are as large as the formula says.",
                   "De cross-caches zijn zo groot als de formule zegt.",
                   abs(values["cross_cache_mb"] - values["cross_cache_measured_mb"]) < 1e-9, values["cross_cache_mb"])


def draw(evidence, figure) -> None:
    panel, gates = figure.subplots(), evidence.series["gates"][::-1]
    of_both = {name for name, times in Counter(gate.name for gate in gates).items() if times > 1}
    names = [f"{gate.name} ({gate.part})" if gate.name in of_both else gate.name for gate in gates]
    ratios = [gate.limit / gate.value if gate.at_least else gate.value / gate.limit for gate in gates]
    panel.barh(range(len(gates)), ratios, color=common.BLUE)
    panel.set_yticks(range(len(gates)), names)
    panel.axvline(1, color=common.RED, linestyle="--", label="limit")
    panel.set(xlabel="value / limit (limit / value, where the limit is the least allowed)",
              title="nano int8: every gate that measures a number")
    panel.legend(loc="lower right")


def main(argv: list[str] | None = None) -> int:
    return common.run("export_gates", "3.04", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
