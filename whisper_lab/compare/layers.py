"""Where noise comes in: the same module's output in two graphs that were given the same sound.

    rows = layer_errors({"int8": paths}, fp32_paths, inputs, fp32_inputs, threads=None)
    worst(rows)
"""

from pathlib import Path

import numpy as np
import onnx

from whisper_lab import console, external_data
from whisper_lab.export import naming, pair

# Values made outputs in one run: those of a large encoder all at once, 1500 positions each, would need gigabytes.
AT_ONCE = {"encoder": 32, "decoder": 256}


def layer_errors(variants: dict[str, dict[str, Path]], base_paths: dict[str, Path], feeds: dict[str, dict[str, dict]],
                 base_feeds: dict[str, dict], threads: int | None) -> dict[str, list[dict]]:
    """Error that has built up at the end of each module, in the order of computation; worst have the lowest dB.

    variants: name -> encoder and decoder of a precision, base_paths: those of fp32; feeds: name -> the inputs of each
    part, base_feeds: those of fp32. Values are made a few modules at a time, for all variants, and let go: those of a
    whole graph would take more memory than its weights. `sqnr_db` is None, with a reason, where no noise or no finite
    value was seen.
    """
    rows: dict[str, list[dict]] = {name: [] for name in variants}
    for part, base in base_paths.items():
        shared = {name: places(base, paths[part]) for name, paths in variants.items() if part in paths}
        every = list(dict.fromkeys(layer for outputs in shared.values() for layer in outputs))
        for start in range(0, len(every), AT_ONCE[part]):
            layers = every[start:start + AT_ONCE[part]]
            few = {name: {layer: outputs[layer] for layer in layers if layer in outputs}
                   for name, outputs in shared.items()}
            right = exposed(base, sorted({value for one in few.values() for value in one.values()}),
                            base_feeds[part], threads)
            for name, outputs in few.items():
                test = exposed(variants[name][part], list(outputs.values()), feeds[name][part], threads)
                rows[name] += [{"part": part, "layer": layer, **_error(right[value], test[value])}
                               for layer, value in outputs.items()]
                del test
    return rows


def places(base: Path, test: Path) -> dict[str, str]:
    """Module -> the value that is its output in both graphs."""
    (first, outputs), (second, _) = (external_data.names(path) for path in (base, test))
    there = set(second)
    found = naming.module_outputs(name for name in first if name in there)
    ends = {"encoder_hidden_states", "logits"} & set(outputs) & there
    return found | {name: name for name in sorted(ends)}


def _error(right: np.ndarray, test: np.ndarray) -> dict:
    right, test = right.astype(np.float32), test.astype(np.float32)
    broken = int(test.size - np.isfinite(test).sum())
    if broken:
        return {"sqnr_db": None, "nonfinite": broken, "reason": "holds NaN or infinity"}
    decibels = quick_sqnr_db(right, test)
    return {"sqnr_db": None if decibels is None else round(decibels, 2), "nonfinite": 0,
            **({} if decibels is not None else {"reason": "identical, or zero everywhere"})}


def exposed(path: Path, names: list[str], feeds: dict, threads: int | None) -> dict[str, np.ndarray]:
    """Inner values of a graph, made outputs in a copy in memory: the graphs' folder may be read-only."""
    return dict(zip(names, _session(path, names, threads).run(names, feeds), strict=True)) if names else {}


def _session(path: Path, names: list[str], threads: int | None):
    """A session over the graph with `names` as outputs too, run as it is written: nothing fused or packed twice."""
    import onnxruntime

    from whisper_lab.sessions import session_options

    options = session_options("decoder", threads, shared_pool=False)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False  # a pool, which grows to twice what is needed, is for sessions that run often
    return onnxruntime.InferenceSession(_with_outputs(path, names), pair.beside(options, path),
                                        providers=["CPUExecutionProvider"], enable_fallback=0)


def _with_outputs(path: Path, names: list[str]) -> bytes:
    """The graph's bytes with more outputs; what it keeps in files beside it stays there. Raises LabError as `check`.

    Two protobuf messages one behind the other are read as one, whose lists are joined: so nothing is read and written
    again, which would take the graph's size three times over.
    """
    external_data.check(path)
    _, outputs = external_data.names(path)
    more = onnx.GraphProto(output=[onnx.ValueInfoProto(name=name) for name in names if name not in outputs])
    return path.read_bytes() + onnx.ModelProto(graph=more).SerializeToString()


def quick_sqnr_db(right: np.ndarray, test: np.ndarray) -> float | None:
    """metrics.sqnr_db of finite float32 arrays, in single precision: exact to a hundredth of a dB, without copies."""
    difference = (right - test).ravel()
    signal, noise = np.dot(right.ravel(), right.ravel()), np.dot(difference, difference)
    return float(10 * np.log10(np.float64(signal) / np.float64(noise))) if signal > 0 and noise > 0 else None


def worst(rows: list[dict], count: int = 5) -> list[dict]:
    """The layers with the most noise, NaN and infinity before all others."""
    broken = [row for row in rows if row["nonfinite"]]
    noisy = sorted((row for row in rows if row["sqnr_db"] is not None), key=lambda row: row["sqnr_db"])
    return [*broken, *noisy][:count]


def note_few(rows: list[dict], name: str) -> None:
    """Say so where the two graphs have no names in common."""
    if not rows:
        console.warn(f"{name}: no layer has the same name in both graphs, so no error per layer")
