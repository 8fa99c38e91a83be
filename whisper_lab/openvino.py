"""The encoder on OpenVINO's kernels: `--provider openvino`, where the wheel onnxruntime-openvino is installed.

    python -m venv .openvino && .openvino/bin/pip install -r locks/openvino.txt
    .openvino/bin/python -m whisper_lab clip.wav --model base --precision int8 --provider openvino

On x86 onnxruntime's own kernels multiply in float32 or int8. OpenVINO's multiply in bfloat16 too, attention included,
where the processor has instructions for it. So the encoder is the float32 graph, on OpenVINO: it has no kernel for
int8's dynamic quantization, which is slower there. The decoder reads far more than it computes: it stays on
onnxruntime's kernels, in the precision that was asked for. Times and word errors: benchmarks/RESULTS.md.

The wheel replaces onnxruntime, and is some versions behind it: hence an environment of its own.
"""

import json
from pathlib import Path

from whisper_lab import console, machine, names
from whisper_lab.console import LabError

PROVIDER = "OpenVINOExecutionProvider"  # onnxruntime's name for it
BFLOAT16 = ("AVX512-BF16", "AMX-BF16")  # what multiplies bfloat16, by machine.instruction_sets
INSTALL = "python -m venv .openvino && .openvino/bin/pip install -r locks/openvino.txt"


def require() -> None:
    """Raises LabError where the onnxruntime that is installed has no such provider."""
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        raise LabError(f"--provider openvino needs the wheel onnxruntime-openvino, and this is onnxruntime "
                       f"{onnxruntime.__version__} without it",
                       f"give it an environment of its own: {INSTALL}; then start with .openvino/bin/python")


def pair(folder: str | Path, name: str, precision: str, optimized: bool = False) -> dict[str, Path]:
    """{"encoder": the float32 one, "decoder": that of the precision}; caches.py rounds for one that reads int8."""
    return {"encoder": names.pair(folder, name)["encoder"],
            "decoder": names.pair(folder, name, precision, optimized)["decoder"]}


def multiplies_in() -> tuple[str, str]:
    """(`bf16` or `f32`, as OpenVINO calls the type that it multiplies in; the reason)."""
    sets = machine.instruction_sets()
    if found := [name for name in BFLOAT16 if name in (sets or [])]:
        return "bf16", f"this processor has {found[0]}"
    return "f32", f"this processor has neither {' nor '.join(BFLOAT16)}" if sets else "this system lists no features"


def tell(precision: str, optimized: bool) -> None:
    """Notes: what runs where, and why it is not what was asked for."""
    kind, reason = multiplies_in()
    console.note("encoder", f"fp32 on OpenVINO, in {kind}",
                 reason + ("" if precision == "fp32" else f"; the {precision} encoder has no such kernels there"))
    console.note("decoder", f"{precision}{' optimized' * optimized} on onnxruntime",
                 "a token reads more than it computes")


def settings(threads: int | None) -> list:
    """`providers` of an InferenceSession: OpenVINO on the processor, and onnxruntime's kernels for what it leaves.

    load_config is JSON, not the name of a file with it; the provider's own option `precision` knows no bfloat16.
    """
    config = {"INFERENCE_PRECISION_HINT": multiplies_in()[0],
              "INFERENCE_NUM_THREADS": threads or machine.usable_cores()}
    return [(PROVIDER, {"device_type": "CPU", "load_config": json.dumps({"CPU": config})}), "CPUExecutionProvider"]
